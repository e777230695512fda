package rpc

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// estimate is how long calls of a method take, apart by how much data they move,
// so that one which cannot end in time is refused before its data moves.
type estimate struct {
	ns   [8]atomic.Int64 // moving average, by sizeClass
	late atomic.Uint32   // calls that are too late
}

// sizeClass is 0 for no data, then up to 4 KiB, 16 KiB, ..., 16 MiB and more.
func sizeClass(n int64) int {
	if n == 0 {
		return 0
	}
	return min(1+(max(bits.Len64(uint64(n-1)), 12)-11)/2, 7)
}

// wants tells whether a call is to be timed: of those without data, that may take
// hardly longer than two looks at the clock, an eighth.
func (e *estimate) wants(bytes int64, id uint64) bool {
	return bytes > 0 || (id>>32)&7 == 0 || e.typical(0) == 0
}

func (e *estimate) observe(bytes int64, d time.Duration) {
	v := &e.ns[sizeClass(bytes)]
	old := v.Load()
	if old == 0 {
		old = int64(d)
	}
	v.Store(max(old+(int64(d)-old)/8, 1)) // two at a time: one is lost, which does not matter
}

// typical is 0 when nothing is known.
func (e *estimate) typical(bytes int64) time.Duration {
	return time.Duration(e.ns[sizeClass(bytes)].Load())
}

// refuse lets one of sixteen through, so that an estimate which is wrong, or of
// another time, is corrected.
func (e *estimate) refuse() bool { return e.late.Add(1)%16 != 0 }
