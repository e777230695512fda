package mr

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// Direction is what the device does with memory in flight.
type Direction uint8

// Values of Direction.
const (
	// DeviceReads: SEND, RDMA WRITE, and memory that a peer may read.
	DeviceReads Direction = 1 + iota
	// DeviceWrites: RECV, RDMA READ, results of atomics, and memory that a peer may write.
	DeviceWrites
)

// String says who does what.
func (d Direction) String() string {
	switch d {
	case DeviceReads:
		return "the device reads"
	case DeviceWrites:
		return "the device writes"
	}
	return fmt.Sprintf("Direction(%d)", uint8(d))
}

// Flight is memory that the device owns: what Buf.Take yields. It is for those
// who post, and ends exactly once: by Complete, Release, Undo, Quarantine or
// Leak. A second end panics with a *MisuseError.
type Flight struct {
	h      *holder
	word   uint64
	off, n uint32
}

// Take gives the right to the device. Of several takers of one Buf exactly one
// wins; ErrMoved for the others, and when b overlaps what is in flight through
// another slice and one of the two is written.
func (b Buf) Take(d Direction) (Flight, error) {
	if b.h == nil {
		return Flight{}, &MisuseError{Op: "Take", Kind: ZeroBuf}
	}
	if d == DeviceWrites && b.h.slot.reg.readOnly {
		return Flight{}, errReadOnly
	}
	f := Flight{b.h, b.word + genStep | flyingBit, b.off, b.n}
	if b.h.word.CompareAndSwap(b.word, f.word) {
		if tracing.Load() {
			b.h.slot.traceMoved()
		}
		return f, nil
	}
	return b.takeShared(d, f)
}

func (b Buf) takeShared(d Direction, f Flight) (Flight, error) {
	h, s := b.h, b.h.slot
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.word.Load() != b.word|sharedBit {
		return Flight{}, misuse(h, "Take", b.word)
	}
	if s.overlapped(h, b.off, b.n, d) {
		return Flight{}, newMisuse(s, "Take", Overlap)
	}
	h.foff, h.fn, h.direction = b.off, b.n, d
	s.flights.Add(1)
	h.word.Store(f.word | sharedBit)
	return f, nil
}

// TakeAll takes all of bufs, or none, and appends their flights to dst. The
// error names the first that could not be taken by its index.
func TakeAll(dst []Flight, d Direction, bufs ...Buf) ([]Flight, error) {
	for i, b := range bufs {
		f, err := b.Take(d)
		if err != nil {
			for j := i - 1; j >= 0; j-- {
				dst[len(dst)-1].Undo()
				dst = dst[:len(dst)-1]
			}
			return dst, fmt.Errorf("buffer %d: %w", i, err)
		}
		dst = append(dst, f)
	}
	return dst, nil
}

// Len is the length in bytes.
func (f Flight) Len() int { return int(f.n) }

// IsZero reports the zero Flight.
func (f Flight) IsZero() bool { return f.h == nil }

// Region is the region the memory is part of.
func (f Flight) Region() *Region { return f.h.slot.reg }

// addr is the address of the first byte, as work requests in the domain of k use it.
func (f Flight) addr(k *key) uint64 { return k.base + f.h.slot.off + uint64(f.off) }

// SGE is the memory as an element of a work request for a queue pair of d.
// EINVAL when the region is not registered there.
func (f Flight) SGE(d *verbs.PD) (verbs.SGE, error) {
	k := f.h.slot.reg.key(d)
	if k == nil {
		return verbs.SGE{}, errForeign
	}
	return verbs.SGE{Addr: f.addr(k), Length: f.n, LKey: k.lkey}, nil
}

// Complete ends the flight when the device is done with the memory, whether the
// operation succeeded or not, and makes the Buf for whoever waited.
func (f Flight) Complete() Buf {
	w := (f.word &^ flyingBit) + genStep
	if f.h != nil && f.h.word.CompareAndSwap(f.word, w) {
		return Buf{f.h, w, f.off, f.n}
	}
	f.land("Complete", w)
	return Buf{f.h, w, f.off, f.n}
}

