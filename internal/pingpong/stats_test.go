package pingpong

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStats(t *testing.T) {
	var s Stats
	require.Equal(t, "0 sent, 0 received, 0% lost", s.String())
	for i := 1; i <= 100; i++ {
		s.Add(time.Duration(i) * time.Microsecond)
	}
	for range 25 {
		s.Lose()
	}
	require.Equal(t, 20.0, s.Loss())
	require.Equal(t, time.Microsecond, s.Min())
	require.Equal(t, 100*time.Microsecond, s.Max())
	require.InDelta(t, 50500, s.Avg(), 1)
	require.InDelta(t, 28866, s.StdDev(), 1)
	require.Equal(t, 50*time.Microsecond, s.Percentile(50))
	require.Equal(t, 99*time.Microsecond, s.Percentile(99))
	require.Equal(t, 100*time.Microsecond, s.Percentile(100))
	require.Equal(t, time.Microsecond, s.Percentile(0))
	require.Equal(t, "125 sent, 100 received, 20% lost\nrtt min/avg/max/mdev = 1.0/50.5/100.0/28.9 us", s.String())
}

func TestStatsStayBounded(t *testing.T) {
	var s Stats
	for range maxSamples + 1000 {
		s.Add(time.Microsecond)
	}
	require.Len(t, s.samples, maxSamples)
	require.Equal(t, maxSamples+1000, s.Received)
}

func TestPatternsDiffer(t *testing.T) {
	for _, n := range []int{1, 2, 7, 8, 9, 64, 4099} {
		a, b := make([]byte, n), make([]byte, n)
		pattern(a, 1)
		pattern(b, 2)
		require.NotEqual(t, a, b, "%d bytes", n)
		require.NotEqual(t, -1, differ(a, b))
		copy(b, a)
		require.Equal(t, -1, differ(a, b))
		b[n-1] ^= 1
		require.Equal(t, n-1, differ(a, b))
	}
	a := make([]byte, 4096)
	pattern(a, 3)
	require.False(t, bytes.Equal(a[:8], a[8:16]), "a shifted message is noticed")
}
