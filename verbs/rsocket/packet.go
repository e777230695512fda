package rsocket

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/ibv"
)

// PacketConn is a datagram rsocket, a net.PacketConn.
type PacketConn struct {
	s      *Socket
	local  net.Addr
	rd, wr *deadline
}

var _ net.PacketConn = (*PacketConn)(nil)

// ListenPacket binds a datagram socket to addr ("host:port"); network is "udp",
// "udp4" or "udp6". See MaxDatagram for what fits.
//
// librdmacm 44 makes an address handle without a global route for each local
// address, which Ethernet devices (RoCE, Soft-RoCE) refuse: there WriteTo fails.
func ListenPacket(ctx context.Context, network, addr string) (_ *PacketConn, err error) {
	defer func() {
		if err != nil {
			err = &net.OpError{Op: "listen", Net: network, Err: err}
		}
	}()
	at, err := resolve(ctx, network, "udp", addr)
	if err != nil {
		return nil, err
	}
	s, err := New(domainOf(at[0].Addr()), Dgram)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.Bind(at[0]); err != nil {
		return nil, err
	}
	a, err := s.SockName()
	if err != nil {
		return nil, err
	}
	return &PacketConn{s: s, local: net.UDPAddrFromAddrPort(a), rd: newDeadline(), wr: newDeadline()}, nil
}

// Socket is the rsocket below. It stays the PacketConn's.
func (c *PacketConn) Socket() *Socket { return c.s }

// LocalAddr is the local address, a *net.UDPAddr.
func (c *PacketConn) LocalAddr() net.Addr { return c.local }

func (c *PacketConn) opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: op, Net: "rsocket", Source: c.local, Err: err}
}

// retry calls try until it is not EAGAIN.
func (c *PacketConn) retry(events int16, d *deadline, try func() error) error {
	for {
		if c.s.h.Closed() {
			return ErrClosed
		}
		if d.passed() {
			return os.ErrDeadlineExceeded
		}
		if err := try(); err != syscall.EAGAIN {
			return err
		}
		if _, err := poll.park(c.s, events, d.done(), false); err != nil && err != errStopped {
			return err
		}
	}
}

// ReadFrom waits for a datagram; the address is a *net.UDPAddr. Verb: rrecvfrom(7).
func (c *PacketConn) ReadFrom(b []byte) (n int, from net.Addr, err error) {
	var a netip.AddrPort
	err = c.retry(ibv.PollIn, c.rd, func() error {
		n, a, err = c.s.RecvFrom(b, 0)
		return err
	})
	if err != nil {
		return 0, nil, c.opError("read", err)
	}
	return n, net.UDPAddrFromAddrPort(a), nil
}

// WriteTo sends a datagram to a *net.UDPAddr. Verb: rsendto(7).
func (c *PacketConn) WriteTo(b []byte, to net.Addr) (n int, err error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, c.opError("write", &net.AddrError{Err: "not a *net.UDPAddr", Addr: to.String()})
	}
	err = c.retry(ibv.PollOut, c.wr, func() error {
		n, err = c.s.SendTo(b, 0, u.AddrPort())
		return err
	})
	return n, c.opError("write", err)
}

// Close ends every call and frees the socket.
func (c *PacketConn) Close() error { return c.s.Close() }

// SetDeadline bounds ReadFrom and WriteTo.
func (c *PacketConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds ReadFrom.
func (c *PacketConn) SetReadDeadline(t time.Time) error { return c.setDeadline(c.rd, t) }

// SetWriteDeadline bounds WriteTo.
func (c *PacketConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(c.wr, t) }

func (c *PacketConn) setDeadline(d *deadline, t time.Time) error {
	if c.s.h.Closed() {
		return c.opError("set", ErrClosed)
	}
	d.set(t)
	return nil
}
