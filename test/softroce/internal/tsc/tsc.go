// Package tsc measures the processor's time stamp counter, which an emulated
// guest reads too.
package tsc

import (
	"sync"
	"time"
)

// window is how far apart the two readings are: a microsecond of doubt in each is
// then 20 parts in a million.
const window = 100 * time.Millisecond

// KHz is the rate of the counter, or 0 where there is none that a program can read.
var KHz = sync.OnceValue(func() int64 {
	if !readable {
		return 0
	}
	c0, t0 := sample()
	time.Sleep(window)
	c1, t1 := sample()
	return int64(float64(c1-c0) / t1.Sub(t0).Seconds() / 1000)
})

// sample reads both clocks at once: of many readings the one that was disturbed least.
func sample() (counter uint64, at time.Time) {
	best := time.Hour
	for range 100 {
		before := time.Now()
		c := read()
		if took := time.Since(before); took < best {
			best, counter, at = took, c, before.Add(took/2)
		}
	}
	return counter, at
}
