package rpc

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// ServerCall is a call being handled. Its methods are for its handler's goroutine.
type ServerCall struct {
	// Method is its name.
	Method string
	// Body is its arguments: lent, until the handler returns.
	Body []byte
	// Replay says that the caller has sent it before, over a connection that ended;
	// Token is then, as on every idempotent call, the same 16 bytes.
	Replay bool
	Token  []byte
	// Stream says that the call is a part of a stream; its data begins Offset bytes
	// into it. Parts come in any order, and several at a time. More is set on all
	// parts of a stream of writes but the last, which comes when the others are done.
	Stream bool
	Offset uint64
	More   bool

	ss    *serverSession
	conn  *qp.Conn // that it came on, and its answer goes to
	h     header
	buf   mr.Buf
	descs []desc
	few   [2]desc // what descs mostly is
	bytes int64
	m     *method
	turn  *turn // with an order key
	trace *Stages
	next  *ServerCall // in workers' queue

	ctx callContext

	ops       atomic.Int32                  // one-sided operations under way, and one for the handler
	early     atomic.Int32                  // of ops, those that must be over before the answer: READs, and WRITEs that no order with it holds
	hurry     atomic.Pointer[chan struct{}] // a token when ops falls to 1
	failed    atomic.Pointer[error]
	lostPlace atomic.Int32 // of a rail that was lost under an operation, plus 1
	replied   bool         // by the handler's goroutine only, as all below
	counted   bool         // in serverSession.answered
	extent    uint32       // of what was pushed
	offers    []*mr.Grant  // Pull mode: what the caller may read; fixed once ops is 0
	offered   []desc
	collect   *time.Timer // of await

	// Guarded by serverSession.mu.
	cancelled bool // the caller waits for the acknowledgement
	ackTo     *qp.Conn
	orphan    bool // its queue pair is lost
	awaiting  bool // it was told of the offers
	taken     bool // it has them
	stale     bool // it did not say so for too long: its right to read ends
	settled   bool
}

// budget bounds bytes over all sessions.
type budget struct{ left atomic.Int64 }

func (b *budget) take(n int64) bool {
	if n == 0 {
		return true
	}
	for { // never below 0, also for a moment: others would be refused
		left := b.left.Load()
		if left < n {
			return false
		}
		if b.left.CompareAndSwap(left, left-n) {
			return true
		}
	}
}

func (b *budget) give(n int64) { b.left.Add(n) }

// decline answers a request that no handler sees. m.Buf is the caller's still.
func (ss *serverSession) decline(m qp.Message, id uint64, code Code, format string, a ...any) {
	ss.s.stats.refused.Add(1)
	h := header{typ: msgResponse, id: id, flags: flagError | flagRefused, method: uint32(code)}
	ss.tell(m.Conn, &h, fmt.Appendf(nil, format, a...))
}

// request begins a call, in an engine's goroutine.
func (ss *serverSession) request(m qp.Message, msg *message) {
	c := &ServerCall{ss: ss, conn: m.Conn, h: msg.header, buf: m.Buf, Body: msg.body, Token: msg.token, Replay: msg.flags&flagReplay != 0,
		Stream: msg.flags&flagStream != 0, Offset: msg.offset, More: msg.flags&flagMore != 0}
	if !ss.admit(m, msg, c) {
		_ = m.Buf.Release()
		return
	}
	ss.s.stats.calls.Add(1)
	ss.s.wg.Add(1)
	ss.s.workers.run(c)
}

