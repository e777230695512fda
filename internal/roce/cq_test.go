package roce

import (
	"context"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
)

func newCQ(t testing.TB, c *devCtx, in provider.CQInit) *cq {
	t.Helper()
	q, err := c.n.createCQ(c, &in)
	require.NoError(t, err)
	return q
}

func (q *cq) add(id uint64, qpn uint32) {
	q.n.mu.Lock()
	defer q.n.mu.Unlock()
	q.push(&provider.WC{WRID: id, QPN: qpn}, false)
}

func ids(wc []provider.WC) (l []uint64) {
	for _, w := range wc {
		l = append(l, w.WRID)
	}
	return l
}

func pollAll(t testing.TB, q *cq) []uint64 {
	t.Helper()
	wc := make([]provider.WC, 1<<10)
	n, err := q.Poll(wc)
	require.NoError(t, err)
	return ids(wc[:n])
}

// events takes the asynchronous events that are there.
func events(c *devCtx) (l []provider.AsyncEvent) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		e, err := c.GetEvent(ctx)
		if err != nil {
			return l
		}
		l = append(l, e)
	}
}

func TestCQRefusals(t *testing.T) {
	c := objects(false)
	for name, tt := range map[string]struct {
		in   provider.CQInit
		want error
	}{
		"no entry":         {provider.CQInit{}, syscall.EINVAL},
		"negative":         {provider.CQInit{CQE: -1}, syscall.EINVAL},
		"too many":         {provider.CQInit{CQE: maxCQE + 1}, syscall.EINVAL},
		"vector":           {provider.CQInit{CQE: 1, Vector: c.NumCompVectors()}, syscall.EINVAL},
		"negative vector":  {provider.CQInit{CQE: 1, Vector: -1}, syscall.EINVAL},
		"flow tag":         {provider.CQInit{CQE: 1, Ex: true, WCFlags: provider.WCExWithFlowTag}, syscall.EOPNOTSUPP},
		"VLAN":             {provider.CQInit{CQE: 1, Ex: true, WCFlags: provider.WCExWithCVLAN}, syscall.EOPNOTSUPP},
		"tag matching":     {provider.CQInit{CQE: 1, Ex: true, WCFlags: provider.WCExWithTMInfo}, syscall.EOPNOTSUPP},
		"ignore overrun":   {provider.CQInit{CQE: 1, Ex: true, Flags: provider.CQCreateIgnoreOverrun}, syscall.EOPNOTSUPP},
		"parent domain":    {provider.CQInit{CQE: 1, Ex: true, PD: newPD(t, c)}, syscall.EOPNOTSUPP},
		"as many as it is": {provider.CQInit{CQE: maxCQE}, nil},
	} {
		_, err := c.CreateCQ(&tt.in)
		require.Equal(t, tt.want, err, name)
	}
	q := newCQ(t, c, provider.CQInit{CQE: 5, Flags: provider.CQCreateSingleThreaded})
	require.GreaterOrEqual(t, q.CQE(), 5)
	require.Equal(t, syscall.EOPNOTSUPP, q.Modify(1, 1))
	_, err := q.PollEx(make([]provider.WCEx, 1))
	require.Equal(t, syscall.EOPNOTSUPP, err)
}

// Batches of all sizes around the end of the ring.
func TestCQOrder(t *testing.T) {
	q := newCQ(t, objects(false), provider.CQInit{CQE: 7, Ex: true})
	r := rand.New(rand.NewPCG(1, 2))
	var in, out uint64
	for range 2000 {
		for range r.IntN(q.CQE() + 1 - int(in-out)) {
			q.add(in, 1)
			in++
		}
		wc, wcx := make([]provider.WC, r.IntN(9)), make([]provider.WCEx, r.IntN(9))
		var k int
		var err error
		if ex := r.IntN(2) == 0; ex {
			k, err = q.PollEx(wcx)
			require.Equal(t, min(len(wcx), int(in-out)), k)
			for i := range wcx[:k] {
				require.Equal(t, out+uint64(i), wcx[i].WRID)
				require.Zero(t, wcx[i].CompletionTS)
			}
		} else {
			k, err = q.Poll(wc)
			require.Equal(t, min(len(wc), int(in-out)), k)
			for i, id := range ids(wc[:k]) {
				require.Equal(t, out+uint64(i), id)
			}
		}
		require.NoError(t, err)
		out += uint64(k)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		q.head = q.tail
		q.avail.Store(0)
		q.add(1, 1)
		var wc [2]provider.WC
		_, _ = q.take(wc[:])
	}))
}

