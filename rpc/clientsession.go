package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// clientSession is the client's half of a session: the calls that wait.
type clientSession struct {
	*session
	c    *Client
	next atomic.Uint32 // data queue pairs take turns
	busy atomic.Int32  // used, for who does not hold mu
	look chan struct{} // a token: keepRails has something to do
	idle idleEntry     // among those that may be closed when memory is short

	mu    sync.Mutex
	slots []callSlot // guarded by mu, as all below
	free  []uint32
	wait  []chan struct{}
	over  bool
	used  int
	away  bool // the server drains, or memory is short: no new calls
}

type callSlot struct {
	gen  uint32
	busy bool
	call *call // made once, used again by every call in this place
}

// call waits for an answer.
type call struct {
	id       uint64
	conn     *qp.Conn
	rail     *rail
	anywhere bool          // CANCEL went over another rail, and so may its acknowledgement; guarded by clientSession.mu
	ready    chan struct{} // one token: msg is there
	msg      message
	wc       qp.Message // msg lies in its Buf
	answered bool       // guarded by clientSession.mu; msg, wc and lost are then fixed
	lost     bool       // there is no msg: the session, or the rail, ended
}

func newClientSession(c *Client, gen uint32, first int, addr string) *clientSession {
	s := newSession(&c.cfg, c.nics, first, addr)
	s.epoch, s.copied = gen, &c.stats.copied
	s.local = hello{major: major, minor: minor, bootID: c.bootID, epoch: gen, slot: uint32(c.cfg.SlotSize), calls: uint32(c.cfg.MaxCalls)}
	if n := len(c.nics); n > 1 {
		s.local.rails, s.local.first = uint16(n), uint16(first)
	}
	_, _ = rand.Read(s.local.nonce[:])
	cs := &clientSession{session: s, c: c, look: make(chan struct{}, 1)}
	s.owner = cs
	c.wg.Add(1) // until closed; the dial that makes it holds one too
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

// usable reports a session that takes calls.
func (cs *clientSession) usable() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	select {
	case <-cs.done:
		return false
	default:
		return !cs.over && !cs.away
	}
}

