package suite_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("C01", "create cq sizes", cqSizes)
	register("C02", "bad cq", cqBad)
	register("C03", "resize", cqResize)
	register("C04", "poll batches", cqBatches)
	register("C05", "wc fields", wcFields)
	register("C06", "destroy in use", cqInUse)
	register("C07", "overflow", cqOverflow)
}

func cqSizes(t *testing.T, e *env) {
	a, err := e.ctx.QueryDevice()
	require.NoError(t, err)
	vectors := e.ctx.NumCompVectors()
	require.Positive(t, vectors)
	for _, n := range []int{1, int(a.MaxCQE) / 2, int(a.MaxCQE)} {
		for v := range vectors {
			q, err := e.ctx.CreateCQ(n, &verbs.CQConfig{Vector: v})
			require.NoError(t, err, "%d entries, vector %d", n, v)
			require.GreaterOrEqual(t, q.CQE(), n)
			k, err := q.Poll(make([]verbs.WC, 4))
			require.NoError(t, err)
			require.Zero(t, k)
			require.Nil(t, q.Channel())
			require.NoError(t, q.Close())
			require.NoError(t, q.Close())
			_, err = q.Poll(make([]verbs.WC, 4))
			require.ErrorIs(t, err, verbs.ErrClosed)
			require.ErrorIs(t, q.ReqNotify(false), verbs.ErrClosed)
		}
	}
}

func cqBad(t *testing.T, e *env) {
	a, err := e.ctx.QueryDevice()
	require.NoError(t, err)
	v := e.ctx.NumCompVectors()
	for _, c := range []struct{ cqe, vector int }{{0, 0}, {-1, 0}, {int(a.MaxCQE) + 1, 0}, {10, v}, {10, -1}, {10, 1 << 20}, {1<<32 + 10, 0}, {10, 1 << 32}} {
		for _, ex := range []bool{false, true} {
			_, err := e.ctx.CreateCQ(c.cqe, &verbs.CQConfig{Vector: c.vector, Extended: ex})
			require.ErrorIs(t, err, syscall.EINVAL, "%+v extended %v", c, ex)
			require.ErrorContains(t, err, "ibv_create_cq")
		}
	}
}

// writes posts n signaled writes of 8 bytes with the ids from..from+n-1.
func (p *pair) writes(m *verbs.MR, from uint64, n int) {
	p.e.t.Helper()
	var wrs []verbs.SendWR
	for i := range uint64(n) {
		wrs = append(wrs, write(from+i, m.SGE(0, 8), m.Addr()+64, m.RKey()))
	}
	p.e.send(p.a, wrs...)
}

// done waits until all that a posted has completed, without polling its CQ: b
// learns of the last request and tells a, whose receives go to a CQ of their own.
func (p *pair) done(m *verbs.MR) {
	p.e.t.Helper()
	p.e.recv(p.b, verbs.RecvWR{ID: 901})
	p.e.recv(p.a, verbs.RecvWR{ID: 902})
	p.e.send(p.a, verbs.SendWR{Opcode: verbs.WRSend}) // unsignaled
	p.e.ok(p.b.RecvCQ(), 901, verbs.WCSuccess)
	p.e.send(p.b, verbs.SendWR{Opcode: verbs.WRSend})
	p.e.ok(p.a.RecvCQ(), 902, verbs.WCSuccess)
	time.Sleep(50 * time.Millisecond)
}

// splitPair connects two queue pairs; a's send completions are alone on cq.
func (e *env) splitPair(cq *verbs.CQ) *pair {
	e.t.Helper()
	p := &pair{e, e.qp(verbs.QPConfig{SendCQ: cq, RecvCQ: e.cq(64, nil)}), e.qp(verbs.QPConfig{})}
	e.connect(p.a, p.b, link{})
	return p
}

func wrIDs(wc []verbs.WC) (out []uint64) {
	for _, w := range wc {
		out = append(out, w.WRID)
	}
	return out
}

func cqResize(t *testing.T, e *env) {
	q := e.cq(12, nil)
	old := q.CQE()
	p := e.splitPair(q)
	m := e.mr(4096, allAccess)
	p.writes(m, 1, 8)
	p.done(m)

	require.NoError(t, q.Resize(200), "grow")
	require.GreaterOrEqual(t, q.CQE(), 200)
	require.ErrorIs(t, q.Resize(4), syscall.EINVAL, "8 completions do not fit")
	require.GreaterOrEqual(t, q.CQE(), 200, "a refused resize changes nothing")
	require.NoError(t, q.Resize(8), "shrink to what is there")
	require.GreaterOrEqual(t, q.CQE(), 8)
	require.Less(t, q.CQE(), 200)
	require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7, 8}, wrIDs(e.poll(q, 8)))

	require.NoError(t, q.Resize(100))
	p.writes(m, 100, 60)
	got := wrIDs(e.poll(q, 60))
	require.EqualValues(t, 100, got[0])
	require.EqualValues(t, 159, got[59])

	a, err := e.ctx.QueryDevice()
	require.NoError(t, err)
	for _, n := range []int{0, -1, int(a.MaxCQE) + 1, 1<<32 + 100} {
		require.ErrorIs(t, q.Resize(n), syscall.EINVAL, "%d entries", n)
	}
	require.Positive(t, old)
}

