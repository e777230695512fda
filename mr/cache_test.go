package mr

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func cache(t testing.TB, cfg CacheConfig) (*Cache, *fakeDev) {
	t.Helper()
	d, pd := fake(t)
	c, err := NewCache(cfg, pd)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c, d
}

func TestCacheHits(t *testing.T) {
	c, d := cache(t, CacheConfig{})
	m := make([]byte, 100_000)
	for range 10 {
		b, err := c.Buf(m[100:5000])
		require.NoError(t, err)
		require.Equal(t, 4900, b.Len())
		got, err := b.Bytes()
		require.NoError(t, err)
		require.Same(t, &m[100], &got[0])
		require.NoError(t, b.Release())
	}
	st := c.Stats()
	require.Equal(t, uint64(9), st.Hits)
	require.Equal(t, uint64(1), st.Misses)
	require.EqualValues(t, 1, d.mrs.Load())
	b, err := c.Buf(m[200:300]) // inside
	require.NoError(t, err)
	require.Equal(t, uint64(10), c.Stats().Hits)
	_, err = c.Buf(m[299:301])
	require.ErrorIs(t, err, ErrInUse)
	x, err := c.Buf(m[300:301])
	require.NoError(t, err)
	require.ErrorIs(t, c.Invalidate(m), ErrInUse)
	require.ErrorIs(t, c.Close(), ErrInUse)
	require.NoError(t, x.Release())
	require.NoError(t, b.Release())
	require.NoError(t, c.Invalidate(m))
	require.Zero(t, c.Stats().Entries)
	require.Zero(t, d.mrs.Load())
	runtime.KeepAlive(m)
}