func TestCQOverflow(t *testing.T) {
	c := objects(false)
	ch := newCompChannel(&node{})
	q := newCQ(t, c, provider.CQInit{CQE: 3, Cookie: 77, Channel: ch})
	for i := range uint64(3) {
		q.add(i, 1)
	}
	require.Empty(t, events(c))
	require.NoError(t, q.ReqNotify(true))
	for i := range uint64(4) {
		q.add(3+i, 1)
	}
	require.Equal(t, []provider.AsyncEvent{{Type: provider.EventCQErr, Cookie: 77}}, events(c), "once")
	cookie, err := ch.TryGet()
	require.NoError(t, err, "whoever waits for a completion learns of it")
	require.EqualValues(t, 77, cookie)
	require.Equal(t, []uint64{0, 1, 2}, pollAll(t, q), "what was there before is delivered")
	for range 2 {
		n, err := q.Poll(make([]provider.WC, 4))
		require.Zero(t, n)
		require.Equal(t, syscall.EIO, err)
	}
	q.add(9, 1)
	_, err = q.PollSpin(make([]provider.WC, 4), int64(time.Hour))
	require.Equal(t, syscall.EIO, err, "completions were lost: it stays an error")
	require.Empty(t, events(c))
}

func TestCQClean(t *testing.T) {
	c := objects(false)
	q := newCQ(t, c, provider.CQInit{CQE: 7, Ex: true, WCFlags: provider.WCExWithCompletionTimestamp})
	for i := range uint64(5) { // so that the ring wraps
		q.add(i, 1)
	}
	pollAll(t, q)
	for i := range uint64(7) {
		q.add(i, uint32(i%3))
	}
	q.clean(1)
	q.clean(99)
	wc := make([]provider.WCEx, 8)
	n, err := q.PollEx(wc)
	require.NoError(t, err)
	var got []uint64
	for i := range wc[:n] {
		got = append(got, wc[i].WRID)
		require.True(t, i == 0 || wc[i].CompletionTS > wc[i-1].CompletionTS, "times move with their completions")
	}
	require.Equal(t, []uint64{0, 2, 3, 5, 6}, got)
	require.Zero(t, q.avail.Load())
	for i := range uint64(7) {
		q.add(10+i, 2)
	}
	require.Empty(t, events(c), "there is room again")
	q.clean(2)
	require.Empty(t, pollAll(t, q))
}

func TestCQResize(t *testing.T) {
	q := newCQ(t, objects(false), provider.CQInit{CQE: 7, Ex: true, WCFlags: provider.WCExWithCompletionTimestamp})
	for i := range uint64(5) {
		q.add(i, 1)
	}
	pollAll(t, q)
	for i := range uint64(6) {
		q.add(i, 1)
	}
	require.NoError(t, q.Resize(100))
	require.GreaterOrEqual(t, q.CQE(), 100)
	for _, n := range []int{0, -1, maxCQE + 1, 5} {
		require.Equal(t, syscall.EINVAL, q.Resize(n), "%d", n)
	}
	require.NoError(t, q.Resize(6))
	require.Less(t, q.CQE(), 100)
	require.Equal(t, []uint64{0, 1, 2, 3, 4, 5}, pollAll(t, q))
	require.NoError(t, q.Resize(1))
	q.add(6, 1)
	require.Equal(t, []uint64{6}, pollAll(t, q))
}

