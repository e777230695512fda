package mr

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// waiter stands in the pool's line for a slot of class c, or a larger one.
type waiter struct {
	c    *class
	n    uint32
	done chan struct{} // closed once buf or err is set
	buf  Buf
	err  error
}

func (w *waiter) fail(err error) {
	w.err = err
	close(w.done)
}

// getSlow joins the line, serves it, registers memory if that helps, and waits
// if it may.
func (p *Pool) getSlow(ctx context.Context, c *class, n int, wait bool) (Buf, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return Buf{}, ErrClosed
	}
	w := &waiter{c: c, n: uint32(n), done: make(chan struct{})}
	p.line = append(p.line, w)
	p.waiting.Add(1)
	c.waiting.Add(1)
	p.serve()
	// A fresh chunk serves anyone, so this also ends the waits of those who found
	// somebody growing and left it to him.
	for len(p.line) > 0 && !p.growing && p.roomToGrow() && time.Since(p.growErrAt) > growRetry {
		if p.grow() != nil {
			break
		}
	}
	for !wait && !w.served() && p.growing { // or the first of a crowd gets memory, and nobody else
		grown := p.grown
		p.mu.Unlock()
		<-grown
		p.mu.Lock()
	}
	if !w.served() && p.registered == 0 && p.growErr != nil && !p.growing {
		p.leave(w)
		w.fail(p.growErr)
	}
	if !w.served() {
		c.waits++
	}
	p.mu.Unlock()

	if wait {
		select {
		case <-w.done:
			return w.buf, w.err
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.served() { // meanwhile: then it is taken, for it would be lost else
		return w.buf, w.err
	}
	p.leave(w)
	p.serve() // it may have stood in somebody's way
	cause := ErrExhausted
	if wait {
		cause = ctx.Err()
	}
	return Buf{}, p.exhausted(n, cause)
}

func (w *waiter) served() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// leave takes w out of the line. mu is held.
func (p *Pool) leave(w *waiter) {
	if i := slices.Index(p.line, w); i >= 0 {
		p.line = slices.Delete(p.line, i, i+1)
		p.waiting.Add(-1)
		w.c.waiting.Add(-1)
	}
}

// serve gives slots to the waiters in the order of their arrival. One that
// cannot be served does not hold up those of other classes behind it, but
// everyone of its own. mu is held.
func (p *Pool) serve() {
	if len(p.line) == 0 {
		return
	}
	stuck := make([]bool, len(p.classes))
	for i := 0; i < len(p.line); {
		w := p.line[i]
		if stuck[w.c.index] {
			i++
			continue
		}
		s, from := p.find(w.c)
		if s == nil {
			stuck[w.c.index] = true
			i++
			continue
		}
		if from != w.c {
			from.borrowed++
		}
		p.leave(w)
		w.buf = from.out(s, w.n)
		close(w.done)
	}
}

// find looks for a slot for c: its own, one of a fresh chunk, one of a chunk
// that another class does not need, one of a larger class. mu is held.
func (p *Pool) find(c *class) (*slot, *class) {
	for {
		if s := c.pop(); s != nil {
			return s, c
		}
		k := p.spareChunk(c)
		if k == nil {
			break
		}
		c.add(k)
	}
	for _, l := range p.classes[c.index+1:] {
		if s := l.pop(); s != nil {
			return s, l
		}
	}
	return nil, nil
}

// spareChunk is a chunk for c. Others are asked for theirs only when the pool
// cannot grow. mu is held.
func (p *Pool) spareChunk(c *class) *chunk {
	if n := len(p.free); n > 0 {
		k := p.free[n-1]
		p.free = p.free[:n-1]
		return k
	}
	// After a growth that failed there may be nobody to try again: who waits already
	// does not.
	if p.roomToGrow() && p.growErr == nil {
		return nil
	}
	if wait := time.Until(p.searchAt); wait > 0 {
		if !p.searchLater {
			p.searchLater = true
			time.AfterFunc(wait, p.searchAgain)
		}
		return nil
	}
	p.searchAt = time.Now().Add(searchEvery)
	for _, o := range p.classes {
		if o != c && len(o.chunks) > 0 && o.waiting.Load() == 0 {
			if k := o.giveUp(); k != nil {
				p.searchAt = time.Time{}
				return k
			}
		}
	}
	return nil
}

// searchEvery bounds the time that a pool spends on looking for chunks that a
// class does not need: it looks at every free slot.
const searchEvery = time.Millisecond

// searchAgain serves those whose search was put off.
func (p *Pool) searchAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.searchLater = false
	p.serve()
}

func (p *Pool) roomToGrow() bool { return p.registered+int64(p.chunk) <= p.cfg.Limit }

// grow registers one more region and serves the line. When memory is short it
// tries smaller ones. mu is held, and given up while the kernel works; growing
// keeps others from doing the same.
func (p *Pool) grow() error {
	if p.growing {
		return nil
	}
	p.growing, p.grown = true, make(chan struct{})
	size := int(min(int64(p.cfg.RegionSize), p.cfg.Limit-p.registered)) / p.chunk * p.chunk
	p.mu.Unlock()
	var r *Region
	var err error
	for {
		r, err = Alloc(size, p.cfg.Memory, p.domains...)
		if err == nil || size <= p.chunk || !errors.Is(err, syscall.ENOMEM) {
			break
		}
		size = max(size/2/p.chunk*p.chunk, p.chunk)
	}
	p.mu.Lock()
	p.growing = false
	close(p.grown)
	if err == nil && p.closed {
		return errors.Join(ErrClosed, r.Close())
	}
	if err != nil {
		p.growErr, p.growErrAt = err, time.Now()
		p.growFails++
		if p.registered == 0 { // nothing will ever be released to them
			for _, w := range slices.Clone(p.line) {
				p.leave(w)
				w.fail(err)
			}
		}
		p.serve()
		return err
	}
	p.growErr, p.growErrAt = nil, time.Time{}
	p.regions = append(p.regions, r)
	p.registered += int64(r.size)
	for off := int(r.size)/p.chunk*p.chunk - p.chunk; off >= 0; off -= p.chunk {
		p.free = append(p.free, &chunk{reg: r, off: uint64(off)})
	}
	p.serve()
	return nil
}

// exhausted says where the memory is. mu is held.
func (p *Pool) exhausted(n int, cause error) error {
	var b strings.Builder
	for _, c := range p.classes {
		if c.slots > 0 {
			fmt.Fprintf(&b, ", %d of %d buffers of %d bytes are out", c.slots-c.idle(), c.slots, c.size)
		}
	}
	if q := p.acct.quarantined.Load(); q > 0 {
		fmt.Fprintf(&b, ", %d in quarantine", q)
	}
	if l := p.acct.leaked.Load(); l > 0 {
		fmt.Fprintf(&b, ", %d leaked", l)
	}
	e := fmt.Errorf("mr: waiting for a buffer of %d bytes: %d bytes of at most %d are registered%s: %w", n, p.registered, p.cfg.Limit, b.String(), cause)
	if p.growErr != nil {
		e = fmt.Errorf("%w (growing failed: %v)", e, p.growErr)
	}
	return e
}
