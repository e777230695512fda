package cm

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// Flags and families of struct rdma_addrinfo.
const (
	raiPassive     = 1
	raiNumericHost = 2
	raiFamily      = 8

	afINET  = 2
	afINET6 = 10 // Linux's number on every system: it is the seam's
)

// GetAddrInfo resolves names with the resolver of package net.
func (m *Manager) GetAddrInfo(node, service string, hints *provider.CMAddrInfo) ([]provider.CMAddrInfo, error) {
	var h provider.CMAddrInfo
	if hints != nil {
		h = *hints
	}
	if h.PortSpace == 0 {
		h.PortSpace = provider.PSTCP
		if h.QPType == provider.QPTUD {
			h.PortSpace = provider.PSUDP
		}
	}
	if h.QPType == 0 {
		h.QPType = provider.QPTRC
		if h.PortSpace == provider.PSUDP {
			h.QPType = provider.QPTUD
		}
	}
	if node == "" && service == "" && !h.Src.IsValid() && !h.Dst.IsValid() {
		return nil, errInval
	}
	port, err := lookupPort(h.PortSpace, service)
	if err != nil {
		return nil, err
	}
	ips, err := lookupHost(node, &h)
	if err != nil {
		return nil, err
	}
	var out []provider.CMAddrInfo
	for _, ip := range ips {
		ip = ip.Unmap()
		family := int32(afINET)
		if ip.Is6() {
			family = afINET6
		}
		if h.Flags&raiFamily != 0 && h.Family != 0 && h.Family != family {
			continue
		}
		ai := provider.CMAddrInfo{Flags: h.Flags & raiPassive, Family: family, QPType: h.QPType, PortSpace: h.PortSpace, Src: h.Src, Dst: h.Dst}
		at := netip.AddrPortFrom(ip, port)
		if h.Flags&raiPassive != 0 {
			ai.Src, ai.Dst = at, netip.AddrPort{}
		} else {
			ai.Dst = at
			if src, _, err := m.source(ip); err == nil && !ai.Src.IsValid() {
				ai.Src = netip.AddrPortFrom(src, 0)
			}
		}
		out = append(out, ai)
	}
	if len(out) == 0 {
		return nil, syscall.EADDRNOTAVAIL
	}
	return out, nil
}

func lookupPort(ps provider.PortSpace, service string) (uint16, error) {
	if service == "" {
		return 0, nil
	}
	network := "tcp"
	if ps == provider.PSUDP {
		network = "udp"
	}
	n, err := net.LookupPort(network, service)
	return uint16(n), err
}

func lookupHost(node string, h *provider.CMAddrInfo) ([]netip.Addr, error) {
	if node == "" {
		switch {
		case h.Flags&raiPassive != 0 && h.Src.IsValid():
			return []netip.Addr{h.Src.Addr()}, nil
		case h.Flags&raiPassive == 0 && h.Dst.IsValid():
			return []netip.Addr{h.Dst.Addr()}, nil
		case h.Flags&raiFamily != 0 && h.Family == afINET6:
			return []netip.Addr{netip.IPv6Unspecified()}, nil
		}
		return []netip.Addr{netip.IPv4Unspecified()}, nil
	}
	if ip, err := netip.ParseAddr(node); err == nil {
		return []netip.Addr{ip}, nil
	}
	if h.Flags&raiNumericHost != 0 {
		return nil, errInval
	}
	return net.DefaultResolver.LookupNetIP(context.Background(), "ip", node)
}

// ResolveAddrInfo is GetAddrInfo on a goroutine of its own: an event follows.
func (x *id) ResolveAddrInfo(node, service string, hints *provider.CMAddrInfo) error {
	var h provider.CMAddrInfo
	if hints != nil {
		h = *hints
	}
	go func() {
		l, err := x.m.GetAddrInfo(node, service, &h)
		x.m.mu.Lock()
		defer x.m.mu.Unlock()
		ev := provider.CMEvent{Type: provider.CMEventAddrinfoResolved}
		if err != nil {
			e, ok := err.(syscall.Errno)
			if !ok {
				e = syscall.EHOSTUNREACH
			}
			ev = provider.CMEvent{Type: provider.CMEventAddrinfoError, Status: -int32(e)}
		}
		x.info = l
		x.m.push(x, ev)
	}()
	return nil
}

// QueryAddrInfo gives what ResolveAddrInfo found.
func (x *id) QueryAddrInfo() ([]provider.CMAddrInfo, error) {
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	if x.info == nil {
		return nil, syscall.ENODATA
	}
	return slices.Clone(x.info), nil
}

// WriteEvent puts an event of the application's own on the channel.
func (x *id) WriteEvent(t provider.CMEventType, status int32, arg uint64) error {
	if t != provider.CMEventUser {
		return errInval
	}
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	x.m.push(x, provider.CMEvent{Type: t, Status: status, Arg: arg})
	return nil
}

// endpoint is a passive endpoint: an id with a channel of its own.
type endpoint struct{ *id }

// CreatePassiveEP makes an endpoint bound to the address of ai. pd is that of the
// queue pairs of its requests, which the caller makes.
func (m *Manager) CreatePassiveEP(cookie uint64, ai *provider.CMAddrInfo, _ provider.PD) (provider.CMEndpoint, error) {
	ps := ai.PortSpace
	if ps == 0 {
		ps = provider.PSTCP
	}
	x, err := m.newID(newChannel(m), cookie, ps)
	if err != nil {
		return nil, err
	}
	if err := x.Bind(ai.Src); err != nil {
		_ = x.Close()
		return nil, err
	}
	return endpoint{x}, nil
}

// GetRequest waits for a request, whose id moves to c.
func (e endpoint) GetRequest(ctx context.Context, c provider.CMChannel, cookie uint64) (provider.CMEvent, error) {
	for {
		own := get(e.id, func() *channel { return e.ch })
		ev, err := own.Get(ctx, func() uint64 { return cookie })
		if err != nil {
			return ev, err
		}
		if ev.New == nil {
			continue // of the endpoint itself: removal of its device
		}
		if err := ev.New.Migrate(c); err != nil {
			_ = ev.New.Close()
			return ev, err
		}
		return ev, nil
	}
}

// Migrate is refused: the channel is the endpoint's own.
func (e endpoint) Migrate(provider.CMChannel) error { return errInval }

// Interrupt ends every GetRequest.
func (e endpoint) Interrupt() { get(e.id, func() *channel { return e.ch }).Interrupt() }

// Close destroys the endpoint.
func (e endpoint) Close() error {
	e.Interrupt()
	return e.id.Close()
}
