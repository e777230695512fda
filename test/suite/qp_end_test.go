package suite_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// ids gives the ids of completions, which must all have the status s.
func ids(t *testing.T, ws []verbs.WC, s verbs.WCStatus) []uint64 {
	t.Helper()
	out := []uint64{}
	for _, w := range ws {
		require.Equal(t, s, w.Status, "%+v", w)
		out = append(out, w.WRID)
	}
	return out
}

// seq is from, from+1, ..., n numbers.
func seq(from uint64, n int) []uint64 {
	out := []uint64{}
	for i := range n {
		out = append(out, from+uint64(i))
	}
	return out
}

// stuck are n sends that nothing at the peer receives.
func stuck(m *verbs.MR, from uint64, n int) []verbs.SendWR {
	out := []verbs.SendWR{}
	for i := range n {
		out = append(out, verbs.SendWR{ID: from + uint64(i), Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(m.SGE(0, 8))})
	}
	return out
}

func recvs(m *verbs.MR, from uint64, n int) []verbs.RecvWR {
	out := []verbs.RecvWR{}
	for i := range n {
		out = append(out, verbs.RecvWR{ID: from + uint64(i), SGList: sgl(m.SGE(0, 64))})
	}
	return out
}

// twoCQs makes a connected pair whose first queue pair has a CQ for each direction.
func (e *env) twoCQs(cfg verbs.QPConfig) *pair {
	cfg.SendCQ, cfg.RecvCQ = e.cq(512, nil), e.cq(512, nil)
	p := &pair{e, e.qp(cfg), e.qp(verbs.QPConfig{})}
	e.connect(p.a, p.b, link{})
	return p
}