// begin takes a place for a call, waiting for one.
func (cs *clientSession) begin(ctx context.Context, p path) (*call, error) {
	cs.mu.Lock()
	for {
		if cs.over || cs.away {
			cs.mu.Unlock()
			return nil, &lostError{cause: errGoAway}
		}
		if p.rail.over() { // railLost has looked for its calls, or does when this one has a place
			cs.mu.Unlock()
			return nil, &lostError{cause: p.rail.why}
		}
		if n := len(cs.free); n > 0 {
			i := cs.free[n-1]
			cs.free = cs.free[:n-1]
			s := &cs.slots[i]
			if s.call == nil {
				s.call = &call{ready: make(chan struct{}, 1)}
			}
			s.gen++
			s.busy = true
			k := s.call
			k.id, k.answered = uint64(s.gen)<<32|uint64(i), false
			k.msg, k.wc, k.conn, k.rail, k.anywhere, k.lost = message{}, qp.Message{}, p.conn, p.rail, false, false
			cs.used++
			cs.busy.Store(int32(cs.used))
			cs.mu.Unlock()
			return k, nil
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
					return nil, ctx.Err()
				}
			}
			cs.wake() // it was this one's turn: the next
			cs.mu.Unlock()
			return nil, ctx.Err()
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

// finish frees the place of a call: an answer that comes later finds nothing, one
// that came and was not taken is released. k is another call's afterwards.
func (cs *clientSession) finish(k *call) {
	cs.mu.Lock()
	select {
	case <-k.ready:
		k.drop()
	default:
	}
	i := uint32(k.id)
	cs.slots[i].busy = false
	cs.free = append(cs.free, i)
	cs.used--
	cs.busy.Store(int32(cs.used))
	cs.wake()
	last := cs.used == 0 && cs.away
	idle := cs.used == 0
	cs.mu.Unlock()
	if idle {
		cs.idle.touch()
	}
	if last {
		cs.session.end(errGoAway)
	}
}

// drop releases an answer that nobody takes.
func (k *call) drop() {
	if !k.lost {
		_ = k.wc.Buf.Release()
	}
}

// take takes what the server sends, in an engine's goroutine.
func (cs *clientSession) take(s *session, m qp.Message, msg message) {
	switch msg.typ {
	case msgResponse, msgCancelAck:
		i := uint32(msg.id)
		cs.mu.Lock()
		var k *call
		if int(i) < len(cs.slots) && cs.slots[i].busy && uint64(cs.slots[i].gen)<<32|uint64(i) == msg.id {
			k = cs.slots[i].call
		}
		// Only on the queue pair of the call does an answer prove that the writes
		// before it are there; an acknowledgement comes when they have completed.
		if k == nil || k.conn != m.Conn && !(k.anywhere && msg.typ == msgCancelAck) || msg.epoch != s.epoch || k.answered {
			cs.mu.Unlock()
			_ = m.Buf.Release()
			cs.c.stats.late.Add(1)
			return
		}
		k.msg, k.wc, k.answered = msg, m, true
		k.ready <- struct{}{}
		cs.mu.Unlock()
	case msgGoAway:
		_ = m.Buf.Release()
		cs.retire(false)
	default:
		_ = m.Buf.Release()
		s.end(fmt.Errorf("rpc: %v from the server %s", msg.typ, s.peerName()))
	}
}

// retire lets the calls under way end, and then the session; with ifIdle only a
// session without any. It reports whether the session ends now.
func (cs *clientSession) retire(ifIdle bool) bool {
	cs.mu.Lock()
	idle := cs.used == 0
	if ifIdle && (!idle || len(cs.wait) > 0 || cs.over) {
		cs.mu.Unlock()
		return false
	}
	cs.away = true
	for len(cs.wait) > 0 {
		cs.wake()
	}
	cs.mu.Unlock()
	cs.c.lose(cs)
	if idle {
		cs.session.end(errGoAway)
	}
	return idle
}

// gone hears that the session ended.
func (cs *clientSession) gone(s *session, _ error) {
	cs.mu.Lock()
	cs.over = true
	for len(cs.wait) > 0 {
		cs.wake()
	}
	for i := range cs.slots {
		if k := cs.slots[i].call; cs.slots[i].busy && !k.answered {
			k.answered, k.lost = true, true
			k.ready <- struct{}{}
		}
	}
	cs.mu.Unlock()
	cs.c.lose(cs)
	cs.railsOver()
	go func() {
		defer cs.c.wg.Done()
		s.close()
		cs.idle.remove()
	}()
}

// do does a call on the session. Buffers that were granted are not the request's
// any more when it fails, but for a *lostError without memory.
func (cs *clientSession) do(ctx context.Context, r *request, replay bool) (*Reply, error) {
	t := cs.rails.Load()
	p := t.eager
	if r.order != 0 {
		// Calls of one order key go one way, with bulk data or without.
		p = t.ordered(r.order)
	} else if r.n > 0 {
		p = t.paths[cs.next.Add(1)%uint32(len(t.paths))]
	}
	k, err := cs.begin(ctx, p)
	if err != nil {
		return nil, err
	}
	r.trace.mark(queued)
	var few [2]piece
	ps, err := cs.request(ctx, k, r, t, p, few[:0], replay)
	if err != nil {
		memory := cs.reclaim(ctx, r, ps, true)
		cs.finish(k)
		err = cs.whyNot(p.conn, err)
		var lost *lostError
		if errors.As(err, &lost) {
			lost.memory = memory
		}
		return nil, err
	}
	p.rail.count(r)
	r.trace.mark(posted)
	if done := ctx.Done(); done == nil {
		<-k.ready
	} else {
		select {
		case <-k.ready:
		case <-done:
			cs.cancel(k, ps)
			return nil, ctx.Err()
		}
	}
	if k.lost {
		return nil, cs.orphaned(ctx, k, r, ps)
	}
	r.trace.mark(received)
	return cs.answer(ctx, k, r, ps)
}

// request exposes the memory of a call and sends it. After an error it was not sent.
func (cs *clientSession) request(ctx context.Context, k *call, r *request, t *railSet, home path, ps []piece, replay bool) ([]piece, error) {
	var few [2]desc
	ds := few[:0]
	h := header{typ: msgRequest, method: MethodID(r.method), id: k.id, order: r.order}
	for i := range r.n {
		if r.dirs[i] == mr.DeviceWrites {
			switch cs.mode(r, home.rail.nic, r.bufs[i].Len()) {
			case Pull:
				h.flags |= flagPull // the length only
				ds = append(ds, desc{Remote: mr.Remote{Len: uint32(r.bufs[i].Len())}, rail: home.num, flags: dirToPeer})
				continue
			case Auto:
				h.flags |= flagPull // with a window too: as the server can
			}
		}
		var err error
		if ps, ds, err = cs.show(ctx, r, i, t, home, ps, ds); err != nil {
			return ps, err
		}
	}
	if len(ps) > r.n {
		if err := bound(ctx, ps, home.conn); err != nil {
			return ps, err
		}
	}
	if dl, ok := ctx.Deadline(); ok {
		left := time.Until(dl)
		if left <= 0 {
			return ps, context.DeadlineExceeded
		}
		// More than 71 minutes do not fit: the server has none then, and CANCEL tells it.
		if us := left.Microseconds() + 1; us <= math.MaxUint32 {
			h.deadline = uint32(us)
		}
	}
	p := parts{descs: ds, body: r.body, stream: r.stream, offset: r.offset, join: cs.busy.Load() > 1}
	if r.stream {
		h.flags |= flagStream
	}
	if r.more {
		h.flags |= flagMore
	}
	if r.idempotent {
		h.flags |= flagIdempotent
		p.token = r.token[:]
		if replay {
			h.flags |= flagReplay
		}
	}
	return ps, cs.send(ctx, k.conn, &h, p)
}

// whyNot turns a failure of the session, or of a rail, before a call was sent into
// a *lostError.
func (cs *clientSession) whyNot(c *qp.Conn, err error) error {
	var end *qp.EndError
	if errors.As(err, &end) {
		if c.Err() != nil {
			cs.lost(c, err) // the queue pair tells of its end later: nobody should try it again until then
		}
		return &lostError{cause: err}
	}
	select {
	case <-cs.done:
		return &lostError{cause: cs.err()}
	default:
		return err
	}
}

// answer makes a Reply of a response.
func (cs *clientSession) answer(ctx context.Context, k *call, r *request, ps []piece) (*Reply, error) {
	failed := k.msg.flags&flagError != 0 || k.msg.typ != msgResponse
	lost := cs.regain(ctx, k, r, ps) // the answer says that the server is done
	pushed, room := int(k.msg.order), r.outLen()
	if k.msg.typ == msgResponse && k.msg.flags&flagPull != 0 && k.msg.header.descs > 0 {
		if lost == nil && !failed {
			var end int
			end, lost = cs.collect(ctx, k, r)
			pushed = max(pushed, end)
		}
		// Behind the reads, also behind one that was given up and goes on.
		cs.tellAfter(k.conn, &header{typ: msgBulkDone, id: k.id}, nil, true)
	}
	if lost == nil && !failed && pushed > room {
		lost = &Error{Code: Internal, Method: r.method, Message: fmt.Sprintf("the server says that it put %d bytes into a buffer of %d", pushed, room)}
	}
	if failed {
		err := cs.failure(k, r, ps)
		_ = k.wc.Buf.Release()
		cs.finish(k)
		return nil, err
	}
	if lost != nil {
		_ = k.wc.Buf.Release()
		cs.finish(k)
		var said *Error
		var rail *lostError
		switch {
		case errors.As(lost, &said), errors.As(lost, &rail):
		case ctx.Err() != nil:
			lost = ctx.Err()
		default: // the answer, or memory of it, is lost, for instance with the connection
			lost = fmt.Errorf("%w: %w", ErrIndeterminate, lost)
		}
		return nil, lost
	}
	rep, _ := cs.c.replies.Get().(*Reply)
	if rep == nil {
		rep = new(Reply)
	}
	*rep = Reply{Body: k.msg.body, Pushed: pushed, c: cs.c, msg: k.wc.Buf, n: r.n, bufs: r.bufs}
	r.bufs = [2]mr.Buf{}
	cs.finish(k)
	return rep, nil
}

// failure is the error that a response says. One for a rail that was lost makes
// the call like one whose own rail was.
func (cs *clientSession) failure(k *call, r *request, ps []piece) error {
	err := &Error{Code: Code(k.msg.method), Method: r.method, Message: string(k.msg.body), Refused: k.msg.flags&flagRefused != 0}
	if err.Code == OK || k.msg.typ != msgResponse {
		err.Code = Unknown
	}
	if k.msg.typ != msgResponse || k.msg.flags&flagRail == 0 || !cs.multi() {
		return err
	}
	for i := range ps {
		if uint32(ps[i].rail.place) == k.msg.order && !ps[i].rail.over() {
			cs.lose(ps[i].rail, err, true)
		}
	}
	return &lostError{sent: !err.Refused, cause: err}
}
