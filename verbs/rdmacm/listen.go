package rdmacm

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// ListenConfig says how Listen accepts. The zero value is good.
type ListenConfig struct {
	Backlog   int  // requests that wait for Accept; 0: the kernel's default
	ReuseAddr bool // share the address with other listeners that set it
	AFOnly    bool // an IPv6 listener takes no IPv4 connections

	// Device listens on this device, as in DialConfig.
	Device *verbs.Context

	PD   *verbs.PD      // of the queue pairs, for a listener on one device; nil: one for each
	QP   verbs.QPConfig // as in DialConfig
	Conn ConnParam      // of every answer

	// HandshakeTimeout limits the time from a request to an established
	// connection; 0: 10 s.
	HandshakeTimeout time.Duration

	// Request looks at a request before anything is made for it. An error rejects
	// it; a *RejectError chooses what the peer is told.
	Request func(*Event) error
	// Setup is called as in DialConfig. An error rejects the request.
	Setup func(*Conn) error
	// Configure may change PD, QP, Conn, Setup and Finish for one request, after
	// Request. An error rejects the request.
	Configure func(*Event, *ListenConfig) error
	// Finish is called once for every request that Configure has seen: with the
	// connection, before Accept returns it, or with why there is none.
	Finish func(*Conn, error)
	// OnError hears of requests that did not become connections: they are no
	// errors of Accept. nil: they are logged.
	OnError func(peer netip.AddrPort, err error)
}

func (c ListenConfig) withDefaults() ListenConfig {
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = 10 * time.Second
	}
	if c.OnError == nil {
		c.OnError = func(peer netip.AddrPort, err error) {
			slog.Warn("rdmacm: a connection request failed", "peer", peer, "err", err)
		}
	}
	return c
}

// RejectError rejects a request with data for the peer, at most 148 bytes.
type RejectError struct{ PrivateData []byte }

func (e *RejectError) Error() string { return "rdmacm: the request was rejected" }

// Listener accepts connections.
type Listener struct {
	id  *ID
	cfg ListenConfig
	ctx context.Context // ends with Close
	end context.CancelFunc

	mu sync.Mutex     // guards the start of wg's users against its Wait
	wg sync.WaitGroup // Accepts under way
}

// Listen listens on a local address; port 0 chooses one, see Addr.
//
// Verb: rdma_bind_addr(3), rdma_listen(3).
func Listen(ctx context.Context, addr netip.AddrPort, cfg ListenConfig) (*Listener, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkPrivate("rdma_accept", len(cfg.Conn.PrivateData), limit(PSTCP, msgAccept)); err != nil {
		return nil, err
	}
	x, err := ownID(cfg.Device, PSTCP)
	if err != nil {
		return nil, err
	}
	l := &Listener{id: x, cfg: cfg.withDefaults()}
	if err := l.start(addr); err != nil {
		x.Close()
		return nil, err
	}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l, nil
}

func (l *Listener) start(addr netip.AddrPort) error {
	if l.cfg.ReuseAddr {
		if err := l.id.SetReuseAddr(true); err != nil {
			return err
		}
	}
	if l.cfg.AFOnly {
		if err := l.id.SetAFOnly(true); err != nil {
			return err
		}
	}
	if err := l.id.BindAddr(addr); err != nil {
		return err
	}
	return l.id.Listen(l.cfg.Backlog)
}

// Addr is the address listened on.
func (l *Listener) Addr() netip.AddrPort { return l.id.LocalAddr() }

// Accept waits for a request, answers it and returns the established connection.
// Requests that fail go to OnError. Several goroutines may call it: a slow peer
// holds up only one of them. Close makes it return ErrClosed.
//
// It is what rdma_get_request and rdma_accept do in C, on the asynchronous calls.
//
// Verb: rdma_get_cm_event(3), rdma_migrate_id(3), rdma_create_qp(3), rdma_accept(3).
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	l.mu.Lock()
	if l.ctx.Err() != nil {
		l.mu.Unlock()
		return nil, closed("rdma_accept")
	}
	l.wg.Add(1)
	l.mu.Unlock()
	defer l.wg.Done()
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	for {
		e, err := l.id.wait(ctx, EventConnectRequest, StepAccept)
		if err != nil {
			if outer.Err() == nil && l.ctx.Err() != nil {
				return nil, closed("rdma_accept")
			}
			var c *ConnectError
			if errors.As(err, &c) && c.Event == 0 {
				err = c.Cause
			}
			return nil, err
		}
		peer := e.ID.PeerAddr()
		c, err := l.serve(ctx, e)
		if err == nil {
			return c, nil
		}
		if outer.Err() != nil {
			return nil, outer.Err()
		}
		if l.ctx.Err() != nil {
			return nil, closed("rdma_accept")
		}
		l.cfg.OnError(peer, err)
	}
}

// serve makes a connection of a request, or rejects and closes it.
func (l *Listener) serve(ctx context.Context, e *Event) (_ *Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.HandshakeTimeout)
	defer cancel()
	x := e.ID
	c := &Conn{ID: x}
	answered := false
	defer func() {
		if err == nil {
			return
		}
		if !answered {
			var r *RejectError
			if errors.As(err, &r) {
				_ = x.Reject(r.PrivateData)
			} else {
				_ = x.Reject(nil)
			}
		}
		c.Close()
	}()
	if err := x.ownChannel(l.id.Channel()); err != nil {
		return nil, err
	}
	cfg := l.cfg
	if cfg.Request != nil {
		if err := cfg.Request(e); err != nil {
			return nil, err
		}
	}
	if cfg.Configure != nil {
		err = cfg.Configure(e, &cfg)
		if finish := cfg.Finish; finish != nil {
			defer func() {
				if err != nil {
					finish(nil, err)
				} else {
					finish(c, nil)
				}
			}()
		}
		if err != nil {
			return nil, err
		}
	}
	if err := c.build(cfg.PD, cfg.QP); err != nil {
		return nil, &ConnectError{Step: StepQP, Peer: x.PeerAddr(), Cause: err}
	}
	c.learn(e)
	if cfg.Setup != nil {
		if err := cfg.Setup(c); err != nil {
			return nil, err
		}
	}
	if err := x.Accept(cfg.Conn); err != nil {
		return nil, &ConnectError{Step: StepAccept, Peer: x.PeerAddr(), Cause: err}
	}
	answered = true
	if _, err := x.wait(ctx, EventEstablished, StepAccept); err != nil {
		return nil, err
	}
	return c, nil
}

// Close stops listening. Requests that nobody has accepted are dropped, those
// being accepted are given up; connections stay. It waits for every Accept to
// have cleaned up, so it must not be called from a callback of ListenConfig.
func (l *Listener) Close() error {
	l.mu.Lock()
	l.end()
	l.mu.Unlock()
	l.wg.Wait()
	return l.id.Close()
}
