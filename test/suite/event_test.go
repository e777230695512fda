package suite_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("E01", "comp event RC UD", compEvent)
	register("E02", "solicited only", solicited)
	register("E03", "arm race", armRace)
	register("E04", "many CQs one channel", manyCQs)
	register("E05", "context cancel", contextCancel)
	register("E06", "destroy with unacked events", unackedEvents)
}

var errDeadline = context.DeadlineExceeded

func contextFor(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// next waits for a completion event and requires that it is of q.
func (e *env) next(ch *verbs.CompChannel, q *verbs.CQ) {
	e.t.Helper()
	cx, cancel := contextFor(waitLimit)
	defer cancel()
	got, err := ch.Get(cx)
	require.NoError(e.t, err)
	require.Same(e.t, q, got)
}

// quiet requires that no completion event comes for a while.
func (e *env) quiet(ch *verbs.CompChannel) {
	e.t.Helper()
	cx, cancel := contextFor(200 * time.Millisecond)
	defer cancel()
	_, err := ch.Get(cx)
	require.ErrorIs(e.t, err, errDeadline)
	_, err = ch.TryGet()
	require.ErrorIs(e.t, err, syscall.EAGAIN)
}

func compEvent(t *testing.T, e *env) {
	m := e.mr(4096, allAccess)
	for _, typ := range []verbs.QPType{verbs.QPTRC, verbs.QPTUD} {
		ch := e.channel()
		send, recv := e.cq(16, &verbs.CQConfig{Channel: ch}), e.cq(16, &verbs.CQConfig{Channel: ch})
		cfg := verbs.QPConfig{Type: typ, SendCQ: send, RecvCQ: recv}
		var p *pair
		wr := verbs.SendWR{ID: 2, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(m.SGE(0, 8))}
		if typ == verbs.QPTUD {
			u := e.udWith(cfg)
			p, wr = u.pair, u.msg(2, m.SGE(0, 8))
		} else {
			p = e.pair(cfg, link{})
		}
		_, err := ch.TryGet()
		require.ErrorIs(t, err, syscall.EAGAIN)

		// Not armed: no event. Armed: one, of the right queue, once.
		for _, arm := range []*verbs.CQ{nil, recv, send} {
			if arm != nil {
				require.NoError(t, arm.ReqNotify(false))
			}
			e.recv(p.b, verbs.RecvWR{ID: 1, SGList: sgl(m.SGE(1024, 100))})
			e.send(p.a, wr)
			if arm != nil {
				e.next(ch, arm)
			}
			e.ok(send, 2, verbs.WCSuccess)
			e.ok(recv, 1, verbs.WCSuccess)
			e.quiet(ch)
		}
	}
}

func solicited(t *testing.T, e *env) {
	ch := e.channel()
	recv := e.cq(16, &verbs.CQConfig{Channel: ch})
	p := e.pair(verbs.QPConfig{SendCQ: e.cq(16, nil), RecvCQ: recv}, link{})
	msg := func(id uint64, f verbs.SendFlags) {
		e.recv(p.b, verbs.RecvWR{ID: id})
		e.send(p.a, verbs.SendWR{ID: id, Opcode: verbs.WRSend, Flags: f})
	}
	require.NoError(t, recv.ReqNotify(true))
	msg(1, 0)
	e.ok(recv, 1, verbs.WCSuccess)
	e.quiet(ch)
	msg(2, verbs.SendSolicited)
	e.next(ch, recv)
	e.ok(recv, 2, verbs.WCSuccess)
	// An error counts as solicited.
	require.NoError(t, recv.ReqNotify(true))
	e.recv(p.b, verbs.RecvWR{ID: 3})
	e.toErr(p.b)
	if e.isRXE && kernelAtLeast(6, 12) {
		// rxe of 6.12 flushes without an event for who waits for solicited ones.
		e.ok(recv, 3, verbs.WCWRFlushErr)
		e.quiet(ch)
		return
	}
	e.next(ch, recv)
	e.ok(recv, 3, verbs.WCWRFlushErr)
}

// armLoops is how often a completion races with the arming of its queue, within
// armTime: an emulated VM takes a millisecond and more for each.
const (
	armLoops = 100_000
	armTime  = 30 * time.Second
)

func armRace(t *testing.T, e *env) {
	q := e.cq(16, &verbs.CQConfig{Channel: e.channel()})
	p := e.splitPair(q)
	m := e.mr(4096, allAccess)
	turn := make(chan struct{}, 1)
	stop := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		r := rand.New(rand.NewPCG(1, 2))
		for i := uint64(0); i < armLoops; i++ {
			select {
			case <-turn:
			case <-stop:
				return
			}
			for range r.IntN(300) {
				_ = i * i
			}
			if _, err := p.a.PostSend([]verbs.SendWR{write(i, m.SGE(0, 0), m.Addr(), m.RKey())}); err != nil {
				failed <- err
				return
			}
		}
	}()
	defer close(stop)
	start, limit := time.Now(), armTime
	if e.soft {
		limit /= 6
	}
	var wc [4]verbs.WC
	next := uint64(0)
	for next < armLoops && time.Since(start) < limit {
		turn <- struct{}{}
		cx, cancel := contextFor(waitLimit)
		n, err := q.Wait(cx, wc[:], 0)
		cancel()
		require.NoError(t, err, "completion %d is lost", next)
		for _, w := range wc[:n] {
			require.Equal(t, verbs.WCSuccess, w.Status)
			require.Equal(t, next, w.WRID)
			next++
		}
	}
	select {
	case err := <-failed:
		require.NoError(t, err)
	default:
	}
	t.Logf("%d loops in %v", next, time.Since(start))
}

