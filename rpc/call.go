package rpc

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// Option changes one call.
type Option struct {
	kind optKind
	buf  mr.Buf
	n    uint32
}

type optKind uint8

const (
	optRead optKind = 1 + iota
	optWrite
	optIdempotent
	optOrder
	optWait
)

// ReadInto gives the call a buffer that the server fills, by ServerCall.Push. The
// CPU copies nothing. The call takes b; Reply.Buf is the new right to it.
func ReadInto(b mr.Buf) Option { return Option{kind: optRead, buf: b} }

// WriteFrom gives the call a buffer that the server reads, by ServerCall.Pull. The
// call takes b; Reply.Buf is the new right to it.
func WriteFrom(b mr.Buf) Option { return Option{kind: optWrite, buf: b} }

// Idempotent says that the call may be done twice: when the connection ends before
// the answer it is sent again over the next one.
func Idempotent() Option { return Option{kind: optIdempotent} }

// Order makes calls with equal keys, not 0, be handled one after the other, in the
// order they were sent.
func Order(key uint32) Option { return Option{kind: optOrder, n: key} }

// WaitForServer makes the call wait for a connection until its context ends, where
// one failed attempt to connect would end it.
func WaitForServer() Option { return Option{kind: optWait} }

// Reply is the answer to a call.
type Reply struct {
	// Body is what the handler gave to Reply: lent, until Release.
	Body []byte

	msg  mr.Buf
	bufs [2]mr.Buf
	n    int
}

// Release gives back the memory of the answer, and the buffers of the call that
// were not taken by Buf.
func (r *Reply) Release() {
	if r == nil {
		return
	}
	if !r.msg.IsZero() {
		_ = r.msg.Release()
		r.msg, r.Body = mr.Buf{}, nil
	}
	for i := range r.n {
		if !r.bufs[i].IsZero() {
			_ = r.bufs[i].Release()
			r.bufs[i] = mr.Buf{}
		}
	}
}

// Buf takes the i-th buffer that was given to the call out of the reply: it is the
// caller's to release. Zero when it was taken before.
func (r *Reply) Buf(i int) mr.Buf {
	if i < 0 || i >= r.n {
		return mr.Buf{}
	}
	b := r.bufs[i]
	r.bufs[i] = mr.Buf{}
	return b
}

// Invoker does a call; see ClientInterceptor.
type Invoker func(ctx context.Context, method string, body []byte, opts []Option) (*Reply, error)

// ClientInterceptor is put around every call.
type ClientInterceptor func(ctx context.Context, method string, body []byte, opts []Option, next Invoker) (*Reply, error)

func chain(l []ClientInterceptor, last Invoker) Invoker {
	for i := len(l) - 1; i >= 0; i-- {
		f, next := l[i], last
		last = func(ctx context.Context, method string, body []byte, opts []Option) (*Reply, error) {
			return f(ctx, method, body, opts, next)
		}
	}
	return last
}

// Call calls a method with body as its arguments, and waits for the answer. Blocks
// of data go as buffers: ReadInto and WriteFrom.
//
// When ctx ends, Call returns at once with its error. The peer is told; buffers of
// the call stay with the library until neither side's device can touch them, and
// are then released. So they are after every error.
func (c *Client) Call(ctx context.Context, method string, body []byte, opts ...Option) (*Reply, error) {
	return c.invoke(ctx, method, body, opts)
}

// Go is Call that does not wait: done gets the result, in a goroutine of its own.
func (c *Client) Go(ctx context.Context, method string, body []byte, done func(*Reply, error), opts ...Option) {
	go func() { done(c.invoke(ctx, method, body, opts)) }()
}

// MethodID is the number of a method on the wire: the CRC-32C of its name.
func MethodID(name string) uint32 { return crc32.Checksum([]byte(name), crcTable) }

// request is a call as it is sent.
type request struct {
	method     string
	body       []byte
	bufs       [2]mr.Buf
	dirs       [2]mr.Direction
	n          int
	idempotent bool
	wait       bool
	order      uint32
	token      [tokenLen]byte
}

