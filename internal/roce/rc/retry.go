package rc

import "github.com/zrdma/zrdma/internal/provider"

// goBack begins a new pass from the oldest unanswered packet.
func (q *QP) goBack() {
	r := &q.req
	r.nxt, r.cur, r.asked, r.rdOut, r.ackDeadline = r.una, r.head, r.una, 0, 0
	r.probing, r.probeAt, r.rtt.mark = false, 0, 0
}

// probe goes back, but sends one packet, or asks for one piece of a READ, and
// waits for the answer: silence may mean that the peer is slow, and then all else
// has arrived. See progress.
func (q *QP) probe() {
	r := &q.req
	was := resume{nxt: r.nxt, cur: r.cur, asked: r.asked, ok: r.rdOut == 0, read: r.at(r.head).isRd()}
	if r.probing {
		was = r.resume
	}
	mark := r.rtt.mark // how long a slow peer takes is what is to be learnt
	q.goBack()
	r.probing, r.probeHigh, r.resume, r.rtt.mark = true, r.high, was, mark
}

// probed ends a probe when una has moved over it.
func (q *QP) probed() {
	r := &q.req
	r.probing = false
	switch {
	case r.una > r.nxt && r.resume.ok:
		// The peer had it, and more: it is slow. Go on where the pass was left.
		r.nxt, r.cur, r.asked = max(r.resume.nxt, r.una), max(r.resume.cur, r.head), max(r.resume.asked, r.una)
	case r.una == r.nxt && r.una < r.probeHigh && !r.resume.read:
		q.win.lost() // what was sent before the probe is not there
	}
}

// retry says whether to go back once more; it gives up when that was done often
// enough without progress.
func (q *QP) retry() bool {
	r := &q.req
	if r.retries >= q.retryCnt {
		q.failHead(provider.WCRetryExcErr)
		return false
	}
	r.retries++
	return true
}

// lost acts on the peer's word that the packet at una, or its response, is lost.
func (q *QP) lost() {
	if q.req.goneBack {
		return
	}
	q.req.goneBack = true
	q.stats.NAKs++
	q.win.lost()
	if q.retry() {
		q.goBack()
	}
}

// progress follows una having moved from before.
func (q *QP) progress(now, before int64) {
	r := &q.req
	if r.una == before || q.state == provider.QPSErr {
		return
	}
	q.win.grew(r.una - before)
	r.rtt.answered(now, r.una)
	r.retries, r.rnrTries, r.goneBack, r.rnrUntil, r.ackDeadline = 0, 0, false, 0, 0
	r.probeAt, r.probes = 0, 0
	if r.probing && r.una >= r.nxt {
		q.probed()
	}
	if r.una > r.nxt { // a late answer overtook the new pass; cur is at head then
		r.nxt, r.asked = r.una, max(r.asked, r.una)
	}
	if r.una < r.nxt {
		q.startTimers(now)
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
	q.stats.RNRs++
	r.retries, r.goneBack = 0, true
	q.goBack()
	r.rnrUntil = now + rnrMicros[code&31]*1000
}

// moreTimeout doubles the ACK timeout so often while it goes on running out: the
// specification leaves room up to four times. A peer on a busy machine may not get
// a processor for a quarter of a second; and seven short waits are soon over.
const moreTimeout = 2

// startTimers sets the timers that do not run.
func (q *QP) startTimers(now int64) {
	r := &q.req
	if r.ackDeadline == 0 && q.timeout != 0 {
		r.ackDeadline = now + q.timeout<<min(r.retries, moreTimeout)
	}
	if wait := r.rtt.patience(q.cfg.Probe) << r.probes; r.probeAt == 0 && q.cfg.Probe > 0 && r.probes < maxProbes && (q.timeout == 0 || 2*wait <= q.timeout) {
		r.probeAt = now + wait
	}
}

// NextDeadline is when Tick wants to be called, 0 for never.
func (q *QP) NextDeadline() int64 {
	r := &q.req
	switch {
	case r.rnrUntil != 0:
		return r.rnrUntil
	case r.probeAt != 0 && (r.ackDeadline == 0 || r.probeAt < r.ackDeadline):
		return r.probeAt
	}
	return r.ackDeadline
}

// Tick acts on timers that ran out; Pump then sends.
func (q *QP) Tick(now int64) {
	r := &q.req
	if r.rnrUntil != 0 {
		if now >= r.rnrUntil {
			r.rnrUntil, r.goneBack = 0, false
		}
		return
	}
	switch {
	case r.ackDeadline != 0 && now >= r.ackDeadline:
		r.ackDeadline, r.probeAt, r.goneBack = 0, 0, false
		if r.una < r.high {
			q.stats.Timeouts++
			if q.retry() {
				q.probe()
			}
		}
	case r.probeAt != 0 && now >= r.probeAt:
		r.probeAt = 0
		if r.una < r.high {
			r.probes++
			q.stats.Probes++
			d := r.ackDeadline // goes on: this is no retry
			q.probe()
			r.ackDeadline = d
		}
	}
}
