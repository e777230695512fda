package suite_test

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

const aMoment = int64(5 * time.Millisecond)

// until goes on with the exchange until n completions are there, and returns
// their work request numbers.
func (e *env) until(q *verbs.QP, x *verbs.Exchange, n int) (ids []uint64) {
	e.t.Helper()
	x.Want = n
	x.SpinNS = aMoment
	for end := time.Now().Add(waitLimit); ; {
		require.NoError(e.t, q.Exchange(x))
		for _, w := range x.WC[:x.N] {
			require.Equal(e.t, verbs.WCSuccess, w.Status)
			ids = append(ids, w.WRID)
		}
		if len(ids) >= n {
			return ids
		}
		require.True(e.t, time.Now().Before(end), "%d of %d completions", len(ids), n)
		x.Recv, x.Send, x.Want = nil, nil, n-len(ids)
	}
}

// TestExchange: posts and polls in one call, on one completion queue and on two.
func TestExchange(t *testing.T) {
	e := newEnv(t, testDevice(t))
	shared := e.cq(64, nil)
	for name, cfg := range map[string]verbs.QPConfig{
		"one queue":  {SendCQ: shared},
		"two queues": {SendCQ: e.cq(64, nil), RecvCQ: e.cq(64, nil)},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := e.qp(cfg), e.qp(verbs.QPConfig{})
			e.connect(a, b, link{})
			m := e.mr(1<<16, allAccess)
			fill(m.Bytes()[:1000], 3)
			e.recv(b, verbs.RecvWR{ID: 1, SGList: sgl(m.SGE(4096, 1000))})
			x := verbs.Exchange{
				Recv: []verbs.RecvWR{{ID: 7, SGList: sgl(m.SGE(8192, 1000))}},
				Send: []verbs.SendWR{{ID: 8, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(m.SGE(0, 500), m.SGE(500, 500))}, sig(9, verbs.WRRDMAWrite, m.SGE(0, 0))},
				WC:   make([]verbs.WC, 8),
			}
			x.Send[1].RemoteAddr, x.Send[1].RKey = m.Addr(), m.RKey()
			all := x
			require.Equal(t, []uint64{8, 9}, e.until(a, &x, 2))
			e.ok(b.RecvCQ(), 1, verbs.WCSuccess)
			require.Equal(t, m.Bytes()[:1000], m.Bytes()[4096:5096])

			// The answer comes into the receive that went out with the question.
			e.send(b, sig(2, verbs.WRSend, m.SGE(4096, 1000)))
			x = verbs.Exchange{WC: all.WC}
			require.Equal(t, []uint64{7}, e.until(a, &x, 1))
			require.Equal(t, m.Bytes()[:1000], m.Bytes()[8192:9192])
			e.ok(b.SendCQ(), 2, verbs.WCSuccess)

			// Nothing to come: the limit ends it, without an error.
			x = verbs.Exchange{WC: all.WC, Want: 1, SpinNS: aMoment}
			require.NoError(t, a.Exchange(&x))
			require.Zero(t, x.N)
			x.Want, x.SpinNS = 1000, 0 // more than there is room for, and no time
			require.NoError(t, a.Exchange(&x))
			require.NoError(t, a.Exchange(&verbs.Exchange{}))
		})
	}
	require.Empty(t, e.pollFor(shared, 1, 10*time.Millisecond))
}

