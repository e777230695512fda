package compare

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are 1.6 % wide, of any number of them
// in 30 KiB.
type histogram struct {
	count [58 * 64]uint32
	n     int64
	max   time.Duration
}

// bucket: 64 to each power of two of nanoseconds.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 64 {
		return int(v)
	}
	e := bits.Len64(v) - 7
	return min((e+1)*64+int(v>>e)-64, 58*64-1)
}

// value is the middle of a bucket.
func value(i int) time.Duration {
	if i < 64 {
		return time.Duration(i)
	}
	e := i/64 - 1
	return time.Duration(uint64(i%64+64)<<e + uint64(1)<<e/2)
}

func (h *histogram) add(d time.Duration) {
	h.count[bucket(d)]++
	h.n++
	h.max = max(h.max, d)
}

// percentile of 0 to 100.
func (h *histogram) percentile(p float64) time.Duration {
	rank := int64(p / 100 * float64(h.n))
	rank = min(max(rank, 0), h.n-1)
	for i, c := range h.count {
		if rank -= int64(c); rank < 0 {
			return min(value(i), h.max)
		}
	}
	return h.max
}

// Latency is from asking for a block to its being there, before it is verified.
type Latency struct {
	P50  float64 `json:"p50_us"`
	P90  float64 `json:"p90_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
	Max  float64 `json:"max_us"`
}

func (h *histogram) latency() Latency {
	if h.n == 0 {
		return Latency{}
	}
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	return Latency{us(h.percentile(50)), us(h.percentile(90)), us(h.percentile(99)), us(h.percentile(99.9)), us(h.max)}
}
