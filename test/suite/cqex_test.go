package suite_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("C08", "cq_ex create per flag", cqExFlags)
	register("C09", "cq_ex drain", cqExDrain)
	register("C10", "cq_ex early end", cqExEarlyEnd)
	helper("cqexdrain", func(t *testing.T) { drain(t, newEnv(t, testDevice(t))) })
}

func cqExFlags(t *testing.T, e *env) {
	works := map[verbs.WCExFlags]bool{}
	for _, f := range []verbs.WCExFlags{verbs.WCExWithByteLen, verbs.WCExWithImm, verbs.WCExWithQPNum, verbs.WCExWithSrcQP,
		verbs.WCExWithSLID, verbs.WCExWithSL, verbs.WCExWithDLIDPathBits} {
		works[f] = true
	}
	var all verbs.WCExFlags
	for f := verbs.WCExFlags(1); f <= verbs.WCExWithCompletionTimestampWallclock; f <<= 1 {
		q, err := e.ctx.CreateCQ(16, &verbs.CQConfig{WCFlags: f})
		switch {
		case err == nil:
			require.True(t, works[f] || !e.isRXE, "%v", f)
			n, err := q.PollEx(make([]verbs.WCEx, 2))
			require.NoError(t, err)
			require.Zero(t, n)
			require.NoError(t, q.Close())
			all |= f
		default:
			require.False(t, works[f] && e.isRXE, "%v: %v", f, err)
			require.ErrorIs(t, err, errors.ErrUnsupported, "%v", f)
			require.ErrorContains(t, err, "ibv_create_cq_ex")
		}
	}
	q := e.cq(16, &verbs.CQConfig{WCFlags: all, Vector: e.ctx.NumCompVectors() - 1})
	require.GreaterOrEqual(t, q.CQE(), 16)
	if e.isRXE {
		_, err := e.ctx.CreateCQ(16, &verbs.CQConfig{Flags: verbs.CQCreateIgnoreOverrun})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		// A promise of the caller, which libibverbs does not pass on.
		e.cq(16, &verbs.CQConfig{Flags: verbs.CQCreateSingleThreaded})
	}
	_, err := e.cq(16, nil).PollEx(make([]verbs.WCEx, 1))
	require.ErrorIs(t, err, errors.ErrUnsupported, "a plain queue has no extended poll")

	// Both kinds of poll read an extended queue, and agree.
	p := e.splitPair(q)
	m := e.mr(4096, allAccess)
	p.writes(m, 5, 2)
	w := e.ok1(q, 5)
	require.Equal(t, verbs.WCRDMAWrite, w.Opcode)
	x := e.pollEx(q, 1)[0]
	require.EqualValues(t, 6, x.WRID)
	require.Equal(t, verbs.WCSuccess, x.Status)
	require.Equal(t, verbs.WCRDMAWrite, x.Opcode)
	require.Equal(t, p.a.QPN(), x.QPN)
	require.Equal(t, w.ByteLen, x.ByteLen)

	r := e.cq(16, &verbs.CQConfig{Extended: true})
	b := e.qp(verbs.QPConfig{SendCQ: e.cq(16, nil), RecvCQ: r})
	a := e.qp(verbs.QPConfig{})
	e.connect(a, b, link{})
	e.recv(b, verbs.RecvWR{ID: 9, SGList: sgl(m.SGE(0, 100))})
	e.send(a, verbs.SendWR{Opcode: verbs.WRSendWithImm, Imm: 0xcafe0102, SGList: sgl(m.SGE(200, 30))})
	x = e.pollEx(r, 1)[0]
	require.EqualValues(t, 9, x.WRID)
	require.EqualValues(t, 30, x.ByteLen)
	require.Equal(t, b.QPN(), x.QPN)
	require.NotZero(t, x.Flags&verbs.WCWithImm)
	require.EqualValues(t, 0xcafe0102, x.Imm())
}

// ok1 waits for one completion, leaving the others where they are.
func (e *env) ok1(q *verbs.CQ, id uint64) verbs.WC { e.t.Helper(); return e.ok(q, id, verbs.WCSuccess) }

func (e *env) pollEx(q *verbs.CQ, n int) []verbs.WCEx {
	e.t.Helper()
	var out []verbs.WCEx
	wc := make([]verbs.WCEx, n)
	for end := time.Now().Add(waitLimit); len(out) < n; time.Sleep(200 * time.Microsecond) {
		k, err := q.PollEx(wc[:n-len(out)])
		require.NoError(e.t, err)
		out = append(out, wc[:k]...)
		require.True(e.t, time.Now().Before(end), "%d of %d completions within %v", len(out), n, waitLimit)
	}
	return out
}

// drain empties the queue in one batch with room to spare, so that the provider
// meets the end of the queue within the batch; then the queue must be empty.
func drain(t *testing.T, e *env) {
	const n = 20
	q := e.cq(64, &verbs.CQConfig{Extended: true})
	p := e.splitPair(q)
	m := e.mr(4096, allAccess)
	for round := range uint64(10) {
		p.writes(m, round*n, n)
		p.done(m)
		wc := make([]verbs.WCEx, n+5)
		k, err := q.PollEx(wc)
		require.NoError(t, err)
		require.Equal(t, n, k, "round %d: completions in one batch", round)
		for i := range wc[:k] {
			require.EqualValues(t, round*n+uint64(i), wc[i].WRID)
			require.Equal(t, verbs.WCSuccess, wc[i].Status)
		}
		k, err = q.PollEx(wc)
		require.NoError(t, err)
		require.Zero(t, k, "round %d: stale completion %+v of a drained queue", round, wc[0])
		k, err = q.Poll(make([]verbs.WC, 4))
		require.NoError(t, err)
		require.Zero(t, k)
	}
}

func cqExDrain(t *testing.T, e *env) {
	drain(t, e)
	// Without the work-around the same must fail, or this case shows nothing.
	r := runHelper(t, "cqexdrain", 30*time.Second, nil, helperDevice(e), "ZRDMA_NO_WORKAROUNDS=1")
	if !e.isRXE || !rdmaCoreBefore(t, 59) {
		require.NoError(t, r.err, "this device or library has no fault to work around:\n%s", r.out)
		return
	}
	t.Logf("without work-arounds: timeout %v\n%s", r.timeout, r.out)
	require.Error(t, r.err, "the fault of rdma-core did not show without the work-around:\n%s", r.out)
	require.True(t, r.timeout || strings.Contains(r.out, "completions in one batch") || strings.Contains(r.out, "stale completion"), r.out)
}

func cqExEarlyEnd(t *testing.T, e *env) {
	const n = 12
	q := e.cq(64, &verbs.CQConfig{Extended: true})
	p := e.splitPair(q)
	m := e.mr(4096, allAccess)
	p.writes(m, 0, n)
	p.done(m)
	var got []uint64
	for _, size := range []int{1, 4, 2, 5} {
		wc := make([]verbs.WCEx, size)
		k, err := q.PollEx(wc)
		require.NoError(t, err)
		require.Equal(t, size, k, "a batch ends where the buffer does")
		for i := range wc {
			got = append(got, wc[i].WRID)
		}
	}
	require.Equal(t, []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, got)
	k, err := q.PollEx(make([]verbs.WCEx, 3))
	require.NoError(t, err)
	require.Zero(t, k)
	k, err = q.PollEx(nil)
	require.NoError(t, err)
	require.Zero(t, k)
}
