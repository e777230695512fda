package mr

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func pool(t testing.TB, cfg PoolConfig) *Pool {
	t.Helper()
	_, pd := fake(t)
	p, err := NewPool(cfg, pd)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func TestPoolConfig(t *testing.T) {
	_, pd := fake(t)
	for name, cfg := range map[string]PoolConfig{
		"no class":        {Classes: []int{}},
		"zero":            {Classes: []int{0}},
		"descending":      {Classes: []int{200, 100}},
		"twice":           {Classes: []int{100, 100}},
		"huge":            {Classes: []int{1<<30 + 1}},
		"negative limit":  {Limit: -1},
		"negative region": {RegionSize: -1},
		"small limit":     {Classes: []int{1 << 20}, Limit: 1<<20 - 1},
		"too many":        {Classes: []int{64}, Limit: 64 << 24},
	} {
		_, err := NewPool(cfg, pd)
		require.ErrorIs(t, err, syscall.EINVAL, name)
	}
	_, err := NewPool(PoolConfig{})
	require.ErrorIs(t, err, syscall.EINVAL, "no domain")
}

func TestPoolSizes(t *testing.T) {
	p := pool(t, PoolConfig{})
	require.Equal(t, 4<<20, p.MaxLen())
	for n, size := range map[int]int{0: 4096, 1: 4096, 4096: 4096, 4097: 16384, 1 << 20: 1 << 20, 1<<20 + 1: 4 << 20, 4 << 20: 4 << 20} {
		b := get(t, p, n)
		require.Equal(t, n, b.Len())
		require.Equal(t, size, b.Whole().Len())
		require.NoError(t, b.Release())
	}
	for _, n := range []int{-1, 4<<20 + 1, 1 << 40} {
		_, err := p.Get(t.Context(), n)
		require.ErrorIs(t, err, syscall.EMSGSIZE)
		_, err = p.TryGet(n)
		require.ErrorIs(t, err, syscall.EMSGSIZE)
	}
}

// Every domain has a key of its own to the same memory.
func TestPoolOnTwoDomains(t *testing.T) {
	d, pd := fake(t)
	pd2, foreign := d.pd(t), d.pd(t)
	p, err := NewPool(small(), pd, pd2)
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Close()) }()
	f, err := get(t, p, 10).Take(DeviceReads)
	require.NoError(t, err)
	a, err := f.SGE(pd)
	require.NoError(t, err)
	b, err := f.SGE(pd2)
	require.NoError(t, err)
	require.Equal(t, a.Addr, b.Addr)
	require.NotEqual(t, a.LKey, b.LKey)
	_, err = f.SGE(foreign)
	require.ErrorContains(t, err, "AddDomain")
	require.NoError(t, f.Region().AddDomain(foreign))
	require.NoError(t, f.Region().AddDomain(foreign), "twice")
	_, err = f.SGE(foreign)
	require.NoError(t, err)
	f.Release()
}

func TestPoolGrowsToItsLimit(t *testing.T) {
	p := pool(t, PoolConfig{Classes: []int{4096}, RegionSize: 8192, Limit: 20000})
	require.NoError(t, p.Prepare(1))
	require.EqualValues(t, 8192, p.Stats().Registered)
	var bufs []Buf
	for {
		b, err := p.TryGet(4096)
		if err != nil {
			require.ErrorIs(t, err, ErrExhausted)
			require.ErrorContains(t, err, "4 of 4 buffers of 4096 bytes are out")
			break
		}
		bufs = append(bufs, b)
	}
	require.Len(t, bufs, 4)
	st := p.Stats()
	require.EqualValues(t, 16384, st.Registered)
	require.Equal(t, 2, st.Regions)
	require.Equal(t, []ClassStats{{Size: 4096, Slots: 4, Gets: 4, Waits: 1}}, st.Classes)
	require.NoError(t, p.Prepare(1<<30))
	require.EqualValues(t, 16384, p.Stats().Registered)
	f, err := bufs[0].Take(DeviceReads)
	require.NoError(t, err)
	require.Equal(t, 1, p.Stats().Classes[0].InFlight)
	f.Release()
	for _, b := range bufs[1:] {
		require.NoError(t, b.Release())
	}
	require.Equal(t, 4, p.Stats().Classes[0].Free)
}

// The kernel has less memory than the pool wants.
// TryGet waits for memory that another goroutine registers: first connections that
// are made at the same time fail else.
func TestTryGetTogether(t *testing.T) {
	for range 20 {
		p := pool(t, PoolConfig{})
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				<-begin
				b, err := p.TryGet(100)
				if err != nil {
					t.Error(err)
					return
				}
				_ = b.Release()
			})
		}
		close(begin)
		wg.Wait()
	}
}

