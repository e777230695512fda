package compare

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPercentilesAreThoseOfTheValues(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h histogram
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(rng.ExpFloat64() * float64(3*time.Millisecond))
		h.add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, p := range []float64{0, 1, 50, 90, 99, 99.9} {
		require.InEpsilon(t, all[int(p/100*float64(len(all)))], h.percentile(p), 0.017, "p%v", p)
	}
	require.Equal(t, all[len(all)-1], h.max)
	require.LessOrEqual(t, h.percentile(100), h.max)
}

func TestBuckets(t *testing.T) {
	last := -1
	for d := time.Duration(0); d < 1<<40; d += 1 + d/50 {
		i := bucket(d)
		require.GreaterOrEqual(t, i, last)
		last = i
		require.InDelta(t, float64(d), float64(value(i)), float64(d)/60+1)
	}
	require.Equal(t, len(histogram{}.count)-1, bucket(1<<63-1))
	require.Zero(t, bucket(-5))
	require.Zero(t, (&histogram{}).latency())
}