// TestExchangeFails: each step's refusal names its verb and says what was done.
func TestExchangeFails(t *testing.T) {
	e := newEnv(t, testDevice(t))
	p := e.pair(verbs.QPConfig{Cap: verbs.QPCap{MaxSendWR: 4, MaxRecvWR: 4}}, link{})
	m := e.mr(4096, allAccess)
	recv := make([]verbs.RecvWR, 100) // a device may have more room than Cap says
	x := verbs.Exchange{Recv: recv, Send: []verbs.SendWR{{Opcode: verbs.WRSend}}}
	err := p.a.Exchange(&x)
	require.ErrorIs(t, err, verbs.ErrQueueFull)
	require.ErrorContains(t, err, "ibv_post_recv")
	require.GreaterOrEqual(t, x.Recvs, int(p.a.Cap().MaxRecvWR))
	require.Equal(t, []int{0, 0}, []int{x.Sends, x.N}, "nothing is sent after a refused receive")

	bad := sig(1, verbs.WRAtomicFetchAndAdd, m.SGE(0, 8))
	bad.RemoteAddr = m.Addr() + 1
	good := at(sig(2, verbs.WRRDMAWrite, m.SGE(0, 8)), m, 64)
	x = verbs.Exchange{Send: []verbs.SendWR{good, bad}, WC: make([]verbs.WC, 4), Want: 4, SpinNS: aMoment}
	err = p.a.Exchange(&x)
	require.ErrorIs(t, err, syscall.EINVAL)
	require.ErrorContains(t, err, "ibv_post_send")
	require.Equal(t, []int{0, 1, 0}, []int{x.Recvs, x.Sends, x.N})
	e.ok(p.a.SendCQ(), 2, verbs.WCSuccess)

	// In ERR posts are flushed, receives too, which rxe does not do by itself.
	e.toErr(p.b)
	x = verbs.Exchange{Recv: []verbs.RecvWR{{ID: 5}}, Send: []verbs.SendWR{good}, WC: make([]verbs.WC, 4), Want: 2, SpinNS: int64(waitLimit)}
	require.NoError(t, p.b.Exchange(&x))
	require.Equal(t, []int{1, 1, 2}, []int{x.Recvs, x.Sends, x.N})
	for _, w := range x.WC[:x.N] {
		require.Equal(t, verbs.WCWRFlushErr, w.Status)
	}

	q := e.qp(verbs.QPConfig{})
	x = verbs.Exchange{Send: []verbs.SendWR{good}}
	require.ErrorIs(t, q.Exchange(&x), syscall.EINVAL, "before RTS")
	require.Zero(t, x.Sends)
	require.NoError(t, q.Close())
	require.ErrorIs(t, q.Exchange(&x), verbs.ErrClosed)
}

// TestExchangeAgainstClose: a queue pair that closes ends the exchanges on it.
// Two at a time, and posts beside them.
func TestExchangeAgainstClose(t *testing.T) {
	e := newEnv(t, testDevice(t))
	m := e.mr(4096, allAccess)
	for range 20 {
		p := e.pair(verbs.QPConfig{}, link{})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				x := verbs.Exchange{WC: make([]verbs.WC, 4)}
				for end := time.Now().Add(waitLimit); time.Now().Before(end); {
					x.Recv = recvs(m, 1, 1)
					x.Send = []verbs.SendWR{at(sig(1, verbs.WRRDMAWrite, m.SGE(0, 8)), m, 64)}
					x.Want, x.SpinNS = 1, 100_000
					err := p.a.Exchange(&x)
					if errors.Is(err, verbs.ErrClosed) || err != nil && !errors.Is(err, verbs.ErrQueueFull) && !assert.NoError(t, err) {
						return
					}
				}
				assert.Fail(t, "the Close was not seen")
			})
		}
		wg.Go(func() {
			for end := time.Now().Add(waitLimit); time.Now().Before(end); {
				if _, err := p.a.PostSend([]verbs.SendWR{at(verbs.SendWR{Opcode: verbs.WRRDMAWrite}, m, 64)}); errors.Is(err, verbs.ErrClosed) {
					return
				}
			}
			assert.Fail(t, "the Close was not seen")
		})
		time.Sleep(3 * time.Millisecond)
		require.NoError(t, p.a.Close())
		wg.Wait()
	}
}

// TestSharedChannelWaits: the Waits of two queues on one channel lose nothing.
func TestSharedChannelWaits(t *testing.T) {
	e := newEnv(t, testDevice(t))
	ch := e.channel()
	const rounds = 300
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	m := e.mr(4096, allAccess)
	p := e.pair(verbs.QPConfig{SendCQ: e.cq(64, &verbs.CQConfig{Channel: ch}), RecvCQ: e.cq(64, &verbs.CQConfig{Channel: ch})}, link{})
	turn := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wait := func(q *verbs.CQ, next func()) {
		wg.Go(func() {
			wc := make([]verbs.WC, 1)
			for i := range rounds {
				if _, err := q.Wait(ctx, wc, 0); !assert.NoError(t, err, "completion %d is lost", i) {
					cancel()
					return
				}
				next()
			}
		})
	}
	wait(p.a.SendCQ(), func() {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
		}
	})
	wait(p.b.RecvCQ(), func() {})
	for range rounds {
		e.recv(p.b, verbs.RecvWR{ID: 1, SGList: sgl(m.SGE(0, 64))})
		e.send(p.a, sig(2, verbs.WRSend, m.SGE(64, 8)))
		select {
		case <-turn:
		case <-ctx.Done():
			wg.Wait()
			t.FailNow()
		}
	}
	wg.Wait()
}