// admit decides about a request before its data moves; one that it refuses is
// answered.
func (ss *serverSession) admit(m qp.Message, msg *message, c *ServerCall) bool {
	n := int(msg.header.descs)
	if n > len(c.few) && !ss.multi() {
		ss.decline(m, msg.id, InvalidArgument, "%d descriptors; at most %d", n, len(c.few))
		return false
	}
	t := ss.rails.Load()
	c.descs = c.few[:0]
	if n > len(c.few) {
		c.descs = make([]desc, 0, n)
	}
	for i := range n {
		d := msg.desc(i)
		d.conn = t.byNumber(d.rail)
		switch {
		case d.conn == nil && ss.multi() && d.rail != noPath && int(d.rail>>8) < ss.places():
			ss.s.stats.refused.Add(1)
			h := header{typ: msgResponse, id: msg.id, flags: flagError | flagRefused | flagRail, method: uint32(Unavailable), order: uint32(d.rail >> 8)}
			ss.tell(m.Conn, &h, []byte("the rail is lost"))
			return false
		case d.conn == nil || d.conn != m.Conn && (!ss.multi() || t.number(m.Conn) == noPath):
			ss.decline(m, msg.id, InvalidArgument, "descriptor of queue pair %#x on queue pair %#x", d.rail, t.number(m.Conn))
			return false
		}
		c.descs = append(c.descs, d)
		c.bytes += int64(d.Len)
	}
	if c.m = ss.s.methods[msg.method]; c.m == nil {
		ss.decline(m, msg.id, Unimplemented, "the server has no method of number %#x", msg.method)
		return false
	}
	c.Method = c.m.name
	c.ctx.values = ss.s.life
	if msg.deadline != 0 {
		left := time.Duration(msg.deadline) * time.Microsecond
		if t := c.m.speed.typical(c.bytes); left < t/2 && c.m.speed.refuse() {
			ss.decline(m, msg.id, DeadlineExceeded, "%v are left; calls like this take %v", left, t)
			return false
		}
		c.ctx.deadline = time.Now().Add(left)
	}
	if !ss.s.bytes.take(c.bytes) {
		ss.decline(m, msg.id, ResourceExhausted, "%d bytes of bulk data; the server has no room for them now", c.bytes)
		return false
	}
	if ss.s.cfg.OnHandled != nil {
		c.trace = startStages(c.Method)
	}
	c.ops.Store(1)
	ss.mu.Lock()
	over := ss.over
	// Who has an answer may call again before the handler of the call has returned.
	limit := int(ss.local.calls)
	full := len(ss.calls)-int(ss.answered.Load()) >= limit || len(ss.calls) >= 2*limit
	_, twice := ss.calls[msg.id]
	if !over && !full && !twice {
		ss.calls[msg.id] = c
		ss.busy.Add(1)
		if k := msg.order; k != 0 {
			c.turn = &turn{prev: ss.orders[k], done: make(chan struct{})}
			ss.orders[k] = c.turn
		}
		ss.mu.Unlock()
		return true
	}
	ss.mu.Unlock()
	ss.s.bytes.give(c.bytes)
	switch {
	case over:
	case twice:
		ss.decline(m, msg.id, InvalidArgument, "request id %#x is in use", msg.id)
	default:
		ss.decline(m, msg.id, ResourceExhausted, "more than %d calls at a time; those that were cancelled count until their handlers return", ss.local.calls)
	}
	return false
}

// run handles the call.
func (c *ServerCall) run() {
	defer c.ss.s.wg.Done()
	early := c.turn != nil && !c.turn.wait(c.ctx.Done()) // it ended before its turn
	c.trace.mark(queued)
	err := c.ctx.Err()
	if err == nil && !early {
		var start time.Time
		if c.m.speed.wants(c.bytes, c.h.id) {
			start = time.Now()
		}
		if err = c.handle(); err == nil && !start.IsZero() {
			c.m.speed.observe(c.bytes, time.Since(start))
		}
	}
	c.trace.mark(handled)
	c.answer(err)
	c.ctx.end(context.Canceled) // frees its timer; what the handler left behind hears of it
	_ = c.buf.Release()
	c.Body, c.Token = nil, nil
	if c.turn != nil {
		c.ss.pass(c.h.order, c.turn, early)
	}
	c.opDone()
}

// handle calls the handler; its panic fails this call only.
func (c *ServerCall) handle() (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.ss.s.stats.panics.Add(1)
			c.ss.cfg.Logger.Error("rpc: a handler panicked", "method", c.Method, "panic", p, "stack", string(debug.Stack()))
			err = Errorf(Internal, "the handler panicked")
		}
	}()
	return c.m.h(&c.ctx, c)
}

// cancel ends the context of the call.
func (c *ServerCall) cancel() { c.ctx.end(context.Canceled) }

// answer sends what the handler left to be said.
func (c *ServerCall) answer(err error) {
	if e := c.failed.Load(); e != nil && err == nil {
		err = *e
	}
	if c.replied {
		if err != nil {
			c.ss.cfg.Logger.Warn("rpc: a handler failed after its reply", "method", c.Method, "err", err)
		}
		return
	}
	if err == nil {
		if err = c.Reply(nil); err == nil {
			return
		}
	}
	c.ss.s.stats.failed.Add(1)
	if c.trace != nil {
		c.trace.Err = err
	}
	c.ss.mu.Lock()
	nobody := c.cancelled || c.ss.over // the caller waits for the acknowledgement only
	c.ss.mu.Unlock()
	if nobody {
		return
	}
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: CodeOf(err), Message: err.Error()}
	}
	text := e.Message
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	if limit := int(c.ss.remote.slot) - headerLen; len(text) > limit {
		text = text[:limit]
	}
	c.replied = true
	h := header{typ: msgResponse, id: c.h.id, flags: flagError, method: uint32(e.Code)}
	if p := c.lostPlace.Load(); p != 0 { // not the handler's fault: the caller treats it like the loss of its own rail
		h.flags, h.method, h.order = flagError|flagRail, uint32(Unavailable), uint32(p-1)
	}
	// The caller takes its memory back when it has this: nothing may be going on.
	if c.drain() {
		ctx, cancel := context.WithTimeout(context.Background(), c.ss.cfg.DialTimeout)
		defer cancel()
		c.count(true)
		_ = c.ss.send(ctx, c.conn, &h, parts{body: []byte(text)})
	}
}