func TestPoolMemoryIsShort(t *testing.T) {
	d, pd := fake(t)
	d.limit.Store(10000)
	p, err := NewPool(PoolConfig{Classes: []int{4096}, RegionSize: 64 << 10, Limit: 64 << 10}, pd)
	require.NoError(t, err)
	a, err := p.TryGet(1)
	require.NoError(t, err, "a smaller region is tried")
	b, err := p.TryGet(1)
	require.NoError(t, err)
	_, err = p.TryGet(1)
	require.ErrorIs(t, err, ErrExhausted)
	require.ErrorContains(t, err, "growing failed")
	require.NotZero(t, p.Stats().GrowFailures)
	require.NoError(t, a.Release())
	require.NoError(t, b.Release())
	require.NoError(t, p.Close())

	d.limit.Store(1)
	p, err = NewPool(PoolConfig{Classes: []int{4096}}, pd)
	require.NoError(t, err)
	_, err = p.Get(t.Context(), 1)
	require.ErrorIs(t, err, syscall.ENOMEM, "nobody will ever release anything")
	require.ErrorContains(t, err, "ulimit -l")
	require.NoError(t, p.Close())
}

// Memory of one class serves another, when the pool cannot grow.
func TestPoolMovesMemoryBetweenClasses(t *testing.T) {
	p := pool(t, PoolConfig{Classes: []int{64, 4096}, RegionSize: 4096, Limit: 8192, Canaries: false})
	var l []Buf
	for range 128 {
		l = append(l, get(t, p, 64))
	}
	_, err := p.TryGet(4096)
	require.ErrorIs(t, err, ErrExhausted)
	for _, b := range l {
		require.NoError(t, b.Release())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a, err := p.Get(ctx, 4096)
	require.NoError(t, err)
	b, err := p.Get(ctx, 4096)
	require.NoError(t, err)
	require.Zero(t, p.Stats().Classes[0].Slots)
	for _, x := range l {
		refused(t, Released, x.Err())
	}
	require.NoError(t, a.Release())
	// With one chunk free the small class gets it back; with none it borrows.
	s, err := p.Get(ctx, 1)
	require.NoError(t, err)
	require.NoError(t, s.Release())
	require.NoError(t, b.Release())
}

func TestPoolBorrows(t *testing.T) {
	p := pool(t, PoolConfig{Classes: []int{64, 4096}, RegionSize: 4096, Limit: 4096})
	a := get(t, p, 4096)
	require.NoError(t, a.Release())
	p.mu.Lock()
	p.searchAt = time.Now().Add(time.Hour) // no chunk moves
	p.mu.Unlock()
	b, err := p.TryGet(10)
	require.NoError(t, err)
	require.Equal(t, 4096, b.Whole().Len())
	require.EqualValues(t, 1, p.Stats().Classes[1].Borrowed)
	require.NoError(t, b.Release())
}

// Waiters are served in the order in which they came, whoever gives up between.
func TestPoolIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, PoolConfig{Classes: []int{4096}, RegionSize: 4096, Limit: 4096, Memory: Config{Huge: HugeOff}})
		b := get(t, p, 1)
		order := make(chan int, 20)
		var wg sync.WaitGroup
		for i := range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			wg.Go(func() {
				defer cancel()
				x, err := p.Get(ctx, 1)
				if i%3 == 1 {
					require.ErrorIs(t, err, context.Canceled)
					return
				}
				require.NoError(t, err)
				order <- i
				require.NoError(t, x.Release())
			})
			if i%3 == 1 {
				defer cancel()
				time.AfterFunc(time.Minute, cancel)
			}
			synctest.Wait() // it waits
		}
		require.Equal(t, 20, p.Stats().Classes[0].Waiting)
		_, err := p.TryGet(1)
		require.ErrorIs(t, err, ErrExhausted)
		time.Sleep(2 * time.Minute)
		require.NoError(t, b.Release())
		wg.Wait()
		close(order)
		last := -1
		n := 0
		for i := range order {
			require.Greater(t, i, last)
			last = i
			n++
		}
		require.Equal(t, 13, n)
		require.Zero(t, p.Stats().Classes[0].Waiting)
	})
}

func TestGetEndsWithItsContext(t *testing.T) {
	p := pool(t, PoolConfig{Classes: []int{4096}, RegionSize: 4096, Limit: 4096})
	b := get(t, p, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := p.Get(ctx, 1)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "1 of 1 buffers of 4096 bytes are out")
	require.NoError(t, b.Release())
	require.NoError(t, get(t, p, 1).Release())
}

func TestPoolClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, pd := fake(t)
		p, err := NewPool(PoolConfig{Classes: []int{4096}, RegionSize: 4096, Limit: 4096, Memory: Config{Huge: HugeOff}}, pd)
		require.NoError(t, err)
		p.acct.settled = timeOnly
		f, err := get(t, p, 1).Take(DeviceWrites)
		require.NoError(t, err)
		waiter := make(chan error, 1)
		go func() {
			b, err := p.Get(t.Context(), 1)
			if err == nil {
				err = b.Release()
			}
			waiter <- err
		}()
		synctest.Wait()
		require.ErrorIs(t, p.Close(), ErrInUse)
		f.Quarantine(time.Second)
		require.ErrorIs(t, p.Close(), ErrInUse)
		require.Equal(t, 1, p.Stats().Quarantined)
		time.Sleep(2 * time.Second)
		require.NoError(t, <-waiter, "a refused Close changes nothing")
		d.deregErr = syscall.EIO
		require.ErrorIs(t, p.Close(), syscall.EIO)
		_, err = p.Get(t.Context(), 1)
		require.ErrorIs(t, err, ErrClosed)
		d.deregErr = nil
		require.NoError(t, p.Close(), "it can be tried again")
		require.NoError(t, p.Close())
		require.ErrorIs(t, p.Prepare(1), ErrClosed)
	})
}

func TestCanaries(t *testing.T) {
	p := pool(t, small())
	for _, size := range []int{10, 4096} {
		b := get(t, p, size)
		s := b.h.slot
		before := p.Stats().Damaged
		s.reg.mem[s.off-1] = 0
		s.reg.mem[s.off+uint64(s.size)] = 0
		require.NoError(t, b.Release())
		require.Equal(t, before+2, p.Stats().Damaged)
		require.NoError(t, get(t, p, size).Release())
		require.Equal(t, before+2, p.Stats().Damaged, "mended")
	}
	require.Contains(t, logs.String(), "bytes were written outside a buffer")
}

// Many goroutines, little memory: nothing is handed out twice, nothing is lost.
func TestPoolStress(t *testing.T) {
	p := pool(t, PoolConfig{Classes: []int{64, 256, 4096}, RegionSize: 16 << 10, Limit: 64 << 10, Canaries: true})
	rounds := 5_000
	if testing.Short() || raceBuild {
		rounds = 2000
	}
	var got, gaveUp atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 7))
			var mine []Buf
			for range rounds {
				if len(mine) < 6 && r.IntN(2) == 0 {
					n := 1 << r.IntN(13)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(2000))*time.Microsecond)
					b, err := p.Get(ctx, n)
					cancel()
					if err != nil {
						if !errors.Is(err, context.DeadlineExceeded) {
							t.Error(err)
							return
						}
						gaveUp.Add(1)
						for _, b := range mine { // nobody waits holding: that would be a deadlock
							if err := b.Release(); err != nil {
								t.Error(err)
							}
						}
						mine = nil
						continue
					}
					got.Add(1)
					m, err := b.Bytes()
					if err != nil {
						t.Error(err)
						return
					}
					for i := range m {
						m[i] = byte(g)
					}
					mine = append(mine, b)
					continue
				}
				if len(mine) == 0 {
					continue
				}
				i := r.IntN(len(mine))
				b := mine[i]
				m, err := b.Bytes()
				if err != nil {
					t.Error(err)
					return
				}
				for _, c := range m {
					if c != byte(g) {
						t.Errorf("goroutine %d finds %d in its buffer", g, c)
						return
					}
				}
				switch r.IntN(3) {
				case 0:
					f, err := b.Take(DeviceWrites)
					if err != nil {
						t.Error(err)
						return
					}
					mine[i] = f.Complete()
				case 1:
					s, err := b.Slice(0, b.Len())
					if err == nil {
						err = errors.Join(b.Release(), s.Release())
					}
					if err != nil {
						t.Error(err)
						return
					}
					mine[i] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
				default:
					if err := b.Release(); err != nil {
						t.Error(err)
						return
					}
					mine[i] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
				}
			}
			for _, b := range mine {
				if err := b.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	st := p.Stats()
	t.Logf("%d handed out, %d gave up, %+v", got.Load(), gaveUp.Load(), st)
	require.Zero(t, st.Damaged)
	require.Zero(t, st.Misuse)
	for _, c := range st.Classes {
		require.Equal(t, c.Slots, c.Free)
		require.Zero(t, c.Waiting)
	}
}

