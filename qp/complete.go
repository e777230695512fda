package qp

import (
	"github.com/zrdma/zrdma/verbs"
)

// recvBit marks the WR IDs of receives: the opcode of a failed completion says
// nothing.
const recvBit = 1 << 63

// complete takes a completion, in the engine's goroutine.
func (c *Conn) complete(wc *verbs.WC) {
	if wc.WRID&recvBit != 0 {
		c.received(wc)
		return
	}
	var err error
	if wc.Status != verbs.WCSuccess {
		c.stats.fail(wc.Status)
		ce := &verbs.CompletionError{Status: wc.Status, Opcode: wc.Opcode, WRID: wc.WRID, QPN: wc.QPN, VendorErr: wc.VendorErr}
		if wc.Status == verbs.WCWRFlushErr {
			c.end(errFlushed) // the first cause counts, if there was one
			err = c.Err()
		} else {
			err = ce
			defer c.end(c.endCause(ce))
		}
	}
	q := &c.send
	q.Lock()
	// Completions come in order, and one that is good speaks for all before it;
	// what fails always has one of its own.
	for q.head <= wc.WRID && q.head < q.tail {
		p := &q.ring[q.head%uint64(len(q.ring))]
		f := finished{pending: *p}
		if q.head == wc.WRID {
			f.err = err
		}
		if p.kind == control {
			q.controls--
			q.probing = q.probing && !p.probe
		}
		q.bytes -= p.bytes
		q.done = append(q.done, f)
		// The flights go along; the ring's place gets another slice for them.
		*p = pending{flights: c.spareFlights()}
		q.head++
	}
	if len(q.wr) > 0 && !q.joining && !c.held() {
		c.ring() // it was held
	}
	if q.head == q.tail {
		c.waits.Store(0)
	} else {
		c.waits.Store(c.dev.now())
	}
	done := q.done
	q.done = q.done[:0]
	q.Unlock()
	places := 0
	for i := range done {
		if done[i].kind != control {
			places++
		}
	}
	// Places first: a callback may want to post.
	c.slots.give(places)
	for i := range done {
		c.finish(&done[i])
		done[i] = finished{}
	}
}

func (c *Conn) endCause(ce *verbs.CompletionError) error {
	if ce.Status == verbs.WCRetryExcErr {
		return c.noAnswer(ce)
	}
	return ce
}

// finish tells the owner of an operation how it ended and gives its buffers back.
func (c *Conn) finish(f *finished) {
	c.stats.completed.Add(1)
	if g := c.cfg.OnComplete; g != nil && f.kind <= FetchAdd {
		g(c, f.kind, int(f.size), f.err)
	}
	switch {
	case f.call != nil:
		f.call.finish(f)
	case f.control != nil:
		if f.err == nil && f.unbinds != 0 {
			c.Unbound(f.unbinds) // first: then it may be bound elsewhere
		}
		f.control(f.err)
	case f.done != nil:
		// One slice for all callbacks: they run one after the other.
		bufs := c.given[:0]
		for _, x := range f.flights {
			bufs = append(bufs, x.Complete())
		}
		f.done(Result{Conn: c, Kind: f.kind, Token: f.token, Err: f.err, Bufs: bufs})
		clear(bufs)
		c.given = bufs
	default:
		for _, x := range f.flights {
			x.Release()
		}
	}
	c.keepFlights(f.flights)
}

// spareFlights and keepFlights recycle the slices of flights, so that posting
// allocates nothing. Both run in the engine's goroutine, or when it is past.
func (c *Conn) spareFlights() []flight {
	if n := len(c.send.spare); n > 0 {
		s := c.send.spare[n-1]
		c.send.spare = c.send.spare[:n-1]
		return s
	}
	return make([]flight, 0, c.cfg.MaxSGE)
}

func (c *Conn) keepFlights(s []flight) {
	clear(s)
	c.send.Lock()
	c.send.spare = append(c.send.spare, s[:0])
	c.send.Unlock()
}

// settle ends a batch of completions: receives are posted again, credits given.
func (c *Conn) settle() {
	c.heard.Store(c.dev.now())
	c.recv.top()
	if c.flow {
		c.giveCredits()
	}
	if c.cause.Load() != nil {
		select {
		case c.stir <- struct{}{}:
		default:
		}
	}
}

// abandon ends what never completed, when the queue pair is gone.
func (c *Conn) abandon(op func(*pending), recv func(flight)) {
	q := &c.send
	q.Lock()
	var left []pending
	for ; q.head < q.tail; q.head++ {
		p := &q.ring[q.head%uint64(len(q.ring))]
		left = append(left, *p)
		*p = pending{flights: make([]flight, 0, c.cfg.MaxSGE)}
	}
	q.Unlock()
	for i := range left {
		op(&left[i])
	}
	if c.recv.own {
		c.recv.drop(recv)
	}
}

func (c *Conn) finishAll(p *pending, err error) { c.finish(&finished{pending: *p, err: err}) }

// leakAll tells the owner, but no buffer is given back: the device may still use it.
func (c *Conn) leakAll(p *pending, why string) {
	for _, f := range p.flights {
		f.Leak(why)
	}
	p.flights = nil
	c.finish(&finished{pending: *p, err: c.Err()})
}
