package mr

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// scriptQP is a queue pair whose completions the test makes.
type scriptQP struct {
	pd *verbs.PD

	mu        sync.Mutex
	posted    []verbs.SendWR
	done      []func(error)
	auto      bool // complete at once
	autoErr   error
	postErr   error
	killErr   error
	killHangs bool
	destroyed bool
	kills     int
	atKill    func()
	unbound   []verbs.RKey
}

func (q *scriptQP) Unbound(k verbs.RKey) { q.unbound = append(q.unbound, k) }

func (q *scriptQP) PD() *verbs.PD { return q.pd }

func (q *scriptQP) PostControl(_ context.Context, wr verbs.SendWR, done func(error)) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.postErr != nil {
		return q.postErr
	}
	q.posted = append(q.posted, wr)
	if wr.BindMW != nil {
		wr.BindMW.SetRKey(wr.RKey)
	}
	if q.auto {
		done(q.autoErr)
		return nil
	}
	q.done = append(q.done, done)
	return nil
}

func (q *scriptQP) Kill(ctx context.Context) (bool, error) {
	q.mu.Lock()
	q.kills++
	if q.atKill != nil {
		q.atKill()
	}
	hangs := q.killHangs
	q.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return false, ctx.Err()
	}
	return q.destroyed, q.killErr
}

// complete ends the oldest request that waits.
func (q *scriptQP) complete(err error) {
	q.mu.Lock()
	d := q.done[0]
	q.done = q.done[1:]
	q.mu.Unlock()
	d(err)
}

type grantRig struct {
	t   *testing.T
	dev *fakeDev
	p   *Pool
	g   *Granter
	q   *scriptQP
}

// grants runs f in a bubble of virtual time, with everything a grant needs, and
// requires that nothing is left at the end.
func grants(t *testing.T, cfg GranterConfig, dev *fakeDev, f func(r *grantRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		pd := dev.pd(t)
		p, err := NewPool(PoolConfig{Classes: []int{4096}, RegionSize: 8192, Limit: 8192, Memory: Config{Huge: HugeOff}, Canaries: false}, pd)
		require.NoError(t, err)
		g, err := NewGranter(pd, cfg)
		require.NoError(t, err)
		// The kernel's grace period knows no virtual time; TestGracePeriod has it.
		g.settled = timeOnly
		r := &grantRig{t, dev, p, g, &scriptQP{pd: pd, auto: true}}
		f(r)
		synctest.Wait()
		require.NoError(t, g.Close())
		require.NoError(t, p.Close())
	})
}

func (r *grantRig) grant(d Direction) (*Grant, Buf) {
	r.t.Helper()
	b := get(r.t, r.p, 100)
	t, err := r.g.Grant(r.t.Context(), r.q, b, d)
	require.NoError(r.t, err)
	refused(r.t, InFlight, b.Err())
	return t, b
}

func TestGrantByWindow(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{}, func(r *grantRig) {
		require.Equal(t, ByWindow, r.g.Mechanism())
		require.Equal(t, 3*time.Millisecond, r.g.Quarantine(), "this is no hardware")
		keys := map[verbs.RKey]bool{}
		for _, d := range []Direction{DeviceReads, DeviceWrites, DeviceReads} {
			r.q.posted = nil
			g, b := r.grant(d)
			bind := r.q.posted[0]
			require.Equal(t, verbs.WRBindMW, bind.Opcode)
			require.EqualValues(t, 100, bind.BindLength)
			want := verbs.AccessRemoteRead
			if d == DeviceWrites {
				want = verbs.AccessRemoteWrite
			}
			require.Equal(t, want, bind.BindAccess)
			require.Equal(t, Remote{Addr: bind.BindAddr, Len: 100, RKey: bind.RKey}, g.Remote())
			require.Equal(t, bind.RKey, bind.BindMW.RKey(), "kept for the next bind")
			require.False(t, keys[bind.RKey], "a key is not given twice")
			keys[bind.RKey] = true

			start := time.Now()
			n, err := g.Revoke(r.t.Context())
			require.NoError(t, err)
			require.Equal(t, 3*time.Millisecond, time.Since(start))
			require.Equal(t, verbs.WRLocalInv, r.q.posted[1].Opcode)
			require.Equal(t, bind.RKey, r.q.posted[1].InvalidateRKey)
			require.Equal(t, 100, n.Len())
			refused(t, Released, b.Err())
			_, err = g.Revoke(r.t.Context())
			require.Error(t, err, "once")
			g.Abandon()
			require.NoError(t, n.Release())
		}
		require.EqualValues(t, 1, r.dev.mws.Load(), "one window serves all")
		require.Equal(t, GranterStats{Granted: 3, Revoked: 3, Idle: 1}, r.g.Stats())
	})
}