// Two goroutines use copies of one Buf: of every pair of moves exactly one wins.
func TestOneWins(t *testing.T) {
	p := pool(t, small())
	for i := range 5000 {
		b := get(t, p, 100)
		if i%2 == 0 { // shared
			s, err := b.Slice(0, 100)
			require.NoError(t, err)
			require.NoError(t, s.Release())
		}
		var won atomic.Int32
		var wg sync.WaitGroup
		for g := range 2 {
			wg.Go(func() {
				if (i+g)%3 == 0 {
					if b.Release() == nil {
						won.Add(1)
					}
				} else if f, err := b.Take(DeviceReads); err == nil {
					won.Add(1)
					f.Release()
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, won.Load())
	}
	require.Equal(t, p.Stats().Classes[1].Slots, p.Stats().Classes[1].Free)
}

func BenchmarkPool(b *testing.B) {
	p := pool(b, PoolConfig{})
	require.NoError(b, get(b, p, 4096).Release())
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		x, err := p.Get(ctx, 4096)
		if err != nil || x.Release() != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPoolParallel(b *testing.B) {
	p := pool(b, PoolConfig{})
	require.NoError(b, get(b, p, 4096).Release())
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			x, err := p.Get(ctx, 4096)
			if err != nil || x.Release() != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkBuf(b *testing.B) {
	p := pool(b, PoolConfig{})
	x := get(b, p, 4096)
	b.Run("Bytes", func(b *testing.B) {
		n := 0
		for b.Loop() {
			m, err := x.Bytes()
			if err != nil {
				b.Fatal(err)
			}
			n += len(m)
		}
	})
	b.Run("Err", func(b *testing.B) {
		for b.Loop() {
			if x.Err() != nil {
				b.Fatal("moved")
			}
		}
	})
	b.Run("TakeComplete", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f, err := x.Take(DeviceReads)
			if err != nil {
				b.Fatal(err)
			}
			x = f.Complete()
		}
	})
	b.Run("SliceRelease", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s, err := x.Slice(0, 100)
			if err != nil || s.Release() != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("BytesShared", func(b *testing.B) {
		for b.Loop() {
			if _, err := x.Bytes(); err != nil {
				b.Fatal(err)
			}
		}
	})
	require.NoError(b, x.Release())
}

// The hot path allocates nothing, shared or not.
func TestNoAllocs(t *testing.T) {
	p := pool(t, PoolConfig{})
	require.NoError(t, get(t, p, 100).Release())
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		b, _ := p.Get(ctx, 100)
		_, _ = b.Bytes()
		s, _ := b.Slice(0, 10)
		f, _ := b.Take(DeviceReads)
		_, _ = f.SGE(p.domains[0])
		_ = f.Complete().Release()
		_ = s.Release()
	}))
}

// A slice is made while its Buf is taken: whichever comes first, the other knows.
func TestSliceAgainstTake(t *testing.T) {
	p := pool(t, small())
	var b, s Buf
	var serr error
	var turn, done atomic.Int64 // rounds begun and ended; they order b, s and serr
	rounds := int64(50_000)
	if testing.Short() || raceBuild {
		rounds = 5000
	}
	go func() {
		for i := int64(1); i <= rounds; i++ {
			for turn.Load() < i {
				runtime.Gosched()
			}
			s, serr = b.Slice(10, 20)
			done.Store(i)
		}
	}()
	first := 0
	for i := int64(1); i <= rounds; i++ {
		b = get(t, p, 100)
		turn.Store(i)
		for range i % 64 { // now a little earlier, now a little later
			_ = turn.Load()
		}
		f, ferr := b.Take(DeviceWrites)
		for done.Load() < i {
			runtime.Gosched()
		}
		require.NoError(t, ferr, "nothing overlaps it in flight")
		if serr == nil {
			first++
			refused(t, Overlap, s.Err())
			require.NoError(t, s.Release())
		} else {
			refused(t, InFlight, serr)
		}
		require.NoError(t, f.Complete().Release())
	}
	t.Logf("the slice came first in %d of %d rounds", first, rounds)
	require.Equal(t, p.Stats().Classes[1].Slots, p.Stats().Classes[1].Free)
}

// Who finds somebody registering memory waits for that, as he would have
// registered it himself: the first of a crowd must not be the only one to get some.
func TestTryGetWhileGrowing(t *testing.T) {
	d, pd := fake(t)
	p, err := NewPool(PoolConfig{Classes: []int{4096}, RegionSize: 1 << 20}, pd)
	require.NoError(t, err)
	got := make(chan error, 8)
	d.mu.Lock() // the device takes its time
	for range cap(got) {
		go func() {
			b, err := p.TryGet(4096)
			if err == nil {
				err = b.Release()
			}
			got <- err
		}()
	}
	select {
	case err := <-got:
		t.Errorf("TryGet did not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	d.mu.Unlock()
	for range cap(got) {
		require.NoError(t, <-got)
	}
	require.NoError(t, p.Close())
}
