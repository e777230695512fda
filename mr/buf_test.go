package mr

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func get(t testing.TB, p *Pool, n int) Buf {
	t.Helper()
	b, err := p.Get(t.Context(), n)
	require.NoError(t, err)
	return b
}

// refused requires a misuse of that kind, which is ErrMoved.
func refused(t testing.TB, k Misuse, err error) {
	t.Helper()
	var e *MisuseError
	require.ErrorAs(t, err, &e)
	require.Equal(t, k, e.Kind, err)
	require.ErrorIs(t, err, ErrMoved)
}

func one(_ any, err error) error { return err }

func small() PoolConfig {
	return PoolConfig{Classes: []int{64, 4096}, Limit: 64 << 10, RegionSize: 16 << 10, Canaries: true}
}

func TestZeroBuf(t *testing.T) {
	var b Buf
	require.True(t, b.IsZero())
	require.Zero(t, b.Len())
	require.Nil(t, b.Region())
	refused(t, ZeroBuf, b.Release())
	refused(t, ZeroBuf, b.Err())
	refused(t, ZeroBuf, one(b.Bytes()))
	refused(t, ZeroBuf, one(b.Take(DeviceReads)))
	refused(t, ZeroBuf, one(b.Slice(0, 0)))
	require.True(t, b.Whole().IsZero())
	var f Flight
	require.True(t, f.IsZero())
	for _, end := range []func(){func() { f.Complete() }, func() { f.Undo() }, f.Release, func() { f.Quarantine(1) }, func() { f.Leak("") }} {
		require.Panics(t, end)
	}
}

func TestPostingTakesTheBuf(t *testing.T) {
	p := pool(t, small())
	b := get(t, p, 100)
	copied := b
	f, err := b.Take(DeviceWrites)
	require.NoError(t, err)
	for _, stale := range []Buf{b, copied} {
		refused(t, InFlight, one(stale.Bytes()))
		refused(t, InFlight, stale.Err())
		refused(t, InFlight, stale.Release())
		refused(t, InFlight, one(stale.Take(DeviceReads)))
		refused(t, InFlight, one(stale.Slice(0, 1)))
	}
	n := f.Complete()
	require.NoError(t, n.Err())
	refused(t, Released, one(b.Bytes()))
	require.PanicsWithError(t, "mr: Complete: the flight has ended already", func() { f.Complete() })
	require.Panics(t, f.Release)
	require.Panics(t, func() { f.Undo() })
	require.NoError(t, n.Release())
	refused(t, Released, n.Release())
	refused(t, Released, one(n.Bytes()))

	// The slot is handed out again: what is stale stays stale.
	again := get(t, p, 100)
	require.Same(t, b.h, again.h, "the same slot")
	for _, stale := range []Buf{b, n} {
		refused(t, Released, one(stale.Bytes()))
		refused(t, Released, stale.Release())
	}
	require.NoError(t, again.Release())
}

func TestUndoGivesTheSameBufBack(t *testing.T) {
	p := pool(t, small())
	b := get(t, p, 100)
	f, err := b.Take(DeviceReads)
	require.NoError(t, err)
	require.Equal(t, b, f.Undo())
	require.NoError(t, b.Err())
	require.NoError(t, b.Release())
}

func TestTakeAllIsAllOrNone(t *testing.T) {
	p := pool(t, small())
	a, b, c := get(t, p, 1), get(t, p, 2), get(t, p, 3)
	keep := []Flight{{}}
	fs, err := TakeAll(keep, DeviceReads, a, b, b)
	require.ErrorIs(t, err, ErrMoved)
	require.ErrorContains(t, err, "buffer 2")
	require.Len(t, fs, 1)
	fs, err = TakeAll(keep, DeviceReads, a, b, c)
	require.NoError(t, err)
	require.Len(t, fs, 4)
	for _, f := range fs[1:] {
		f.Release()
	}
}

