package rc

import (
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// required attributes by the state they lead to, one step at a time.
func required(from, to provider.QPState) (provider.QPAttrMask, bool) {
	switch {
	case to == provider.QPSReset, to == provider.QPSErr:
		return 0, true
	case from == provider.QPSReset && to == provider.QPSInit:
		return provider.QPAttrPKeyIndex | provider.QPAttrPort | provider.QPAttrAccessFlags, true
	case from == provider.QPSInit && to == provider.QPSRTR:
		return provider.QPAttrAV | provider.QPAttrPathMTU | provider.QPAttrDestQPN | provider.QPAttrRQPSN |
			provider.QPAttrMaxDestRdAtomic | provider.QPAttrMinRNRTimer, true
	case from == provider.QPSRTR && to == provider.QPSRTS:
		return provider.QPAttrSQPSN | provider.QPAttrTimeout | provider.QPAttrRetryCnt | provider.QPAttrRNRRetry |
			provider.QPAttrMaxQPRdAtomic, true
	case from == to && (to == provider.QPSInit || to == provider.QPSRTS || to == provider.QPSSQD),
		from == provider.QPSRTS && to == provider.QPSSQD, from == provider.QPSSQD && to == provider.QPSRTS:
		return 0, true
	}
	return 0, false
}

// Modify sets what mask names and moves to another state. It changes nothing
// when it fails.
//
// Verb: ibv_modify_qp(3).
func (q *QP) Modify(now int64, a *provider.QPAttr, mask provider.QPAttrMask) error {
	to := q.state
	if mask&provider.QPAttrState != 0 {
		to = a.State
	}
	if mask&provider.QPAttrCurState != 0 && a.CurState != q.state {
		return errInval
	}
	need, ok := required(q.state, to)
	switch {
	case !ok, mask&need != need,
		mask&provider.QPAttrPathMTU != 0 && (a.PathMTU < provider.MTU256 || a.PathMTU > provider.MTU4096),
		mask&provider.QPAttrMaxDestRdAtomic != 0 && a.MaxDestRdAtomic > maxRd,
		mask&provider.QPAttrTimeout != 0 && a.Timeout > 31,
		mask&provider.QPAttrMinRNRTimer != 0 && a.MinRNRTimer > 31,
		mask&provider.QPAttrRetryCnt != 0 && a.RetryCnt > 7,
		mask&provider.QPAttrRNRRetry != 0 && a.RNRRetry > 7:
		return errInval
	}
	q.set(a, mask)
	switch {
	case to == provider.QPSReset:
		q.reset()
	case to == provider.QPSErr:
		q.toErr()
	case to == provider.QPSSQD && q.state != to:
		q.state, q.sqdDone = to, false
		q.checkSQD()
	default:
		q.state = to
	}
	return nil
}

func (q *QP) set(a *provider.QPAttr, mask provider.QPAttrMask) {
	has := func(m provider.QPAttrMask) bool { return mask&m != 0 }
	if has(provider.QPAttrAccessFlags) {
		q.access, q.attr.AccessFlags = a.AccessFlags, a.AccessFlags
	}
	if has(provider.QPAttrAV) {
		q.attr.AH = a.AH
	}
	if has(provider.QPAttrPort) {
		q.attr.PortNum = a.PortNum
	}
	if has(provider.QPAttrPKeyIndex) {
		q.attr.PKeyIndex = a.PKeyIndex
	}
	if has(provider.QPAttrPathMTU) {
		q.setMTU(128 << a.PathMTU)
		q.attr.PathMTU = a.PathMTU
	}
	if has(provider.QPAttrDestQPN) {
		q.destQPN, q.attr.DestQPN = a.DestQPN&wire.PSNMask, a.DestQPN
	}
	if has(provider.QPAttrRQPSN) {
		q.resp.epsn = psnBase + int64(a.RQPSN&wire.PSNMask)
		q.resp.plain = q.resp.epsn - 1
	}
	if has(provider.QPAttrSQPSN) {
		x := psnBase + int64(a.SQPSN&wire.PSNMask)
		q.req.una, q.req.nxt, q.req.high, q.req.asked = x, x, x, x
	}
	if has(provider.QPAttrMaxDestRdAtomic) {
		q.maxRdIn, q.attr.MaxDestRdAtomic = int(a.MaxDestRdAtomic), a.MaxDestRdAtomic
		q.resp.size(q.maxRdIn)
	}
	if has(provider.QPAttrMaxQPRdAtomic) {
		q.maxRdOut, q.attr.MaxRdAtomic = int(a.MaxRdAtomic), a.MaxRdAtomic
	}
	if has(provider.QPAttrMinRNRTimer) {
		q.minRNR, q.attr.MinRNRTimer = a.MinRNRTimer, a.MinRNRTimer
	}
	if has(provider.QPAttrTimeout) {
		q.timeout, q.attr.Timeout = ackTimeout(a.Timeout), a.Timeout
	}
	if has(provider.QPAttrRetryCnt) {
		q.retryCnt, q.attr.RetryCnt = int(a.RetryCnt), a.RetryCnt
	}
	if has(provider.QPAttrRNRRetry) {
		q.rnrRetry, q.attr.RNRRetry = int(a.RNRRetry), a.RNRRetry
	}
	if has(provider.QPAttrEnSQDAsyncNotify) {
		q.asyncSQD = a.EnSQDAsyncNotify
	}
}

// reset forgets everything that is posted: RESET makes no completions.
func (q *QP) reset() {
	q.state, q.commEst, q.sqdDone = provider.QPSReset, false, false
	q.req.clear()
	q.win.init(q.win.most)
	q.resp.clear()
	if q.rq != nil {
		q.rq.Clear()
	}
}

// toErr flushes: what is posted completes in order, the failing request having
// completed before.
func (q *QP) toErr() {
	if q.state == provider.QPSErr {
		return
	}
	q.state = provider.QPSErr
	for q.req.head != q.req.tail {
		q.retire(provider.WCWRFlushErr)
	}
	q.req.stopTimers()
	r := &q.resp
	if r.haveRecv {
		q.recvDone(provider.WCWRFlushErr, false)
	}
	r.clear()
	q.flushRecv()
	if q.rq == nil {
		q.sink.Event(provider.EventQPLastWQEReached)
	}
}

func (q *QP) flushRecv() {
	for q.rq != nil && q.rq.NextRecv(&q.resp.recv) {
		q.recvDone(provider.WCWRFlushErr, false)
	}
}

// checkSQD reports, once, that nothing begun is left.
func (q *QP) checkSQD() {
	if q.state != provider.QPSSQD || q.sqdDone || q.req.una != q.req.high {
		return
	}
	q.sqdDone = true
	if q.asyncSQD {
		q.sink.Event(provider.EventSQDrained)
	}
}