func init() {
	register("Q11", "full RQ and SQ", func(t *testing.T, e *env) {
		m := e.mr(4096, allAccess)
		p := e.twoCQs(verbs.QPConfig{Cap: verbs.QPCap{MaxSendWR: 40, MaxRecvWR: 40}, SendOps: opsFor(verbs.QPTRC)})
		const many = 300
		sent, err := p.a.PostSend(stuck(m, 1000, many))
		require.ErrorIs(t, err, verbs.ErrQueueFull)
		require.ErrorIs(t, err, syscall.ENOMEM)
		require.GreaterOrEqual(t, sent, 40)
		require.Less(t, sent, many)
		n, err := p.a.PostSend(stuck(m, 9000, 1))
		require.ErrorIs(t, err, verbs.ErrQueueFull)
		require.Zero(t, n)
		n, err = p.a.WRPost(stuck(m, 9000, 1), false)
		require.ErrorIs(t, err, verbs.ErrQueueFull)
		require.Zero(t, n)

		got, err := p.a.PostRecv(recvs(m, 2000, many))
		require.ErrorIs(t, err, verbs.ErrQueueFull)
		require.ErrorIs(t, err, syscall.ENOMEM)
		require.GreaterOrEqual(t, got, 40)
		require.Less(t, got, many)
		n, err = p.a.PostRecv(recvs(m, 9000, 1))
		require.ErrorIs(t, err, verbs.ErrQueueFull)
		require.Zero(t, n)

		// The indices were right: exactly those accepted come back.
		e.toErr(p.a)
		require.Equal(t, seq(1000, sent), ids(t, e.poll(p.a.SendCQ(), sent), verbs.WCWRFlushErr))
		require.Equal(t, seq(2000, got), ids(t, e.poll(p.a.RecvCQ(), got), verbs.WCWRFlushErr))
		require.Empty(t, e.pollFor(p.a.SendCQ(), 1, 50*time.Millisecond))
		require.Empty(t, e.pollFor(p.a.RecvCQ(), 1, 50*time.Millisecond))

		s, err := e.pd.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: 40}})
		require.NoError(t, err)
		e.closeAtEnd(s)
		got, err = s.PostRecv(recvs(m, 1, many))
		require.ErrorIs(t, err, verbs.ErrQueueFull)
		require.GreaterOrEqual(t, got, 40)
		require.Less(t, got, many)
	})
	register("Q12", "too many SGE", func(t *testing.T, e *env) {
		m := e.mr(4096, allAccess)
		p := e.pair(verbs.QPConfig{SendOps: opsFor(verbs.QPTRC), Cap: verbs.QPCap{MaxSendSGE: 2, MaxRecvSGE: 2}}, link{})
		many := make([]verbs.SGE, 33)
		for i := range many {
			many[i] = m.SGE(i*8, 8)
		}
		n, err := p.a.PostSend([]verbs.SendWR{{Opcode: verbs.WRSend, SGList: many}})
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Zero(t, n)
		n, err = p.a.PostRecv([]verbs.RecvWR{{SGList: many}})
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Zero(t, n)
		n, err = p.a.WRPost([]verbs.SendWR{{Opcode: verbs.WRSend, SGList: many}}, false)
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Zero(t, n)
		s, err := e.pd.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: 4, MaxSGE: 2}})
		require.NoError(t, err)
		e.closeAtEnd(s)
		n, err = s.PostRecv([]verbs.RecvWR{{SGList: many}})
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Zero(t, n)
		p.exchange(t)
	})
	register("Q13", "bad WR in list", func(t *testing.T, e *env) {
		m := e.mr(4096, allAccess)
		many := make([]verbs.SGE, 33)
		for i := range many {
			many[i] = m.SGE(0, 8)
		}
		p := e.twoCQs(verbs.QPConfig{})
		for _, at := range []int{0, 3, 31, 32, 40} { // a crossing takes 32
			e.recv(p.b, recvs(m, 100, at)...)
			wrs := stuck(m, 1, 50)
			wrs[at].SGList = many
			n, err := p.a.PostSend(wrs)
			require.ErrorIs(t, err, syscall.EINVAL)
			require.Equal(t, at, n)
			require.Equal(t, seq(1, at), ids(t, e.poll(p.a.SendCQ(), at), verbs.WCSuccess))
			require.Equal(t, seq(100, at), ids(t, e.poll(p.b.RecvCQ(), at), verbs.WCSuccess))
			// One that this package refuses, before any device sees it.
			e.recv(p.b, recvs(m, 100, at)...)
			wrs = stuck(m, 1, 50)
			wrs[at] = verbs.SendWR{Opcode: verbs.WRBindMW}
			n, err = p.a.PostSend(wrs)
			require.ErrorIs(t, err, syscall.EINVAL)
			require.Equal(t, at, n)
			require.Equal(t, seq(1, at), ids(t, e.poll(p.a.SendCQ(), at), verbs.WCSuccess))
			require.Equal(t, seq(100, at), ids(t, e.poll(p.b.RecvCQ(), at), verbs.WCSuccess))
		}
		rs := recvs(m, 500, 50)
		rs[37].SGList = many
		n, err := p.a.PostRecv(rs)
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Equal(t, 37, n)
		e.send(p.b, stuck(m, 1, 37)...)
		require.Equal(t, seq(500, 37), ids(t, e.poll(p.a.RecvCQ(), 37), verbs.WCSuccess))
		require.Empty(t, e.pollFor(p.a.SendCQ(), 1, 20*time.Millisecond))
	})
	register("Q14", "destroy in flight", func(t *testing.T, e *env) {
		m := e.mr(1<<20, allAccess)
		cq := e.cq(1024, nil)
		wc := make([]verbs.WC, 256)
		for round := range 200 {
			p := e.pair(verbs.QPConfig{SendCQ: cq}, link{})
			wrs := []verbs.SendWR{}
			for i := range 64 {
				w := verbs.SendWR{ID: uint64(i), Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled, SGList: sgl(m.SGE(i*8192, 4096)), RemoteAddr: m.Addr() + uint64(i*8192+4096), RKey: m.RKey()}
				if i&1 == 1 {
					w.Opcode = verbs.WRRDMARead
				}
				wrs = append(wrs, w)
			}
			e.send(p.a, wrs...)
			first, second := p.a, p.b
			if round&1 == 1 {
				first, second = p.b, p.a
			}
			var wg sync.WaitGroup
			if round%4 == 0 { // posters that do not know of the Close
				for _, q := range []*verbs.QP{p.a, p.b} {
					wg.Go(func() {
						for {
							_, err := q.PostSend(wrs[:1])
							if errors.Is(err, verbs.ErrClosed) {
								assert.ErrorIs(t, err, net.ErrClosed)
								return
							}
							if err != nil && !errors.Is(err, verbs.ErrQueueFull) {
								t.Errorf("round %d: PostSend: %v", round, err)
								return
							}
						}
					})
				}
			}
			for _, q := range []*verbs.QP{first, second} {
				start := time.Now()
				require.NoError(t, q.Close(), "round %d", round)
				require.Less(t, time.Since(start), waitLimit, "the kernel gives up on a stuck destroy after 50 s")
			}
			wg.Wait()
			for {
				n, err := cq.Poll(wc)
				require.NoError(t, err)
				if n == 0 {
					break
				}
			}
		}
	})
	register("Q15", "flush order", func(t *testing.T, e *env) {
		m := e.mr(4096, allAccess)
		p := e.twoCQs(verbs.QPConfig{})
		e.recv(p.a, recvs(m, 100, 20)...)
		e.send(p.a, stuck(m, 200, 30)...)
		e.toErr(p.a)
		require.Equal(t, seq(200, 30), ids(t, e.poll(p.a.SendCQ(), 30), verbs.WCWRFlushErr))
		require.Equal(t, seq(100, 20), ids(t, e.poll(p.a.RecvCQ(), 20), verbs.WCWRFlushErr))
		// What is posted in ERR is flushed too.
		for i := range 3 {
			from := uint64(300 + 100*i)
			e.send(p.a, stuck(m, from, 5)...)
			require.Equal(t, seq(from, 5), ids(t, e.poll(p.a.SendCQ(), 5), verbs.WCWRFlushErr))
			e.recv(p.a, recvs(m, from, 5)...)
			require.Equal(t, seq(from, 5), ids(t, e.poll(p.a.RecvCQ(), 5), verbs.WCWRFlushErr), "receives posted in ERR")
		}
		require.Empty(t, e.pollFor(p.a.SendCQ(), 1, 50*time.Millisecond), "flushed twice")
		require.Empty(t, e.pollFor(p.a.RecvCQ(), 1, 50*time.Millisecond), "flushed twice")
		if e.isRXE {
			failsWithoutWorkarounds(t, "Q15", "should have 5 item(s), but has 0")
		}
	})
	register("Q16", "drain", func(t *testing.T, e *env) {
		m := e.mr(4096, allAccess)
		drain := func(q *verbs.QP) map[*verbs.CQ][]verbs.WC {
			t.Helper()
			ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
			defer cancel()
			seen := map[*verbs.CQ][]verbs.WC{}
			require.NoError(t, q.Drain(ctx, func(c *verbs.CQ, w *verbs.WC) { seen[c] = append(seen[c], *w) }))
			requireState(t, q, verbs.QPSErr)
			return seen
		}
		p := e.twoCQs(verbs.QPConfig{})
		e.recv(p.a, recvs(m, 100, 20)...)
		e.send(p.a, stuck(m, 200, 30)...)
		seen := drain(p.a)
		require.Equal(t, seq(200, 30), ids(t, seen[p.a.SendCQ()], verbs.WCWRFlushErr))
		require.Equal(t, seq(100, 20), ids(t, seen[p.a.RecvCQ()], verbs.WCWRFlushErr))
		require.Empty(t, drain(p.a), "again, in ERR, with nothing posted")
		e.recv(p.a, recvs(m, 300, 3)...)
		require.Len(t, drain(p.a)[p.a.RecvCQ()], 3)

		// Full queues: there is room for the markers once others are flushed.
		p = e.twoCQs(verbs.QPConfig{})
		sent, err := p.a.PostSend(stuck(m, 0, 500))
		require.ErrorIs(t, err, verbs.ErrQueueFull)
		got, err := p.a.PostRecv(recvs(m, 0, 500))
		require.ErrorIs(t, err, verbs.ErrQueueFull)
		seen = drain(p.a)
		require.Equal(t, seq(0, sent), ids(t, seen[p.a.SendCQ()], verbs.WCWRFlushErr))
		require.Equal(t, seq(0, got), ids(t, seen[p.a.RecvCQ()], verbs.WCWRFlushErr))

		// One CQ for all: completions of others are handed over.
		cq := e.cq(256, nil)
		p = e.pair(verbs.QPConfig{SendCQ: cq}, link{})
		e.recv(p.b, recvs(m, 1, 1)...)
		e.send(p.a, stuck(m, 2, 1)...)
		time.Sleep(20 * time.Millisecond)
		drain(p.a)
		require.Empty(t, drain(p.a))
		e.recv(p.b, recvs(m, 7, 1)...)
		e.toErr(p.b)
		e.recv(p.a, recvs(m, 8, 1)...)
		all := append([]verbs.WC{}, drain(p.a)[cq]...)
		all = append(all, drain(p.b)[cq]...)
		require.ElementsMatch(t, []uint64{7, 8}, ids(t, all, verbs.WCWRFlushErr))

		// UD, and a queue pair that shares its receive queue.
		ud := e.qp(verbs.QPConfig{Type: verbs.QPTUD})
		e.up(ud, 0, verbs.GID{}, 0, 0, link{qkey: 1})
		e.recv(ud, recvs(m, 1, 5)...)
		require.Len(t, drain(ud)[ud.RecvCQ()], 5)
		s, err := e.pd.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: 8}})
		require.NoError(t, err)
		e.closeAtEnd(s)
		p = e.pair(verbs.QPConfig{SRQ: s}, link{})
		e.recv(s, recvs(m, 1, 5)...)
		require.Empty(t, drain(p.a), "receives of the SRQ stay")

		fresh := e.qp(verbs.QPConfig{})
		require.NoError(t, fresh.Drain(context.Background(), nil), "in RESET")
		requireState(t, fresh, verbs.QPSReset)
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		p = e.rc()
		require.ErrorIs(t, p.a.Drain(gone, nil), context.Canceled)
		drain(p.a)
		require.NoError(t, p.a.Close())
		require.ErrorIs(t, p.a.Drain(context.Background(), nil), verbs.ErrClosed)
	})
}
