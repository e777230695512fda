package rc

import "github.com/zrdma/zrdma/internal/provider"

// goBack begins a new pass from the oldest unanswered packet.
func (q *QP) goBack() {
	r := &q.req
	r.nxt, r.cur, r.asked, r.rdOut, r.ackDeadline = r.una, r.head, r.una, 0, 0
}

// retry goes back, or gives up when that was done often enough without progress.
func (q *QP) retry() {
	r := &q.req
	if r.retries >= q.retryCnt {
		q.failHead(provider.WCRetryExcErr)
		return
	}
	r.retries++
	q.goBack()
}

// lost acts on the peer's word that the packet at una, or its response, is lost.
func (q *QP) lost() {
	if q.req.goneBack {
		return
	}
	q.req.goneBack = true
	q.retry()
}

// progress follows una having moved from before.
func (q *QP) progress(now, before int64) {
	r := &q.req
	if r.una == before || q.state == provider.QPSErr {
		return
	}
	r.retries, r.rnrTries, r.goneBack, r.rnrUntil, r.ackDeadline = 0, 0, false, 0, 0
	if r.una > r.nxt { // a late answer overtook the new pass; cur is at head then
		r.nxt, r.asked = r.una, max(r.asked, r.una)
	}
	if r.una < r.nxt && q.timeout != 0 {
		r.ackDeadline = now + q.timeout
	}
	q.checkSQD()
}

// rnr waits as the peer's RNR NAK asks, and goes back.
func (q *QP) rnr(now int64, code uint8) {
	r := &q.req
	if r.rnrUntil != 0 {
		return
	}
	if q.rnrRetry != 7 && r.rnrTries >= q.rnrRetry {
		q.failHead(provider.WCRNRRetryExcErr)
		return
	}
	r.rnrTries++
	r.retries, r.goneBack = 0, true
	q.goBack()
	r.rnrUntil = now + rnrMicros[code&31]*1000
}

// NextDeadline is when Tick wants to be called, 0 for never.
func (q *QP) NextDeadline() int64 {
	if q.req.rnrUntil != 0 {
		return q.req.rnrUntil
	}
	return q.req.ackDeadline
}

// Tick acts on timers that ran out; Pump then sends.
func (q *QP) Tick(now int64) {
	r := &q.req
	if r.rnrUntil != 0 && now >= r.rnrUntil {
		r.rnrUntil, r.goneBack = 0, false
	}
	if r.ackDeadline != 0 && now >= r.ackDeadline {
		r.ackDeadline, r.goneBack = 0, false
		if r.una < r.high {
			q.retry()
		}
	}
}