// count says that an answer goes out, before it does, or that it did not.
func (c *ServerCall) count(on bool) {
	if c.counted == on {
		return
	}
	c.counted = on
	if on {
		c.ss.answered.Add(1)
	} else {
		c.ss.answered.Add(-1)
	}
}

// drain waits until the handler's one-sided operations have ended: before it, an
// answer would be a lie. Each ends, for its queue pair ends the connection when one
// takes too long for its bytes. false: the session has ended.
func (c *ServerCall) drain() bool {
	ch := make(chan struct{}, 1)
	c.hurry.Store(&ch)
	for c.ops.Load() > 1 {
		select {
		case <-ch:
		case <-c.ss.session.done:
			return false
		}
	}
	return true
}

// opDone ends one of ops; the last one settles the call.
func (c *ServerCall) opDone() {
	switch c.ops.Add(-1) {
	case 0:
		c.settle()
	case 1:
		if ch := c.hurry.Load(); ch != nil {
			select {
			case *ch <- struct{}{}:
			default:
			}
		}
	}
}

// settle ends the call, once, when nothing of it goes on: a cancelled one is
// acknowledged, so that the caller knows its memory is its own again. It may be
// called at any time, from an engine's goroutine too.
func (c *ServerCall) settle() {
	c.ss.mu.Lock()
	if c.ops.Load() != 0 || c.settled || c.awaiting && !c.taken && !c.stale && !c.cancelled && !c.orphan && !c.ss.over {
		c.ss.mu.Unlock()
		return
	}
	c.settled = true
	if c.collect != nil {
		c.collect.Stop()
	}
	delete(c.ss.calls, c.h.id)
	c.ss.busy.Add(-1)
	if c.counted {
		c.ss.answered.Add(-1)
	}
	ack, ackTo, taken := c.cancelled, c.ackTo, c.taken
	c.ss.mu.Unlock()
	c.ss.s.bytes.give(c.bytes)
	if len(c.offers) > 0 {
		c.ss.s.wg.Add(1)
		go func() {
			defer c.ss.s.wg.Done()
			c.revokeOffers(taken)
		}()
	}
	if f := c.ss.s.cfg.OnHandled; f != nil && c.trace != nil {
		c.trace.finish(f)
	}
	if ack {
		c.ss.tell(ackTo, &header{typ: msgCancelAck, id: c.h.id}, nil)
	}
}

// Peer is the caller's address.
func (c *ServerCall) Peer() string { return c.ss.peerName() }

// Device is the device of the server: its pool has buffers for Pull and Push.
func (c *ServerCall) Device() *qp.Device { return c.ss.s.nics[0].d }

var errReplied = &Error{Code: FailedPrecondition, Message: "the call was answered already"}

// Reply answers the call with body, which is copied into the message. What was
// pushed is in the caller's memory before it has the answer. It may be called once.
func (c *ServerCall) Reply(body []byte) error {
	if c.replied {
		return errReplied
	}
	if c.early.Load() > 0 {
		// A read that was given up still goes on: with the answer the caller would
		// take its memory back under it, which costs the queue pair. And the answer says
		// nothing of writes on other queue pairs than its own: they must be there.
		if !c.drain() {
			return c.ss.err()
		}
		if e := c.failed.Load(); e != nil {
			return *e
		}
	}
	h := header{typ: msgResponse, id: c.h.id, order: c.extent}
	p := parts{descs: c.offered, body: body}
	if len(c.offered) > 0 {
		h.flags |= flagPull
		c.await(true)
	}
	// The answer takes the caller's window away, which saves it the work.
	for i := range c.descs {
		if d := &c.descs[i]; d.flags == dirToPeer && d.RKey != 0 && d.conn == c.conn {
			h.flags |= flagInvalidated
			p.inv = d.RKey
			break
		}
	}
	p.join = c.ss.busy.Load() > 1
	c.count(true)
	if err := c.ss.send(&c.ctx, c.conn, &h, p); err != nil {
		c.await(false)
		c.count(false)
		return err
	}
	c.replied = true
	c.trace.mark(posted)
	return nil
}

// await notes that the caller knows of the offers, and will say when it has them.
func (c *ServerCall) await(b bool) {
	c.ss.mu.Lock()
	defer c.ss.mu.Unlock()
	c.awaiting = b
	if b {
		var n int
		for i := range c.offered {
			n += int(c.offered[i].Len)
		}
		c.collect = time.AfterFunc(offerTime+time.Duration(n)*time.Second/slowest, func() {
			c.ss.mu.Lock()
			c.stale = true
			c.ss.mu.Unlock()
			c.settle()
		})
	} else if c.collect != nil {
		c.collect.Stop()
	}
}

// An offer that the caller has not read after offerTime, and the time that its bytes
// take at slowest bytes a second, is taken back: its memory is others' as well.
const (
	offerTime = 10 * time.Second
	slowest   = 4 << 20
)