// Revoke returns after the good completion, and not before.
func TestRevokeWaitsForTheCompletion(t *testing.T) {
	grants(t, GranterConfig{Quarantine: -1}, &fakeDev{}, func(r *grantRig) {
		g, _ := r.grant(DeviceWrites)
		r.q.auto = false
		var n Buf
		var err error
		done := make(chan struct{})
		go func() {
			n, err = g.Revoke(r.t.Context())
			close(done)
		}()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("Revoke returned while the peer could still write")
		default:
		}
		require.ErrorIs(t, r.g.Close(), ErrInUse)
		require.ErrorIs(t, r.p.Close(), ErrInUse)
		r.q.complete(nil)
		<-done
		require.NoError(t, err)
		require.NoError(t, n.Release())
	})
}

// The wait ends with ctx, the exposure does not: the memory comes back only after the fence.
func TestRevokeGivenUp(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{}, func(r *grantRig) {
		g, _ := r.grant(DeviceWrites)
		r.q.auto = false
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		_, err := g.Revoke(ctx)
		var lost *LostError
		require.ErrorAs(t, err, &lost)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, r.p.Stats().Classes[0].InFlight)
		r.q.complete(nil)
		require.Equal(t, 1, r.p.Stats().Classes[0].InFlight, "quarantine")
		time.Sleep(3 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, 1, r.p.Stats().Classes[0].Free)
	})
}

func TestAbandon(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{}, func(r *grantRig) {
		g, _ := r.grant(DeviceReads)
		g.Abandon()
		g.Abandon()
		_, err := g.Revoke(r.t.Context())
		require.ErrorIs(t, err, errRevoked)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, 1, r.p.Stats().Classes[0].InFlight)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, 1, r.p.Stats().Classes[0].Free)
	})
}

// On rxe a window whose peer has not said that it is done is deallocated: a second
// invalidation, the peer's, would bring the kernel down.
func TestRXEDeallocates(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{}, func(r *grantRig) {
		r.g.onRXE = true
		revoke := func(g *Grant) {
			b, err := g.Revoke(r.t.Context())
			require.NoError(t, err)
			require.NoError(t, b.Release())
		}
		abandon := func(g *Grant) {
			g.Abandon()
			time.Sleep(4 * time.Millisecond)
			synctest.Wait()
		}
		for _, end := range []func(*Grant){revoke, abandon} {
			r.q.posted, r.q.unbound = nil, nil
			g, _ := r.grant(DeviceReads)
			start := time.Now()
			end(g)
			require.Len(t, r.q.posted, 1, "the bind, and no LOCAL_INV")
			require.Zero(t, r.dev.mws.Load(), "windows")
			require.Equal(t, []verbs.RKey{g.Remote().RKey}, r.q.unbound)
			require.GreaterOrEqual(t, time.Since(start), r.g.Quarantine())
			require.Equal(t, 1, r.p.Stats().Classes[0].Free)
		}
		// With the peer's word LOCAL_INV is safe, and the window is used again.
		r.q.posted = nil
		g, _ := r.grant(DeviceReads)
		b, err := g.Finish(r.t.Context())
		require.NoError(t, err)
		require.NoError(t, b.Release())
		require.Equal(t, verbs.WRLocalInv, r.q.posted[1].Opcode)
		require.Zero(t, r.q.kills)
	})
}

// It waits for the bind, which would fail without its window.
func TestRXEDeallocatesBehindTheBind(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{}, func(r *grantRig) {
		r.g.onRXE, r.q.auto = true, false
		g, err := r.g.Start(r.t.Context(), r.q, get(r.t, r.p, 100), DeviceReads)
		require.NoError(t, err)
		start := time.Now()
		time.AfterFunc(time.Second, func() { r.q.complete(nil) })
		b, err := g.Revoke(r.t.Context())
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(start), time.Second)
		require.NoError(t, b.Release())
		require.Zero(t, r.q.kills)
	})
}