func (c *Client) call(ctx context.Context, method string, body []byte, opts []Option) (*Reply, error) {
	r := request{method: method, body: body}
	bad := error(nil)
	for _, o := range opts {
		switch o.kind {
		case optRead, optWrite:
			if r.n == len(r.bufs) {
				bad = fmt.Errorf("rpc: %s: at most %d buffers", method, len(r.bufs))
				_ = o.buf.Release()
				continue
			}
			r.bufs[r.n], r.dirs[r.n] = o.buf, mr.DeviceWrites
			if o.kind == optWrite {
				r.dirs[r.n] = mr.DeviceReads
			}
			r.n++
		case optIdempotent:
			r.idempotent = true
		case optOrder:
			r.order = o.n
		case optWait:
			r.wait = true
		}
	}
	if r.idempotent {
		binary.LittleEndian.PutUint64(r.token[:], c.bootID)
		binary.LittleEndian.PutUint64(r.token[8:], c.token.Add(1))
	}
	c.stats.calls.Add(1)
	var rep *Reply
	err := bad
	for replay := false; err == nil; replay = true {
		var cs *clientSession
		if cs, err = c.session(ctx, r.wait || replay); err != nil {
			break
		}
		rep, err = cs.do(ctx, &r, replay)
		if err == nil {
			return rep, nil
		}
		var again *lostError
		if !errors.As(err, &again) {
			break
		}
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case !again.sent || r.idempotent && !c.isClosed():
			c.stats.replays.Add(1)
			err = nil // on the next session
			continue
		default:
			err = fmt.Errorf("%w: %w", ErrIndeterminate, again.cause)
		}
		break
	}
	for i := range r.n {
		if r.bufs[i].Err() == nil { // what was granted comes back by itself
			_ = r.bufs[i].Release()
		}
	}
	c.stats.failed.Add(1)
	var e *Error
	if !errors.As(err, &e) {
		code := CodeOf(err)
		return nil, &Error{Code: code, Method: method, Cause: err}
	}
	if e.Method == "" {
		e.Method = method
	}
	return nil, err
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// lostError: the session ended under a call.
type lostError struct {
	sent  bool
	cause error
}

func (e *lostError) Error() string { return "rpc: session ended: " + e.cause.Error() }
func (e *lostError) Unwrap() error { return e.cause }

// clientSession is the client's half of a session: the calls that wait.
type clientSession struct {
	*session
	c    *Client
	next atomic.Uint32 // data queue pairs take turns

	mu    sync.Mutex
	slots []callSlot // guarded by mu, as all below
	free  []uint32
	wait  []chan struct{}
	over  bool
	used  int
	away  bool // the server drains
}

type callSlot struct {
	gen  uint32
	call *call
}

// call waits for an answer.
type call struct {
	id       uint64
	conn     *qp.Conn
	ready    chan struct{} // one token: msg is there
	msg      message
	buf      mr.Buf // of msg
	wc       qp.Message
	answered bool // guarded by clientSession.mu; msg, buf and wc are then fixed
}

func newClientSession(c *Client, gen uint32) *clientSession {
	s := newSession(&c.cfg, c.d)
	s.peer, s.epoch, s.copied = c.addr, gen, &c.stats.copied
	s.local = hello{major: major, minor: minor, bootID: c.bootID, epoch: gen, slot: uint32(c.cfg.SlotSize), calls: uint32(c.cfg.MaxCalls)}
	_, _ = rand.Read(s.local.nonce[:])
	cs := &clientSession{session: s, c: c}
	s.owner = cs
	return cs
}

func (cs *clientSession) limit(n int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.slots = make([]callSlot, n)
	cs.free = make([]uint32, n)
	for i := range cs.free {
		cs.free[i] = uint32(n - 1 - i)
	}
}

// begin takes a slot for a call, waiting for one.
func (cs *clientSession) begin(ctx context.Context, k *call) error {
	cs.mu.Lock()
	for {
		if cs.over || cs.away {
			cs.mu.Unlock()
			return &lostError{cause: errGoAway}
		}
		if n := len(cs.free); n > 0 {
			i := cs.free[n-1]
			cs.free = cs.free[:n-1]
			cs.slots[i].gen++
			cs.slots[i].call = k
			k.id = uint64(cs.slots[i].gen)<<32 | uint64(i)
			cs.used++
			cs.mu.Unlock()
			return nil
		}
		ch := make(chan struct{}, 1)
		cs.wait = append(cs.wait, ch)
		cs.mu.Unlock()
		cs.c.stats.stalls.Add(1)
		select {
		case <-ch:
		case <-ctx.Done():
			cs.mu.Lock()
			for i, w := range cs.wait {
				if w == ch {
					cs.wait = append(cs.wait[:i], cs.wait[i+1:]...)
					cs.mu.Unlock()
					return ctx.Err()
				}
			}
			cs.wake() // it was this one's turn: the next
			cs.mu.Unlock()
			return ctx.Err()
		}
		cs.mu.Lock()
	}
}

func (cs *clientSession) wake() {
	if len(cs.wait) > 0 {
		cs.wait[0] <- struct{}{}
		cs.wait = cs.wait[1:]
	}
}

