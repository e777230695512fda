package mr

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// mapAt maps n bytes at the address of b, in place of what is there.
func mapAt(t *testing.T, b []byte) {
	t.Helper()
	at := unsafe.Pointer(unsafe.SliceData(b))
	p, err := unix.MmapPtr(-1, 0, at, uintptr(len(b)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED)
	require.NoError(t, err)
	require.Equal(t, at, p)
}

func mapped(t *testing.T, pages int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, pages*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(b)) })
	return b
}

// Memory that was unmapped and mapped again is registered again, though nobody
// called Invalidate: the old registration holds pages that nobody sees any more.
func TestCacheSeesRemapping(t *testing.T) {
	for _, tt := range []struct {
		name             string
		pages, from, end int // what is mapped anew
		seen             bool
	}{
		{"all of one", 1, 0, 1, true},
		{"all of many", 100, 0, 100, true},
		{"the middle of few", 10, 5, 6, true},
		{"the first of many", 100, 0, 1, true},
		{"the last of many", 100, 99, 100, true},
		{"half of many", 100, 30, 80, true},
		{"one in the middle of many", 100, 50, 51, false}, // documented
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, d := cache(t, CacheConfig{})
			m := mapped(t, tt.pages)
			use := func() {
				t.Helper()
				b, err := c.Buf(m)
				require.NoError(t, err)
				require.NoError(t, b.Release())
			}
			use()
			use()
			require.EqualValues(t, 1, c.Stats().Hits)
			mapAt(t, m[tt.from*pageSize:tt.end*pageSize])
			use()
			st := c.Stats()
			if tt.seen {
				require.EqualValues(t, 1, st.Remapped)
				require.EqualValues(t, 2, st.Misses)
			} else {
				require.EqualValues(t, 2, st.Hits)
			}
			use()
			require.Equal(t, st.Hits+1, c.Stats().Hits, "and kept again")
			// Invalidate, the documented way, always helps.
			require.NoError(t, c.Invalidate(m))
			mapAt(t, m[tt.from*pageSize:tt.end*pageSize])
			use()
			require.Equal(t, st.Misses+1, c.Stats().Misses)
			require.NoError(t, c.Close())
			require.Zero(t, d.mrs.Load())
		})
	}
}

// Remapped while a buffer of it is in flight: the old registration lives until
// the flight ends, the new one beside it.
func TestCacheRemappedInFlight(t *testing.T) {
	c, d := cache(t, CacheConfig{})
	m := mapped(t, 2)
	b, err := c.Buf(m[:100])
	require.NoError(t, err)
	f, err := b.Take(DeviceWrites)
	require.NoError(t, err)
	mapAt(t, m)
	x, err := c.Buf(m[100:200])
	require.NoError(t, err)
	require.EqualValues(t, 2, d.mrs.Load())
	require.NoError(t, x.Release())
	f.Release()
	require.NoError(t, c.Invalidate(m))
	require.Zero(t, d.mrs.Load())
}

// Small buffers that share a page: one that goes takes no mark from the other,
// and hides no remapping of it.
func TestCacheSharedPages(t *testing.T) {
	c, _ := cache(t, CacheConfig{})
	m := mapped(t, 1)
	use := func(b []byte) {
		t.Helper()
		x, err := c.Buf(b)
		require.NoError(t, err)
		require.NoError(t, x.Release())
	}
	use(m[:100])
	use(m[200:300])
	use(m[:100])
	use(m[200:300])
	require.EqualValues(t, 2, c.Stats().Hits)
	require.NoError(t, c.Invalidate(m[:100]))
	use(m[200:300])
	require.EqualValues(t, 3, c.Stats().Hits)
	use(m[:100])
	mapAt(t, m)
	require.NoError(t, c.Invalidate(m[:100]))
	misses := c.Stats().Misses
	use(m[200:300])
	require.Equal(t, misses+1, c.Stats().Misses, "marking it anew would have hidden the remapping")
}

// Memory that somebody else has locked tells nothing: it is not kept.
func TestCacheKeepsNothingItCannotWatch(t *testing.T) {
	c, d := cache(t, CacheConfig{})
	m := mapped(t, 2)
	require.NoError(t, unix.Mlock(m))
	for range 2 {
		b, err := c.Buf(m)
		require.NoError(t, err)
		require.NoError(t, b.Release())
	}
	st := c.Stats()
	require.Zero(t, st.Hits)
	require.Zero(t, st.Entries)
	require.NoError(t, c.Close())
	require.Zero(t, d.mrs.Load())
	require.True(t, pageLocked(spanOf(m).lo), "its own lock is left alone")
	require.False(t, pageLocked(spanOf(mapped(t, 1)).lo))
}

// The mark goes with the entry.
func TestCacheUnlocks(t *testing.T) {
	c, _ := cache(t, CacheConfig{})
	m := mapped(t, 2)
	b, err := c.Buf(m[10:20])
	require.NoError(t, err)
	require.True(t, pageLocked(spanOf(m).lo))
	require.NoError(t, b.Release())
	require.NoError(t, c.Invalidate(m))
	require.False(t, pageLocked(spanOf(m).lo))
}

func BenchmarkCacheHit(b *testing.B) {
	c, _ := cache(b, CacheConfig{})
	m := goMemory(64 * pageSize).mem
	b.ReportAllocs()
	for b.Loop() {
		x, err := c.Buf(m)
		if err != nil || x.Release() != nil {
			b.Fatal(err)
		}
	}
}