// Undo ends a flight that never began: the post was refused. The Buf that was
// taken is valid again. Only the taker may call it, before anybody else has seen
// the Flight.
func (f Flight) Undo() Buf {
	w := f.word&^flyingBit - genStep
	if f.h == nil || !f.h.word.CompareAndSwap(f.word, w) {
		f.land("Undo", w)
	}
	return Buf{f.h, w, f.off, f.n}
}

// land ends the flight of a shared holder: its word becomes w.
func (f Flight) land(op string, w uint64) {
	if f.h == nil {
		panic(&MisuseError{Op: op, Kind: ZeroBuf})
	}
	s := f.h.slot
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.h.word.Load() != f.word|sharedBit {
		panic(newMisuse(s, op, FlightEnded))
	}
	s.flights.Add(-1)
	f.h.word.Store(w | sharedBit)
}

// Release ends the flight when the device is done with the memory and nobody
// waits for it any more: it goes back to its pool.
func (f Flight) Release() {
	if f.h != nil && f.h.word.CompareAndSwap(f.word, (f.word&^flyingBit)+genStep) {
		f.h.slot.back()
		return
	}
	if f.Complete().Release() != nil {
		panic(newMisuse(f.h.slot, "Release", FlightEnded)) // nobody else has that Buf
	}
}

// handOver moves the flight to a word that only the result knows.
func (f Flight) handOver(op string) Flight {
	if f.h == nil {
		panic(&MisuseError{Op: op, Kind: ZeroBuf})
	}
	n := f
	n.word += genStep
	if f.h.word.CompareAndSwap(f.word, n.word) {
		return n
	}
	s := f.h.slot
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.h.word.Load() != f.word|sharedBit {
		panic(newMisuse(s, op, FlightEnded))
	}
	f.h.word.Store(n.word | sharedBit)
	return n
}

// Quarantine ends the flight for the poster, but keeps the memory for d more, and
// on Linux for a grace period of the kernel: the device was told to stop and may
// still be at it. Then it is released. d is DefaultQuarantine, of 0 is Release.
func (f Flight) Quarantine(d time.Duration) {
	if d <= 0 {
		f.Release()
		return
	}
	f = f.handOver("Quarantine")
	a, n := f.h.slot.acct, int64(f.n)
	a.quarantined.Add(1)
	a.quarantinedEver.Add(1)
	a.quarantineBytes.Add(n)
	a.settle(d, func() {
		a.quarantined.Add(-1)
		a.quarantineBytes.Add(-n)
		f.Release()
	})
}

// Leak ends the flight when nothing proves that the device will ever be done:
// the memory is not handed out again, it is counted in Stats and logged with
// why. Closing the pool deregisters its region, which is the proof, or fails.
func (f Flight) Leak(why string) {
	f = f.handOver("Leak")
	s := f.h.slot
	s.mu.Lock()
	f.h.leaked = true
	s.mu.Unlock()
	if !s.lost.Swap(true) {
		s.acct.leaked.Add(1)
		s.acct.leakedBytes.Add(int64(s.size))
	}
	slog.Error("mr: memory is leaked: nothing proves that the device will not touch it", "bytes", s.size, "why", why)
}

var errReadOnly = errors.New("mr: the device cannot write into a read-only region")

var errForeign = errors.New("mr: the region is not registered in this protection domain: name it when the region or pool is made, or use Region.AddDomain")

// clip is a length as it fits into a work request.
func clip(n int) (uint32, error) {
	if n < 0 || uint64(n) > math.MaxUint32 {
		return 0, fmt.Errorf("mr: a buffer has at most %d bytes, not %d", uint32(math.MaxUint32), n)
	}
	return uint32(n), nil
}