func cqBatches(t *testing.T, e *env) {
	const n = 20
	q := e.cq(64, nil)
	p := e.splitPair(q)
	m := e.mr(4096, allAccess)
	for _, size := range []int{1, 3, n, n + 5} {
		p.writes(m, 0, n)
		p.done(m)
		wc := make([]verbs.WC, size)
		var got []uint64
		for len(got) < n {
			k, err := q.Poll(wc)
			require.NoError(t, err)
			require.Equal(t, min(size, n-len(got)), k, "a batch takes all that fits")
			got = append(got, wrIDs(wc[:k])...)
		}
		for i, id := range got {
			require.EqualValues(t, i, id, "buffer of %d", size)
		}
		k, err := q.Poll(wc)
		require.NoError(t, err)
		require.Zero(t, k)
	}
	k, err := q.Poll(nil)
	require.NoError(t, err)
	require.Zero(t, k)
	p.writes(m, 0, 3)
	k, err = q.PollSpin(make([]verbs.WC, 3), int64(waitLimit))
	require.NoError(t, err)
	require.Positive(t, k)
	e.poll(q, 3-k)
}

func wcFields(t *testing.T, e *env) {
	p := e.rc()
	m := e.mr(8192, allAccess|verbs.AccessMWBind)
	src := m.SGE(0, 24)
	recv := verbs.RecvWR{ID: 1<<63 + 5, SGList: sgl(m.SGE(4096, 512))}
	mw, err := e.pd.AllocMW(verbs.MWType2)
	require.NoError(t, err)
	e.closeAtEnd(mw)
	key := verbs.IncRKey(mw.RKey())
	e.send(p.b, verbs.SendWR{ID: 1, Opcode: verbs.WRBindMW, Flags: verbs.SendSignaled, RKey: key, BindMW: mw, BindMR: m, BindAddr: m.Addr(), BindLength: 64, BindAccess: verbs.AccessRemoteRead})
	e.ok(p.b.SendCQ(), 1, verbs.WCSuccess)
	mw.SetRKey(key)

	for _, c := range []struct {
		wr   verbs.SendWR
		op   verbs.WCOpcode
		rop  verbs.WCOpcode // 0 with noRecv: nothing at the receiver
		flag verbs.WCFlags
		rx   bool
	}{
		{verbs.SendWR{Opcode: verbs.WRSend}, verbs.WCSend, verbs.WCRecv, 0, true},
		{verbs.SendWR{Opcode: verbs.WRSendWithImm, Imm: 0x01020304}, verbs.WCSend, verbs.WCRecv, verbs.WCWithImm, true},
		{verbs.SendWR{Opcode: verbs.WRRDMAWriteWithImm, Imm: 0xa1b2c3d4, RemoteAddr: m.Addr() + 1024, RKey: m.RKey()}, verbs.WCRDMAWrite, verbs.WCRecvRDMAWithImm, verbs.WCWithImm, true},
		{verbs.SendWR{Opcode: verbs.WRRDMAWrite, RemoteAddr: m.Addr() + 1024, RKey: m.RKey()}, verbs.WCRDMAWrite, 0, 0, false},
		{verbs.SendWR{Opcode: verbs.WRRDMARead, RemoteAddr: m.Addr() + 1024, RKey: m.RKey()}, verbs.WCRDMARead, 0, 0, false},
		{verbs.SendWR{Opcode: verbs.WRSendWithInv, InvalidateRKey: key}, verbs.WCSend, verbs.WCRecv, verbs.WCWithInv, true},
	} {
		c.wr.ID, c.wr.Flags, c.wr.SGList = 1<<40+7, verbs.SendSignaled, sgl(src)
		if c.rx {
			e.recv(p.b, recv)
		}
		e.send(p.a, c.wr)
		w := e.ok(p.a.SendCQ(), 1<<40+7, verbs.WCSuccess)
		require.Equal(t, c.op, w.Opcode, "%v", c.wr.Opcode)
		require.Equal(t, p.a.QPN(), w.QPN)
		require.False(t, w.IsRecv())
		require.NoError(t, verbs.WCErr(&w))
		if !c.rx {
			continue
		}
		w = e.ok(p.b.RecvCQ(), recv.ID, verbs.WCSuccess)
		require.Equal(t, c.rop, w.Opcode, "%v", c.wr.Opcode)
		require.True(t, w.IsRecv())
		require.EqualValues(t, 24, w.ByteLen)
		require.Equal(t, p.b.QPN(), w.QPN)
		switch c.flag {
		case verbs.WCWithImm:
			require.NotZero(t, w.Flags&verbs.WCWithImm)
			require.Equal(t, c.wr.Imm, w.Imm(), "in host order")
		case verbs.WCWithInv:
			require.Equal(t, key, w.InvalidatedRKey())
			if !e.isRXE { // which gives the key without the flag
				require.NotZero(t, w.Flags&verbs.WCWithInv)
			}
		default:
			require.Zero(t, w.Flags&(verbs.WCWithImm|verbs.WCWithInv))
		}
		if e.isRXE || e.soft {
			require.NotZero(t, w.Flags&verbs.WCGRH, "RoCE has it on every receive")
		}
	}

	u := e.ud()
	e.recv(u.b, verbs.RecvWR{ID: 3, SGList: sgl(m.SGE(4096, 512))})
	e.send(u.a, u.msg(4, m.SGE(0, 24)))
	e.ok(u.a.SendCQ(), 4, verbs.WCSuccess)
	w := e.ok(u.b.RecvCQ(), 3, verbs.WCSuccess)
	require.EqualValues(t, 64, w.ByteLen, "40 bytes of header and 24 of payload")
	require.Equal(t, u.a.QPN(), w.SrcQP)
	require.NotZero(t, w.Flags&verbs.WCGRH)

	// A completion in error names its request and queue pair.
	e.send(p.a, write(77, src, m.Addr(), m.RKey()^0xff))
	w = e.ok(p.a.SendCQ(), 77, verbs.WCRemAccessErr)
	require.Equal(t, p.a.QPN(), w.QPN)
	var ce *verbs.CompletionError
	require.ErrorAs(t, verbs.WCErr(&w), &ce)
	require.EqualValues(t, 77, ce.WRID)
	require.Contains(t, ce.Error(), fmt.Sprintf("%#x", p.a.QPN()))
}

