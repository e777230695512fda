package dpu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
	"github.com/zrdma/zrdma/verbs"
)

const greetTime = 5 * time.Second

// agentSession is a host at the agent: a control queue pair and one for data, which
// is of the tenant's domain.
type agentSession struct {
	a      *Agent
	t      *tenant
	ctl    *qp.Conn
	data   *qp.Conn
	epoch  uint32
	writer Writer // the host; zero: its writes are not numbered
	own    Writer // the session itself
	slots  int
	lease  time.Duration
	ring   mr.Remote
	life   context.Context
	die    context.CancelCauseFunc
	heard  atomic.Int64 // when the host was last heard of, UnixNano

	counted bool // in t.sessions

	wg sync.WaitGroup // operations, and the goroutines of the session

	mu   sync.Mutex
	open bool // descriptors are taken; guarded by mu, as all below
	over bool
	ops  map[uint64]*agentOp
	// pending operations have no entry in the host's ring yet: the host, which frees a
	// place when it has the entry, has no fewer.
	pending int

	statuses chan wire.Status
}

// session serves a host until it ends.
func (a *Agent) session(ctl *qp.Conn) {
	s := &agentSession{a: a, ctl: ctl, own: NewWriter(), ops: map[uint64]*agentOp{}}
	s.life, s.die = context.WithCancelCause(a.life)
	defer func() {
		s.die(verbs.ErrClosed)
		s.mu.Lock()
		s.over = true
		s.mu.Unlock()
		// The queue pair first: operations that wait for it end.
		if s.data != nil {
			if err := s.data.Close(); err != nil {
				a.cfg.Logger.Warn("dpu: a queue pair of a host does not close", "host", ctl.Peer(), "err", err)
			}
		}
		s.wg.Wait()
		if s.counted {
			s.t.sessions.Add(-1)
		}
		if err := ctl.Close(); err != nil {
			a.cfg.Logger.Warn("dpu: the control queue pair of a host does not close", "host", ctl.Peer(), "err", err)
		}
	}()
	if err := s.greet(); err != nil {
		if cause := context.Cause(s.life); cause != nil {
			err = cause // a host that is accepted may break the rules at once
		}
		a.cfg.Logger.Warn("dpu: a host was not accepted", "host", ctl.Peer(), "err", err)
		s.bye(refusalCode(err), err.Error())
		return
	}
	a.mu.Lock()
	if a.closed || a.draining {
		a.mu.Unlock()
		s.bye(uint16(rpc.Unavailable), "the agent ends")
		return
	}
	a.sessions[s] = true
	a.mu.Unlock()
	a.stats.sessions.Add(1)
	defer func() {
		a.mu.Lock()
		delete(a.sessions, s)
		a.mu.Unlock()
	}()
	s.wg.Add(2)
	go s.writeStatuses()
	go s.beat()
	if err := s.listen(); !errors.Is(err, verbs.ErrClosed) {
		a.cfg.Logger.Info("dpu: a host is gone", "host", ctl.Peer(), "tenant", s.t.name, "err", err)
		s.bye(refusalCode(err), err.Error())
	}
}

func refusalCode(err error) uint16 {
	switch c := rpc.CodeOf(err); {
	case errors.Is(err, wire.ErrVersion):
		return uint16(rpc.FailedPrecondition)
	case c != rpc.OK && c != rpc.Unknown:
		return uint16(c)
	}
	return uint16(rpc.InvalidArgument)
}

// hear is the next message on the control queue pair, of a type.
func hear(ctx context.Context, c *qp.Conn, want wire.Type) (h wire.Header, body []byte, err error) {
	for {
		m, err := c.Recv(ctx)
		if err != nil {
			return h, nil, err
		}
		p, err := m.Buf.Bytes()
		if err == nil {
			h, body, err = wire.Parse(p)
			body = append([]byte(nil), body...)
		}
		_ = m.Buf.Release()
		switch {
		case err != nil:
			return h, nil, err
		case h.Type == want:
			return h, body, nil
		case h.Type == wire.Bye:
			return h, nil, byeError(body)
		case h.Type == wire.Beat:
		default:
			return h, nil, fmt.Errorf("%w: message %d where %d was due", wire.ErrMalformed, h.Type, want)
		}
	}
}