// A bind that does not complete may be on its way to the device still: the queue pair
// ends before the window goes.
func TestRXEBindNeverCompletes(t *testing.T) {
	grants(t, GranterConfig{Grace: time.Second}, &fakeDev{}, func(r *grantRig) {
		r.g.onRXE, r.q.auto = true, false
		g, err := r.g.Start(r.t.Context(), r.q, get(r.t, r.p, 100), DeviceReads)
		require.NoError(t, err)
		r.q.atKill = func() { require.EqualValues(t, 1, r.dev.mws.Load(), "the window was freed first") }
		b, err := g.Revoke(r.t.Context())
		require.NoError(t, err)
		require.NoError(t, b.Release())
		require.Equal(t, 1, r.q.kills)
		require.Zero(t, r.dev.mws.Load(), "windows")
	})
}

var errFlushed = errors.New("flushed")

// Every fence that fails is followed by a harder one; when none is left the
// memory is leaked, never returned.
func TestFencesGetHarder(t *testing.T) {
	for _, tt := range []struct {
		name      string
		inv       error
		postErr   error
		silent    bool // LOCAL_INV never completes
		dealloc   error
		killErr   error
		killHangs bool
		destroyed bool
		kills     int
		leaked    bool
		atLeast   time.Duration
	}{
		{name: "flushed, window deallocated", inv: errFlushed, atLeast: 3 * time.Millisecond},
		{name: "not posted, window deallocated", postErr: errFlushed, atLeast: 3 * time.Millisecond},
		{name: "silent, window deallocated", silent: true, atLeast: 5*time.Second + 3*time.Millisecond},
		{name: "queue pair to ERR", inv: errFlushed, dealloc: syscall.EBUSY, kills: 1, atLeast: 3 * time.Millisecond},
		{name: "queue pair destroyed", inv: errFlushed, dealloc: syscall.EBUSY, destroyed: true, kills: 1},
		{name: "nothing", inv: errFlushed, dealloc: syscall.EBUSY, killErr: syscall.EIO, kills: 1, leaked: true},
		{name: "nothing in time", inv: errFlushed, dealloc: syscall.EBUSY, killHangs: true, kills: 1, leaked: true, atLeast: 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			grants(t, GranterConfig{}, &fakeDev{}, func(r *grantRig) {
				g, _ := r.grant(DeviceWrites)
				q := r.q
				q.auto, q.autoErr, q.postErr, q.killErr, q.killHangs, q.destroyed = !tt.silent, tt.inv, tt.postErr, tt.killErr, tt.killHangs, tt.destroyed
				r.dev.mwErr = tt.dealloc
				start := time.Now()
				b, err := g.Revoke(context.Background())
				require.GreaterOrEqual(t, time.Since(start), tt.atLeast)
				require.Equal(t, tt.kills, q.kills)
				st := r.g.Stats()
				require.EqualValues(t, 1, st.Hard)
				require.EqualValues(t, tt.kills, st.Killed)
				require.Zero(t, st.Open)
				if tt.leaked {
					require.Error(t, err)
					require.ErrorContains(t, err, "leaked")
					require.True(t, b.IsZero())
					require.Equal(t, 1, st.Leaked)
					require.Equal(t, 1, r.p.Stats().Leaked)
				} else {
					require.NoError(t, err)
					require.NoError(t, b.Release())
					require.EqualValues(t, 1, st.Revoked)
				}
				if tt.dealloc != nil {
					require.ErrorIs(t, r.g.Close(), tt.dealloc, "a window that may be bound is not forgotten")
				}
				r.dev.mwErr = nil
				q.done = nil
			})
		})
	}
}

func TestBindFails(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{}, func(r *grantRig) {
		b := get(r.t, r.p, 10)
		r.q.postErr = verbs.ErrQueueFull
		_, err := r.g.Grant(r.t.Context(), r.q, b, DeviceReads)
		require.ErrorIs(t, err, verbs.ErrQueueFull)
		require.NoError(t, b.Err(), "nothing was exposed: the caller keeps it")

		r.q.postErr, r.q.autoErr = nil, errFlushed
		_, err = r.g.Grant(r.t.Context(), r.q, b, DeviceReads)
		require.ErrorIs(t, err, errFlushed)
		var lost *LostError
		require.False(t, errors.As(err, &lost))
		require.NoError(t, b.Err(), "fenced, and the caller's again")
		require.NoError(t, b.Release())

		// The wait for the bind ends with its context.
		b = get(r.t, r.p, 10)
		r.q.auto, r.q.autoErr = false, nil
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		_, err = r.g.Grant(ctx, r.q, b, DeviceReads)
		require.ErrorAs(t, err, &lost)
		synctest.Wait()
		refused(t, InFlight, b.Err())
		r.q.complete(nil)
		r.q.complete(nil) // LOCAL_INV
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 1, r.p.Stats().Classes[0].Free)
	})
}

