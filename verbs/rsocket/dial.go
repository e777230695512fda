package rsocket

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
)

// Dialer connects. The zero value is ready.
type Dialer struct {
	// Control, if not nil, sees each socket before it connects, to set options.
	Control func(*Socket) error
}

// Dial connects to addr ("host:port") with a zero Dialer. network is "tcp",
// "tcp4" or "tcp6", the port space that librdmacm uses for streams.
func Dial(ctx context.Context, network, addr string) (*Conn, error) {
	return (&Dialer{}).Dial(ctx, network, addr)
}

// Dial connects to addr, trying each of its addresses in turn.
func (d *Dialer) Dial(ctx context.Context, network, addr string) (*Conn, error) {
	to, err := resolve(ctx, network, "tcp", addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	var errs []error
	for _, a := range to {
		c, err := d.dial(ctx, a)
		if err == nil {
			return c, nil
		}
		errs = append(errs, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(a), Err: err})
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (d *Dialer) dial(ctx context.Context, a netip.AddrPort) (c *Conn, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := New(domainOf(a.Addr()), Stream)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.SetLinger(0)
			s.Close()
		}
	}()
	if d.Control != nil {
		if err := d.Control(s); err != nil {
			return nil, err
		}
	}
	if err = s.Connect(a); err == syscall.EINPROGRESS {
		var got int
		got, err = s.Wait(ctx, Out)
		if err == nil && got&(ErrEvent|HupEvent) != 0 {
			if err = s.Err(); err == nil {
				err = syscall.ECONNREFUSED
			}
			err = opErr("rconnect", err)
		}
	}
	if err != nil {
		return nil, err
	}
	return NewConn(s)
}

// resolve gives the addresses of "host:port"; kind is "tcp" or "udp".
func resolve(ctx context.Context, network, kind, addr string) ([]netip.AddrPort, error) {
	v, ok := strings.CutPrefix(network, kind)
	if !ok || v != "" && v != "4" && v != "6" {
		return nil, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	var ips []netip.Addr
	if a, err := netip.ParseAddr(host); err == nil {
		ips = []netip.Addr{a}
	} else if host == "" {
		ips = []netip.Addr{netip.IPv4Unspecified()}
		if v == "6" {
			ips[0] = netip.IPv6Unspecified()
		}
	} else if ips, err = net.DefaultResolver.LookupNetIP(ctx, "ip"+v, host); err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for _, a := range ips {
		a = a.Unmap()
		if v == "" || v == "4" && a.Is4() || v == "6" && a.Is6() {
			out = append(out, netip.AddrPortFrom(a, uint16(port)))
		}
	}
	if len(out) == 0 {
		return nil, &net.AddrError{Err: "no suitable address", Addr: addr}
	}
	return out, nil
}
