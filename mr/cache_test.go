package mr

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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

func TestCacheIsBounded(t *testing.T) {
	c, d := cache(t, CacheConfig{Limit: int64(4 * pageSize), Entries: 3})
	all := goMemory(16 * pageSize).mem
	page := func(i int) []byte { return all[i*pageSize : (i+1)*pageSize] }
	use := func(b []byte) {
		t.Helper()
		x, err := c.Buf(b)
		require.NoError(t, err)
		require.NoError(t, x.Release())
	}
	use(page(0))
	use(page(1))
	use(page(2))
	use(page(0)) // now page 1 is the oldest
	use(page(3))
	st := c.Stats()
	require.Equal(t, 3, st.Entries)
	require.EqualValues(t, 1, st.Evicted)
	require.EqualValues(t, 1, st.Hits)
	use(page(0))
	use(page(2))
	require.EqualValues(t, 3, c.Stats().Hits)
	use(page(1))
	require.EqualValues(t, 2, c.Stats().Evicted)

	// What is in use, or in flight, is not evicted.
	x, err := c.Buf(all[8*pageSize : 11*pageSize])
	require.NoError(t, err)
	f, err := x.Take(DeviceWrites)
	require.NoError(t, err)
	use(page(0))
	_, err = c.Buf(all[4*pageSize : 6*pageSize])
	require.ErrorIs(t, err, ErrExhausted)
	_, err = c.Buf(all[:5*pageSize])
	require.ErrorIs(t, err, syscall.EMSGSIZE)
	require.Equal(t, 1, c.Stats().InUse)
	require.ErrorIs(t, c.Invalidate(all), ErrInUse)
	f.Release()
	require.NoError(t, c.Invalidate(all))
	require.Zero(t, d.mrs.Load())
	require.Zero(t, c.Stats().Pinned)
	_, err = c.Buf(nil)
	require.ErrorIs(t, err, syscall.EINVAL)
}

// An entry that overlaps what is asked for gives way; one in use stays beside it.
func TestCacheOverlaps(t *testing.T) {
	c, d := cache(t, CacheConfig{})
	m := goMemory(8 * pageSize).mem
	a, err := c.Buf(m[:2*pageSize])
	require.NoError(t, err)
	require.NoError(t, a.Release())
	b, err := c.Buf(m[pageSize : 3*pageSize])
	require.NoError(t, err)
	require.Eventually(t, func() bool { return d.mrs.Load() == 1 }, 10*time.Second, time.Millisecond)
	_, err = c.Buf(m[2*pageSize : 4*pageSize])
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, b.Release())

	n, err := b.Narrow(0, 1)
	require.NoError(t, err)
	refused(t, Released, n.Err())
}

func TestCacheFailures(t *testing.T) {
	c, d := cache(t, CacheConfig{})
	m := goMemory(pageSize).mem
	d.regErr = syscall.ENOMEM
	_, err := c.Buf(m)
	require.ErrorIs(t, err, syscall.ENOMEM)
	require.Equal(t, CacheStats{Misses: 1}, c.Stats(), "a failure leaves nothing")
	d.regErr = nil
	x, err := c.Buf(m)
	require.NoError(t, err)
	require.NoError(t, x.Release())
	d.mu.Lock()
	d.deregErr = syscall.EIO
	d.mu.Unlock()
	require.ErrorIs(t, c.Invalidate(m), syscall.EIO)
	require.EqualValues(t, pageSize, c.Stats().Pinned, "what could not be freed still counts")
	require.ErrorIs(t, c.Close(), syscall.EIO)
	d.mu.Lock()
	d.deregErr = nil
	d.mu.Unlock()
	require.NoError(t, c.Close())
	_, err = c.Buf(m)
	require.ErrorIs(t, err, ErrClosed)
	_, err = NewCache(CacheConfig{})
	require.ErrorIs(t, err, syscall.EINVAL)
	for _, cfg := range []CacheConfig{{Limit: -1}, {Entries: -1}} {
		_, err := NewCache(cfg, c.domains...)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
}

func TestCacheStress(t *testing.T) {
	c, d := cache(t, CacheConfig{Limit: int64(12 * pageSize), Entries: 6})
	m := goMemory(16 * pageSize).mem
	var wg sync.WaitGroup
	var hits atomic.Int64
	for g := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 3))
			for range 2000 {
				lo := r.IntN(len(m) - 1)
				hi := min(len(m), lo+1+r.IntN(2*pageSize))
				b, err := c.Buf(m[lo:hi])
				if errors.Is(err, ErrInUse) || errors.Is(err, ErrExhausted) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				hits.Add(1)
				x, err := b.Bytes()
				if err != nil {
					t.Error(err)
					return
				}
				for i := range x {
					x[i] = byte(g)
				}
				f, err := b.Take(DeviceReads)
				if err != nil {
					t.Error(err)
					return
				}
				if p := c.Stats().Pinned; p > int64(12*pageSize) {
					t.Errorf("%d bytes pinned", p)
				}
				for i := range x {
					if x[i] != byte(g) {
						t.Error("the bytes are somebody else's too")
						return
					}
				}
				f.Release()
			}
		})
	}
	wg.Wait()
	st := c.Stats()
	t.Logf("%d uses, %+v", hits.Load(), st)
	require.Zero(t, st.InUse)
	require.Zero(t, st.Remapped)
	require.NoError(t, c.Invalidate(m))
	require.Zero(t, d.mrs.Load())
}