func TestStartDoesNotWait(t *testing.T) {
	grants(t, GranterConfig{Quarantine: -1}, &fakeDev{}, func(r *grantRig) {
		r.q.auto = false
		g, err := r.g.Start(r.t.Context(), r.q, get(r.t, r.p, 10), DeviceReads)
		require.NoError(t, err)
		require.NotZero(t, g.Remote().RKey)
		require.NoError(t, g.Err())
		select {
		case <-g.Bound():
			t.Fatal("bound before the completion")
		default:
		}
		r.q.complete(nil)
		<-g.Bound()
		require.NoError(t, g.Err())
		r.q.auto = true
		b, err := g.Revoke(r.t.Context())
		require.NoError(t, err)
		require.NoError(t, b.Release())
	})
}

// After the peer's SEND with invalidate no LOCAL_INV is posted.
func TestInvalidatedByPeer(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{}, func(r *grantRig) {
		g, _ := r.grant(DeviceWrites)
		wc := verbs.WC{Opcode: verbs.WCRecv}
		wc.SetInvalidatedRKey(g.Remote().RKey + 1)
		require.False(t, g.Invalidated(&wc), "another key")
		wc.SetInvalidatedRKey(g.Remote().RKey)
		wc.Flags = verbs.WCWithImm
		require.False(t, g.Invalidated(&wc), "an immediate that looks like the key")
		wc.Flags = 0
		wc.Status = verbs.WCWRFlushErr
		require.False(t, g.Invalidated(&wc))
		wc.Status = verbs.WCSuccess
		require.True(t, g.Invalidated(&wc))
		r.q.posted = nil
		start := time.Now()
		b, err := g.Revoke(r.t.Context())
		require.NoError(t, err)
		require.Empty(t, r.q.posted)
		require.Equal(t, 3*time.Millisecond, time.Since(start))
		require.NoError(t, b.Release())
		require.Equal(t, 1, r.g.Stats().Idle)
	})
}

func TestGrantByRegion(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{noWindows: true, noBind: true}, func(r *grantRig) {
		require.Equal(t, ByRegion, r.g.Mechanism(), "found by probing")
		g, _ := r.grant(DeviceWrites)
		require.Equal(t, ByRegion, g.Mechanism())
		require.Empty(t, r.q.posted)
		require.EqualValues(t, 2, r.dev.mrs.Load())
		b, err := g.Revoke(r.t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, r.dev.mrs.Load())
		require.NoError(t, b.Release())

		// Deregistering fails: the queue pair alone proves nothing here.
		g, _ = r.grant(DeviceReads)
		r.dev.deregErr = syscall.EBUSY
		_, err = g.Revoke(r.t.Context())
		require.ErrorIs(t, err, syscall.EBUSY)
		require.Equal(t, 1, r.q.kills)
		require.Equal(t, 1, r.g.Stats().Leaked)
		require.ErrorIs(t, r.g.Close(), syscall.EBUSY)
		r.dev.deregErr = nil
	})
}

// A device with windows, and a region that was registered without the right to bind.
func TestGrantOfARegionThatCannotBind(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{noBind: true}, func(r *grantRig) {
		require.Equal(t, ByWindow, r.g.Mechanism())
		g, _ := r.grant(DeviceWrites)
		require.Equal(t, ByRegion, g.Mechanism())
		b, err := g.Revoke(r.t.Context())
		require.NoError(t, err)
		require.NoError(t, b.Release())
	})
}

func TestGrantByQueuePair(t *testing.T) {
	grants(t, GranterConfig{Mechanism: ByQueuePair}, &fakeDev{}, func(r *grantRig) {
		b := get(r.t, r.p, 10)
		_, err := r.g.Grant(r.t.Context(), r.q, b, DeviceReads)
		require.ErrorIs(t, err, syscall.EACCES, "the pool gives no remote rights")
		require.NoError(t, b.Release())

		m, err := Register(make([]byte, 4096), verbs.AccessLocalWrite|verbs.AccessRemoteRead, r.q.pd)
		require.NoError(t, err)
		b, err = m.Buf(10, 20)
		require.NoError(t, err)
		g, err := r.g.Grant(r.t.Context(), r.q, b, DeviceReads)
		require.NoError(t, err)
		require.Equal(t, m.MR(r.q.pd).RKey(), g.Remote().RKey)
		require.Equal(t, m.MR(r.q.pd).Addr()+10, g.Remote().Addr)
		start := time.Now()
		b, err = g.Revoke(r.t.Context())
		require.NoError(t, err)
		require.Equal(t, 3*time.Millisecond, time.Since(start))
		require.Equal(t, 1, r.q.kills)
		require.NoError(t, b.Release())
		require.NoError(t, m.Close())
	})
}