func TestSlicesShare(t *testing.T) {
	p := pool(t, small())
	b := get(t, p, 1000)
	lo, err := b.Slice(0, 600)
	require.NoError(t, err)
	hi, err := b.Slice(500, 1000)
	require.NoError(t, err)
	m, err := b.Bytes()
	require.NoError(t, err)
	l, err := lo.Bytes()
	require.NoError(t, err)
	h, err := hi.Bytes()
	require.NoError(t, err)
	require.Same(t, &m[500], &h[0])
	require.Same(t, &m[0], &l[0])

	// Two reads go together, and nothing else.
	fl, err := lo.Take(DeviceReads)
	require.NoError(t, err)
	refused(t, Overlap, one(b.Bytes()))
	refused(t, Overlap, one(hi.Bytes()))
	refused(t, Overlap, one(hi.Take(DeviceWrites)))
	fh, err := hi.Take(DeviceReads)
	require.NoError(t, err)
	lo = fl.Complete()
	refused(t, Overlap, one(lo.Bytes()))
	tail, err := lo.Narrow(0, 500)
	require.NoError(t, err)
	require.NoError(t, tail.Err(), "not of the flying part")
	fh.Release()
	require.NoError(t, b.Err())
	refused(t, Released, hi.Err())

	// A write excludes all.
	fl, err = tail.Take(DeviceWrites)
	require.NoError(t, err)
	refused(t, Overlap, one(b.Take(DeviceReads)))
	require.NoError(t, b.Release())
	refused(t, Released, b.Release())
	require.ErrorIs(t, p.Close(), ErrInUse, "the device still has a part of it")
	lo = fl.Complete()
	require.Equal(t, 500, lo.Len())
	require.Equal(t, 600, lo.Whole().Len())
	require.NoError(t, lo.Release())
	refused(t, Released, lo.Release())

	// The holders of slices are used again, with words never seen.
	b2 := get(t, p, 1000)
	s2, err := b2.Slice(10, 20)
	require.NoError(t, err)
	refused(t, Released, lo.Err())
	refused(t, Released, tail.Err())
	require.NoError(t, s2.Release())
	require.NoError(t, b2.Release())
}

func TestBounds(t *testing.T) {
	p := pool(t, small())
	b := get(t, p, 100)
	for _, r := range [][2]int{{-1, 2}, {2, 1}, {0, 101}, {101, 101}, {0, 1 << 40}} {
		_, err := b.Slice(r[0], r[1])
		require.Error(t, err)
		require.NotErrorIs(t, err, ErrMoved)
		_, err = b.Narrow(r[0], r[1])
		require.Error(t, err)
	}
	n, err := b.Narrow(10, 20)
	require.NoError(t, err)
	_, err = n.Narrow(0, 11)
	require.Error(t, err)
	n, err = n.Narrow(5, 10)
	require.NoError(t, err)
	all, err := b.Whole().Bytes()
	require.NoError(t, err)
	require.Len(t, all, 4096)
	m, err := n.Bytes()
	require.NoError(t, err)
	require.Same(t, &all[15], &m[0])
	require.Len(t, m, 5)
	require.NoError(t, n.Release())
	refused(t, Released, b.Release())
}

func TestTracing(t *testing.T) {
	SetTracing(true)
	defer SetTracing(false)
	p := pool(t, small())
	b := get(t, p, 1)
	err := p.Close()
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, "TestTracing")
	f, err := b.Take(DeviceReads)
	require.NoError(t, err)
	var e *MisuseError
	require.ErrorAs(t, b.Release(), &e)
	require.Contains(t, e.Acquired, "TestTracing")
	require.Contains(t, e.Moved, "TestTracing")
	require.Contains(t, e.Error(), "buf_test.go")
	require.NoError(t, f.Complete().Release())
}

func TestLeak(t *testing.T) {
	p := pool(t, small())
	b := get(t, p, 1)
	s, err := b.Slice(0, 1)
	require.NoError(t, err)
	for _, x := range []Buf{b, s} {
		f, err := x.Take(DeviceReads)
		require.NoError(t, err)
		f.Leak("a test")
		require.Panics(t, func() { f.Complete() })
	}
	st := p.Stats()
	require.Equal(t, 1, st.Leaked, "one slot, though two holders")
	require.EqualValues(t, 64, st.LeakedBytes)

	c := get(t, p, 1)
	held, err := c.Slice(0, 1)
	require.NoError(t, err)
	f, err := c.Take(DeviceReads)
	require.NoError(t, err)
	f.Leak("a test")
	require.ErrorIs(t, p.Close(), ErrInUse, "somebody still reads a part of what leaked")
	require.NoError(t, held.Release())
}
