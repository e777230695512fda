package suite_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// steps are the three steps that connect a queue pair, as a test of masks needs
// them: attributes that are right for the device and the exact mask.
func (e *env) steps(dest uint32) []verbs.QPAttr {
	pa, err := e.ctx.QueryPort(e.port)
	require.NoError(e.t, err)
	acc := verbs.AccessRemoteWrite
	return []verbs.QPAttr{
		{State: verbs.QPSInit, PortNum: e.port, AccessFlags: acc, QKey: 1},
		{State: verbs.QPSRTR, PathMTU: pa.ActiveMTU, DestQPN: dest, AH: e.ahAttr(e.gid.GID, &e.gid), MaxDestRdAtomic: 1, MinRNRTimer: 12, QKey: 1, PortNum: e.port, AccessFlags: acc},
		{State: verbs.QPSRTS, Timeout: 14, RetryCnt: 5, RNRRetry: 5, MaxRdAtomic: 1, MinRNRTimer: 12, QKey: 1, AccessFlags: acc, CurState: verbs.QPSRTR},
	}
}

func stepMasks(typ verbs.QPType) []verbs.QPAttrMask {
	i := verbs.QPAttrState | verbs.QPAttrPKeyIndex | verbs.QPAttrPort
	if typ == verbs.QPTUD {
		return []verbs.QPAttrMask{i | verbs.QPAttrQKey, verbs.QPAttrState, verbs.QPAttrState | verbs.QPAttrSQPSN}
	}
	m := []verbs.QPAttrMask{
		i | verbs.QPAttrAccessFlags,
		verbs.QPAttrState | verbs.QPAttrAV | verbs.QPAttrPathMTU | verbs.QPAttrDestQPN | verbs.QPAttrRQPSN,
		verbs.QPAttrState | verbs.QPAttrSQPSN,
	}
	if typ == verbs.QPTRC {
		m[1] |= verbs.QPAttrMaxDestRdAtomic | verbs.QPAttrMinRNRTimer
		m[2] |= verbs.QPAttrTimeout | verbs.QPAttrRetryCnt | verbs.QPAttrRNRRetry | verbs.QPAttrMaxQPRdAtomic
	}
	return m
}

func requireState(t *testing.T, q *verbs.QP, want verbs.QPState) {
	t.Helper()
	s, err := q.State()
	require.NoError(t, err)
	require.Equal(t, want, s)
}

// checkMasks tries the step with each required bit missing, and with each other
// bit on top: what the device refuses must be explained by exactly that bit.
func (e *env) checkMasks(t *testing.T, q *verbs.QP, a verbs.QPAttr, mask verbs.QPAttrMask, from verbs.QPState) {
	for b := verbs.QPAttrMask(2); b <= verbs.QPAttrRateLimit; b <<= 1 {
		name := b.String()
		err := q.Modify(a, mask^b)
		if err == nil {
			// An optional attribute: go back to where we were.
			require.Zero(t, mask&b, "%v to %v of %v without %s was accepted", from, a.State, q.Type(), name)
			e.backTo(q, from)
			continue
		}
		var te *verbs.TransitionError
		if !errors.As(err, &te) {
			require.Zero(t, mask&b, "without %s: %v", name, err)
			continue // refused for its value, for instance EOPNOTSUPP
		}
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Equal(t, from, te.From)
		require.Equal(t, a.State, te.To)
		if mask&b != 0 {
			assert.Equal(t, b, te.Missing, "%v", err)
			assert.Zero(t, te.Extra, "%v", err)
			assert.ErrorContains(t, err, name)
			continue
		}
		assert.Zero(t, te.Missing, "%v", err)
		switch b {
		case verbs.QPAttrAltPath, verbs.QPAttrPathMigState:
			// Optional by the specification: refused for the value.
			assert.True(t, te.Extra == 0 || te.Extra == b, "%v", err)
		default:
			assert.Equal(t, b, te.Extra, "%v", err)
		}
	}
}

// backTo brings q back to state s through RESET, with the plain masks.
func (e *env) backTo(q *verbs.QP, s verbs.QPState) {
	e.t.Helper()
	require.NoError(e.t, q.Modify(verbs.QPAttr{State: verbs.QPSReset}, verbs.QPAttrState))
	for i, a := range e.steps(q.QPN()) {
		if a.State <= s {
			require.NoError(e.t, q.Modify(a, stepMasks(q.Type())[i]))
		}
	}
}

