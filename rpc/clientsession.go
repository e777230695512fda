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
	ready    chan struct{} // one token: msg is there
	msg      message
	wc       qp.Message // msg lies in its Buf
	answered bool       // guarded by clientSession.mu; msg, wc and lost are then fixed
	lost     bool       // there is no msg: the session ended
}

func newClientSession(c *Client, gen uint32) *clientSession {
	s := newSession(&c.cfg, c.d, c.addr)
	s.epoch, s.copied = gen, &c.stats.copied
	s.local = hello{major: major, minor: minor, bootID: c.bootID, epoch: gen, slot: uint32(c.cfg.SlotSize), calls: uint32(c.cfg.MaxCalls)}
	_, _ = rand.Read(s.local.nonce[:])
	cs := &clientSession{session: s, c: c}
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
func (cs *clientSession) begin(ctx context.Context, conn *qp.Conn) (*call, error) {
	cs.mu.Lock()
	for {
		if cs.over || cs.away {
			cs.mu.Unlock()
			return nil, &lostError{cause: errGoAway}
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
			k.msg, k.wc, k.conn, k.lost = message{}, qp.Message{}, conn, false
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
		// before it are there.
		if k == nil || k.conn != m.Conn || msg.epoch != s.epoch || k.answered {
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
	go func() {
		defer cs.c.wg.Done()
		s.close()
		cs.idle.remove()
	}()
}

// do does a call on the session. Buffers that were granted are not the request's
// any more when it fails, but for a *lostError without memory.
func (cs *clientSession) do(ctx context.Context, r *request, replay bool) (*Reply, error) {
	rail, conn := -1, cs.ctl // fixed since the handshake
	if r.n > 0 || r.order != 0 {
		// Calls of one order key go one way, with bulk data or without.
		n := uint32(len(cs.data))
		if r.order != 0 {
			rail = int(r.order % n)
		} else {
			rail = int(cs.next.Add(1) % n)
		}
		conn = cs.data[rail]
	}
	k, err := cs.begin(ctx, conn)
	if err != nil {
		return nil, err
	}
	r.trace.mark(queued)
	var gs [2]*mr.Grant
	grants := gs[:r.n]
	if err := cs.request(ctx, k, r, grants, rail, replay); err != nil {
		memory := cs.reclaim(ctx, r, grants, true)
		cs.finish(k)
		err = cs.whyNot(err)
		var lost *lostError
		if errors.As(err, &lost) {
			lost.memory = memory
		}
		return nil, err
	}
	r.trace.mark(posted)
	if done := ctx.Done(); done == nil {
		<-k.ready
	} else {
		select {
		case <-k.ready:
		case <-done:
			cs.cancel(k, gs)
			return nil, ctx.Err()
		}
	}
	if k.lost {
		memory := cs.reclaim(ctx, r, grants, r.idempotent)
		cs.finish(k)
		return nil, &lostError{sent: true, memory: memory, cause: cs.err()}
	}
	r.trace.mark(received)
	return cs.answer(ctx, k, r, grants)
}

// request exposes the memory of a call and sends it. After an error it was not sent.
func (cs *clientSession) request(ctx context.Context, k *call, r *request, grants []*mr.Grant, rail int, replay bool) error {
	var descs [2]desc
	h := header{typ: msgRequest, method: MethodID(r.method), id: k.id, order: r.order}
	for i := range r.n {
		d := &descs[i]
		d.rail, d.flags, d.Len = uint16(rail), dirFrom, uint32(r.bufs[i].Len())
		if r.dirs[i] == mr.DeviceWrites {
			d.flags = dirToPeer
			if cs.cfg.Bulk == Pull {
				h.flags |= flagPull // the length only
				continue
			}
		}
		g, err := cs.c.granter.Start(ctx, k.conn, r.bufs[i], r.dirs[i])
		if err != nil {
			return err
		}
		grants[i] = g
		d.Remote = g.Remote()
	}
	if dl, ok := ctx.Deadline(); ok {
		left := time.Until(dl)
		if left <= 0 {
			return context.DeadlineExceeded
		}
		h.deadline = uint32(min(left.Microseconds()+1, math.MaxUint32))
	}
	p := parts{descs: descs[:r.n], body: r.body, stream: r.stream, offset: r.offset, join: cs.busy.Load() > 1}
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
	return cs.send(ctx, k.conn, &h, p)
}

// whyNot turns a failure of the session, before a call was sent, into a *lostError.
func (cs *clientSession) whyNot(err error) error {
	var end *qp.EndError
	if errors.As(err, &end) {
		cs.session.end(err) // the queue pair tells of its end later: nobody should try it again until then
		return &lostError{cause: err}
	}
	select {
	case <-cs.done:
		return &lostError{cause: cs.err()}
	default:
		return err
	}
}

// reclaim takes grants back from a request that will not be answered. With again
// it waits until the memory is safe, so that the request can be sent once more;
// without, or when ctx ends, the memory goes back to its pool by itself.
func (cs *clientSession) reclaim(ctx context.Context, r *request, grants []*mr.Grant, again bool) (lost error) {
	for i, g := range grants {
		if g == nil {
			continue
		}
		grants[i] = nil
		if !again {
			g.Abandon()
			lost = errAbandoned
			continue
		}
		wait, cancel := context.WithTimeout(ctx, 2*time.Second)
		b, err := g.Revoke(wait)
		cancel()
		if err != nil {
			lost = err
			continue
		}
		r.bufs[i] = b
	}
	return lost
}

var errAbandoned = errors.New("rpc: the call was given up")

// cancel gives a call up. The wait has ended; the memory stays until the peer says
// that it is done with it or, after the grace, until the right was taken away.
func (cs *clientSession) cancel(k *call, grants [2]*mr.Grant) {
	cs.c.stats.cancelled.Add(1)
	cs.tell(k.conn, &header{typ: msgCancel, id: k.id}, nil)
	if grants[0] == nil && grants[1] == nil {
		cs.finish(k)
		return
	}
	cs.c.wg.Add(1) // Close cannot be past its wait: the call is inside the gate
	go func() {
		defer cs.c.wg.Done()
		grace := time.NewTimer(cs.cfg.Grace)
		defer grace.Stop()
		select {
		case <-k.ready:
			k.drop()
			if !k.lost {
				cs.c.stats.fencedByAck.Add(1)
			}
		case <-grace.C:
			cs.c.stats.fencedHard.Add(1)
		}
		cs.mu.Lock()
		wc := k.wc.WC
		cs.mu.Unlock()
		for _, g := range grants {
			if g != nil {
				g.Invalidated(&wc)
			}
		}
		// The place stays taken until the memory is back: it is what bounds the
		// fences that a flood of cancellations can have under way.
		for _, g := range grants {
			if g == nil {
				continue
			}
			ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
			b, err := g.Revoke(ctx)
			stop()
			if err == nil {
				_ = b.Release()
			}
		}
		cs.finish(k)
	}()
}

// answer makes a Reply of a response.
func (cs *clientSession) answer(ctx context.Context, k *call, r *request, grants []*mr.Grant) (*Reply, error) {
	failed := k.msg.flags&flagError != 0 || k.msg.typ != msgResponse
	rep, _ := cs.c.replies.Get().(*Reply)
	if rep == nil {
		rep = new(Reply)
	}
	*rep = Reply{Body: k.msg.body, Pushed: int(k.msg.order), c: cs.c, msg: k.wc.Buf, n: r.n}
	var lost error
	for i, g := range grants {
		if g == nil {
			continue
		}
		grants[i] = nil
		r.bufs[i] = mr.Buf{}
		g.Invalidated(&k.wc.WC)
		b, err := g.Finish(ctx) // the answer says that the server is done
		if err != nil {
			lost = err
			continue
		}
		rep.bufs[i] = b
		g.Recycle()
	}
	if k.msg.typ == msgResponse && k.msg.flags&flagPull != 0 && k.msg.header.descs > 0 {
		if lost == nil && !failed {
			lost = cs.collect(ctx, k, r, rep)
		}
		// Behind the reads, also behind one that was given up and goes on.
		cs.tellAfter(k.conn, &header{typ: msgBulkDone, id: k.id}, nil, true)
	}
	if failed {
		err := &Error{Code: Code(k.msg.method), Method: r.method, Message: string(k.msg.body), Refused: k.msg.flags&flagRefused != 0}
		if err.Code == OK || k.msg.typ != msgResponse {
			err.Code = Unknown
		}
		cs.finish(k)
		rep.Release()
		return nil, err
	}
	cs.finish(k)
	if lost != nil {
		rep.Release()
		var said *Error
		switch {
		case errors.As(lost, &said):
		case ctx.Err() != nil:
			lost = ctx.Err()
		default: // the answer, or memory of it, is lost, for instance with the connection
			lost = fmt.Errorf("%w: %w", ErrIndeterminate, lost)
		}
		return nil, lost
	}
	for i := range r.n {
		if rep.bufs[i].IsZero() { // not granted: Pull mode
			rep.bufs[i], r.bufs[i] = r.bufs[i], mr.Buf{}
		}
	}
	return rep, nil
}

// collect reads what the server offers, in Pull mode.
func (cs *clientSession) collect(ctx context.Context, k *call, r *request, rep *Reply) error {
	for i := range r.n {
		if r.dirs[i] != mr.DeviceWrites || !rep.bufs[i].IsZero() {
			continue
		}
		d := k.msg.desc(0)
		b := r.bufs[i]
		part, err := b.Narrow(0, int(min(d.Len, math.MaxInt32)))
		if err != nil {
			return &Error{Code: Internal, Method: r.method, Message: fmt.Sprintf("the server offers %d bytes for a buffer of %d", d.Len, b.Len())}
		}
		if d.Len == 0 {
			return nil
		}
		rep.Pushed = int(d.Len)
		r.bufs[i] = mr.Buf{}
		b, err = k.conn.Read(ctx, part, d.Remote)
		rep.bufs[i] = b
		return err
	}
	return nil
}
