package rpc

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/verbs"
)

// ServerCall is a call being handled.
type ServerCall struct {
	// Method is its name.
	Method string
	// Body is its arguments: lent, until the handler returns.
	Body []byte
	// Replay says that the caller has sent it before, over a connection that ended;
	// Token is then, as on every idempotent call, the same 16 bytes.
	Replay bool
	Token  []byte

	ss    *serverSession
	conn  *qp.Conn // that it came on, and its answer goes to
	h     header
	buf   mr.Buf
	descs [2]desc
	n     int
	bytes int64
	m     *method
	prev  chan struct{} // done of the call before, of the same order key
	done  chan struct{} // with an order key: closed when handled

	ctx callContext

	ops     atomic.Int32 // one-sided operations under way, and one for the handler
	replied bool         // by the handler's goroutine only
	failed  atomic.Pointer[error]
	pulls   atomic.Int32 // of ops, those that read the memory of the caller
	offers  []*mr.Grant  // Pull mode: what the caller may read
	offered []desc
	settled atomic.Bool

	// Guarded by serverSession.mu.
	cancelled bool
	ackOn     *qp.Conn
}

// callContext is the context of a call. Its channel and timer are made when
// somebody asks for them: most handlers never do.
type callContext struct {
	mu       sync.Mutex
	done     chan struct{} // guarded by mu
	err      error         // guarded by mu
	timer    *time.Timer   // guarded by mu
	deadline time.Time
	values   context.Context
}

var _ context.Context = (*callContext)(nil)

func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

func (c *callContext) Value(k any) any { return c.values.Value(k) }

func (c *callContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		c.endLocked(context.DeadlineExceeded)
	}
	return c.err
}

func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		} else if !c.deadline.IsZero() {
			c.timer = time.AfterFunc(time.Until(c.deadline), func() { c.end(context.DeadlineExceeded) })
		}
	}
	return c.done
}

func (c *callContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(err)
}

func (c *callContext) endLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	if c.timer != nil {
		c.timer.Stop()
	}
}

// budget bounds bytes over all sessions.
type budget struct{ left atomic.Int64 }