func byeError(body []byte) error {
	var y wire.ByeBody
	if err := y.Decode(body); err != nil {
		return err
	}
	return &rpc.Error{Code: rpc.Code(y.Code), Method: "agent", Message: y.Text}
}

// tell sends a message on the control queue pair and waits until the peer's device
// has it.
func tell(ctx context.Context, c *qp.Conn, h wire.Header, body []byte) error {
	m := wire.Seal(append(h.Append(nil), body...))
	return c.SendBytes(ctx, m)
}

// greet is the agent's side of the handshake.
func (s *agentSession) greet() error {
	ctx, cancel := context.WithTimeout(s.life, greetTime)
	defer cancel()
	h, said, err := hear(ctx, s.ctl, wire.Hello)
	if err != nil {
		return err
	}
	var hello wire.HelloBody
	if err := hello.Decode(said); err != nil {
		return err
	}
	t := s.a.tenants[hello.Tenant]
	if t == nil {
		return rpc.Errorf(rpc.Unauthenticated, "the agent has no tenant %q", hello.Tenant)
	}
	if h.Epoch == 0 {
		return rpc.Errorf(rpc.InvalidArgument, "epoch 0 is the host's own")
	}
	s.t, s.epoch, s.writer = t, h.Epoch, hello.Writer
	s.slots = min(int(hello.Slots), t.MaxOps)
	s.lease = time.Duration(hello.Lease) * time.Microsecond
	s.statuses = make(chan wire.Status, s.slots)
	defer t.greeting.Add(-1)
	if t.greeting.Add(1) > maxGreeting {
		return rpc.Errorf(rpc.ResourceExhausted, "%d hosts of tenant %q are connecting; try again", maxGreeting, t.name)
	}
	p, err := t.dev.Prepare(netip.Addr{}, qp.Config{SendDepth: 256, RecvDepth: 64, MaxMessage: maxDescMessage, Logger: s.a.cfg.Logger,
		OnMessage: s.onData, OnEnd: func(_ *qp.Conn, err error) { s.end(err) }})
	if err != nil {
		return err
	}
	w := wire.WelcomeBody{Slots: uint32(s.slots), MaxBytes: uint64(t.MaxBytes), MaxBlock: uint32(s.a.cfg.MaxBlock), Data: p.Local()}
	_, _ = rand.Read(w.Nonce[:])
	w.Proof = wire.Sign(t.Secret, "agent", said, w.Append(nil))
	welcome := w.Append(nil)
	if s.data, err = p.Connect(hello.Data); err != nil {
		return err
	}
	if err := tell(ctx, s.ctl, wire.Header{Type: wire.Welcome, Epoch: s.epoch}, welcome); err != nil {
		return err
	}
	_, body, err := hear(ctx, s.ctl, wire.Proof)
	if err != nil {
		return err
	}
	var proof wire.ProofBody
	if err := proof.Decode(body); err != nil {
		return err
	}
	if !wire.Same(proof.Proof, wire.Sign(t.Secret, "host", said, welcome)) {
		return rpc.Errorf(rpc.Unauthenticated, "the host does not know the secret of tenant %q", t.name)
	}
	if int(proof.Ring.Len) != s.slots*wire.EntryLen {
		return rpc.Errorf(rpc.InvalidArgument, "a status ring of %d bytes for %d operations: it has %d", proof.Ring.Len, s.slots, s.slots*wire.EntryLen)
	}
	s.counted = true
	if t.sessions.Add(1) > int64(t.MaxSessions) {
		return rpc.Errorf(rpc.ResourceExhausted, "tenant %q has %d connections, as many as it may", t.name, t.MaxSessions)
	}
	s.ring = proof.Ring
	s.heard.Store(time.Now().UnixNano())
	s.mu.Lock()
	s.open = true
	s.mu.Unlock()
	return tell(ctx, s.ctl, wire.Header{Type: wire.Ready, Epoch: s.epoch}, []byte("ready"))
}

