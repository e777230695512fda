package mr

import (
	"bytes"
	"log/slog"
	"slices"
	"sync/atomic"
)

// class is the slots of one size. The free ones are a stack that is pushed and
// popped without a lock; head carries the number of pops beside the index of the
// top, so that a slot that was popped and pushed meanwhile is noticed. (Pushes
// need not be counted: a top comes back only after a pop.)
type class struct {
	pool   *Pool
	index  int
	size   uint32 // bytes of a buffer
	stride int
	guard  int

	head    atomic.Uint64           // pops<<indexBits | index+1 of the top slot, 0 for none
	table   atomic.Pointer[[]*slot] // never changed in place; nil entries were taken away
	waiting atomic.Int32            // of this class in the pool's line

	// guarded by pool.mu
	slots    int      // entries of table that are not nil
	chunks   []*chunk // what it was given
	holes    []uint32 // nil entries of table
	unpopped uint64   // pops that were no Get
	waits    uint64
	borrowed uint64 // slots handed out for requests of a smaller class
}

// chunk is a piece of a region as it is given to one class.
type chunk struct {
	reg   *Region
	off   uint64
	slots []*slot
}

const (
	indexBits = 24
	indexMask = 1<<indexBits - 1
)

func newClass(p *Pool, index, size int) *class {
	c := &class{pool: p, index: index, size: uint32(size)}
	c.stride, c.guard = p.cfg.stride(size)
	c.table.Store(&[]*slot{})
	return c
}

func (c *class) pop() *slot {
	for {
		h := c.head.Load()
		i := h & indexMask
		if i == 0 {
			return nil
		}
		t := *c.table.Load()
		if int(i) > len(t) {
			continue
		}
		s := t[i-1]
		if s == nil {
			continue // taken away since head was read
		}
		if c.head.CompareAndSwap(h, h&^indexMask+1<<indexBits|uint64(s.next.Load())) {
			return s
		}
	}
}

func (c *class) push(s *slot) {
	for {
		h := c.head.Load()
		s.next.Store(uint32(h & indexMask))
		if c.head.CompareAndSwap(h, h&^indexMask|uint64(s.idx+1)) {
			return
		}
	}
}

// drain pops all that is free. pool.mu is held.
func (c *class) drain() []*slot {
	var out []*slot
	for s := c.pop(); s != nil; s = c.pop() {
		out = append(out, s)
	}
	c.unpopped += uint64(len(out))
	return out
}

// gets is how many slots were handed out, modulo 2^40. pool.mu is held.
func (c *class) gets() uint64 {
	return (c.head.Load()>>indexBits - c.unpopped) & (1<<(64-indexBits) - 1)
}

// out makes the Buf of a slot that was popped.
func (c *class) out(s *slot, n uint32) Buf {
	if scrubs {
		c.lookTouched(s)
	}
	return s.handOut(n)
}

// put takes a slot back: it is a slot's owner.
func (c *class) put(s *slot) {
	p := c.pool
	if c.guard != 0 {
		c.lookGuards(s)
	}
	if scrubs {
		scrub(s)
	}
	c.push(s)
	// Whoever joined the line before this load is served here; whoever joins
	// after it looks at the stack once more and finds the slot.
	if p.waiting.Load() > 0 {
		p.mu.Lock()
		p.serve()
		p.mu.Unlock()
	}
}

// add cuts a chunk into slots. pool.mu is held.
func (c *class) add(k *chunk) {
	t := slices.Clone(*c.table.Load())
	for off := 0; off+c.stride <= c.pool.chunk; off += c.stride {
		s := &slot{}
		s.init(c, &c.pool.acct, k.reg, k.off+uint64(off+c.guard), c.size)
		if n := len(c.holes); n > 0 {
			s.idx, c.holes = c.holes[n-1], c.holes[:n-1]
			t[s.idx] = s
		} else {
			s.idx = uint32(len(t))
			t = append(t, s)
		}
		k.slots = append(k.slots, s)
	}
	c.table.Store(&t)
	c.slots += len(k.slots)
	c.chunks = append(c.chunks, k)
	for _, s := range slices.Backward(k.slots) { // the lowest address on top
		if c.guard != 0 {
			c.setGuards(s)
		}
		if scrubs {
			scrub(s)
		}
		c.push(s)
	}
}

// giveUp takes a chunk away from the class all of whose slots are free, if there
// is one. It takes time for each free slot. pool.mu is held.
func (c *class) giveUp() *chunk {
	free := map[*slot]bool{}
	for _, s := range c.drain() {
		free[s] = true
	}
	whole := func(k *chunk) bool { return !slices.ContainsFunc(k.slots, func(s *slot) bool { return !free[s] }) }
	i := slices.IndexFunc(c.chunks, whole)
	var k *chunk
	if i >= 0 {
		k = c.chunks[i]
		c.chunks = slices.Delete(c.chunks, i, i+1)
		t := slices.Clone(*c.table.Load())
		for _, s := range k.slots {
			t[s.idx] = nil
			c.holes = append(c.holes, s.idx)
			delete(free, s)
		}
		c.table.Store(&t)
		c.slots -= len(k.slots)
		k.slots = nil
	}
	for s := range free {
		c.push(s)
	}
	return k
}

// idle is about how many slots are free: others pop and push meanwhile. It takes
// time for each. pool.mu is held.
func (c *class) idle() int {
	t := *c.table.Load()
	n := 0
	for i := c.head.Load() & indexMask; i != 0 && n < c.slots && int(i) <= len(t) && t[i-1] != nil; n++ {
		i = uint64(t[i-1].next.Load())
	}
	return n
}

const canary = 0xA5

// guards are the bytes before and behind a slot, behind it from its last byte on.
func (c *class) guards(s *slot) (before, behind []byte) {
	m := s.reg.mem
	at := int(s.off)
	return m[at-c.guard : at], m[at+int(s.size) : at+c.stride-c.guard]
}

func (c *class) setGuards(s *slot) {
	a, b := c.guards(s)
	for _, g := range [][]byte{a, b} {
		for i := range g {
			g[i] = canary
		}
	}
}

// lookGuards reports bytes around the slot that have changed, and mends them.
func (c *class) lookGuards(s *slot) {
	a, b := c.guards(s)
	nb, na := len(a)-bytes.Count(a, []byte{canary}), len(b)-bytes.Count(b, []byte{canary})
	if nb > 0 {
		c.damage(s, "bytes were written outside a buffer", "before", nb)
	}
	if na > 0 {
		c.damage(s, "bytes were written outside a buffer", "behind", na)
	}
	if nb+na > 0 {
		c.setGuards(s)
	}
}

func (c *class) damage(s *slot, what string, args ...any) {
	c.pool.damaged.Add(1)
	args = append(args, "class", c.size)
	if t := s.trace.Load(); t != nil {
		args = append(args, "acquired", stack(t.acquired[:t.na]), "moved", stack(t.moved[:t.nm]))
	}
	slog.Error("mr: "+what, args...)
}

// lookTouched reports a write into memory that nobody held.
func (c *class) lookTouched(s *slot) {
	if i := touched(s); i >= 0 {
		c.damage(s, "memory was written after it was released", "offset", i)
	}
}
