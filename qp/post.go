package qp

import (
	"context"
	"fmt"
	"runtime"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

type flight = mr.Flight

// pending is an operation posted and not completed.
type pending struct {
	kind     Kind
	probe    bool // of control
	signaled bool
	size     uint32     // bytes, of Data or the buffers
	bytes    uint32     // of the buffers
	grant    uint32     // credits it carries
	unbinds  verbs.RKey // by LOCAL_INV
	token    uint64
	done     func(Result)
	call     *call       // a synchronous caller, or nil
	control  func(error) // of PostControl, or nil
	flights  []flight
}

// Post posts operations in order, with one doorbell, waiting for room in the send
// queue and for credits of the peer if it must. All that can be wrong with them
// is checked before anything is posted; then either all are posted or, when the
// device refuses one, those before it are and the error says how many.
//
// Ops that were not posted leave their Bufs with the caller. The order of
// operations of different callers is not fixed, that of one batch is.
//
// Verb: ibv_post_send(3).
func (c *Conn) Post(ctx context.Context, ops ...Op) error {
	return c.post(ctx, ops, nil, true)
}

// TryPost is Post that does not wait: ErrQueueFull, with nothing posted.
func (c *Conn) TryPost(ops ...Op) error {
	return c.post(context.Background(), ops, nil, false)
}

// MaxBatch is how many messages one batch may hold: half of the peer's receives,
// for it does not tell of every single one that it posts again.
func (c *Conn) MaxBatch() int {
	if c.credits == nil {
		return c.cfg.SendDepth
	}
	return max(c.peer.credits/2, 1)
}

func (c *Conn) post(ctx context.Context, ops []Op, call *call, wait bool) error {
	if len(ops) == 0 {
		return nil
	}
	if len(ops) > c.cfg.SendDepth {
		return fmt.Errorf("qp: a batch of %d operations; Config.SendDepth is %d", len(ops), c.cfg.SendDepth)
	}
	messages := 0
	for i := range ops {
		if err := ops[i].check(c); err != nil {
			return at(i, len(ops), err)
		}
		if ops[i].Kind.takesReceive() {
			messages++
		}
	}
	if c.credits == nil {
		messages = 0
	} else if limit := c.MaxBatch(); messages > limit {
		return fmt.Errorf("qp: a batch of %d messages; this peer takes %d at a time (half of its Config.RecvDepth)", messages, limit)
	}
	// Credits first: who waits for the peer must not hold places that others could use.
	if messages > 0 {
		if err := acquire(ctx, c.credits, messages, wait); err != nil {
			return err
		}
	}
	if err := acquire(ctx, c.slots, len(ops), wait); err != nil {
		if messages > 0 {
			c.credits.give(messages)
		}
		return err
	}
	n, err := c.enqueue(ops, call)
	if rest := ops[n:]; len(rest) > 0 {
		c.slots.give(len(rest))
		if c.credits != nil {
			k := 0
			for i := range rest {
				if rest[i].Kind.takesReceive() {
					k++
				}
			}
			c.credits.give(k)
		}
	}
	return err
}

func at(i, n int, err error) error {
	if n == 1 {
		return err
	}
	return fmt.Errorf("qp: operation %d of %d: %w", i, n, err)
}

func acquire(ctx context.Context, s *slots, n int, wait bool) error {
	if wait {
		return s.take(ctx, n)
	}
	ok, err := s.tryTake(n)
	if err == nil && !ok {
		err = fmt.Errorf("qp: %w", ErrQueueFull)
	}
	return err
}

// enqueue takes the buffers and posts; it returns how many were posted.
func (c *Conn) enqueue(ops []Op, call *call) (int, error) {
	q := &c.send
	q.Lock()
	defer q.Unlock()
	if q.down {
		return 0, c.Err()
	}
	join := len(ops) == 1 && ops[0].Join && ops[0].Done == nil && call == nil
	for i := range ops {
		if err := c.prepare(&ops[i], call, i == len(ops)-1 && !join); err != nil {
			c.undo(i)
			return 0, at(i, len(ops), err)
		}
	}
	if join {
		if c.join() {
			return 1, nil
		}
		c.signalLast()
	}
	n, err := c.submit(len(ops))
	if err != nil {
		return n, at(n, len(ops), fmt.Errorf("qp: %d of %d operations were posted: %w", n, len(ops), err))
	}
	return n, nil
}

const (
	// joinMost is how many operations wait for their doorbell at most, joinFor how
	// many ns: then the next that comes rings it.
	joinMost = 32
	joinFor  = 100_000
)

// join leaves the doorbell of the operation just prepared to somebody else, or
// rings it after those who are about to post have done so: callers woken by one
// batch of completions come in a row. false: it is to be rung now. The lock of the
// send queue is held, but not while others have their turn.
func (c *Conn) join() bool {
	q := &c.send
	switch n := len(q.wr); {
	case n >= joinMost, q.joining && n%4 == 0 && c.dev.now()-q.joinAt >= joinFor: // a look at the clock is dear
		q.joinAt = c.dev.now()
		return false
	case q.joining:
		return true
	}
	q.joining, q.joinAt = true, c.dev.now()
	q.Unlock()
	runtime.Gosched()
	q.Lock()
	q.joining = false
	c.ring()
	return true
}

// ring rings the doorbell for what waits for it. The lock of the send queue is held.
func (c *Conn) ring() {
	if len(c.send.wr) > 0 {
		c.signalLast()
		_, _ = c.submit(0) // an error is the connection's end
	}
}

// signalLast makes the last operation that waits for the doorbell tell of all
// before it.
func (c *Conn) signalLast() {
	q := &c.send
	w := &q.wr[len(q.wr)-1]
	w.Flags |= verbs.SendSignaled
	q.ring[w.ID%uint64(len(q.ring))].signaled = true
	q.quiet = 0
}

// prepare takes the buffers of an operation and builds its work request, behind
// those that wait for the doorbell.
func (c *Conn) prepare(o *Op, call *call, last bool) error {
	q := &c.send
	p := &q.ring[q.tail%uint64(len(q.ring))]
	fl, err := mr.TakeAll(p.flights[:0], o.direction(), o.Bufs...)
	if err != nil {
		return err
	}
	*p = pending{kind: o.Kind, size: uint32(len(o.Data)), token: o.Token, done: o.Done, call: call, flights: fl}
	from := len(q.sge)
	for i := range fl {
		s, err := fl[i].SGE(c.qp.PD())
		if err != nil {
			for j := range fl {
				fl[j].Undo()
			}
			p.flights = p.flights[:0]
			return err
		}
		q.sge = append(q.sge, s)
		p.bytes += s.Length
		p.size += s.Length
	}
	data := o.Data
	if (o.Join || c.dev.repeats) && len(data) > 0 { // the caller's again before the doorbell
		at := len(q.data)
		q.data = append(q.data, data...)
		data = q.data[at:]
	}
	w := q.extend()
	w.SGList, w.Inline, w.RemoteAddr, w.RKey = q.sge[from:], data, o.Remote.Addr, o.Remote.RKey
	if o.Fence {
		w.Flags |= verbs.SendFence
	}
	if o.Solicited {
		w.Flags |= verbs.SendSolicited
	}
	switch o.Kind {
	case Send:
		w.RemoteAddr, w.RKey = 0, 0
		w.Opcode = verbs.WRSend
		switch {
		case o.Invalidate != 0:
			w.Opcode, w.InvalidateRKey = verbs.WRSendWithInv, o.Invalidate
		case o.HasImm:
			w.Opcode, w.Imm = verbs.WRSendWithImm, o.Imm
		case c.flow:
			if p.grant = c.in.takeGrant(); p.grant > 0 {
				w.Opcode, w.Imm = verbs.WRSendWithImm, p.grant
			}
		}
	case Write:
		w.Opcode = verbs.WRRDMAWrite
	case WriteImm:
		w.Opcode, w.Imm = verbs.WRRDMAWriteWithImm, o.Imm
	case Read:
		w.Opcode = verbs.WRRDMARead
	case CompareAndSwap:
		w.Opcode, w.CompareAdd, w.Swap = verbs.WRAtomicCmpAndSwp, o.Compare, o.Swap
	case FetchAdd:
		w.Opcode, w.CompareAdd = verbs.WRAtomicFetchAndAdd, o.Add
	}
	// One completion a batch tells of all before it. A long run without one would
	// fill the queue with work that is done but not known to be.
	q.quiet++
	if last || q.quiet >= c.signalEvery() {
		w.Flags |= verbs.SendSignaled
		p.signaled = true
		q.quiet = 0
	}
	q.bytes += uint64(p.bytes)
	q.tail++
	return nil
}

// extend makes room for the next work request, behind those that wait for the
// doorbell; to count it is the caller's.
func (q *sendQueue) extend() *verbs.SendWR {
	q.wr = append(q.wr, verbs.SendWR{})
	w := &q.wr[len(q.wr)-1]
	w.ID = q.tail
	return w
}

// add puts a work request without buffers behind those that wait for the doorbell.
func (q *sendQueue) add(w verbs.SendWR) {
	q.wr = append(q.wr, w)
	q.tail++
}

func (c *Conn) signalEvery() int { return max(c.cfg.SendDepth/4, 1) }

// submit rings the doorbell for what was prepared; the last mine of it are the
// caller's, who gets to know how many of those were posted. Those of others that
// the device refuses end the connection, and with it.
// What is held counts as posted, as in Op.Join.
func (c *Conn) submit(mine int) (int, error) {
	q := &c.send
	if c.held() {
		return mine, nil
	}
	want, first := len(q.wr), q.wr[0].ID
	n, err := c.qp.PostSend(q.wr)
	if q.binds > 0 {
		for i := range q.wr[:n] {
			if w := &q.wr[i]; w.Opcode == verbs.WRBindMW {
				w.BindMW.SetRKey(w.RKey) // libibverbs leaves it to the poster
			}
		}
	}
	c.stats.doorbells.Add(1)
	c.stats.posted.Add(uint64(n))
	if n > 0 && q.head == first {
		c.waits.Store(c.dev.now())
	}
	if refused := want - n; refused > 0 {
		if n > 0 && q.wr[n-1].Flags&verbs.SendSignaled == 0 {
			// The one that would have told of these was refused.
			q.quiet = c.signalEvery()
		}
		back := min(refused, mine)
		c.undo(back)
		if refused > back {
			// Their callers were told that they are posted: they complete, as flushed,
			// when the queue pair is gone. Nothing may come behind them.
			q.down = true
			go c.end(fmt.Errorf("qp: the device refused an operation: %w", err))
		}
		mine -= back
	} else {
		err = nil // all are in the device's hands, whatever it says
	}
	q.wr, q.sge, q.data, q.binds = q.wr[:0], q.sge[:0], q.data[:0], 0
	return mine, err
}

// undo takes back the last n operations, which were not posted.
func (c *Conn) undo(n int) {
	q := &c.send
	for range n {
		q.tail--
		q.wr = q.wr[:len(q.wr)-1]
		p := &q.ring[q.tail%uint64(len(q.ring))]
		for _, f := range p.flights {
			f.Undo()
		}
		q.bytes -= uint64(p.bytes)
		c.in.returnGrant(p.grant)
		*p = pending{flights: p.flights[:0]}
	}
}

// sendControl posts a control message with the credits that are owed, in a place
// kept for it. It is called under the send queue's lock.
func (c *Conn) sendControl(probe bool) {
	q := &c.send
	if q.down || q.controls >= 2 || probe && q.probing {
		return
	}
	grant := c.in.takeGrant()
	if grant == 0 && !probe {
		return
	}
	p := &q.ring[q.tail%uint64(len(q.ring))]
	*p = pending{kind: control, flights: p.flights[:0], grant: grant, probe: probe, signaled: true}
	body := [controlSize]byte{controlCredit}
	if probe {
		body[0] = controlProbe
	}
	at := len(q.data)
	q.data = append(q.data, body[:]...)
	q.quiet = 0
	q.add(verbs.SendWR{ID: q.tail, Opcode: verbs.WRSendWithImm, Flags: verbs.SendSignaled, Imm: immControl | grant, Inline: q.data[at:]})
	q.controls++
	q.probing = q.probing || probe
	if n, err := c.submit(1); n == 0 {
		q.controls--
		if probe {
			q.probing = false
		}
		c.log.Debug("qp: control message not posted", "peer", c.name, "err", err)
	}
}

// Immediates of messages between two Conns: the credits granted in the lower 16
// bits, and what kind of message it is.
const (
	immControl = 1 << 31
	immGrant   = 1<<16 - 1

	controlCredit = 1
	controlProbe  = 2
)