func TestCQTimestamps(t *testing.T) {
	c := objects(false)
	q := newCQ(t, c, provider.CQInit{CQE: 7, Ex: true, WCFlags: provider.WCExWithCompletionTimestamp | provider.WCExWithCompletionTimestampWallclock})
	from := time.Now()
	s0, n0, err := c.QueryRTValues()
	require.NoError(t, err)
	q.add(1, 1)
	q.add(2, 1)
	s1, n1, err := c.QueryRTValues()
	require.NoError(t, err)
	var wc [2]provider.WCEx
	n, err := q.PollEx(wc[:])
	require.NoError(t, err)
	require.Equal(t, 2, n)
	raw := []uint64{s0*1e9 + n0, wc[0].CompletionTS, wc[1].CompletionTS, s1*1e9 + n1}
	require.IsNonDecreasing(t, raw)
	require.GreaterOrEqual(t, wc[0].CompletionWallclockNS, uint64(from.UnixNano()))
	require.LessOrEqual(t, wc[1].CompletionWallclockNS, uint64(time.Now().UnixNano()))
	var a provider.DeviceAttrEx
	require.NoError(t, c.QueryDeviceEx(&a))
	require.EqualValues(t, 1_000_000, a.HCACoreClock, "kHz: a tick is a nanosecond")
}

func TestCQArming(t *testing.T) {
	ok, bad := &provider.WC{}, &provider.WC{Status: provider.WCWRFlushErr}
	for name, tt := range map[string]struct {
		arm       []bool // solicitedOnly of each ReqNotify
		wc        *provider.WC
		solicited bool
		want      bool
	}{
		"not armed":                 {nil, ok, true, false},
		"any":                       {[]bool{false}, ok, false, true},
		"solicited, it is not":      {[]bool{true}, ok, false, false},
		"solicited, it is":          {[]bool{true}, ok, true, true},
		"solicited, an error":       {[]bool{true}, bad, false, true},
		"any, then solicited":       {[]bool{false, true}, ok, false, true},
		"solicited, then any":       {[]bool{true, false}, ok, false, true},
		"twice, which is like once": {[]bool{false, false}, ok, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := objects(false)
			ch := newCompChannel(&node{})
			q := newCQ(t, c, provider.CQInit{CQE: 7, Cookie: 5, Channel: ch})
			q.push(ok, true) // it is there already: no event
			for _, s := range tt.arm {
				require.NoError(t, q.ReqNotify(s))
			}
			_, err := ch.TryGet()
			require.Equal(t, syscall.EAGAIN, err)
			q.push(tt.wc, tt.solicited)
			q.push(tt.wc, tt.solicited)
			cookie, err := ch.TryGet()
			if !tt.want {
				require.Equal(t, syscall.EAGAIN, err)
				return
			}
			require.NoError(t, err)
			require.EqualValues(t, 5, cookie)
			_, err = ch.TryGet()
			require.Equal(t, syscall.EAGAIN, err, "one event for one arming")
		})
	}
	q := newCQ(t, objects(false), provider.CQInit{CQE: 7})
	require.NoError(t, q.ReqNotify(false))
	q.push(ok, false) // without a channel the event goes nowhere
}

