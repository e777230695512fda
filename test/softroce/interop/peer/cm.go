package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// manager connects with rdma_cm.
type manager struct {
	o        *options
	listener *rdmacm.Listener // server
	conns    chan *conn       // server: the one that the listener's Setup made
	shapes   chan shape       // server: what the next connection is made with
}

func newManager(ctx context.Context, o *options) (*manager, error) {
	m := &manager{o: o, conns: make(chan *conn, 1), shapes: make(chan shape, 1)}
	if !o.server {
		return m, nil
	}
	at, err := netip.ParseAddr(o.local)
	if err != nil {
		return nil, err
	}
	m.listener, err = rdmacm.Listen(ctx, netip.AddrPortFrom(at, uint16(o.port)), rdmacm.ListenConfig{
		Request: func(e *rdmacm.Event) error { return e.ID.SetAckTimeout(uint8(o.ack)) },
		Configure: func(_ *rdmacm.Event, cfg *rdmacm.ListenConfig) error {
			s := <-m.shapes
			cfg.QP, cfg.Conn = m.qpConfig(s), m.params(s)
			cfg.Setup = func(rc *rdmacm.Conn) error {
				c, err := m.build(rc, s)
				if err == nil {
					m.conns <- c
				}
				return err
			}
			return nil
		},
	})
	return m, err
}

func (m *manager) Close() error {
	if m.listener == nil {
		return nil
	}
	return m.listener.Close()
}

func (m *manager) qpConfig(s shape) verbs.QPConfig {
	return verbs.QPConfig{Cap: verbs.QPCap{
		MaxSendWR: uint32(s.sends), MaxRecvWR: uint32(s.recvs), MaxSendSGE: 3, MaxRecvSGE: 1, MaxInlineData: 64,
	}}
}

func (m *manager) params(s shape) rdmacm.ConnParam {
	p := rdmacm.ConnParam{ResponderResources: 8, InitiatorDepth: 8, RetryCount: 7, RNRRetryCount: s.rnrRetry}
	if s.rnrRetry == 0 {
		p.RNRRetryCount = rdmacm.Explicit
	}
	return p
}

func (m *manager) build(rc *rdmacm.Conn, s shape) (*conn, error) {
	c := &conn{o: m.o, qp: rc.QP, cq: rc.SendCQ, pd: rc.PD}
	c.settle = func(ctx context.Context) error {
		if m.o.server {
			return errors.Join(rc.WaitDisconnected(ctx), rc.Disconnect())
		}
		return errors.Join(rc.Disconnect(), rc.WaitDisconnected(ctx))
	}
	err := c.setup(s)
	// The connection frees these, after the queue pair.
	for _, x := range c.owned {
		rc.Own(x)
	}
	c.owned = nil
	c.own(rc)
	return c, err
}

func (m *manager) open(ctx context.Context, s shape) (*conn, error) {
	if m.o.server {
		m.shapes <- s
		if _, err := m.listener.Accept(ctx); err != nil {
			return nil, fmt.Errorf("accept: %w", err)
		}
		return <-m.conns, nil
	}
	to, err := netip.ParseAddr(m.o.addr)
	if err != nil {
		return nil, err
	}
	var from netip.AddrPort
	if m.o.local != "" {
		a, err := netip.ParseAddr(m.o.local)
		if err != nil {
			return nil, err
		}
		from = netip.AddrPortFrom(a, 0)
	}
	var c *conn
	_, err = rdmacm.Dial(ctx, netip.AddrPortFrom(to, uint16(m.o.port)), rdmacm.DialConfig{
		Local: from, QP: m.qpConfig(s), Conn: m.params(s), AckTimeout: uint8(m.o.ack),
		Setup: func(rc *rdmacm.Conn) (err error) { c, err = m.build(rc, s); return err },
	})
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return c, nil
}
