package link

import (
	"net/netip"
	"sync"
	"time"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// Rules are what a network does to the packets of one direction. The zero value
// does nothing. Probabilities are from 0 to 1.
type Rules struct {
	Drop      float64
	Duplicate float64
	Corrupt   float64 // bits flipped, so that the ICRC finds it
	Reorder   float64 // held back until a few later packets have passed
	// ReorderDepth is by how many packets at most; default 3. A packet that no
	// others follow passes after a millisecond.
	ReorderDepth int
	// Delay, and up to Jitter more at random, is added to each packet's way. They
	// do not change the order.
	Delay, Jitter time.Duration
	Rate          int64 // bytes of UDP payload per second; 0: any
	// Queue is how many bytes may wait, for Rate or Delay, before others are
	// dropped; default 4 MiB.
	Queue int
	Cut   bool // nothing passes
}

// reorderWait ends a hold when nothing follows.
const reorderWait = time.Millisecond

// Fate is what happened to a packet.
type Fate uint8

// Fates; several may hold. None is a packet that went its way.
const (
	Dropped    Fate = 1 << iota
	Cut             // dropped by a partition
	QueueFull       // dropped for want of room
	Corrupted       // delivered, to be dropped by the receiver
	Duplicated      // delivered twice
	Reordered       // held back
	Delayed
)

// String names the fates.
func (f Fate) String() string {
	s := ""
	for i, n := range [...]string{"dropped", "cut", "queue full", "corrupted", "duplicated", "reordered", "delayed"} {
		if f&(1<<i) == 0 {
			continue
		}
		if s != "" {
			s += ","
		}
		s += n
	}
	if s == "" {
		return "sent"
	}
	return s
}

// Seen is a packet and its fate, as an observer gets it.
type Seen struct {
	Time     time.Time
	Src, Dst netip.Addr
	N        uint64       // number in its direction, from 0
	Pkt      *wire.Packet // lent for the call; not its Payload
	Len      int          // payload bytes
	Fate     Fate
	Delay    time.Duration // when Delayed
}

// String is the packet on one line.
func (s *Seen) String() string {
	b := append([]byte(nil), s.Src.String()+" > "+s.Dst.String()+": "...)
	b = s.Pkt.AppendText(b, s.Len)
	if s.Fate != 0 {
		b = append(b, " ["+s.Fate.String()+"]"...)
	}
	return string(b)
}

// Faults is a network whose packets suffer by rules, one set for each direction,
// which may change at any time. Chance is fixed by the seed: the i-th packet from
// one address to another has the same fate in every run with the same rules.
//
// What a link of it sends suffers there; what arrives from an address that is not
// a link of it suffers on arrival, except for reordering, delay and rate.
type Faults struct {
	inner Network
	seed  uint64
	time  *timeline

	mu    sync.RWMutex
	all   Rules
	dirs  map[[2]netip.Addr]Rules
	links map[netip.Addr]*faultLink

	seenMu sync.Mutex
	seen   func(*Seen)
}

// Faulty puts faults, none at first, over a network.
func Faulty(n Network, seed uint64) *Faults {
	f := &Faults{inner: n, seed: seed, dirs: map[[2]netip.Addr]Rules{}, links: map[netip.Addr]*faultLink{}}
	// A clock of its own would fire at the same instants as the network's.
	if c, ok := n.(interface{ timeline() *timeline }); ok && c.timeline() != nil {
		f.time = c.timeline()
	} else {
		f.time = newTimeline(n.Virtual())
	}
	return f
}

func (f *Faults) timeline() *timeline { return f.time }

// Virtual implements Network.
func (f *Faults) Virtual() bool { return f.inner.Virtual() }

// SetAll sets the rules of every direction that has none of its own.
func (f *Faults) SetAll(r Rules) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = r
}

// Set sets the rules of one direction.
func (f *Faults) Set(src, dst netip.Addr, r Rules) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirs[[2]netip.Addr{src.Unmap(), dst.Unmap()}] = r
}

// Cut stops or restores one direction; its other rules stay.
func (f *Faults) Cut(src, dst netip.Addr, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := [2]netip.Addr{src.Unmap(), dst.Unmap()}
	r, ok := f.dirs[k]
	if !ok {
		r = f.all
	}
	r.Cut = cut
	f.dirs[k] = r
}

// Partition stops or restores both directions between two addresses.
func (f *Faults) Partition(a, b netip.Addr, cut bool) {
	f.Cut(a, b, cut)
	f.Cut(b, a, cut)
}

// Rules are those of one direction.
func (f *Faults) Rules(src, dst netip.Addr) Rules {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if r, ok := f.dirs[[2]netip.Addr{src, dst}]; ok {
		return r
	}
	return f.all
}

// Observe calls see for every packet, one at a time, in the order of sending;
// nil ends it. It must not call the network.
func (f *Faults) Observe(see func(*Seen)) {
	f.seenMu.Lock()
	defer f.seenMu.Unlock()
	f.seen = see
}

func (f *Faults) tell(src, dst netip.Addr, i uint64, p *wire.Packet, n int, fate Fate, delay time.Duration) {
	f.seenMu.Lock()
	defer f.seenMu.Unlock()
	if f.seen != nil {
		f.seen(&Seen{Time: time.Now(), Src: src, Dst: dst, N: i, Pkt: p, Len: n, Fate: fate, Delay: delay})
	}
}

// Purposes of random numbers.
const (
	forDrop = iota
	forDuplicate
	forCorrupt
	forReorder
	forDepth
	forJitter
	forBits
)

// fate is what the rules do to the i-th packet of a direction, by chance. Every
// fault has a number of its own, so that one rule does not move another's.
func (r *Rules) fate(dir, i uint64) Fate {
	hit := func(p float64, purpose uint64) bool { return p > 0 && unit(draw(dir, i, purpose)) < p }
	switch {
	case r.Cut:
		return Cut
	case hit(r.Drop, forDrop):
		return Dropped
	}
	var f Fate
	if hit(r.Duplicate, forDuplicate) {
		f |= Duplicated
	}
	if hit(r.Corrupt, forCorrupt) {
		f |= Corrupted
	}
	if hit(r.Reorder, forReorder) {
		f |= Reordered
	}
	return f
}