// Completions race with arming, on several queues of one channel: none is lost,
// none comes twice, and nobody sleeps on a queue that has one.
func TestCQArmRace(t *testing.T) {
	const queues, each = 3, 3000
	c := objects(false)
	ch := newCompChannel(&node{})
	var qs [queues]*cq
	for i := range qs {
		qs[i] = newCQ(t, c, provider.CQInit{CQE: 64, Cookie: uint64(i), Channel: ch})
	}
	room := make(chan struct{}, 32)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		r := rand.New(rand.NewPCG(3, 4))
		var next [queues]uint64
		for left := queues * each; left > 0; {
			if i := r.IntN(queues); next[i] < each {
				room <- struct{}{}
				qs[i].add(next[i], uint32(i))
				next[i]++
				left--
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got [queues]uint64
	drain := func(i uint64) {
		var wc [5]provider.WC
		for {
			n, err := qs[i].Poll(wc[:])
			require.NoError(t, err)
			if n == 0 {
				return
			}
			for _, w := range wc[:n] {
				require.Equal(t, got[i], w.WRID)
				got[i]++
				<-room
			}
		}
	}
	for i := range uint64(queues) {
		require.NoError(t, qs[i].ReqNotify(false))
		drain(i)
	}
	for got != [queues]uint64{each, each, each} {
		i, err := ch.Get(ctx)
		require.NoError(t, err, "a completion without its event: %v", got)
		require.NoError(t, qs[i].ReqNotify(false))
		drain(i)
	}
}

func TestWaitEvent(t *testing.T) {
	c := objects(false)
	ch := newCompChannel(&node{})
	q := newCQ(t, c, provider.CQInit{CQE: 64, Cookie: 3, Channel: ch})
	var wc [2]provider.WC
	var w provider.WaitState
	n, err := q.WaitEvent(ch, wc[:], 0, 0, &w)
	require.NoError(t, err)
	require.Zero(t, n)
	require.EqualValues(t, 1, w.Armed)
	require.Zero(t, w.Spun)
	q.add(1, 1)
	cookie, err := ch.TryGet()
	require.NoError(t, err)
	require.EqualValues(t, 3, cookie)
	w = provider.WaitState{}
	n, err = q.WaitEvent(ch, wc[:], 1000, 0, &w)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Zero(t, w.Armed)
	n, err = q.WaitEvent(ch, wc[:], 1000, 0, &w)
	require.NoError(t, err)
	require.Zero(t, n)
	require.EqualValues(t, 2, w.Spun, "in vain")
	go func() {
		time.Sleep(time.Millisecond)
		q.add(2, 1)
	}()
	w = provider.WaitState{}
	n, err = q.WaitEvent(nil, wc[:], int64(time.Minute), 0, &w)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.EqualValues(t, 1, w.Spun)
	require.Zero(t, w.Armed, "nothing to arm for")
}

// On a network of virtual time a loop of polls makes the clock advance.
func TestCQVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := objects(true)
		q := newCQ(t, c, provider.CQInit{CQE: 64, Ex: true})
		start := time.Now()
		later := func(d time.Duration, id uint64) { time.AfterFunc(d, func() { q.add(id, 1) }) }
		var wc [2]provider.WC
		later(time.Millisecond, 1)
		for n := 0; n == 0; {
			n, _ = q.Poll(wc[:])
		}
		require.Equal(t, time.Millisecond, time.Since(start).Truncate(10*time.Microsecond))
		polls := 0
		later(time.Second, 9)
		for n := 0; n == 0; polls++ {
			n, _ = q.Poll(wc[:])
		}
		require.Equal(t, time.Second+time.Millisecond, time.Since(start).Truncate(100*time.Microsecond))
		require.Less(t, polls, 70_000)
		start = time.Now()
		later(time.Second, 2)
		n, err := q.PollSpin(wc[:], int64(time.Minute))
		require.NoError(t, err)
		require.Equal(t, []uint64{2}, ids(wc[:n]))
		require.Equal(t, time.Second, time.Since(start).Truncate(10*time.Millisecond))
		n, err = q.PollSpin(wc[:], int64(time.Hour))
		require.NoError(t, err)
		require.Zero(t, n)
		require.Equal(t, time.Hour, time.Since(start).Truncate(time.Minute))
		later(time.Minute, 3)
		var wcx [1]provider.WCEx
		for n := 0; n == 0; {
			if n, err = q.PollEx(wcx[:]); err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				time.Sleep(time.Second)
			}
		}
		require.EqualValues(t, 3, wcx[0].WRID)
	})
}

func BenchmarkCQ(b *testing.B) {
	q := newCQ(b, objects(false), provider.CQInit{CQE: 64})
	var wc [8]provider.WC
	b.ReportAllocs()
	for b.Loop() {
		for range 8 {
			q.push(&wc[0], false)
		}
		if n, _ := q.Poll(wc[:]); n != 8 {
			b.Fatal(n)
		}
	}
}
