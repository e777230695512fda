package verbs

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// eventChan is a completion channel in Go: a list of cookies.
type eventChan struct {
	provider.CompChannel
	events chan uint64
	kick   chan struct{}
}

func (c *eventChan) Get(ctx context.Context) (uint64, error) {
	select {
	case e := <-c.events:
		return e, nil
	case <-c.kick:
		return 0, syscall.EAGAIN
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (c *eventChan) TryGet() (uint64, error) {
	select {
	case e := <-c.events:
		return e, nil
	default:
		return 0, syscall.EAGAIN
	}
}

func (c *eventChan) Kick() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}
func (*eventChan) Interrupt()   {}
func (*eventChan) Close() error { return nil }

// eventCQ raises one event for each arming, as a device does.
type eventCQ struct {
	provider.CQ
	ch     *eventChan
	cookie uint64

	mu    sync.Mutex
	have  int  // guarded by mu
	armed bool // guarded by mu
}

func (q *eventCQ) complete() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.have++
	if q.armed {
		q.armed = false
		q.ch.events <- q.cookie
	}
}

func (q *eventCQ) Poll(wc []WC) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(q.have, len(wc))
	q.have -= n
	return n, nil
}

func (q *eventCQ) PollSpin(wc []WC, _ int64) (int, error) { return q.Poll(wc) }
func (q *eventCQ) Close() error                           { return nil }
func (q *eventCQ) ReqNotify(bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.armed = true
	return nil
}

// nappingCQ takes events itself, of whichever queue they are, as the wait in C does.
type nappingCQ struct{ eventCQ }

func (q *nappingCQ) WaitEvent(_ provider.CompChannel, wc []WC, _, napNS int64, w *provider.WaitState) (int, error) {
	for {
		if n, _ := q.Poll(wc); n > 0 {
			return n, nil
		}
		if w.Armed == 0 {
			q.ReqNotify(false)
			w.Armed = 1
			continue
		}
		select {
		case e := <-q.ch.events:
			if e != q.cookie {
				w.Other = e
				return 0, nil
			}
			w.Armed = 0
		case <-time.After(time.Duration(napNS) / 10):
			return 0, nil
		}
	}
}

type eventCtx struct {
	plainCtx
	ch   *eventChan
	naps bool
	cqs  []*eventCQ
}

func (c *eventCtx) CreateCompChannel() (provider.CompChannel, error) { return c.ch, nil }
func (c *eventCtx) CreateCQ(in *provider.CQInit) (provider.CQ, error) {
	if c.naps {
		q := &nappingCQ{eventCQ{ch: c.ch, cookie: in.Cookie}}
		c.cqs = append(c.cqs, &q.eventCQ)
		return q, nil
	}
	q := &eventCQ{ch: c.ch, cookie: in.Cookie}
	c.cqs = append(c.cqs, q)
	return q, nil
}

// sharing makes n queues on one channel.
func sharing(t *testing.T, n int, naps bool) (*CompChannel, []*CQ, []*eventCQ) {
	before := len(handle.Live())
	t.Cleanup(func() { require.Len(t, handle.Live(), before, "objects left open") })
	p := &eventCtx{ch: &eventChan{events: make(chan uint64, 1000), kick: make(chan struct{}, 1)}, naps: naps}
	c := newContext(p)
	require.NoError(t, c.h.Init("verbs.Context"))
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	ch, err := c.CreateCompChannel()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ch.Close()) })
	var all []*CQ
	for range n {
		q, err := c.CreateCQ(8, &CQConfig{Channel: ch})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, q.Close()) })
		all = append(all, q)
	}
	return ch, all, p.cqs
}

// Every completion is returned by the Wait on its queue, whoever takes the event.
func TestWaitsShareAChannel(t *testing.T) {
	for _, c := range []struct {
		name        string
		naps, thief bool
	}{{"poller", false, false}, {"naps", true, false}, {"poller and TryGet", false, true}, {"naps and TryGet", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			const queues, each = 6, 300
			ch, cqs, dev := sharing(t, queues, c.naps)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			stop := make(chan struct{})
			var thief, wg sync.WaitGroup
			if c.thief {
				thief.Go(func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(20 * time.Microsecond):
							ch.TryGet()
						}
					}
				})
			}
			errs := make(chan error, queues)
			for i, q := range cqs {
				wg.Go(func() { // completes, and waits for it, each in its own time
					r := rand.New(rand.NewPCG(1, uint64(i)))
					wc := make([]WC, 1)
					for range each {
						time.AfterFunc(time.Duration(r.IntN(100))*time.Microsecond, dev[i].complete)
						if n, err := q.Wait(ctx, wc, 0); n != 1 || err != nil {
							errs <- errors.Join(errors.New("a completion is lost"), err)
							return
						}
					}
				})
			}
			wg.Wait()
			close(stop)
			thief.Wait()
			select {
			case err := <-errs:
				require.NoError(t, err)
			default:
			}
		})
	}
}

// The event of a parked waiter is taken by TryGet: the completion is not lost.
func TestWaitWhoseEventIsTaken(t *testing.T) {
	ch, cqs, dev := sharing(t, 2, false)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 2)
	for _, q := range cqs {
		go func() {
			_, err := q.Wait(ctx, make([]WC, 1), 0)
			done <- err
		}()
	}
	for i, q := range dev {
		for armed := false; !armed; time.Sleep(time.Millisecond) {
			q.mu.Lock()
			armed = q.armed
			q.mu.Unlock()
		}
		// The completion without its event, and then the event in other hands.
		q.mu.Lock()
		q.have, q.armed = 1, false
		q.mu.Unlock()
		ch.event(cqs[i].cookie, nil)
		require.NoError(t, <-done, "queue %d", i)
	}
}

// A queue that closes ends its own Wait, be it the one that sleeps in the poller
// or one that queues behind it, and no other.
func TestCloseEndsOnlyItsWait(t *testing.T) {
	_, cqs, dev := sharing(t, 3, false)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make([]chan error, 3)
	for i, q := range cqs {
		done[i] = make(chan error, 1)
		go func() {
			_, err := q.Wait(ctx, make([]WC, 1), 0)
			done[i] <- err
		}()
	}
	time.Sleep(20 * time.Millisecond) // let them park; if not, the test is only weaker
	for i := range 2 {
		require.NoError(t, cqs[i].Close())
		require.ErrorIs(t, <-done[i], ErrClosed)
	}
	dev[2].complete()
	require.NoError(t, <-done[2])
}
