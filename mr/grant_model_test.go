package mr

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/verbs"
)

// moody is a queue pair and a device whose fences complete late, fail, or never
// answer, by chance. It knows what is exposed: the truth that mr must not outrun.
type moody struct {
	pd    *verbs.PD
	r     *rand.Rand
	quiet time.Duration // bytes still move for so long after a fence

	mu      sync.Mutex
	exposed map[verbs.RKey]*exposure
	dead    bool
}

type exposure struct {
	lo, hi uint64
	until  time.Time // zero: still open
}

func (q *moody) PD() *verbs.PD { return q.pd }

// close ends an exposure. q.mu is held.
func (q *moody) close(k verbs.RKey) {
	if x := q.exposed[k]; x != nil && x.until.IsZero() {
		x.until = time.Now().Add(q.quiet)
	}
}

// reachable reports that a peer could still touch a byte of [lo, hi).
func (q *moody) reachable(lo, hi uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, x := range q.exposed {
		if x.lo < hi && lo < x.hi && (x.until.IsZero() || time.Now().Before(x.until)) {
			return true
		}
	}
	return false
}

func (q *moody) PostControl(_ context.Context, wr verbs.SendWR, done func(error)) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	mood := q.r.IntN(20)
	if mood == 0 {
		return verbs.ErrQueueFull
	}
	delay := time.Duration(q.r.IntN(3000)) * time.Microsecond
	if wr.Opcode == verbs.WRBindMW {
		wr.BindMW.SetRKey(wr.RKey)
		if mood == 1 || q.dead {
			time.AfterFunc(delay, func() { done(errFlushed) })
			return nil
		}
		// From here on: a bind takes effect before it completes.
		q.exposed[wr.RKey] = &exposure{lo: wr.BindAddr, hi: wr.BindAddr + wr.BindLength}
		time.AfterFunc(delay, func() { done(nil) })
		return nil
	}
	switch {
	case mood < 4: // a flush: it was not carried out
		time.AfterFunc(delay, func() { done(errFlushed) })
	case mood < 6: // never answers
	default:
		time.AfterFunc(delay, func() {
			q.mu.Lock()
			q.close(wr.InvalidateRKey)
			q.mu.Unlock()
			done(nil)
		})
	}
	return nil
}

func (q *moody) Kill(ctx context.Context) (bool, error) {
	q.mu.Lock()
	mood := q.r.IntN(3)
	q.mu.Unlock()
	if mood == 0 {
		<-ctx.Done()
		return false, ctx.Err()
	}
	time.Sleep(time.Millisecond)
	q.mu.Lock()
	defer q.mu.Unlock()
	for k := range q.exposed {
		q.close(k)
		if mood == 2 { // destroyed: nothing moves any more
			q.exposed[k].until = time.Now()
		}
	}
	return mood == 2, nil
}

// moodyPD makes the windows of moody's device: freeing one may fail.
type moodyDev struct {
	fakeDev
	q *moody
}

func (d *moodyDev) AllocPD() (provider.PD, error) { return &moodyPD{fakePD{d: &d.fakeDev}, d}, nil }

type moodyPD struct {
	fakePD
	m *moodyDev
}

func (p *moodyPD) AllocMW(t provider.MWType) (provider.MW, error) {
	w, err := p.fakePD.AllocMW(t)
	if err != nil {
		return nil, err
	}
	return &moodyMW{w.(*fakeMW), p.m.q}, nil
}

type moodyMW struct {
	*fakeMW
	q *moody
}

func (w *moodyMW) Close() error {
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	if w.q.r != nil && w.q.r.IntN(3) == 0 {
		return syscall.EBUSY
	}
	w.q.close(w.key)
	return w.fakeMW.Close()
}

// Whatever the device does and whoever gives up: memory is never in a program's
// hands while a peer can reach it, and what is neither is counted as leaked.
func TestGrantModel(t *testing.T) {
	seeds := uint64(1500)
	if testing.Short() || raceBuild {
		seeds = 150
	}
	leaked := 0
	for s := uint64(1); s <= seeds && !t.Failed(); s++ {
		leaked += grantModel(t, s)
		if t.Failed() {
			t.Logf("seed %d", s)
		}
	}
	require.NotZero(t, leaked, "no seed got as far as a leak")
}

func grantModel(t *testing.T, seed uint64) (leaked int) {
	synctest.Test(t, func(t *testing.T) {
		q := &moody{r: rand.New(rand.NewPCG(seed, 5)), quiet: 2900 * time.Microsecond, exposed: map[verbs.RKey]*exposure{}}
		d := &moodyDev{q: q}
		pd := wrap(t, d, &d.fakeDev)
		q.pd = pd
		p, err := NewPool(PoolConfig{Classes: []int{4096}, RegionSize: 6 * 4096, Limit: 6 * 4096, Memory: Config{Huge: HugeOff}}, pd)
		require.NoError(t, err)
		p.acct.settled = timeOnly
		g, err := NewGranter(pd, GranterConfig{})
		require.NoError(t, err)
		g.settled = timeOnly

		mine := func(b Buf) {
			t.Helper()
			m, err := b.Bytes()
			require.NoError(t, err)
			lo := uint64(b.h.slot.off) + b.Region().MR(pd).Addr()
			require.False(t, q.reachable(lo, lo+uint64(len(m))), "a peer can still reach what a program has")
		}
		var wg sync.WaitGroup
		for i := range 4 {
			r := rand.New(rand.NewPCG(seed, uint64(10+i)))
			wg.Go(func() {
				for range 12 {
					b, err := p.TryGet(4096)
					if err != nil {
						time.Sleep(time.Duration(r.IntN(4000)) * time.Microsecond)
						continue
					}
					mine(b)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(20000))*time.Microsecond)
					gr, err := g.Grant(ctx, q, b, Direction(1+r.IntN(2)))
					var lost *LostError
					switch {
					case errors.As(err, &lost):
						refused(t, InFlight, orInFlight(b.Err()))
					case err != nil:
						mine(b)
						require.NoError(t, b.Release())
					case r.IntN(5) == 0:
						gr.Abandon()
					default:
						time.Sleep(time.Duration(r.IntN(1000)) * time.Microsecond)
						if n, err := gr.Revoke(ctx); err == nil {
							mine(n)
							require.NoError(t, n.Release())
						} else {
							require.True(t, n.IsZero())
						}
					}
					cancel()
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		gs, ps := g.Stats(), p.Stats()
		require.Zero(t, gs.Open)
		require.Equal(t, gs.Granted, gs.Revoked+uint64(gs.Leaked), "every grant ended: %+v", gs)
		require.Equal(t, ps.Leaked, gs.Leaked)
		require.Equal(t, ps.Classes[0].Slots-ps.Leaked, ps.Classes[0].Free)
		leaked = gs.Leaked
		q.mu.Lock()
		q.r = nil // the device is well again
		q.mu.Unlock()
		require.NoError(t, g.Close())
		require.NoError(t, p.Close())
	})
	return leaked
}

// orInFlight: a lost buffer is in flight, or has been released since.
func orInFlight(err error) error {
	var e *MisuseError
	if errors.As(err, &e) && e.Kind == Released {
		return &MisuseError{Kind: InFlight}
	}
	return err
}
