package mr

import (
	"sync"
	"sync/atomic"
	"time"
)

// The word of a holder is its generation times genStep plus flags. A Buf holds
// the word it was made with, a Flight the word it flies under; both without
// sharedBit. The generation grows with every change of hands, in 62 bits, so a
// word never comes back and a stale Buf never fits. (Undo is the exception: it
// puts back the word of a Buf that the device never saw.)
const (
	flyingBit = 1 // the device owns it
	sharedBit = 2 // the slot has, or had since it was handed out, more than one holder
	genStep   = 4
)

// holder is one right to a part of a slot. It belongs to its slot for good.
//
// While sharedBit is not set it is the slot's only holder and its word changes
// by compare-and-swap, without a lock. Setting the bit is such a swap too, so it
// cannot race with a take or a release. With the bit set every change is made
// under the slot's mutex; the bit is cleared when the slot is handed back.
type holder struct {
	word   atomic.Uint64
	slot   *slot
	off, n uint32 // its extent in the slot; changes only while it is not live

	// guarded by slot.mu; used only while shared
	live      bool
	foff, fn  uint32 // what flies
	direction Direction
	leaked    bool
}

// slot is a piece of a region that is handed out as one.
type slot struct {
	first holder
	owner owner
	acct  *account
	reg   *Region
	mem   []byte // nil for memory that the CPU has no address of
	off   uint64 // of the slot in the region
	size  uint32
	idx   uint32        // in the table of its class
	next  atomic.Uint32 // in the free list: index + 1

	trace   atomic.Pointer[trace]
	flights atomic.Int32 // flying holders, counted only while shared
	lost    atomic.Bool  // a flight over it was leaked

	mu    sync.Mutex
	refs  int       // guarded by mu: live holders, while shared
	extra []*holder // guarded by mu: holders beside the first; never shrinks
}

// owner is where a slot goes back to.
type owner interface{ put(*slot) }

// account counts what happened to the slots of one pool, cache or region.
type account struct {
	misuse          atomic.Uint64
	quarantined     atomic.Int64 // now
	quarantinedEver atomic.Uint64
	quarantineBytes atomic.Int64
	leaked          atomic.Int64
	leakedBytes     atomic.Int64

	settled func(time.Duration, func()) // nil: the package's; tests with a clock of their own
}

func (a *account) settle(d time.Duration, f func()) {
	if a.settled != nil {
		a.settled(d, f)
		return
	}
	settled(d, f)
}

func (s *slot) init(o owner, a *account, r *Region, off uint64, size uint32) {
	s.owner, s.acct, s.reg, s.off, s.size = o, a, r, off, size
	if r.mem != nil {
		s.mem = r.mem[off : off+uint64(size) : off+uint64(size)]
	}
	s.first.slot, s.first.n = s, size
	s.first.word.Store(genStep)
}

// handOut makes the only Buf of a slot that nobody holds.
func (s *slot) handOut(n uint32) Buf {
	if tracing.Load() {
		s.traceAcquired()
	} else if s.trace.Load() != nil {
		s.trace.Store(nil) // of an earlier holder
	}
	return Buf{h: &s.first, word: s.first.word.Load(), n: n}
}

// back hands the slot to its owner. No holder is left.
func (s *slot) back() {
	if tracing.Load() {
		s.traceMoved()
	}
	s.owner.put(s)
}

// share makes the slot of b a shared one and adds a holder of [off, off+n) of the slot.
func (s *slot) share(b Buf, off, n uint32) (Buf, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := b.h
	if w := h.word.Load(); w == b.word {
		if !h.word.CompareAndSwap(w, w|sharedBit) { // lost against a take or a release
			return Buf{}, misuse(h, "Slice", b.word)
		}
		// Unshared, so h is the first holder: the extra ones live only while shared.
		h.live = true
		s.refs = 1
	} else if w != b.word|sharedBit {
		return Buf{}, misuse(h, "Slice", b.word)
	}
	var x *holder
	for _, e := range s.extra {
		if !e.live {
			x = e
			break
		}
	}
	if x == nil {
		x = &holder{slot: s}
		x.word.Store(genStep)
		s.extra = append(s.extra, x)
	}
	x.live, x.off, x.n = true, off, n
	s.refs++
	w := x.word.Load() &^ sharedBit
	x.word.Store(w | sharedBit)
	return Buf{h: x, word: w, off: off, n: n}, nil
}

// each calls f for the live holders. s.mu is held.
func (s *slot) each(f func(*holder)) {
	if s.first.live {
		f(&s.first)
	}
	for _, x := range s.extra {
		if x.live {
			f(x)
		}
	}
}

// beyondUse reports a slot that nobody but the device can have: it was leaked,
// and no other holder is left.
func (s *slot) beyondUse() bool {
	if !s.lost.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first.word.Load()&sharedBit == 0 {
		return true
	}
	all := true
	s.each(func(h *holder) { all = all && h.leaked })
	return all
}

// overlapped reports a flight of another holder over [off, off+n) that does not
// go together with use d. s.mu is held.
func (s *slot) overlapped(h *holder, off, n uint32, d Direction) bool {
	hit := false
	s.each(func(o *holder) {
		if o == h || o.word.Load()&flyingBit == 0 {
			return
		}
		if d == DeviceReads && o.direction == DeviceReads {
			return
		}
		hit = hit || uint64(o.foff) < uint64(off)+uint64(n) && uint64(off) < uint64(o.foff)+uint64(o.fn)
	})
	return hit
}

// drop ends the right of h, whose word is w|sharedBit. s.mu is held; the caller
// calls back when last is true, without the lock.
func (s *slot) drop(h *holder, w uint64) (last bool) {
	if w&flyingBit != 0 {
		s.flights.Add(-1)
	}
	h.word.Store((w &^ flyingBit) + genStep)
	h.live = false
	s.refs--
	return s.refs == 0
}
