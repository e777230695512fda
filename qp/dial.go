package qp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// Dial connects to a Listener at addr, host:port, over the connection manager.
// The error names the step that failed (*rdmacm.ConnectError).
//
// Verb: rdma_connect(3).
func (d *Device) Dial(ctx context.Context, addr string, cfg Config) (*Conn, error) {
	peers, err := resolve(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("qp: dial %s: %w", addr, err)
	}
	var errs []error
	for _, p := range peers {
		c, err := d.dial(ctx, p, cfg)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("qp: dial %s: %w", addr, errors.Join(errs...))
}

func resolve(ctx context.Context, addr string) ([]netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		return []netip.AddrPort{a}, nil
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	out := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		out[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return out, nil
}

func (d *Device) dial(ctx context.Context, peer netip.AddrPort, cfg Config) (_ *Conn, err error) {
	c, err := d.newConn(cfg)
	if err != nil {
		return nil, err
	}
	c.name = peer.String()
	defer func() {
		if err != nil {
			c.unmake()
		}
	}()
	rc, err := rdmacm.Dial(ctx, peer, rdmacm.DialConfig{
		Device: d.dev, PD: d.pd, QP: c.queues(), Conn: c.connParam(), AckTimeout: c.cfg.Timeout,
		Setup: func(rc *rdmacm.Conn) error { return c.attach(rc.QP) },
	})
	if err != nil {
		close(c.lost)
		return nil, err
	}
	if err := c.managed(rc); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Conn) connParam() rdmacm.ConnParam {
	p := rdmacm.ConnParam{RetryCount: c.cfg.RetryCount, InitiatorDepth: uint8(c.cfg.MaxRdAtomic), ResponderResources: uint8(c.cfg.MaxRdAtomic)}
	if c.flow {
		p.PrivateData = c.local().encode()
	}
	return p
}

// managed completes a connection that the connection manager has established.
func (c *Conn) managed(rc *rdmacm.Conn) error {
	c.mu.Lock()
	c.cleanup = append(c.cleanup, func() {
		if err := rc.Close(); err != nil {
			c.log.Warn("qp: closing the id of a connection", "peer", c.name, "err", err)
		}
	})
	c.mu.Unlock()
	h := hello{raw: true}
	if c.flow {
		var err error
		if h, err = decodeHello(rc.PrivateData); err != nil {
			return err
		}
	}
	c.onHangUp(func() { _ = rc.Disconnect() })
	c.own = rc.LocalAddr().String()
	c.establish(rc.PeerAddr().String(), h)
	go func() {
		switch err := rc.WaitDisconnected(c.life); {
		case err == nil:
			c.end(ErrPeerClosed)
		case c.life.Err() == nil:
			c.end(removed(err)) // the connection manager may be the first to hear of it
		}
	}()
	return nil
}

// Listener accepts connections.
type Listener struct {
	d    *Device
	l    *rdmacm.Listener
	cfg  Config
	made sync.Map // *rdmacm.Conn to *Conn, between Finish and Accept
}

// Listen listens on addr, host:port, of the connection manager; port 0 chooses
// one and an empty host takes all addresses of the device.
//
// Verb: rdma_listen(3).
func (d *Device) Listen(ctx context.Context, addr string, cfg Config) (*Listener, error) {
	if _, err := cfg.withDefaults(); err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("qp: listen %s: %w", addr, err)
	}
	if host == "" {
		addr = "0.0.0.0" + addr
	}
	at, err := resolve(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("qp: listen %s: %w", addr, err)
	}
	l := &Listener{d: d, cfg: cfg}
	l.l, err = rdmacm.Listen(ctx, at[0], rdmacm.ListenConfig{Device: d.dev, PD: d.pd, Configure: l.configure,
		OnError: func(peer netip.AddrPort, err error) {
			d.log.Warn("qp: a connection request failed", "peer", peer, "err", err)
		}})
	if err != nil {
		return nil, fmt.Errorf("qp: listen %s: %w", addr, err)
	}
	return l, nil
}

// configure makes the connection of a request, without its queue pair.
func (l *Listener) configure(e *rdmacm.Event, cfg *rdmacm.ListenConfig) error {
	if !l.cfg.Raw {
		if _, err := decodeHello(e.PrivateData); err != nil {
			return err
		}
	}
	c, err := l.d.newConn(l.cfg)
	if err != nil {
		return err
	}
	c.name = e.ID.PeerAddr().String()
	cfg.QP, cfg.Conn = c.queues(), c.connParam()
	cfg.Setup = func(rc *rdmacm.Conn) error { return c.attach(rc.QP) }
	cfg.Finish = func(rc *rdmacm.Conn, err error) {
		if err != nil {
			c.unmake()
			return
		}
		l.made.Store(rc, c)
	}
	return nil
}

// Addr is the address listened on.
func (l *Listener) Addr() netip.AddrPort { return l.l.Addr() }

// Accept waits for a connection. Requests that fail are logged and are no errors
// of Accept. Several goroutines may call it: a slow peer holds up only one.
//
// Verb: rdma_accept(3).
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	rc, err := l.l.Accept(ctx)
	if err != nil {
		return nil, fmt.Errorf("qp: accept: %w", err)
	}
	v, _ := l.made.LoadAndDelete(rc)
	c := v.(*Conn)
	if err := c.managed(rc); err != nil {
		c.unmake()
		return nil, err
	}
	return c, nil
}

// Close stops listening; connections stay.
func (l *Listener) Close() error { return l.l.Close() }
