package qp

import (
	"context"
	"fmt"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// newConn makes a connection without a queue pair: attach brings it.
func (d *Device) newConn(cfg Config) (_ *Conn, err error) {
	if cfg.Raw && cfg.DeadAfter == 0 {
		cfg.DeadAfter = -1 // a peer that posts no receive is not dead
	}
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	eng, err := d.engine(cfg.Engine)
	if err != nil {
		return nil, err
	}
	d.fit(&cfg, eng)
	if s := cfg.Shared; s != nil {
		if s.d != d {
			return nil, fmt.Errorf("qp: Config.Shared is of device %s, not %s", s.d.dev.Name(), d.dev.Name())
		}
		if err := s.join(&cfg, eng); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				s.leave(cfg.RecvDepth, eng)
			}
		}()
	}
	c := &Conn{cfg: cfg, dev: d, eng: eng, log: cfg.Logger, flow: !cfg.Raw, lastRecv: make(chan struct{}), hung: make(chan struct{}), stir: make(chan struct{}, 1),
		done: make(chan struct{}), quiet: make(chan struct{}), gone: make(chan struct{}), lost: make(chan struct{})}
	if c.log == nil {
		c.log = d.log
	}
	c.in.wake = make(chan struct{}, 1)
	c.life, c.die = context.WithCancel(context.Background())
	c.slots = newSlots(cfg.SendDepth)
	if c.flow {
		c.credits = newSlots(0) // the peer's hello brings some
	}
	c.send.ring = make([]pending, 2*(cfg.SendDepth+sendReserve))
	one := make([]flight, len(c.send.ring)) // most operations have one buffer
	for i := range c.send.ring {
		c.send.ring[i].flights = one[i : i : i+1]
	}
	if err := c.eng.reserve(c.reservation()); err != nil {
		return nil, err
	}
	if err := d.remember(c); err != nil {
		c.eng.unreserve(c.reservation())
		return nil, err
	}
	return c, nil
}

// local is what this side says of itself.
func (c *Conn) local() hello {
	return hello{credits: c.cfg.RecvDepth, maxMessage: c.cfg.MaxMessage, rdAtomic: c.cfg.MaxRdAtomic}
}

// queues is the configuration of the connection's queue pair.
func (c *Conn) queues() verbs.QPConfig {
	q := verbs.QPConfig{Type: verbs.QPTRC, SendCQ: c.eng.cq, RecvCQ: c.eng.cq, Cap: verbs.QPCap{
		MaxSendWR: uint32(c.cfg.SendDepth + sendReserve), MaxSendSGE: uint32(c.cfg.MaxSGE), MaxInlineData: uint32(c.cfg.Inline)}}
	if c.flow {
		q.Cap.MaxInlineData = max(q.Cap.MaxInlineData, controlSize)
	}
	if s := c.cfg.Shared; s != nil {
		q.SRQ = s.srq
	} else {
		q.Cap.MaxRecvWR, q.Cap.MaxRecvSGE = uint32(c.cfg.RecvDepth+recvReserve), 1
	}
	return q
}

// attach takes the queue pair, in QPSInit or later, and posts receives.
func (c *Conn) attach(q *verbs.QP) error {
	c.qp = q
	c.inline = min(c.cfg.Inline, int(q.Cap().MaxInlineData))
	if s := c.cfg.Shared; s != nil {
		c.recv = s.ring
	} else {
		c.recv = newRing(c.dev.pool, c.dev.pd, c.cfg.RecvDepth+recvReserve, c.cfg.MaxMessage)
		c.recv.own, c.recv.post, c.recv.life = true, q.PostRecv, c.life
	}
	c.eng.qps.set(q.QPN(), c)
	c.dev.attached(q, c)
	if c.recv.own {
		if err := c.recv.begin(c.cfg.RecvDepth + recvReserve); err != nil {
			return fmt.Errorf("qp: receives: %w", err)
		}
	}
	return nil
}

// establish opens the connection for its owner. Messages that came before are
// given out in order.
func (c *Conn) establish(peer string, h hello) {
	c.eng.turn.Lock()
	c.mu.Lock() // for end
	c.name = peer
	c.mu.Unlock()
	c.peer = h
	c.up = true
	if c.flow {
		c.credits.give(h.credits)
	}
	if f := c.cfg.OnMessage; f != nil {
		for {
			m, ok := c.in.get()
			if !ok {
				break
			}
			c.recv.owes(debt{c: c})
			f(c, m)
		}
	}
	c.eng.turn.Unlock()
	c.heard.Store(c.dev.now())
	c.recv.top()
	if c.cfg.DeadAfter > 0 {
		c.mu.Lock()
		if !c.ended {
			c.timer = time.AfterFunc(c.cfg.DeadAfter/4, c.check)
		}
		c.mu.Unlock()
	}
}

// check is the watchdog: it ends the connection when an operation has gone
// without an answer for too long, and probes an idle one.
func (c *Conn) check() {
	if c.Err() != nil {
		return
	}
	now, limit := c.dev.now(), int64(c.cfg.DeadAfter)
	c.send.Lock()
	bytes := c.send.bytes
	c.send.Unlock()
	// Much data takes long on a slow link without being dead.
	limit += int64(bytes) * int64(time.Second) / slowest
	if since := c.waits.Load(); since != 0 && now-since > limit {
		c.end(c.noAnswer(nil))
		return
	}
	if c.flow && c.waits.Load() == 0 && now-c.heard.Load() > int64(c.cfg.DeadAfter)/2 {
		c.send.Lock()
		c.sendControl(true)
		c.send.Unlock()
	}
	c.mu.Lock()
	if !c.ended {
		c.timer.Reset(c.cfg.DeadAfter / 4)
	}
	c.mu.Unlock()
}

// slowest is the rate in bytes a second below which a transfer counts as stuck.
const slowest = 4 << 20

// unmake frees a connection that was never established.
func (c *Conn) unmake() {
	if c.qp == nil {
		c.eng.unreserve(c.reservation())
		c.die()
		if s := c.cfg.Shared; s != nil {
			s.leave(c.cfg.RecvDepth, c.eng)
		}
		for i := len(c.cleanup) - 1; i >= 0; i-- {
			c.cleanup[i]()
		}
		c.dev.forget(c)
		return
	}
	_ = c.Close()
}