func manyCQs(t *testing.T, e *env) {
	const n = 16
	ch := e.channel()
	m := e.mr(4096, allAccess)
	var pairs []*pair
	for range n {
		pairs = append(pairs, e.splitPair(e.cq(16, &verbs.CQConfig{Channel: ch})))
	}
	for round := range 3 {
		for i := range pairs {
			p := pairs[(i*7+round)%n]
			require.NoError(t, p.a.SendCQ().ReqNotify(false))
			p.writes(m, 1, 1)
			e.next(ch, p.a.SendCQ())
			e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
		}
	}
	// All at once: each queue is named once.
	want := map[*verbs.CQ]bool{}
	for _, p := range pairs {
		require.NoError(t, p.a.SendCQ().ReqNotify(false))
		want[p.a.SendCQ()] = true
	}
	for _, p := range pairs {
		p.writes(m, 2, 1)
	}
	for range pairs {
		cx, cancel := contextFor(waitLimit)
		q, err := ch.Get(cx)
		cancel()
		require.NoError(t, err)
		require.True(t, want[q], "an event of a queue that has none, or had it already")
		delete(want, q)
		e.ok(q, 2, verbs.WCSuccess)
	}
	e.quiet(ch)
}

// osThreads is the number of threads of this process.
func osThreads(t *testing.T) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(b), "Threads:")
	require.True(t, ok)
	_, err = fmt.Sscan(rest, &n)
	require.NoError(t, err)
	return n
}

