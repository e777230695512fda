package compare

import (
	"slices"
	"time"
)

// Format of the JSON of a Result.
const (
	Format        = "zrdma-compare"
	FormatVersion = 1
)

// Result is a comparison, whole or as far as it came.
type Result struct {
	Format      string      `json:"format"`
	Version     int         `json:"version"`
	Started     time.Time   `json:"started"`
	Job         Job         `json:"job"`
	Rounds      int         `json:"rounds"`
	Server      *Host       `json:"server"` // the sender
	Client      *Host       `json:"client"` // the receiver
	SameHost    bool        `json:"same_host"`
	Ways        []WayResult `json:"ways"`
	Interrupted bool        `json:"interrupted,omitempty"` // runs are missing
	How         []string    `json:"how_counted"`
}

// WayResult is what came of one way.
type WayResult struct {
	Way
	Runs   []RunResult `json:"runs,omitempty"`
	Failed string      `json:"failed,omitempty"` // a run that went wrong; none came after it
}

// RunResult is one run.
type RunResult struct {
	Round    int     `json:"round"`
	Seconds  float64 `json:"seconds"`
	Bytes    int64   `json:"bytes"` // moved and verified
	Blocks   int64   `json:"blocks"`
	Verify   float64 `json:"verify_seconds"` // of the receiver's time, for the checksums
	Latency  Latency `json:"latency"`
	Sender   Side    `json:"sender"`
	Receiver Side    `json:"receiver"`
}

// GB is 10^9 bytes.
func (r *RunResult) GB() float64 { return float64(r.Bytes) / 1e9 }

// Rate is in GB/s.
func (r *RunResult) Rate() float64 {
	if r.Seconds <= 0 {
		return 0
	}
	return r.GB() / r.Seconds
}

// spread is the median of some values, with the least and the greatest.
type spread struct{ mid, low, high float64 }

// over is the spread of a value of the runs; ok is false when a run has none.
func (w *WayResult) over(f func(*RunResult) (float64, bool)) (s spread, ok bool) {
	var v []float64
	for i := range w.Runs {
		x, ok := f(&w.Runs[i])
		if !ok {
			return s, false
		}
		v = append(v, x)
	}
	if len(v) == 0 {
		return s, false
	}
	slices.Sort(v)
	mid := v[len(v)/2]
	if len(v)%2 == 0 {
		mid = (v[len(v)/2-1] + mid) / 2
	}
	return spread{mid, v[0], v[len(v)-1]}, true
}

// HowCounted says what the numbers are, for every output.
var HowCounted = []string{
	"GB is 10^9 bytes. A run moves all of the job; its time is from the first request to the last block verified. Each number is the median of the rounds.",
	"The receiver verifies the CRC-32C of every block before it asks for the next one into that place: inside the measured time, the same for every way, and shown by itself as verify. The sender's checksums were computed before.",
	"CPU is getrusage of each process, user and system apart. What the kernel does in threads of its own, or in interrupts that hit others, is not in it; machine is the time that all processors of the host were busy, with everything.",
	"Calls are the system calls of our code, and of the software device, that move data or ask for it; each is counted where it is made, those that would have blocked included. The Go runtime's own (epoll, futex) are not in it. Where a library or a driver of the kernel makes them (rxe, a NIC) nobody counts: -.",
	"Copied is bytes that a program copied in user space: the software device's packets (headers included), arguments of calls. Copies that the kernel makes between user and kernel space are not in it.",
	"Latency is of a block, from asking for it to its being taken up, with as many under way as the depth says. Verifying it is not in it; but the receiver is one thread, so a block that has come waits while others are verified, and that is in it, the same for every way.",
}