// listen takes control messages until the session ends.
func (s *agentSession) listen() error {
	for {
		m, err := s.ctl.Recv(s.life)
		if err != nil {
			if cause := context.Cause(s.life); cause != nil {
				return cause
			}
			return err
		}
		p, err := m.Buf.Bytes()
		var h wire.Header
		var body []byte
		if err == nil {
			h, body, err = wire.Parse(p)
		}
		if err == nil && h.Type == wire.Bye {
			err = byeError(body)
			if e := (*rpc.Error)(nil); errors.As(err, &e) && e.Code == rpc.OK {
				err = verbs.ErrClosed
			}
		} else if err == nil && h.Type != wire.Beat {
			err = fmt.Errorf("%w: message %d on the control queue pair", wire.ErrMalformed, h.Type)
		}
		_ = m.Buf.Release()
		if err != nil {
			return err
		}
		s.heard.Store(time.Now().UnixNano())
	}
}

// beat tells the host that the agent is there, and ends the session when the host is
// silent for as long as its lease.
func (s *agentSession) beat() {
	defer s.wg.Done()
	tick := time.NewTicker(max(s.lease/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.life.Done():
			return
		}
		s.a.pass("beat")
		if s.expired() {
			s.end(fmt.Errorf("the host was silent for its lease of %v", s.lease))
			return
		}
		ctx, cancel := context.WithTimeout(s.life, s.lease)
		_ = tell(ctx, s.ctl, wire.Header{Type: wire.Beat, Epoch: s.epoch}, []byte{1})
		cancel()
	}
}

// expired reports that the host may have given this agent up. It is checked before
// every access to its memory: the host's fence is what keeps it safe, this only
// spares it an error.
func (s *agentSession) expired() bool {
	return !s.a.deaf.Load() && time.Now().UnixNano()-s.heard.Load() > int64(s.lease)
}

var errExpired = errors.New("the lease is over")

// end ends the session; session does the rest.
func (s *agentSession) end(err error) { s.die(err) }

// bye tells the host that the session ends, or with code 0 that it should.
func (s *agentSession) bye(code uint16, text string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	y := wire.ByeBody{Code: code, Text: text}
	_ = tell(ctx, s.ctl, wire.Header{Type: wire.Bye, Epoch: s.epoch}, y.Append(nil))
}

// post posts operations to the host on the data queue pair.
func (s *agentSession) post(ops ...qp.Op) error {
	s.a.pass("data")
	if s.expired() {
		return errExpired
	}
	return s.data.Post(s.life, ops...)
}

// onData takes what the host sends on the data queue pair, in the engine's goroutine.
func (s *agentSession) onData(_ *qp.Conn, m qp.Message) {
	if m.Buf.IsZero() {
		s.end(fmt.Errorf("%w: a host does not write to its agent", wire.ErrMalformed))
		return
	}
	p, err := m.Buf.Bytes()
	var h wire.Header
	var body []byte
	if err == nil {
		h, body, err = wire.Parse(p)
	}
	if err == nil {
		err = s.message(h, body)
	}
	_ = m.Buf.Release()
	if err != nil {
		s.end(err)
	}
}

func (s *agentSession) message(h wire.Header, body []byte) error {
	s.heard.Store(time.Now().UnixNano())
	s.mu.Lock()
	open := s.open && !s.over
	s.mu.Unlock()
	if !open {
		return rpc.Errorf(rpc.Unauthenticated, "a message before the handshake has ended")
	}
	switch h.Type {
	case wire.Cancel:
		if len(body) != 8 {
			return fmt.Errorf("%w: a cancel of %d bytes", wire.ErrMalformed, len(body))
		}
		s.cancel(body)
		return nil
	case wire.Descriptors:
	default:
		return fmt.Errorf("%w: message %d on the data queue pair", wire.ErrMalformed, h.Type)
	}
	for range h.Count {
		var d wire.Descriptor
		rest, err := d.Next(body)
		if errors.Is(err, wire.ErrMalformed) {
			return err
		}
		body = rest
		if e := s.begin(&d, err); e != nil {
			return e
		}
	}
	if len(body) > 0 {
		return fmt.Errorf("%w: %d bytes behind the last descriptor", wire.ErrMalformed, len(body))
	}
	return nil
}