func contextCancel(t *testing.T, e *env) {
	const waiters = 1000
	type result struct {
		i   int
		err error
	}
	before := osThreads(t)
	results := make(chan result, waiters)
	cx, cancel := context.WithCancel(context.Background())
	defer cancel()
	late, stop := contextFor(time.Hour)
	defer stop()
	var chans []*verbs.CompChannel
	for i := range waiters {
		ch := e.channel()
		chans = append(chans, ch)
		c := cx
		switch i % 3 {
		case 1: // ends with the channel
			c = context.Background()
			if i%2 == 0 {
				c = late
			}
		case 2: // ends by its deadline
			var undo context.CancelFunc
			c, undo = contextFor(time.Second + time.Duration(i)*time.Millisecond)
			defer undo()
		}
		go func() {
			_, err := ch.Get(c)
			results <- result{i, err}
		}()
	}
	time.Sleep(300 * time.Millisecond)
	during := osThreads(t)
	t.Logf("threads: %d before, %d with %d waiters", before, during, waiters)
	require.Less(t, during, before+20, "waiters hold threads")

	cancel()
	for i, ch := range chans {
		if i%3 == 1 {
			require.NoError(t, ch.Close())
		}
	}
	want := []error{context.Canceled, verbs.ErrClosed, context.DeadlineExceeded}
	limit := time.After(waitLimit)
	for range waiters {
		select {
		case r := <-results:
			require.ErrorIs(t, r.err, want[r.i%3], "waiter %d", r.i)
		case <-limit:
			t.Fatal("waiters did not return")
		}
	}
	require.Less(t, osThreads(t), before+20)

	// After a cancelled wait the channel works on.
	ch := chans[0]
	q := e.cq(4, &verbs.CQConfig{Channel: ch})
	p := e.splitPair(q)
	require.NoError(t, q.ReqNotify(false))
	p.writes(e.mr(4096, allAccess), 1, 1)
	e.next(ch, q)
	e.ok(q, 1, verbs.WCSuccess)

	// Wait of a queue honours its context as well.
	c, undo := contextFor(50 * time.Millisecond)
	defer undo()
	_, err := q.Wait(c, make([]verbs.WC, 1), 0)
	require.ErrorIs(t, err, errDeadline)
	_, err = e.cq(1, nil).Wait(c, make([]verbs.WC, 1), 1000)
	require.ErrorIs(t, err, errDeadline, "a queue without a channel")
}

// inTime runs f, which must not hang.
func inTime(t *testing.T, what string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		require.NoError(t, err, what)
	case <-time.After(waitLimit):
		t.Fatalf("%s hangs", what)
	}
}

func unackedEvents(t *testing.T, e *env) {
	m := e.mr(4096, allAccess)
	for _, taken := range []int{0, 1, 3} {
		ch := e.channel()
		q := e.cq(64, &verbs.CQConfig{Channel: ch})
		p := e.splitPair(q)
		for i := range 5 {
			require.NoError(t, q.ReqNotify(false))
			p.writes(m, uint64(i), 1)
			e.ok(q, uint64(i), verbs.WCSuccess)
			if i < taken {
				e.next(ch, q)
			}
		}
		// The user never acknowledges: there is nothing to call.
		inTime(t, "Close of the queue pair", p.a.Close)
		inTime(t, "Close of the queue", q.Close)
		_, err := ch.TryGet()
		require.ErrorIs(t, err, syscall.EAGAIN, "events of a destroyed queue are gone")
		inTime(t, "Close of the channel", ch.Close)
	}

	// The same for asynchronous events: of a queue, and of a queue pair's end.
	q := e.cq(1, nil)
	p := e.splitPair(q)
	p.writes(m, 0, q.CQE()+2)
	p.done(m)
	e.toErr(p.a)
	inTime(t, "Close of the queue pair", p.a.Close)
	inTime(t, "Close of the queue", q.Close)

	// While somebody waits for the event.
	for range 20 {
		ch := e.channel()
		q := e.cq(4, &verbs.CQConfig{Channel: ch})
		p := e.splitPair(q)
		require.NoError(t, q.ReqNotify(false))
		got := make(chan error, 1)
		go func() {
			_, err := ch.Get(context.Background())
			got <- err
		}()
		p.writes(m, 0, 1)
		inTime(t, "Close of the queue pair", p.a.Close)
		inTime(t, "Close of the queue", q.Close)
		inTime(t, "Close of the channel", ch.Close)
		select {
		case err := <-got:
			if err != nil {
				require.ErrorIs(t, err, verbs.ErrClosed)
			}
		case <-time.After(waitLimit):
			t.Fatal("the waiter of a closed channel hangs")
		}
	}
}
