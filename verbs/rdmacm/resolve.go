package rdmacm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/zrdma/zrdma/verbs"
)

// The values of AddrInfo.Family, which are the same on all systems here.
const (
	familyIPv4 = 2
	familyIPv6 = 10 // AF_INET6 of Linux
)

// resolve is GetAddrInfo with Go's resolver.
func resolve(ctx context.Context, node, service string, h AddrInfo) ([]AddrInfo, error) {
	if node == "" && service == "" && !h.Src.IsValid() && !h.Dst.IsValid() {
		return nil, syscall.EINVAL
	}
	ai := AddrInfo{Flags: h.Flags, PortSpace: h.PortSpace, QPType: h.QPType, Src: h.Src, Dst: h.Dst}
	if ai.PortSpace == 0 {
		ai.PortSpace = PSTCP
		if ai.QPType == verbs.QPTUD {
			ai.PortSpace = PSUDP
		}
	}
	if ai.QPType == 0 {
		ai.QPType = verbs.QPTRC
		if ai.PortSpace == PSUDP || ai.PortSpace == PSIPoIB {
			ai.QPType = verbs.QPTUD
		}
	}
	if node == "" && service == "" {
		ai.Family = family(ai.Dst.Addr())
		if !ai.Dst.IsValid() {
			ai.Family = family(ai.Src.Addr())
		}
		return []AddrInfo{ai}, nil
	}
	port, err := lookupPort(ctx, service, ai.PortSpace)
	if err != nil {
		return nil, err
	}
	ips, err := lookupIP(ctx, node, h.Flags)
	if err != nil {
		return nil, err
	}
	var out []AddrInfo
	for _, ip := range ips {
		ai.Family = family(ip)
		if h.Flags&RAIFamily != 0 && ai.Family != h.Family {
			continue
		}
		if h.Flags&RAIPassive != 0 {
			ai.Src = netip.AddrPortFrom(ip, port)
		} else {
			ai.Dst = netip.AddrPortFrom(ip, port)
		}
		out = append(out, ai)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%q has no address of the family that was asked for: %w", node, syscall.ENOENT)
	}
	return out, nil
}

func family(a netip.Addr) int32 {
	if a.Is4() {
		return familyIPv4
	}
	return familyIPv6
}

func lookupPort(ctx context.Context, service string, ps PortSpace) (uint16, error) {
	if service == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(service, 10, 16); err == nil {
		return uint16(n), nil
	}
	network := "tcp"
	if ps == PSUDP {
		network = "udp"
	}
	n, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return 0, lookupErr(ctx, err)
	}
	return uint16(n), nil
}

func lookupIP(ctx context.Context, node string, flags int32) ([]netip.Addr, error) {
	switch a, err := netip.ParseAddr(node); {
	case node == "" && flags&RAIPassive != 0:
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, nil
	case node == "":
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	case err == nil:
		return []netip.Addr{a.Unmap()}, nil
	case flags&RAINumericHost != 0:
		return nil, fmt.Errorf("%q is no address, and no name may be looked up: %w", node, syscall.ENOENT)
	}
	l, err := net.DefaultResolver.LookupNetIP(ctx, "ip", node)
	if err != nil {
		return nil, lookupErr(ctx, err)
	}
	for i := range l {
		l[i] = l[i].Unmap()
	}
	return l, nil
}

// lookupErr is ENOENT with the resolver's text, as for the kernel's manager.
func lookupErr(ctx context.Context, err error) error {
	var d *net.DNSError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &d) && d.IsTimeout:
		return fmt.Errorf("%v: %w", err, syscall.ETIMEDOUT)
	}
	return fmt.Errorf("%v: %w", err, syscall.ENOENT)
}
