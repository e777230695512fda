package rsocket

import (
	"context"
	"net"
	"os"
	"syscall"
	"time"
)

// Listener accepts stream connections, a net.Listener.
type Listener struct {
	s    *Socket
	addr net.Addr
	d    *deadline
}

var _ net.Listener = (*Listener)(nil)

// ListenConfig listens. The zero value is ready.
type ListenConfig struct {
	// Backlog is how many connections may wait for Accept. Default: 128.
	Backlog int
	// Control, if not nil, sees the socket before it is bound, to set options.
	// Accepted connections inherit the sizes.
	Control func(*Socket) error
}

// Listen listens on addr ("host:port") with a zero ListenConfig; see Dial for
// network. The address of an RDMA device, or none for all of them.
func Listen(ctx context.Context, network, addr string) (*Listener, error) {
	return (&ListenConfig{}).Listen(ctx, network, addr)
}

// Listen listens on the first address of addr.
func (lc *ListenConfig) Listen(ctx context.Context, network, addr string) (_ *Listener, err error) {
	defer func() {
		if err != nil {
			err = &net.OpError{Op: "listen", Net: network, Err: err}
		}
	}()
	at, err := resolve(ctx, network, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s, err := New(domainOf(at[0].Addr()), Stream)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if lc.Control != nil {
		if err := lc.Control(s); err != nil {
			return nil, err
		}
	}
	backlog := lc.Backlog
	if backlog == 0 {
		backlog = 128
	}
	if err := s.Bind(at[0]); err != nil {
		return nil, err
	}
	if err := s.Listen(backlog); err != nil {
		return nil, err
	}
	a, err := s.SockName()
	if err != nil {
		return nil, err
	}
	return &Listener{s: s, addr: net.TCPAddrFromAddrPort(a), d: newDeadline()}, nil
}

// Socket is the listening rsocket. It stays the Listener's.
func (l *Listener) Socket() *Socket { return l.s }

// Addr is the address listened on, a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return l.addr }

// Accept waits for a connection; it is a *Conn. Verb: raccept(7).
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn is Accept with the concrete type.
func (l *Listener) AcceptConn() (*Conn, error) {
	c, err := l.accept()
	if err != nil {
		err = &net.OpError{Op: "accept", Net: "rsocket", Addr: l.addr, Err: err}
	}
	return c, err
}

func (l *Listener) accept() (*Conn, error) {
	for {
		if l.d.passed() {
			return nil, os.ErrDeadlineExceeded
		}
		s, _, err := l.s.Accept()
		if err == nil {
			c, err := NewConn(s)
			if err != nil {
				s.Close()
			}
			return c, err
		}
		if err != syscall.EAGAIN {
			return nil, err
		}
		if _, err := poll.park(l.s, In, l.d.done(), false); err != nil && err != errStopped {
			return nil, err
		}
	}
}

// SetDeadline bounds Accept.
func (l *Listener) SetDeadline(t time.Time) error {
	if l.s.h.Closed() {
		return &net.OpError{Op: "set", Net: "rsocket", Addr: l.addr, Err: ErrClosed}
	}
	l.d.set(t)
	return nil
}

// Close ends Accept. Connections that were accepted live on.
func (l *Listener) Close() error { return l.s.Close() }
