package compare

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// recorder is the client's record of a run: when blocks were asked for and came,
// and whether each is the right one.
type recorder struct {
	sums     []byte
	distinct uint64
	at       []time.Time // when the block that is to come into a place was asked for

	moved atomic.Int64 // bytes verified

	mu     sync.Mutex
	h      histogram     // guarded by mu
	verify time.Duration // guarded by mu
}

func newRecorder(j Job, sums []byte) (*recorder, error) {
	if len(sums) != 4*j.distinct() {
		return nil, fmt.Errorf("the server sent %d checksums for %d blocks", len(sums)/4, j.distinct())
	}
	return &recorder{sums: sums, distinct: uint64(j.distinct()), at: make([]time.Time, j.depth())}, nil
}

// asked notes that a block is under way to a place.
func (r *recorder) asked(place int) { r.at[place] = time.Now() }

// arrived verifies block i, b, which has come to a place.
func (r *recorder) arrived(place int, i uint64, b []byte) error {
	now := time.Now()
	took := now.Sub(r.at[place])
	got := sum(b)
	spent := time.Since(now)
	if want := binary.LittleEndian.Uint32(r.sums[4*(i%r.distinct):]); got != want {
		return fmt.Errorf("block %d: CRC-32C %08x, not %08x: %w", i, got, want, ErrCorrupt)
	}
	r.mu.Lock()
	r.h.add(took)
	r.verify += spent
	r.mu.Unlock()
	r.moved.Add(int64(len(b)))
	return nil
}