func TestGrantIsRefused(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{}, func(r *grantRig) {
		other := r.dev.pd(r.t)
		b := get(r.t, r.p, 10)
		_, err := r.g.Grant(r.t.Context(), &scriptQP{pd: other}, b, DeviceReads)
		require.ErrorIs(t, err, syscall.EINVAL)
		_, err = r.g.Grant(r.t.Context(), r.q, b, 0)
		require.ErrorIs(t, err, syscall.EINVAL)
		_, err = r.g.Grant(r.t.Context(), r.q, Buf{}, DeviceReads)
		require.Error(t, err)
		foreign, err := Register(make([]byte, 10), 0, other)
		require.NoError(t, err)
		fb, err := foreign.Buf(0, 10)
		require.NoError(t, err)
		_, err = r.g.Grant(r.t.Context(), r.q, fb, DeviceReads)
		require.ErrorIs(t, err, errForeign)
		require.NoError(t, fb.Release())
		require.NoError(t, foreign.Close())
		require.NoError(t, b.Release(), "a refused grant takes nothing")
		_, err = r.g.Grant(r.t.Context(), r.q, b, DeviceReads)
		refused(t, Released, err)
		require.Zero(t, r.g.Stats().Open)
	})
	_, pd := fake(t)
	for _, cfg := range []GranterConfig{{Mechanism: 9}, {Grace: -1}} {
		_, err := NewGranter(pd, cfg)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
	d := &fakeDev{noWindows: true}
	_, err := NewGranter(d.pd(t), GranterConfig{Mechanism: ByWindow})
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// The low byte of a key counts: a window is replaced before it comes round.
func TestWindowsAreReplaced(t *testing.T) {
	grants(t, GranterConfig{Quarantine: -1}, &fakeDev{}, func(r *grantRig) {
		keys := map[verbs.RKey]bool{}
		for range 600 {
			g, _ := r.grant(DeviceReads)
			require.False(t, keys[g.Remote().RKey])
			keys[g.Remote().RKey] = true
			b, err := g.Revoke(r.t.Context())
			require.NoError(t, err)
			require.NoError(t, b.Release())
		}
		require.EqualValues(t, 1, r.dev.mws.Load())
	})
}

func TestRemote(t *testing.T) {
	r := Remote{Addr: 0x1122334455667788, Len: 0x99aabbcc, RKey: 0xddeeff00}
	b, err := r.MarshalBinary()
	require.NoError(t, err)
	require.Len(t, b, RemoteLen)
	require.Equal(t, []byte{0x88, 0x77}, b[:2])
	var got Remote
	require.NoError(t, got.UnmarshalBinary(b))
	require.Equal(t, r, got)
	require.Error(t, got.UnmarshalBinary(b[:15]))
	require.Error(t, got.UnmarshalBinary(append(b, 0)))
	w, _ := Remote{Addr: ^uint64(0) - 3, Len: 5}.MarshalBinary()
	require.ErrorIs(t, got.UnmarshalBinary(w), errWraps)
	require.Equal(t, r, got, "a refused one changes nothing")

	s, err := r.Slice(8, 100)
	require.NoError(t, err)
	require.Equal(t, Remote{r.Addr + 8, 100, r.RKey}, s)
	for _, bad := range []struct {
		off uint64
		n   int
	}{{0, -1}, {uint64(r.Len), 1}, {uint64(r.Len) + 1, 0}, {^uint64(0), 1}, {1, int(r.Len)}} {
		_, err := r.Slice(bad.off, bad.n)
		require.Error(t, err)
	}
}

func FuzzRemote(f *testing.F) {
	f.Add(make([]byte, RemoteLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Remote
		if r.UnmarshalBinary(b) != nil {
			return
		}
		out, _ := r.MarshalBinary()
		require.Equal(t, b, out)
	})
}

// timeOnly is settled without a grace period.
func timeOnly(d time.Duration, f func()) { time.AfterFunc(d, f) }