// end frees the slot of a call: an answer that comes later finds nothing.
func (cs *clientSession) finish(k *call) {
	cs.mu.Lock()
	i := uint32(k.id)
	if cs.slots[i].call == k {
		cs.slots[i].call = nil
		cs.free = append(cs.free, i)
		cs.used--
		cs.wake()
	}
	last := cs.used == 0 && cs.away
	cs.mu.Unlock()
	if last {
		cs.session.end(errGoAway)
	}
}

// take takes what the server sends, in an engine's goroutine.
func (cs *clientSession) take(s *session, m qp.Message, msg *message) {
	switch msg.typ {
	case msgResponse, msgCancelAck:
		i := uint32(msg.id)
		cs.mu.Lock()
		var k *call
		if int(i) < len(cs.slots) && uint64(cs.slots[i].gen)<<32|uint64(i) == msg.id {
			k = cs.slots[i].call
		}
		if k == nil || k.conn != m.Conn && msg.typ == msgResponse || msg.epoch != s.epoch || k.answered {
			cs.mu.Unlock()
			_ = m.Buf.Release()
			cs.c.stats.late.Add(1)
			return
		}
		k.msg, k.buf, k.wc, k.answered = *msg, m.Buf, m, true
		k.ready <- struct{}{}
		cs.mu.Unlock()
	case msgGoAway:
		_ = m.Buf.Release()
		cs.mu.Lock()
		cs.away = true
		idle := cs.used == 0
		for len(cs.wait) > 0 {
			cs.wake()
		}
		cs.mu.Unlock()
		cs.c.lose(cs)
		if idle {
			s.end(errGoAway)
		}
	default:
		_ = m.Buf.Release()
		s.end(fmt.Errorf("rpc: %v from the server %s", msg.typ, s.peer))
	}
}

// gone hears that the session ended.
func (cs *clientSession) gone(s *session, err error) {
	cs.c.lose(cs)
	cs.mu.Lock()
	cs.over = true
	for len(cs.wait) > 0 {
		cs.wake()
	}
	cs.mu.Unlock()
	cs.c.wg.Add(1)
	go func() {
		defer cs.c.wg.Done()
		s.close()
	}()
}

// do does a call on the session. Buffers that were granted are not the request's
// any more when it fails with anything but a *lostError.
func (cs *clientSession) do(ctx context.Context, r *request, replay bool) (*Reply, error) {
	k := &call{conn: cs.control(), ready: make(chan struct{}, 1)}
	rail := -1
	if r.n > 0 {
		if r.order != 0 {
			rail = int(r.order % uint32(len(cs.data)))
		} else {
			rail = int(cs.next.Add(1) % uint32(len(cs.data)))
		}
		k.conn = cs.data[rail]
	}
	if err := cs.begin(ctx, k); err != nil {
		return nil, err
	}
	var grants [2]*mr.Grant
	var descs [2]desc
	pull := cs.cfg.Bulk == Pull
	nd := 0
	h := header{typ: msgRequest, method: MethodID(r.method), id: k.id, order: r.order}
	for i := range r.n {
		d := &descs[nd]
		d.rail, d.flags, d.Len = uint16(rail), dirFrom, uint32(r.bufs[i].Len())
		if r.dirs[i] == mr.DeviceWrites {
			d.flags = dirToPeer
		}
		nd++
		if pull && r.dirs[i] == mr.DeviceWrites {
			h.flags |= flagPull // the length only
			continue
		}
		g, err := cs.c.granter.Start(ctx, k.conn, r.bufs[i], r.dirs[i])
		if err != nil {
			cs.undo(r, grants[:i])
			cs.finish(k)
			return nil, cs.whyNot(err)
		}
		grants[i] = g
		d.Remote = g.Remote()
	}
	if dl, ok := ctx.Deadline(); ok {
		left := time.Until(dl)
		if left <= 0 {
			cs.undo(r, grants[:r.n])
			cs.finish(k)
			return nil, context.DeadlineExceeded
		}
		h.deadline = uint32(min(left.Microseconds()+1, math.MaxUint32))
	}
	var token []byte
	if r.idempotent {
		h.flags |= flagIdempotent
		token = r.token[:]
		if replay {
			h.flags |= flagReplay
		}
	}
	if err := cs.send(ctx, k.conn, &h, descs[:nd], token, r.body, 0); err != nil {
		cs.undo(r, grants[:r.n])
		cs.finish(k)
		return nil, cs.whyNot(err)
	}
	select {
	case <-k.ready:
	case <-ctx.Done():
		cs.cancel(k, grants[:r.n])
		return nil, ctx.Err()
	case <-cs.done:
		select {
		case <-k.ready:
		default:
			cs.undo(r, grants[:r.n])
			cs.finish(k)
			return nil, &lostError{sent: true, cause: cs.err()}
		}
	}
	return cs.answer(ctx, k, r, grants[:r.n])
}