func (b *budget) take(n int64) bool {
	if n == 0 {
		return true
	}
	if b.left.Add(-n) < 0 {
		b.left.Add(n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.left.Add(n) }

// request begins a call, in an engine's goroutine.
func (ss *serverSession) request(m qp.Message, msg *message) {
	refuse := func(code Code, format string, a ...any) {
		_ = m.Buf.Release()
		ss.s.stats.refused.Add(1)
		h := header{typ: msgResponse, id: msg.id, flags: flagError, method: uint32(code)}
		ss.tell(m.Conn, &h, fmt.Appendf(nil, format, a...)...)
	}
	c := &ServerCall{ss: ss, conn: m.Conn, h: msg.header, buf: m.Buf, Body: msg.body, Token: msg.token, Replay: msg.flags&flagReplay != 0}
	rail := ss.rail(m.Conn)
	if int(msg.header.descs) > len(c.descs) {
		refuse(InvalidArgument, "%d descriptors; at most %d", msg.header.descs, len(c.descs))
		return
	}
	for i := range int(msg.header.descs) {
		c.descs[i] = msg.desc(i)
		if int(c.descs[i].rail) != rail {
			refuse(InvalidArgument, "descriptor of queue pair %d on queue pair %d", c.descs[i].rail, rail)
			return
		}
		c.n++
		c.bytes += int64(c.descs[i].Len)
	}
	c.m = ss.s.methods[msg.method]
	if c.m == nil {
		refuse(Unimplemented, "the server has no method of number %#x", msg.method)
		return
	}
	c.Method = c.m.name
	c.ctx.values = ss.s.life
	if msg.deadline != 0 {
		c.ctx.deadline = time.Now().Add(time.Duration(msg.deadline) * time.Microsecond)
	}
	if !ss.s.bytes.take(c.bytes) {
		refuse(ResourceExhausted, "%d bytes of bulk data; the server has no room for them now", c.bytes)
		return
	}
	c.ops.Store(1)
	ss.mu.Lock()
	over := len(ss.calls) >= int(ss.local.calls)
	_, twice := ss.calls[msg.id]
	if !over && !twice {
		ss.calls[msg.id] = c
		if k := msg.order; k != 0 {
			c.done = make(chan struct{})
			if p := ss.orders[k]; p != nil {
				c.prev = p.done
			}
			ss.orders[k] = c
		}
	}
	ss.mu.Unlock()
	if over || twice {
		ss.s.bytes.give(c.bytes)
		if twice {
			refuse(InvalidArgument, "request id %#x is in use", msg.id)
		} else {
			refuse(ResourceExhausted, "more than %d calls at a time", ss.local.calls)
		}
		return
	}
	ss.s.stats.calls.Add(1)
	ss.s.wg.Add(1)
	go c.run()
}

// run handles the call.
func (c *ServerCall) run() {
	defer c.ss.s.wg.Done()
	if c.prev != nil {
		<-c.prev
	}
	var err error
	if err = c.ctx.Err(); err == nil {
		err = c.handle()
	}
	c.answer(err)
	if c.done != nil {
		close(c.done)
		c.ss.mu.Lock()
		if c.ss.orders[c.h.order] == c {
			delete(c.ss.orders, c.h.order)
		}
		c.ss.mu.Unlock()
	}
	_ = c.buf.Release()
	c.Body, c.Token = nil, nil
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
func (c *ServerCall) cancel(Code) { c.ctx.end(context.Canceled) }

// answer sends what the handler left to be said.
func (c *ServerCall) answer(err error) {
	if e := c.failed.Load(); e != nil && err == nil {
		err = *e
	}
	if c.replied && err == nil {
		return
	}
	if c.replied {
		c.ss.cfg.Logger.Warn("rpc: a handler failed after its reply", "method", c.Method, "err", err)
		return
	}
	if err == nil {
		err = c.Reply(nil)
		if err == nil {
			return
		}
	}
	c.ss.s.stats.failed.Add(1)
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
	ctx, cancel := context.WithTimeout(c.ss.s.life, c.ss.cfg.DialTimeout)
	defer cancel()
	// The caller may take its memory back once it has this: nothing may be going on.
	c.drain(ctx)
	_ = c.ss.send(ctx, c.conn, &h, nil, nil, []byte(text), 0)
}

// drain waits until the handler's one-sided operations have ended.
func (c *ServerCall) drain(ctx context.Context) {
	for pause := 10 * time.Microsecond; c.ops.Load() > 1 && ctx.Err() == nil; pause = min(2*pause, time.Millisecond) {
		select {
		case <-time.After(pause):
		case <-c.ss.session.done:
			return
		}
	}
}

// opDone ends one of ops; the last one settles the call.
func (c *ServerCall) opDone() {
	if c.ops.Add(-1) == 0 {
		c.settle()
	}
}

// settle ends the call when nothing of it goes on: a cancelled one is
// acknowledged, so that the caller knows its memory is its own again.
func (c *ServerCall) settle() {
	if c.ops.Load() != 0 {
		return
	}
	c.ss.mu.Lock()
	ack := c.cancelled
	keep := len(c.offers) > 0 && !ack
	first := !keep && !c.settled.Swap(true)
	if first {
		delete(c.ss.calls, c.h.id)
	}
	on := c.ackOn
	c.ss.mu.Unlock()
	if !first {
		return
	}
	c.ss.s.bytes.give(c.bytes)
	if len(c.offers) > 0 {
		c.ss.s.wg.Add(1)
		go func() {
			defer c.ss.s.wg.Done()
			c.revokeOffers()
		}()
	}
	if ack {
		c.ss.tell(on, &header{typ: msgCancelAck, id: c.h.id})
	}
}

// settleOffers ends a call whose answer offered memory: the caller has it, or is gone.
func (c *ServerCall) settleOffers() {
	c.ss.mu.Lock()
	first := c.ops.Load() == 0 && len(c.offers) > 0 && !c.settled.Swap(true)
	if first {
		delete(c.ss.calls, c.h.id)
	}
	c.ss.mu.Unlock()
	if first {
		c.ss.s.bytes.give(c.bytes)
		c.revokeOffers()
	}
}

func (c *ServerCall) revokeOffers() {
	for _, g := range c.offers {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if b, err := g.Revoke(ctx); err == nil {
			_ = b.Release()
		}
		cancel()
	}
}

// Peer is the caller's address.
func (c *ServerCall) Peer() string { return c.ss.peer }

// Device is the device of the server: its pool has buffers for Pull and Push.
func (c *ServerCall) Device() *qp.Device { return c.ss.d }

// InLen is how many bytes the caller gives with WriteFrom, to be pulled.
func (c *ServerCall) InLen() int { return c.length(dirFrom) }

// OutLen is how many bytes the caller takes with ReadInto, to be pushed.
func (c *ServerCall) OutLen() int { return c.length(dirToPeer) }

func (c *ServerCall) length(dir uint16) int {
	if d := c.find(dir); d != nil {
		return int(d.Len)
	}
	return 0
}

func (c *ServerCall) find(dir uint16) *desc {
	for i := range c.n {
		if c.descs[i].flags == dir {
			return &c.descs[i]
		}
	}
	return nil
}

// Pull reads the caller's bulk data into dst, from its beginning or, with PullAt,
// from an offset. It takes dst and returns the new right to it. When ctx ends it
// returns at once; the memory comes back to its pool when the device is done.
func (c *ServerCall) Pull(ctx context.Context, dst mr.Buf) (mr.Buf, error) {
	return c.PullAt(ctx, 0, dst)
}

// PullAt is Pull from an offset in bytes.
func (c *ServerCall) PullAt(ctx context.Context, off int, dst mr.Buf) (mr.Buf, error) {
	from, err := c.remote(dirFrom, off, dst.Len())
	if err != nil {
		return dst, err
	}
	type result struct {
		b   mr.Buf
		err error
	}
	ready := make(chan result, 1)
	var gone atomic.Bool
	c.ops.Add(1)
	c.pulls.Add(1)
	err = c.conn.Post(ctx, qp.Op{Kind: qp.Read, Bufs: []mr.Buf{dst}, Remote: from, Done: func(r qp.Result) {
		if gone.Swap(true) {
			_ = r.Bufs[0].Release()
		} else {
			ready <- result{r.Bufs[0], r.Err}
		}
		c.pulls.Add(-1)
		c.opDone()
	}})
	if err != nil {
		c.pulls.Add(-1)
		c.opDone()
		return dst, err
	}
	select {
	case r := <-ready:
		return r.b, r.err
	case <-ctx.Done():
		if !gone.Swap(true) {
			return mr.Buf{}, ctx.Err()
		}
		r := <-ready
		return r.b, r.err
	}
}

// Push puts src into the caller's ReadInto buffer, at its beginning or, with
// PushAt, at an offset. It takes src, error or not, and releases it when the
// caller has it. It does not wait for that: Reply comes after it in any case.
func (c *ServerCall) Push(ctx context.Context, src mr.Buf) error { return c.PushAt(ctx, 0, src) }

// PushAt is Push at an offset in bytes.
func (c *ServerCall) PushAt(ctx context.Context, off int, src mr.Buf) error {
	if c.replied {
		_ = src.Release()
		return errReplied
	}
	to, err := c.remote(dirToPeer, off, src.Len())
	if err != nil {
		_ = src.Release()
		return err
	}
	if c.h.flags&flagPull != 0 {
		return c.offer(ctx, off, src)
	}
	c.ops.Add(1)
	err = c.conn.Post(ctx, qp.Op{Kind: qp.Write, Bufs: []mr.Buf{src}, Remote: to, Done: func(r qp.Result) {
		if r.Err != nil {
			err := r.Err
			c.failed.Store(&err)
		}
		_ = r.Bufs[0].Release()
		c.opDone()
	}})
	if err != nil {
		_ = src.Release()
		c.opDone()
	}
	return err
}

var errReplied = errors.New("rpc: the call was answered already")

// offer shows src to the caller, who reads it after the answer.
func (c *ServerCall) offer(ctx context.Context, off int, src mr.Buf) error {
	if off != 0 || len(c.offers) > 0 {
		_ = src.Release()
		return Errorf(Unimplemented, "the caller reads the result itself: it must be one piece from the beginning")
	}
	g, err := c.ss.s.granter.Start(ctx, c.conn, src, mr.DeviceReads)
	if err != nil {
		if src.Err() == nil {
			_ = src.Release()
		}
		return err
	}
	c.offers = append(c.offers, g)
	c.offered = append(c.offered, desc{Remote: g.Remote(), rail: uint16(c.ss.rail(c.conn)), flags: dirFrom})
	return nil
}

func (c *ServerCall) remote(dir uint16, off, n int) (qp.Remote, error) {
	d := c.find(dir)
	if d == nil {
		what := "WriteFrom"
		if dir == dirToPeer {
			what = "ReadInto"
		}
		return qp.Remote{}, Errorf(InvalidArgument, "the caller gave no buffer with %s", what)
	}
	r, err := d.Remote.Slice(uint64(max(off, 0)), n)
	if err != nil || off < 0 {
		return r, Errorf(OutOfRange, "bytes %d to %d of a buffer of %d", off, off+n, d.Len)
	}
	return r, nil
}

// Reply answers the call with body, which is copied into the message. What was
// pushed is in the caller's memory before it has the answer. It may be called once.
func (c *ServerCall) Reply(body []byte) error {
	if c.replied {
		return errReplied
	}
	if c.pulls.Load() > 0 {
		// A read that was given up still goes on: with the answer the caller would
		// take its memory back under it, which costs the queue pair.
		c.drain(&c.ctx)
	}
	h := header{typ: msgResponse, id: c.h.id}
	if len(c.offered) > 0 {
		h.flags |= flagPull
	}
	// The answer takes the caller's window away, which saves it the work.
	var inv verbs.RKey
	if d := c.find(dirToPeer); d != nil && d.RKey != 0 && c.h.flags&flagPull == 0 {
		h.flags |= flagInvalidated
		inv = d.RKey
	}
	if err := c.ss.send(&c.ctx, c.conn, &h, c.offered, nil, body, inv); err != nil {
		return err
	}
	c.replied = true
	return nil
}
