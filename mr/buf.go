package mr

import "unsafe"

// Buf is the right to touch a piece of registered memory. It is a value: copies
// are the same right. The zero Buf is the right to nothing.
type Buf struct {
	h      *holder
	word   uint64 // of h, while this is the right to it
	off, n uint32 // in the slot
}

// Len is the length in bytes, also of a Buf that has moved.
func (b Buf) Len() int { return int(b.n) }

// IsZero reports the zero Buf.
func (b Buf) IsZero() bool { return b.h == nil }

// Region is the region the memory is part of, nil for the zero Buf.
func (b Buf) Region() *Region {
	if b.h == nil {
		return nil
	}
	return b.h.slot.reg
}

// Bytes is the memory. It fails with ErrMoved when b is no longer the right to
// it, or while another slice of the same bytes is in flight. The slice must not
// be used after b was posted or released. It is nil, without an error, for
// memory that the CPU has no address of (a dma-buf).
func (b Buf) Bytes() ([]byte, error) {
	if b.h == nil || b.h.word.Load() != b.word {
		if err := b.checkSlow("Bytes"); err != nil {
			return nil, err
		}
	}
	s := b.h.slot
	if s.mem == nil {
		return nil, nil
	}
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(s.mem)), b.off)), int(b.n)), nil
}

// Err is nil while b is the right to its memory, else what Bytes returns.
func (b Buf) Err() error {
	if b.h == nil || b.h.word.Load() != b.word {
		return b.checkSlow("Err")
	}
	return nil
}

// checkSlow tells a shared Buf from one that has moved.
func (b Buf) checkSlow(op string) error {
	if b.h == nil {
		return &MisuseError{Op: op, Kind: ZeroBuf}
	}
	if b.h.word.Load() != b.word|sharedBit {
		return misuse(b.h, op, b.word)
	}
	s := b.h.slot
	if s.flights.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case b.h.word.Load() != b.word|sharedBit:
		return misuse(b.h, op, b.word)
	case s.overlapped(b.h, b.off, b.n, DeviceWrites):
		return newMisuse(s, op, Overlap)
	}
	return nil
}

// Narrow is the same right seen through a smaller view: bytes [lo, hi) of b. It
// is not counted: b and what Narrow returns are posted or released once.
func (b Buf) Narrow(lo, hi int) (Buf, error) {
	if lo < 0 || hi < lo || uint64(hi) > uint64(b.n) {
		return Buf{}, &MisuseError{Op: "Narrow", Kind: OutsideRange}
	}
	b.off, b.n = b.off+uint32(lo), uint32(hi-lo)
	return b, nil
}

// Whole undoes Narrow: the same right with all the memory that belongs to it,
// which for a Buf of a pool is the size of its class.
func (b Buf) Whole() Buf {
	if b.h != nil && b.Err() == nil {
		b.off, b.n = b.h.off, b.h.n
	}
	return b
}

// Slice adds a holder of bytes [lo, hi) of b: a right of its own, which is
// posted and released apart from b. The memory goes back when both are gone.
// While one of two slices that overlap is in flight the other has no Bytes; both
// may be in flight only if the device reads both.
func (b Buf) Slice(lo, hi int) (Buf, error) {
	if b.h == nil {
		return Buf{}, &MisuseError{Op: "Slice", Kind: ZeroBuf}
	}
	if lo < 0 || hi < lo || uint64(hi) > uint64(b.n) {
		return Buf{}, newMisuse(b.h.slot, "Slice", OutsideRange)
	}
	return b.h.slot.share(b, b.off+uint32(lo), uint32(hi-lo))
}

// Release gives the right up. The memory goes back to its pool when no other
// holder is left. A second Release is ErrMoved, and so is that of a Buf in
// flight: its operation will release it, or return a new Buf.
func (b Buf) Release() error {
	h := b.h
	if h == nil {
		return &MisuseError{Op: "Release", Kind: ZeroBuf}
	}
	if h.word.CompareAndSwap(b.word, b.word+genStep) {
		h.slot.back()
		return nil
	}
	s := h.slot
	s.mu.Lock()
	if h.word.Load() != b.word|sharedBit {
		s.mu.Unlock()
		return misuse(h, "Release", b.word)
	}
	last := s.drop(h, b.word|sharedBit)
	if last {
		s.unshare()
	}
	s.mu.Unlock()
	if last {
		s.back()
	}
	return nil
}

// unshare makes a slot without holders one that can be handed out again. s.mu is held.
func (s *slot) unshare() {
	s.first.word.Store(s.first.word.Load() &^ sharedBit)
	for _, x := range s.extra {
		x.word.Store(x.word.Load() &^ sharedBit)
	}
}
