package rdmanet

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/zrdma/zrdma/qp"
)

// acceptors is how many connections of a Listener are being established, or wait
// for Accept, at a time: a peer that stops half-way holds up one of them.
const acceptors = 8

// Listener accepts connections: a net.Listener.
type Listener struct {
	l    *qp.Listener
	cfg  Config
	addr Addr
	log  *slog.Logger
	d    *deadline
	life context.Context
	die  context.CancelFunc
	wg   sync.WaitGroup
	come chan *Conn
	fail chan error
	once sync.Once
	err  error // of Close
}

var _ net.Listener = (*Listener)(nil)

// Listen listens on addr, host:port, of the device's connection manager; port 0
// chooses one and an empty host takes all addresses of the device.
func Listen(ctx context.Context, addr string, cfg Config) (*Listener, error) {
	l, err := listen(ctx, addr, cfg)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: Addr(addr), Err: err}
	}
	return l, nil
}

func listen(ctx context.Context, addr string, cfg Config) (*Listener, error) {
	cfg, err := cfg.open()
	if err != nil {
		return nil, err
	}
	conf, err := cfg.QP()
	if err != nil {
		return nil, err
	}
	ql, err := cfg.Device.Listen(ctx, addr, conf)
	if err != nil {
		return nil, err
	}
	l := &Listener{l: ql, cfg: cfg, addr: Addr(ql.Addr().String()), d: newDeadline(), come: make(chan *Conn), fail: make(chan error)}
	if l.log = cfg.Logger; l.log == nil {
		l.log = slog.Default()
	}
	l.life, l.die = context.WithCancel(context.Background())
	for range acceptors {
		l.wg.Go(l.run)
	}
	return l, nil
}

// run establishes connections, one after the other.
func (l *Listener) run() {
	for l.life.Err() == nil {
		c, err := l.accept()
		var u *unfit
		if errors.As(err, &u) {
			l.log.Warn("rdmanet: a connection request failed", "peer", u.peer, "err", u.err)
			continue
		}
		if err != nil {
			select {
			case l.fail <- err:
			case <-l.life.Done():
				return
			}
			continue
		}
		select {
		case l.come <- c:
		case <-l.life.Done():
			c.linger = -1
			_ = c.Close()
			return
		}
	}
}

func (l *Listener) accept() (*Conn, error) {
	q, err := l.l.Accept(l.life)
	if err != nil {
		return nil, err
	}
	c, err := New(q, l.cfg)
	if err != nil {
		_ = q.Close()
		return nil, &unfit{q.Peer(), err}
	}
	return c, nil
}

// unfit is a peer that is no stream. It is no error of Accept: one peer must not
// end a server.
type unfit struct {
	peer string
	err  error
}

func (e *unfit) Error() string { return e.err.Error() }

// Accept waits for a connection.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn is Accept that returns a *Conn.
func (l *Listener) AcceptConn() (*Conn, error) {
	x := l.d.wait()
	err := x.Err()
	if err == nil {
		select {
		case c := <-l.come:
			return c, nil
		case err = <-l.fail:
		case <-x.Done():
			err = x.Err()
		}
	}
	return nil, l.opError("accept", err)
}

func (l *Listener) opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: op, Net: network, Source: l.addr, Err: err}
}

// SetDeadline bounds Accept; the zero time is none.
func (l *Listener) SetDeadline(t time.Time) error { return l.opError("set", l.d.set(t)) }

// Addr is the address listened on, an Addr.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close stops listening. Connections that were accepted stay; those that were
// not are reset.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.d.close()
		l.die()
		l.err = l.l.Close()
		l.wg.Wait()
		if errors.Is(l.err, net.ErrClosed) {
			l.err = nil
		}
	})
	return l.opError("close", l.err)
}