// whyNot turns a failure of the session into a *lostError.
func (cs *clientSession) whyNot(err error) error {
	var end *qp.EndError
	if errors.As(err, &end) {
		return &lostError{cause: err}
	}
	select {
	case <-cs.done:
		return &lostError{cause: cs.err()}
	default:
		return err
	}
}

// undo takes grants back from a request that will not be answered, so that it can
// be sent again: it waits until the memory is safe.
func (cs *clientSession) undo(r *request, grants []*mr.Grant) {
	for i, g := range grants {
		if g == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		b, err := g.Revoke(ctx)
		cancel()
		if err != nil {
			cs.cfg.Logger.Warn("rpc: memory of a call is not back yet", "peer", cs.peer, "err", err)
			continue
		}
		r.bufs[i] = b
	}
}

// cancel gives a call up. The wait has ended; the memory stays until the peer says
// that it is done with it or, after the grace, until the right was taken away.
func (cs *clientSession) cancel(k *call, grants []*mr.Grant) {
	cs.c.stats.cancelled.Add(1)
	cs.tell(k.conn, &header{typ: msgCancel, id: k.id})
	held := false
	for _, g := range grants {
		held = held || g != nil
	}
	if !held {
		cs.finish(k)
		select {
		case <-k.ready:
			_ = k.buf.Release()
		default:
		}
		return
	}
	cs.c.wg.Add(1)
	go func() {
		defer cs.c.wg.Done()
		grace := time.NewTimer(cs.cfg.Grace)
		defer grace.Stop()
		select {
		case <-k.ready:
			_ = k.buf.Release()
			cs.c.stats.fencedByAck.Add(1)
		case <-grace.C:
			cs.c.stats.fencedHard.Add(1)
		case <-cs.done:
		}
		cs.finish(k)
		select {
		case <-k.ready:
			_ = k.buf.Release()
		default:
		}
		for _, g := range grants {
			if g == nil {
				continue
			}
			g.Invalidated(&k.wc.WC)
			ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
			b, err := g.Revoke(ctx)
			stop()
			if err == nil {
				_ = b.Release()
			}
		}
	}()
}

// answer makes a Reply of a response.
func (cs *clientSession) answer(ctx context.Context, k *call, r *request, grants []*mr.Grant) (*Reply, error) {
	rep := &Reply{Body: k.msg.body, msg: k.buf, n: r.n}
	var lost error
	for i, g := range grants {
		if g == nil {
			continue
		}
		g.Invalidated(&k.wc.WC)
		b, err := g.Revoke(ctx)
		if err != nil {
			lost = err
			continue
		}
		rep.bufs[i], r.bufs[i] = b, mr.Buf{}
	}
	if k.msg.flags&flagError == 0 && lost == nil {
		lost = cs.collect(ctx, k, r, rep)
	}
	cs.finish(k)
	if k.msg.flags&flagError != 0 {
		err := &Error{Code: Code(k.msg.method), Method: r.method, Message: string(k.msg.body)}
		rep.Release()
		return nil, err
	}
	if lost != nil {
		rep.Release()
		return nil, cs.whyNot(lost)
	}
	return rep, nil
}

// collect reads what the server offers, in Pull mode, and tells it so.
func (cs *clientSession) collect(ctx context.Context, k *call, r *request, rep *Reply) error {
	offer := 0
	for i := range r.n {
		if !rep.bufs[i].IsZero() {
			continue
		}
		b := r.bufs[i]
		if r.dirs[i] != mr.DeviceWrites || k.msg.flags&flagPull == 0 || offer >= int(k.msg.header.descs) {
			rep.bufs[i], r.bufs[i] = b, mr.Buf{}
			continue
		}
		d := k.msg.desc(offer)
		offer++
		if d.Len > uint32(b.Len()) {
			return &Error{Code: Internal, Method: r.method, Message: fmt.Sprintf("the server offers %d bytes for a buffer of %d", d.Len, b.Len())}
		}
		if d.Len > 0 {
			part, err := b.Narrow(0, int(d.Len))
			if err != nil {
				return err
			}
			if b, err = k.conn.Read(ctx, part, d.Remote); err != nil {
				if !b.IsZero() {
					r.bufs[i] = b
				}
				return err
			}
		}
		rep.bufs[i], r.bufs[i] = b, mr.Buf{}
	}
	if offer > 0 {
		cs.tell(k.conn, &header{typ: msgBulkDone, id: k.id})
	}
	return nil
}