func init() {
	register("Q05", "state machine", func(t *testing.T, e *env) {
		for _, typ := range allTypes {
			q := e.qp(verbs.QPConfig{Type: typ})
			steps, masks := e.steps(q.QPN()), stepMasks(typ)
			from := verbs.QPSReset
			for i, a := range steps {
				for j := i + 1; j < len(steps); j++ { // skipping a state
					err := q.Modify(steps[j], masks[j])
					var te *verbs.TransitionError
					require.ErrorAs(t, err, &te)
					require.ErrorIs(t, err, syscall.EINVAL)
					require.Equal(t, from, te.From)
					require.ErrorContains(t, err, "there is no such transition")
					requireState(t, q, from)
				}
				e.checkMasks(t, q, a, masks[i], from)
				require.NoError(t, q.Modify(a, masks[i]), "%v to %v", from, a.State)
				requireState(t, q, a.State)
				from = a.State
			}
			require.NoError(t, q.Modify(verbs.QPAttr{State: verbs.QPSSQD}, verbs.QPAttrState))
			require.Eventually(t, func() bool { // until then there is no way back
				a, err := q.Query(verbs.QPAttrState)
				return err == nil && a.State == verbs.QPSSQD && !a.SQDraining
			}, waitLimit, time.Millisecond, "draining")
			require.NoError(t, q.Modify(verbs.QPAttr{State: verbs.QPSRTS}, verbs.QPAttrState))
			requireState(t, q, verbs.QPSRTS)
			e.toErr(q)
			requireState(t, q, verbs.QPSErr)
			var te *verbs.TransitionError
			require.ErrorAs(t, q.Modify(steps[2], masks[2]), &te, "ERR to RTS")
			require.Equal(t, verbs.QPSErr, te.From)
			require.NoError(t, q.Modify(verbs.QPAttr{State: verbs.QPSReset}, verbs.QPAttrState))
			requireState(t, q, verbs.QPSReset)
			// From every state to ERR, and up again after RESET.
			for s := range 3 {
				for i := range s + 1 {
					require.NoError(t, q.Modify(steps[i], masks[i]))
				}
				e.toErr(q)
				require.NoError(t, q.Modify(verbs.QPAttr{State: verbs.QPSReset}, verbs.QPAttrState))
			}
		}
		// After RESET a queue pair works as a new one does.
		p := e.rc()
		for _, q := range []*verbs.QP{p.a, p.b} {
			e.toErr(q)
			require.NoError(t, q.Modify(verbs.QPAttr{State: verbs.QPSReset}, verbs.QPAttrState))
		}
		e.connect(p.a, p.b, link{psnA: 77, psnB: 99})
		p.exchange(t)
	})
	register("Q10", "post in bad state", func(t *testing.T, e *env) {
		p := e.pair(verbs.QPConfig{SendOps: opsFor(verbs.QPTRC)}, link{skipConnect: true})
		m := e.mr(4096, allAccess)
		send := []verbs.SendWR{{ID: 99, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(m.SGE(0, 8))}}
		refused := func(n int, err error) {
			t.Helper()
			require.ErrorIs(t, err, syscall.EINVAL)
			require.Zero(t, n)
			var ve *verbs.Error
			require.ErrorAs(t, err, &ve)
			require.NotEmpty(t, ve.Hint)
		}
		noSend := func() {
			t.Helper()
			refused(p.a.PostSend(send))
			refused(p.a.WRPost(send, false))
		}
		requireState(t, p.a, verbs.QPSReset)
		noSend()
		refused(p.a.PostRecv([]verbs.RecvWR{{ID: 98}}))
		steps, masks := e.steps(p.b.QPN()), stepMasks(verbs.QPTRC)
		require.NoError(t, p.a.Modify(steps[0], masks[0]))
		noSend()
		e.recv(p.a, verbs.RecvWR{ID: 1, SGList: sgl(m.SGE(100, 100))}) // INIT takes receives
		require.NoError(t, p.a.Modify(steps[1], masks[1]))
		noSend()
		e.recv(p.a, verbs.RecvWR{ID: 2, SGList: sgl(m.SGE(200, 100))})
		require.NoError(t, p.a.Modify(steps[2], masks[2]))
		e.up(p.b, p.a.QPN(), e.gid.GID, 0, 0, link{})
		// What was refused is not sent later; what was taken in INIT works.
		e.recv(p.b, verbs.RecvWR{ID: 3, SGList: sgl(m.SGE(300, 100))})
		e.send(p.a, verbs.SendWR{ID: 4, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(m.SGE(0, 16))})
		require.Equal(t, uint32(16), e.ok(p.b.RecvCQ(), 3, verbs.WCSuccess).ByteLen)
		e.ok(p.a.SendCQ(), 4, verbs.WCSuccess)
		e.send(p.b, verbs.SendWR{ID: 5, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(m.SGE(0, 8))},
			verbs.SendWR{ID: 6, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(m.SGE(0, 9))})
		w := e.poll(p.a.RecvCQ(), 2)
		require.Equal(t, []uint64{1, 2}, []uint64{w[0].WRID, w[1].WRID})
		e.poll(p.b.SendCQ(), 2)
		// Back in RESET everything is refused again.
		e.toErr(p.a)
		require.NoError(t, p.a.Modify(verbs.QPAttr{State: verbs.QPSReset}, verbs.QPAttrState))
		noSend()
		refused(p.a.PostRecv([]verbs.RecvWR{{ID: 97}}))
	})
}

// exchange sends one message each way.
func (p *pair) exchange(t *testing.T) {
	t.Helper()
	m := p.e.mr(4096, allAccess)
	fill(m.Bytes()[:64], 3)
	for i, d := range [][2]*verbs.QP{{p.a, p.b}, {p.b, p.a}} {
		off := 1024 + i*1024
		p.e.recv(d[1], verbs.RecvWR{ID: 5, SGList: sgl(m.SGE(off, 64))})
		p.e.send(d[0], verbs.SendWR{ID: 6, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(m.SGE(0, 64))})
		p.e.ok(d[0].SendCQ(), 6, verbs.WCSuccess)
		p.e.ok(d[1].RecvCQ(), 5, verbs.WCSuccess)
		require.Equal(t, m.Bytes()[:64], m.Bytes()[off:off+64])
	}
}
