package verbs

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
)

// TestMasks holds the tables against a list written down from the specification.
// The suite's case Q05 holds them against a kernel, bit by bit.
func TestMasks(t *testing.T) {
	const (
		st   = QPAttrState
		path = QPAttrAV | QPAttrPathMTU | QPAttrDestQPN | QPAttrRQPSN
	)
	for _, c := range []struct {
		name     string
		typ      QPType
		from, to QPState
		req, opt QPAttrMask
	}{
		{"RC init", QPTRC, QPSReset, QPSInit, st | QPAttrPKeyIndex | QPAttrPort | QPAttrAccessFlags, 0},
		{"UC init", QPTUC, QPSReset, QPSInit, st | QPAttrPKeyIndex | QPAttrPort | QPAttrAccessFlags, 0},
		{"UD init", QPTUD, QPSReset, QPSInit, st | QPAttrPKeyIndex | QPAttrPort | QPAttrQKey, 0},
		{"RC rtr", QPTRC, QPSInit, QPSRTR, st | path | QPAttrMaxDestRdAtomic | QPAttrMinRNRTimer, QPAttrPKeyIndex | QPAttrAltPath | QPAttrAccessFlags},
		{"UC rtr", QPTUC, QPSInit, QPSRTR, st | path, QPAttrPKeyIndex | QPAttrAltPath | QPAttrAccessFlags},
		{"UD rtr", QPTUD, QPSInit, QPSRTR, st, QPAttrPKeyIndex | QPAttrQKey},
		{"XRC send rtr", QPTXRCSend, QPSInit, QPSRTR, st | path, QPAttrPKeyIndex | QPAttrAltPath | QPAttrAccessFlags},
		{"XRC recv rtr", QPTXRCRecv, QPSInit, QPSRTR, st | path | QPAttrMaxDestRdAtomic | QPAttrMinRNRTimer, QPAttrPKeyIndex | QPAttrAltPath | QPAttrAccessFlags},
	} {
		req, opt := masks(c.typ, c.from, c.to)
		require.Equal(t, c.req, req, c.name)
		require.Equal(t, c.opt, opt, c.name)
	}
	req, opt := masks(QPTRC, QPSRTR, QPSRTS)
	require.Equal(t, st|QPAttrSQPSN|QPAttrTimeout|QPAttrRetryCnt|QPAttrRNRRetry|QPAttrMaxQPRdAtomic, req)
	require.NotZero(t, opt&QPAttrMinRNRTimer)
	req, opt = masks(QPTUD, QPSRTR, QPSRTS)
	require.Equal(t, st|QPAttrSQPSN, req)
	require.Equal(t, QPAttrCurState|QPAttrQKey, opt)
	req, opt = masks(QPTUC, QPSRTR, QPSRTS)
	require.Equal(t, st|QPAttrSQPSN, req)
	require.Zero(t, opt&QPAttrMinRNRTimer)
}

func TestLegalTransitions(t *testing.T) {
	order := []QPState{QPSReset, QPSInit, QPSRTR, QPSRTS, QPSSQD, QPSSQE, QPSErr}
	want := map[QPState][]QPState{
		QPSReset: {QPSReset, QPSInit, QPSErr},
		QPSInit:  {QPSReset, QPSInit, QPSRTR, QPSErr},
		QPSRTR:   {QPSReset, QPSRTS, QPSErr},
		QPSRTS:   {QPSReset, QPSRTS, QPSSQD, QPSErr},
		QPSSQD:   {QPSReset, QPSRTS, QPSSQD, QPSErr},
		QPSSQE:   {QPSReset, QPSRTS, QPSErr},
		QPSErr:   {QPSReset, QPSErr},
	}
	for _, from := range order {
		var got []QPState
		for _, to := range order {
			if legal(from, to) {
				got = append(got, to)
			}
		}
		require.Equal(t, want[from], got, "from %v", from)
	}
}

func TestTransitionErrorNamesTheBits(t *testing.T) {
	q := &QP{typ: QPTRC}
	q.state.Store(int32(QPSInit))
	mask := QPAttrState | QPAttrAV | QPAttrPathMTU | QPAttrDestQPN | QPAttrMaxDestRdAtomic | QPAttrMinRNRTimer | QPAttrQKey
	err := q.modifyErr(QPAttr{State: QPSRTR}, mask, syscall.EINVAL)
	var te *TransitionError
	require.ErrorAs(t, err, &te)
	require.Equal(t, QPAttrRQPSN, te.Missing)
	require.Equal(t, QPAttrQKey, te.Extra)
	require.ErrorIs(t, err, syscall.EINVAL)
	require.ErrorContains(t, err, "missing in the mask: QP_RQ_PSN")
	require.ErrorContains(t, err, "not allowed here: QP_QKEY")

	err = q.modifyErr(QPAttr{State: QPSRTS}, mask, syscall.EINVAL)
	require.ErrorContains(t, err, "there is no such transition")
	err = q.modifyErr(QPAttr{State: QPSRTR}, mask, syscall.ENOMEM)
	require.False(t, errors.As(err, &te), "only EINVAL is about the mask")
	require.NoError(t, q.modifyErr(QPAttr{State: QPSRTR}, mask, nil))
	require.Equal(t, int32(QPSRTR), q.state.Load())
}

// stateQP answers Query with the state a device would report.
type stateQP struct {
	provider.QP
	state QPState
}

func (s *stateQP) Query(a *QPAttr, _ QPAttrMask) (in provider.QPInit, err error) {
	a.State = s.state
	return in, nil
}

func TestSendsBeforeRTSAreRefused(t *testing.T) {
	dev := &stateQP{}
	q := &QP{p: dev}
	for s, refused := range map[QPState]bool{QPSReset: true, QPSInit: true, QPSRTR: true, QPSRTS: false, QPSSQD: false, QPSSQE: false, QPSErr: false} {
		q.state.Store(int32(s))
		dev.state = s
		err := q.cannotSend("ibv_post_send")
		if !refused {
			require.NoError(t, err, "%v", s)
			continue
		}
		require.ErrorIs(t, err, syscall.EINVAL, "%v", s)
		require.ErrorContains(t, err, s.String())
	}
	q.state.Store(int32(QPSInit))
	dev.state = QPSRTS
	require.NoError(t, q.cannotSend("ibv_post_send"), "another has moved it")
	require.Equal(t, int32(QPSRTS), q.state.Load())
}
