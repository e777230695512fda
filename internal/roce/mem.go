package roce

import (
	"math/rand/v2"
	"sync/atomic"
	"unsafe"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/rc"
)

// A key is an index of 24 bits and a tag of 8. The index finds a slot; the tag
// changes whenever the slot is given to another region, so a key that was kept
// too long finds nothing.
const (
	idxBits   = 24
	idxMask   = 1<<idxBits - 1
	chunkBits = 10
	chunkLen  = 1 << chunkBits
	// reuseAfter slots must be free before one is used again: a tag comes back
	// after 256 turns of a slot, so a key after a million registrations.
	reuseAfter = 4096
)

// Rights of a slot beside provider.AccessFlags. A free slot has none.
const (
	slotMR provider.AccessFlags = 1 << 31 // local access
	slotMW provider.AccessFlags = 1 << 30 // a bound window
)

// memSlot is what a packet needs to know of a region or a window: one cache line.
type memSlot struct {
	key    uint32
	access provider.AccessFlags // 0: nothing is allowed
	pd     uint32
	qpn    uint32 // type 2 window: the only queue pair; else 0
	va     uint64 // first address, as work requests and packets give it
	length uint64 // bytes
	mem    uint64 // where byte va is in this process
	seq    uint32 // of the object in it, see handle
	pos    uint32
	mr     *mr // nil unless it is a region
	mw     *mw // nil unless it is a window
}

// memTable finds registered memory by key. Guarded by node.mu; the zero value is
// empty. Slots never move, so objects point to theirs.
type memTable struct {
	chunks []*[chunkLen]memSlot
	used   uint32 // slots handed out at least once
	// Index and position are tied by index = pos*mul + add: neighbours in the
	// table have keys that do not tell of each other.
	mul, inv, add uint32
	seed          uint64 // 0: keys are random
	rnd           *rand.Rand
	seq           uint32
	pds, srqs     uint32           // made so far
	free          [2]freeList      // regions, windows: a window's tags are its owner's
	byQP          map[uint32]mwSet // bound type 2 windows
	spare         []mwSet          // empty ones
}

type mwSet map[*mw]struct{}

// freeList is a queue: the slot that was freed first is used first.
type freeList struct {
	pos  []uint32
	head int
}

func (f *freeList) len() int { return len(f.pos) - f.head }

func (f *freeList) put(pos uint32) {
	if f.head > 64 && f.head > len(f.pos)/2 {
		f.pos = f.pos[:copy(f.pos, f.pos[f.head:])]
		f.head = 0
	}
	f.pos = append(f.pos, pos)
}

func (f *freeList) take() uint32 {
	f.head++
	return f.pos[f.head-1]
}

func (t *memTable) init() {
	if t.rnd != nil {
		return
	}
	s := t.seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.rnd = rand.New(rand.NewPCG(s, s^0x7a72))
	t.mul, t.add = t.rnd.Uint32()|1, t.rnd.Uint32()
	// Newton's method doubles the correct bits of an inverse modulo 2^32.
	t.inv = t.mul
	for range 5 {
		t.inv *= 2 - t.mul*t.inv
	}
}

func (t *memTable) at(pos uint32) *memSlot { return &t.chunks[pos>>chunkBits][pos&(chunkLen-1)] }

// find gives the slot that has the key, or nil. Of a free slot the rights are 0.
func (t *memTable) find(key uint32) *memSlot {
	pos := (key>>8 - t.add) * t.inv & idxMask
	if pos >= t.used {
		return nil
	}
	if s := t.at(pos); s.key == key {
		return s
	}
	return nil
}

const (
	regionSlot = 0
	windowSlot = 1
)

// alloc gives a slot with a fresh key and no rights, nil when all are taken.
func (t *memTable) alloc(kind int) *memSlot {
	t.init()
	f := &t.free[kind]
	var s *memSlot
	switch full := t.used > idxMask; {
	case f.len() >= reuseAfter, full && f.len() > 0:
		s = t.at(f.take())
		s.key = s.key&^0xff | uint32(uint8(s.key)+1)
	case full:
		return nil
	default:
		s = t.fresh()
		if s == nil {
			return nil
		}
	}
	t.seq++
	s.seq = t.seq
	return s
}

func (t *memTable) fresh() *memSlot {
	for t.used <= idxMask {
		pos := t.used
		if int(pos>>chunkBits) == len(t.chunks) {
			t.chunks = append(t.chunks, new([chunkLen]memSlot))
		}
		t.used++
		s := t.at(pos)
		s.pos = pos
		// Index 0 stays unused: key 0 is nobody's.
		if i := (pos*t.mul + t.add) & idxMask; i != 0 {
			s.key = i<<8 | t.rnd.Uint32()&0xff
			return s
		}
	}
	return nil
}

