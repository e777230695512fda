package qp

import (
	"context"
	"fmt"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

type flight = mr.Flight

// pending is an operation posted and not completed.
type pending struct {
	kind     Kind
	size     uint32 // bytes, of Data or the buffers
	token    uint64
	done     func(Result)
	call     *call       // a synchronous caller, or nil
	control  func(error) // of PostControl, or nil
	unbinds  verbs.RKey  // by LOCAL_INV
	flights  []flight
	grant    int // credits it carries
	bytes    uint64
	probe    bool // of control
	signaled bool
}

// finished is an operation taken from the ring, to be told to its owner once the
// ring's lock is free.
type finished struct {
	pending
	err error
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
	q.wr, q.sge = q.wr[:0], q.sge[:0]
	for i := range ops {
		if err := c.prepare(&ops[i], call, i == len(ops)-1); err != nil {
			c.undo(q.tail, i)
			return 0, at(i, len(ops), err)
		}
	}
	n, err := c.submit()
	if err != nil {
		return n, at(n, len(ops), fmt.Errorf("qp: %d of %d operations were posted: %w", n, len(ops), err))
	}
	return n, nil
}

// prepare takes the buffers of an operation and builds its work request, behind
// those built before.
func (c *Conn) prepare(o *Op, call *call, last bool) error {
	q := &c.send
	p := &q.ring[(q.tail+uint64(len(q.wr)))%uint64(len(q.ring))]
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
		p.bytes += uint64(s.Length)
		p.size += s.Length
	}
	w := verbs.SendWR{ID: q.tail + uint64(len(q.wr)), SGList: q.sge[from:], Inline: o.Data, RemoteAddr: o.Remote.Addr, RKey: o.Remote.RKey}
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
				w.Opcode, w.Imm = verbs.WRSendWithImm, uint32(p.grant)
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
	q.wr = append(q.wr, w)
	return nil
}

func (c *Conn) signalEvery() int { return max(c.cfg.SendDepth/4, 1) }

// submit rings the doorbell for what was prepared.
func (c *Conn) submit() (int, error) {
	q := &c.send
	want := len(q.wr)
	n, err := c.qp.PostSend(q.wr)
	c.stats.doorbells.Add(1)
	c.stats.posted.Add(uint64(n))
	if n < want {
		c.undo(q.tail+uint64(n), want-n)
		if n > 0 && q.wr[n-1].Flags&verbs.SendSignaled == 0 {
			// The one that would have told of these was refused.
			q.quiet = c.signalEvery()
		}
	} else {
		err = nil // all are in the device's hands, whatever it says
	}
	if n > 0 && q.head == q.tail {
		c.waits.Store(c.dev.now())
	}
	for i := range n {
		q.bytes += q.ring[(q.tail+uint64(i))%uint64(len(q.ring))].bytes
	}
	q.tail += uint64(n)
	return n, err
}

// undo takes back n operations from number from on, that were not posted.
func (c *Conn) undo(from uint64, n int) {
	for i := range n {
		p := &c.send.ring[(from+uint64(i))%uint64(len(c.send.ring))]
		for _, f := range p.flights {
			f.Undo()
		}
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
	body := &q.control // copied by the post
	body[0] = controlCredit
	if probe {
		body[0] = controlProbe
	}
	q.quiet = 0
	q.wr = append(q.wr[:0], verbs.SendWR{ID: q.tail, Opcode: verbs.WRSendWithImm, Flags: verbs.SendSignaled, Imm: immControl | uint32(grant), Inline: body[:]})
	q.controls++
	q.probing = q.probing || probe
	if n, err := c.submit(); n == 0 {
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