// udPair is two UD queue pairs and the address handle to reach b (and a).
type udPair struct {
	*pair
	ah *verbs.AH
}

const testQKey = 0x11223344

func (e *env) udWith(cfg verbs.QPConfig) *udPair {
	e.t.Helper()
	cfg.Type = verbs.QPTUD
	u := &udPair{pair: e.pair(cfg, link{qkey: testQKey})}
	var err error
	u.ah, err = e.pd.CreateAH(e.ahAttr(e.gid.GID, &e.gid))
	require.NoError(e.t, err)
	e.closeAtEnd(u.ah)
	return u
}

func (e *env) ud() *udPair { return e.udWith(verbs.QPConfig{}) }

// msg is a signaled message to b.
func (u *udPair) msg(id uint64, s ...verbs.SGE) verbs.SendWR {
	return verbs.SendWR{ID: id, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: s, AH: u.ah, RemoteQPN: u.b.QPN(), RemoteQKey: testQKey}
}

func cqInUse(t *testing.T, e *env) {
	q, r := e.cq(16, nil), e.cq(16, nil)
	p := e.qp(verbs.QPConfig{SendCQ: q, RecvCQ: r})
	require.ErrorIs(t, q.Close(), verbs.ErrInUse)
	require.ErrorIs(t, r.Close(), verbs.ErrInUse)
	_, err := q.Poll(make([]verbs.WC, 1))
	require.NoError(t, err, "a refused Close leaves the queue as it was")
	require.NoError(t, p.Close())
	require.NoError(t, q.Close())
	require.NoError(t, r.Close())

	ch := e.channel()
	q = e.cq(16, &verbs.CQConfig{Channel: ch})
	require.Same(t, ch, q.Channel())
	require.ErrorIs(t, ch.Close(), verbs.ErrInUse)
	require.NoError(t, q.Close())
	require.NoError(t, ch.Close())
}

func cqOverflow(t *testing.T, e *env) {
	other := e.cq(1, nil)
	q := e.cq(1, nil)
	p := e.splitPair(q)
	m := e.mr(4096, allAccess)
	p.writes(m, 0, q.CQE()+3)
	ev := e.event(e.ctx)
	require.Equal(t, verbs.EventCQErr, ev.Type)
	require.Same(t, q, ev.CQ, "the event names the queue")
	require.NotSame(t, other, ev.CQ)
	require.Nil(t, ev.QP)
	e.toErr(p.a)
}

// event waits for one asynchronous event.
func (e *env) event(c *verbs.Context) verbs.AsyncEvent {
	e.t.Helper()
	cx, cancel := contextFor(waitLimit)
	defer cancel()
	ev, err := c.GetAsyncEvent(cx)
	require.NoError(e.t, err)
	return ev
}

// noEvent requires that nothing comes for a while.
func (e *env) noEvent(c *verbs.Context) {
	e.t.Helper()
	cx, cancel := contextFor(300 * time.Millisecond)
	defer cancel()
	ev, err := c.GetAsyncEvent(cx)
	require.Error(e.t, err, "%+v", ev)
	require.True(e.t, errors.Is(err, errDeadline), "%v", err)
}