func (t *memTable) release(s *memSlot, kind int) {
	*s = memSlot{key: s.key, pos: s.pos}
	t.free[kind].put(s.pos)
}

// handle names the object in a slot, in work requests.
func (s *memSlot) handle() uint64 { return uint64(s.seq)<<32 | uint64(s.pos) }

func (t *memTable) byHandle(h uint64) *memSlot {
	if pos := uint32(h); pos < t.used {
		if s := t.at(pos); s.seq == uint32(h>>32) && s.seq != 0 {
			return s
		}
	}
	return nil
}

// within says whether n bytes at va are in the slot.
func (s *memSlot) within(va uint64, n uint64) bool {
	off := va - s.va
	return off <= s.length && n <= s.length-off
}

func (s *memSlot) bytes(va uint64, n uint32) []byte { return bytesAt(s.mem+(va-s.va), n) }

// pointerTo makes a pointer of an address of registered memory, which its owner
// keeps mapped and in place.
func pointerTo(addr uint64) unsafe.Pointer {
	a := uintptr(addr)
	return *(*unsafe.Pointer)(unsafe.Pointer(&a))
}

func bytesAt(addr uint64, n uint32) []byte { return unsafe.Slice((*byte)(pointerTo(addr)), int(n)) }

// memView is the table as one queue pair sees it.
type memView struct {
	t   *memTable
	p   *pd
	qpn uint32
}

// view is the memory of a queue pair: of its domain, and the type 2 windows bound
// to its number.
func (t *memTable) view(p *pd, qpn uint32) rc.Memory { return &memView{t, p, qpn} }

// Local implements rc.Memory.
func (v *memView) Local(lkey provider.LKey, addr uint64, n uint32, write bool) ([]byte, bool) {
	if n == 0 {
		return nil, true
	}
	need := slotMR
	if write {
		need |= provider.AccessLocalWrite
	}
	s := v.t.find(uint32(lkey))
	if s == nil || s.access&need != need || s.pd != v.p.id || !s.within(addr, uint64(n)) {
		return nil, false
	}
	return s.bytes(addr, n), true
}

// Inline implements rc.Memory.
func (v *memView) Inline(addr uint64, n uint32) ([]byte, bool) { return bytesAt(addr, n), true }

func (v *memView) remote(rkey provider.RKey, va uint64, n uint32, access provider.AccessFlags) *memSlot {
	s := v.t.find(uint32(rkey))
	if s == nil || s.access&access != access || s.access&(slotMR|slotMW) == 0 || s.pd != v.p.id ||
		s.qpn != 0 && s.qpn != v.qpn || !s.within(va, uint64(n)) {
		return nil
	}
	return s
}

// Remote implements rc.Memory. An access of no bytes needs no key.
func (v *memView) Remote(rkey provider.RKey, va uint64, n uint32, access provider.AccessFlags) ([]byte, bool) {
	if n == 0 {
		return nil, true
	}
	s := v.remote(rkey, va, n, access)
	if s == nil {
		return nil, false
	}
	return s.bytes(va, n), true
}

// word gives the 8 bytes at va. Both the address in the packet and the one in
// memory must be aligned, which an iova can make two questions.
func (v *memView) word(rkey provider.RKey, va uint64) *uint64 {
	s := v.remote(rkey, va, 8, provider.AccessRemoteAtomic)
	if s == nil || va&7 != 0 || (s.mem+(va-s.va))&7 != 0 {
		return nil
	}
	return (*uint64)(pointerTo(s.mem + (va - s.va)))
}

// CompareSwap implements rc.Memory. It is atomic towards the processors too.
func (v *memView) CompareSwap(rkey provider.RKey, va, compare, swap uint64) (uint64, bool) {
	w := v.word(rkey, va)
	if w == nil {
		return 0, false
	}
	for {
		old := atomic.LoadUint64(w)
		if old != compare || atomic.CompareAndSwapUint64(w, old, swap) {
			return old, true
		}
	}
}

// FetchAdd implements rc.Memory. It is atomic towards the processors too.
func (v *memView) FetchAdd(rkey provider.RKey, va, add uint64) (uint64, bool) {
	w := v.word(rkey, va)
	if w == nil {
		return 0, false
	}
	return atomic.AddUint64(w, add) - add, true
}
