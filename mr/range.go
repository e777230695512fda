package mr

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
)

// Buf hands out n bytes at off of the region, for regions that are not a pool's:
// file mappings and memory of the caller. In a region that can be written a
// range is handed out once at a time, and ErrInUse tells of an overlap; read-only
// ranges may overlap. n is below 4 GiB.
func (r *Region) Buf(off uint64, n int) (Buf, error) {
	size, err := clip(n)
	if err != nil {
		return Buf{}, err
	}
	if off > r.size || uint64(n) > r.size-off {
		return Buf{}, fmt.Errorf("mr: bytes [%d, %d+%d) of a region of %d: %w", off, off, n, r.size, syscall.ERANGE)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != regionOpen {
		return Buf{}, ErrClosed
	}
	i, _ := slices.BinarySearchFunc(r.held, off, func(s *slot, off uint64) int {
		if s.off < off {
			return -1
		}
		return 1
	})
	if !r.readOnly {
		if i > 0 && r.held[i-1].off+uint64(r.held[i-1].size) > off {
			return Buf{}, r.taken(r.held[i-1], off, n)
		}
		if i < len(r.held) && r.held[i].off < off+uint64(n) {
			return Buf{}, r.taken(r.held[i], off, n)
		}
	}
	var s *slot
	if k := len(r.spare); k > 0 {
		s, r.spare = r.spare[k-1], r.spare[:k-1]
	} else {
		s = &slot{}
		s.init((*loose)(r), &r.acct, r, 0, 0)
	}
	s.place(off, size)
	r.held = slices.Insert(r.held, i, s)
	r.live++
	return s.handOut(size), nil
}

// place moves a slot that nobody holds. Stale Bufs never look at its memory, for
// their words do not fit.
func (s *slot) place(off uint64, size uint32) {
	s.off, s.size, s.first.n = off, size, size
	if s.reg.mem != nil {
		s.mem = s.reg.mem[off : off+uint64(size) : off+uint64(size)]
	}
}

func (r *Region) taken(s *slot, off uint64, n int) error {
	e := fmt.Errorf("mr: bytes [%d, %d) of the region: %w: [%d, %d) is out", off, off+uint64(n), ErrInUse, s.off, s.off+uint64(s.size))
	if t := s.trace.Load(); t != nil {
		e = fmt.Errorf("%w, acquired at\n%s", e, stack(t.acquired[:t.na]))
	}
	return e
}

// loose is a region as the owner of slots that Region.Buf made.
type loose Region

func (l *loose) put(s *slot) {
	r := (*Region)(l)
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.held, s); i >= 0 {
		r.held = slices.Delete(r.held, i, i+1)
	}
	r.live--
	r.spare = append(r.spare, s)
}

// whoHolds lists where the Bufs that are out were acquired, with tracing on. r.mu is held.
func (r *Region) whoHolds() string {
	var b strings.Builder
	for _, s := range r.held {
		if t := s.trace.Load(); t != nil {
			fmt.Fprintf(&b, "\n%d bytes acquired at\n%s", s.size, stack(t.acquired[:t.na]))
		}
	}
	return b.String()
}
