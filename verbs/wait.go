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
	// An adaptive wait that has given up spinning tries again once in so many
	// waits: the traffic may have changed.
	spinProbe = 32
	// Spins go on while more than two of three pay: each adds one to the trust in
	// them, each in vain takes two. Half a spin would be no half measure: what takes
	// a little longer then never pays.
	trustMax  = 8
	trustMore = 4 // when one pays after they were given up
)

// waitState belongs to the one goroutine that is in Wait, but for the atomics.
type waitState struct {
	turn  chan struct{}
	s     provider.WaitState
	trust int // in spinning, up to trustMax
	waits uint32

	// The queue is armed, or its event lies in the channel, while armed is one
	// more than taken: what arms stores the count of before, so that an event
	// taken by another in between is never overlooked. At worst it arms twice.
	armed   uint64
	taken   atomic.Uint64 // events of this queue that were taken from the channel
	wake    chan struct{} // tells a waiter that taken has changed; room for one
	leading atomic.Bool   // the waiter holds CompChannel.lead

	polling atomic.Bool // guards ps
	ps      provider.WaitState
	yielder

	polls, spins, arms, sleeps atomic.Uint64
}

// WaitStats are running counts of what Wait has done on a queue.
type WaitStats struct {
	Polls  uint64 // bounded waits in one C call: a poll, a spin if that pays, an arming
	Spins  uint64 // of them, those that spun
	Arms   uint64 // events asked for
	Sleeps uint64 // waits that were parked in the network poller
}

// WaitStats reads the counts, at any time.
func (q *CQ) WaitStats() WaitStats {
	w := &q.wait
	return WaitStats{w.polls.Load(), w.spins.Load(), w.arms.Load(), w.sleeps.Load()}
}

// yieldEvery is below the 10 ms after which the runtime's monitor thread takes
// the processor of a goroutine that has not been scheduled since. A goroutine
// that does nothing but C calls is such a one, and losing the processor wakes
// the monitor every 20 microseconds, which on a small machine takes the time of
// the very threads that work.
const yieldEvery = 4_000_000 // ns; a tick of the coarse clock

type yielder struct{ last atomic.Int64 } // tick of the last yield

// yield lets other goroutines run when the last time was long ago. A tick of 0
// is unknown.
func (y *yielder) yield(tick int64) {
	if last := y.last.Load(); tick-last >= yieldEvery && y.last.CompareAndSwap(last, tick) && last != 0 {
		runtime.Gosched()
	}
}

func (w *waitState) init() {
	w.turn = make(chan struct{}, 1)
	w.wake = make(chan struct{}, 1)
	w.trust = trustMax
}

// budget is how long the next adaptive spin may take.
func (w *waitState) budget() int64 {
	w.waits++
	if w.trust > 0 || w.waits%spinProbe == 0 {
		return spinMax
	}
	return 0
}

// learn takes note of whether a spin paid.
func (w *waitState) learn(paid bool) {
	switch {
	case !paid:
		w.trust = max(w.trust-2, 0)
	case w.trust == 0:
		w.trust = trustMore
	default:
		w.trust = min(w.trust+1, trustMax)
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
// Queues may share a channel: a Wait that takes the event of another queue wakes
// the Wait there. But it takes every event, so Get on the same channel may miss
// some. One goroutine at a time waits; others queue behind it. A queue without
// a channel is polled until ctx ends.
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
		if err := q.park(ctx); err != nil {
			return 0, err
		}
	}
}

// missed reports that somebody took the event this queue was armed for, or that
// the queue closed. Only the waiter calls it.
func (w *waitState) missed() bool { return w.armed != w.taken.Load()+1 }

// signal follows an event that was taken, and a Close. It finds the waiter
// wherever that is: before park looks at taken, behind the leader, or leading.
func (q *CQ) signal() {
	w := &q.wait
	w.taken.Add(1)
	select {
	case w.wake <- struct{}{}:
	default:
	}
	if w.leading.Load() {
		q.ch.p.Kick()
	}
}

// park returns when it is worth to look at the queue again. Of the waiters on a
// channel one leads: it sleeps in the network poller and hands the events of
// others on.
func (q *CQ) park(ctx context.Context) error {
	w, ch := &q.wait, q.ch
	select {
	case <-w.wake: // of an earlier event; taken counts it
	default:
	}
	for !w.missed() {
		select {
		case ch.lead <- struct{}{}:
		default:
			select {
			case ch.lead <- struct{}{}:
			case <-w.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		w.leading.Store(true)
		w.sleeps.Add(1)
		var cookie uint64
		err := error(syscall.EAGAIN)
		if !w.missed() {
			cookie, err = ch.p.Get(ctx)
		}
		w.leading.Store(false)
		<-ch.lead
		if err == syscall.EAGAIN {
			return nil // kicked
		}
		if _, err := ch.event(cookie, err); err != nil {
			return err
		}
	}
	return nil
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
	w.polls.Add(1)
	waiter, ok := q.p.(provider.CQWaiter)
	if !ok || q.ch == nil {
		return q.waitSteps(wc, max(spin, 0))
	}
	if q.h.Enter() != nil {
		return 0, verbClosed("ibv_poll_cq")
	}
	w.s = provider.WaitState{}
	before := w.taken.Load()
	was := w.armed == before+1
	if was {
		w.s.Armed = 1
	}
	n, err := waiter.WaitEvent(q.ch.p, wc, spin, nap, &w.s)
	q.h.Exit()
	w.armed = 0
	if w.s.Armed != 0 {
		w.armed = before + 1
		if !was {
			w.arms.Add(1)
		}
	}
	if w.s.Spun != 0 {
		w.spins.Add(1)
	}
	if w.s.Other != 0 {
		q.ch.event(w.s.Other, nil)
	}
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
	if before := q.wait.taken.Load(); q.wait.armed != before+1 {
		if err := q.ReqNotify(false); err != nil {
			return 0, err
		}
		q.wait.armed = before + 1
		q.wait.arms.Add(1)
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
