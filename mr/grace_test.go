package mr

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// All who wait are called, each once, after their time and a grace period that
// began after they came.
func TestGracePeriods(t *testing.T) {
	var wg sync.WaitGroup
	var n atomic.Int32
	start := time.Now()
	for range 50 {
		wg.Add(1)
		settled(time.Millisecond, func() {
			if time.Since(start) < time.Millisecond {
				t.Error("too early")
			}
			n.Add(1)
			wg.Done()
		})
	}
	wg.Wait()
	require.EqualValues(t, 50, n.Load())
	require.Eventually(t, func() bool {
		graces.mu.Lock()
		defer graces.mu.Unlock()
		return !graces.running
	}, 10*time.Second, time.Millisecond)
}

func BenchmarkGracePeriod(b *testing.B) {
	for b.Loop() {
		gracePeriod()
	}
}
