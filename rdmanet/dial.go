package rdmanet

import (
	"context"
	"errors"
	"net"
	"os"
	"time"
)

// Dialer connects. The zero value is ready, and may be used by many goroutines.
type Dialer struct {
	Config
	Timeout time.Duration // of a connection; 0: what the context says
}

// Dial connects to addr, host:port, with a zero Dialer.
func Dial(ctx context.Context, addr string) (*Conn, error) {
	return new(Dialer).Connect(ctx, addr)
}

// DialContext is Connect as http.Transport, gRPC and others call it. network may be
// rdma, or tcp, tcp4 and tcp6, which they know: it is RDMA in any case.
func (d *Dialer) DialContext(ctx context.Context, net, addr string) (net.Conn, error) {
	if err := checkNetwork("dial", net); err != nil {
		return nil, err
	}
	c, err := d.Connect(ctx, addr)
	if err != nil {
		return nil, err // not a nil *Conn in an interface
	}
	return c, nil
}

func checkNetwork(op, name string) error {
	switch name {
	case network, "tcp", "tcp4", "tcp6":
		return nil
	}
	return &net.OpError{Op: op, Net: name, Err: net.UnknownNetworkError(name)}
}

// Connect connects to a Listener at addr, host:port. When ctx ends first the error
// is a timeout or wraps context.Canceled; syscall.ECONNREFUSED: nobody listens there.
func (d *Dialer) Connect(ctx context.Context, addr string) (*Conn, error) {
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Timeout)
		defer cancel()
	}
	c, err := d.connect(ctx, addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: Addr(addr), Err: dialCause(ctx, err)}
	}
	return c, nil
}

func (d *Dialer) connect(ctx context.Context, addr string) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cfg, err := d.Config.open()
	if err != nil {
		return nil, err
	}
	conf, err := cfg.QP()
	if err != nil {
		return nil, err
	}
	q, err := cfg.Device.Dial(ctx, addr, conf)
	if err != nil {
		return nil, err
	}
	c, err := New(q, cfg)
	if err != nil {
		_ = q.Close()
	}
	return c, err
}

// late is an error of a dial that took too long.
type late struct{ error }

func (late) Timeout() bool     { return true }
func (e late) Unwrap() []error { return []error{os.ErrDeadlineExceeded, e.error} }

func dialCause(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return late{err}
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return errors.Join(ctx.Err(), err)
	}
	return err
}
