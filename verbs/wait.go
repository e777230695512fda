package verbs

import (
	"context"
	"runtime"
	"sync/atomic"
	"syscall"

	"github.com/zrdma/zrdma/internal/netpoll"
	"github.com/zrdma/zrdma/internal/provider"
)

// SpinAdaptive lets Wait choose how long it spins: up to 50 microseconds while
// that finds completions, hardly ever while it does not.
const SpinAdaptive int64 = -1

const (
	spinMax = 50_000 // ns; about what a sleep and a wake-up cost
	spinMin = 5_000  // below it, spinning is given up
	// An adaptive wait that has given up spinning tries a full spin once in so
	// many waits: the traffic may have changed.
	spinProbe = 32
)

// waitState belongs to the one goroutine that is in Wait.
type waitState struct {
	turn  chan struct{}
	s     provider.WaitState
	spin  int64
	waits uint32
	armed atomic.Bool // s.Armed between calls; cleared by whoever takes the event

	polling atomic.Bool // guards ps
	ps      provider.WaitState
	yielded atomic.Int64 // tick of the last yield
}

// yieldEvery is below the 10 ms after which the runtime's monitor thread takes
// the processor of a goroutine that has not been scheduled since. A goroutine
// that does nothing but C calls is such a one, and losing the processor wakes
// the monitor every 20 microseconds, which on a small machine takes the time of
// the very threads that work.
const yieldEvery = 4_000_000 // ns; a tick of the coarse clock

func (w *waitState) yield(tick int64) {
	if last := w.yielded.Load(); tick-last >= yieldEvery && w.yielded.CompareAndSwap(last, tick) && last != 0 {
		runtime.Gosched()
	}
}

func (w *waitState) init() {
	w.turn = make(chan struct{}, 1)
	w.spin = spinMax
}

// budget is how long the next adaptive spin may take.
func (w *waitState) budget() int64 {
	w.waits++
	if w.waits%spinProbe == 0 {
		return spinMax
	}
	if w.spin < spinMin {
		return 0
	}
	return w.spin
}

// learn doubles the budget when a spin paid and halves it when it did not.
func (w *waitState) learn(paid bool) {
	if paid {
		w.spin = min(max(2*w.spin, spinMin), spinMax)
	} else {
		w.spin /= 2
	}
}

// busy counts the waiters that hold a thread, spinning or napping in C. Beyond
// one a processor they gain nothing and go straight to the network poller.
var busy atomic.Int32

// Wait returns completions and waits on the channel when there are none: it
// polls, spins for spinNS nanoseconds (SpinAdaptive: as long as that pays),
// arms, polls once more and sleeps, at first for a moment on its thread, then
// parked in the network poller. So an idle Wait uses neither CPU nor a thread.
// ctx ends it within a millisecond.
//
// It needs a channel of its own, for it takes every event of it. One goroutine
// at a time waits; others queue behind it. A queue without a channel is polled
// until ctx ends.
//
// Verb: ibv_poll_cq(3), ibv_req_notify_cq(3), ibv_get_cq_event(3).
func (q *CQ) Wait(ctx context.Context, wc []WC, spinNS int64) (int, error) {
	if len(wc) == 0 {
		return 0, &Error{Verb: "ibv_poll_cq", Cause: syscall.EINVAL, Hint: "no room for a completion"}
	}
	w := &q.wait
	select {
	case w.turn <- struct{}{}:
	default:
		select {
		case w.turn <- struct{}{}:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	defer func() { <-w.turn }()
	for {
		n, err := q.waitOnce(ctx, wc, spinNS)
		if n > 0 || err != nil {
			return n, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if q.ch == nil {
			runtime.Gosched()
			continue
		}
		if q.ch.h.Closed() {
			return 0, verbClosed("ibv_get_cq_event")
		}
		cookie, err := q.ch.p.Get(ctx)
		if err == syscall.EAGAIN {
			continue // kicked: a queue of the channel closed, perhaps this one
		}
		if _, err := q.ch.event(cookie, err); err != nil {
			return 0, err
		}
	}
}

// waitOnce does what of a wait is bounded in time. When it finds nothing the
// queue is armed.
func (q *CQ) waitOnce(ctx context.Context, wc []WC, spinNS int64) (int, error) {
	w := &q.wait
	adaptive := spinNS == SpinAdaptive
	spin, nap := spinNS, netpoll.Nap
	if busy.Add(1) > int32(runtime.GOMAXPROCS(0)) {
		spin, nap = 0, 0
	} else if adaptive {
		spin = w.budget()
	}
	defer busy.Add(-1)
	if ctx.Err() != nil {
		spin, nap = 0, 0 // what is there already is still returned
	}
	waiter, ok := q.p.(provider.CQWaiter)
	if !ok || q.ch == nil {
		return q.waitSteps(wc, max(spin, 0))
	}
	if q.h.Enter() != nil {
		return 0, verbClosed("ibv_poll_cq")
	}
	w.s = provider.WaitState{}
	if w.armed.Load() {
		w.s.Armed = 1
	}
	n, err := waiter.WaitEvent(q.ch.p, wc, spin, nap, &w.s)
	q.h.Exit()
	w.armed.Store(w.s.Armed != 0)
	w.yield(w.s.Tick)
	if adaptive && w.s.Spun != 0 {
		w.learn(w.s.Spun == 1)
	}
	if err != nil {
		return n, verbErr("ibv_poll_cq", err)
	}
	return n, nil
}

// waitSteps is waitOnce for a provider without CQWaiter, or without a channel.
func (q *CQ) waitSteps(wc []WC, spin int64) (n int, err error) {
	if n, err = q.PollSpin(wc, spin); n > 0 || err != nil || q.ch == nil {
		return n, err
	}
	if !q.wait.armed.Load() {
		if err := q.ReqNotify(false); err != nil {
			return 0, err
		}
		q.wait.armed.Store(true)
	}
	// A completion between the last poll and the arming raises no event.
	return q.Poll(wc)
}

// PollSpin is Poll that tries again for at most ns nanoseconds, in one C call:
// cheaper than a loop around Poll. It keeps a thread busy for that long, and now
// and then lets other goroutines run.
//
// Verb: ibv_poll_cq(3).
func (q *CQ) PollSpin(wc []WC, ns int64) (n int, err error) {
	if len(wc) == 0 {
		return 0, nil
	}
	if q.h.Enter() != nil {
		return 0, verbClosed("ibv_poll_cq")
	}
	w := &q.wait
	waiter, ok := q.p.(provider.CQWaiter)
	if ok && w.polling.CompareAndSwap(false, true) {
		n, err = waiter.WaitEvent(nil, wc, ns, 0, &w.ps)
		tick := w.ps.Tick
		w.polling.Store(false)
		w.yield(tick)
	} else {
		n, err = q.p.PollSpin(wc, ns)
	}
	q.h.Exit()
	if err != nil {
		return n, verbErr("ibv_poll_cq", err)
	}
	return n, nil
}
