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
	n := uint64(len(q.ring))
	q.Lock()
	// Completions come in order, and one that is good speaks for all before it;
	// what fails always has one of its own.
	from, to := q.head, min(wc.WRID+1, q.tail)
	places := 0
	for i := from; i < to; i++ {
		p := &q.ring[i%n]
		if p.kind == control {
			q.controls--
			q.probing = q.probing && !p.probe
		} else {
			places++
		}
		q.bytes -= uint64(p.bytes)
	}
	q.head = max(from, to)
	if len(q.wr) > 0 && !q.joining && !c.held() {
		c.ring() // it was held
	}
	if q.head == q.tail {
		c.waits.Store(0)
	} else {
		c.waits.Store(c.dev.now())
	}
	q.Unlock()
	// Places first: a callback may want to post. The ring is twice as long as what
	// can be under way, so nobody gets the places in it that are told of below.
	c.slots.give(places)
	for i := from; i < to; i++ {
		var e error
		if i == wc.WRID {
			e = err
		}
		c.finish(&q.ring[i%n], e)
	}
}

func (c *Conn) endCause(ce *verbs.CompletionError) error {
	if ce.Status == verbs.WCRetryExcErr {
		return c.noAnswer(ce)
	}
	return ce
}

// finish tells the owner of an operation how it ended and gives its buffers back. It
// leaves nothing in p but the memory of its flights.
func (c *Conn) finish(p *pending, err error) {
	c.stats.completed.Add(1)
	if g := c.cfg.OnComplete; g != nil && p.kind <= FetchAdd {
		g(c, p.kind, int(p.size), err)
	}
	switch {
	case p.call != nil:
		p.call.finish(p.flights, err)
	case p.control != nil:
		if err == nil && p.unbinds != 0 {
			c.Unbound(p.unbinds) // first: then it may be bound elsewhere
		}
		p.control(err)
	case p.done != nil:
		// One slice for all callbacks: they run one after the other.
		bufs := c.given[:0]
		for _, x := range p.flights {
			bufs = append(bufs, x.Complete())
		}
		p.done(Result{Conn: c, Kind: p.kind, Token: p.token, Err: err, Bufs: bufs})
		clear(bufs)
		c.given = bufs
	default:
		for _, x := range p.flights {
			x.Release()
		}
	}
	clear(p.flights)
	p.flights, p.call, p.control, p.done = p.flights[:0], nil, nil, nil
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
		*p = pending{}
	}
	q.Unlock()
	for i := range left {
		op(&left[i])
	}
	if c.recv.own {
		c.recv.drop(recv)
	}
}

// leakAll tells the owner, but no buffer is given back: the device may still use it.
func (c *Conn) leakAll(p *pending, why string) {
	for _, f := range p.flights {
		f.Leak(why)
	}
	p.flights = nil
	c.finish(p, c.Err())
}
