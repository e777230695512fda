package roce

import (
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// attrs gives the attributes that a change of state requires and allows, false
// when there is no such change.
//
// Source: InfiniBand Architecture Specification 1.4, tables 91 to 96.
func attrs(t provider.QPType, from, to provider.QPState) (req, opt provider.QPAttrMask, ok bool) {
	const (
		key   = provider.QPAttrPKeyIndex
		qkey  = provider.QPAttrQKey
		acc   = provider.QPAttrAccessFlags
		alt   = provider.QPAttrAltPath | provider.QPAttrPathMigState
		rnr   = provider.QPAttrMinRNRTimer
		cur   = provider.QPAttrCurState
		retry = provider.QPAttrTimeout | provider.QPAttrRetryCnt | provider.QPAttrRNRRetry | provider.QPAttrMaxQPRdAtomic
	)
	reliable, datagram := t == provider.QPTRC, t == provider.QPTUD
	switch {
	case to == provider.QPSReset, to == provider.QPSErr:
		return 0, 0, true
	case from == provider.QPSReset && to == provider.QPSInit:
		req = key | provider.QPAttrPort | acc
		if datagram {
			req = key | provider.QPAttrPort | qkey
		}
		return req, 0, true
	case from == provider.QPSInit && to == provider.QPSInit:
		opt = key | provider.QPAttrPort | acc
		if datagram {
			opt = key | provider.QPAttrPort | qkey
		}
		return 0, opt, true
	case from == provider.QPSInit && to == provider.QPSRTR:
		if datagram {
			return 0, key | qkey, true
		}
		req = provider.QPAttrAV | provider.QPAttrPathMTU | provider.QPAttrDestQPN | provider.QPAttrRQPSN
		if reliable {
			req |= provider.QPAttrMaxDestRdAtomic | rnr
		}
		return req, key | acc | provider.QPAttrAltPath, true
	case from == provider.QPSRTR && to == provider.QPSRTS:
		if datagram {
			return provider.QPAttrSQPSN, cur | qkey, true
		}
		req, opt = provider.QPAttrSQPSN, cur|acc|alt|provider.QPAttrRateLimit
		if reliable {
			req, opt = req|retry, opt|rnr
		}
		return req, opt, true
	case (from == provider.QPSRTS || from == provider.QPSSQD || from == provider.QPSSQE && !reliable) && to == provider.QPSRTS:
		if datagram {
			return 0, cur | qkey, true
		}
		opt = cur | acc
		if from != provider.QPSSQE {
			opt |= alt | provider.QPAttrRateLimit
		}
		if reliable {
			opt |= rnr
		}
		return 0, opt, true
	case from == provider.QPSRTS && to == provider.QPSSQD:
		return 0, provider.QPAttrEnSQDAsyncNotify, true
	case from == provider.QPSSQD && to == provider.QPSSQD:
		if datagram {
			return 0, key | qkey, true
		}
		opt = provider.QPAttrAV | key | acc | alt
		if reliable {
			opt |= retry | rnr | provider.QPAttrPort | provider.QPAttrMaxDestRdAtomic
		}
		return 0, opt, true
	}
	return 0, 0, false
}

// Modify sets what mask names and moves to another state. It changes nothing
// when it fails.
// RESET takes the completions of the former life out of the queues, as on
// hardware.
//
// Verb: ibv_modify_qp(3).
func (q *qp) Modify(a *provider.QPAttr, mask provider.QPAttrMask) error {
	n := q.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if q.closed {
		return syscall.EINVAL
	}
	from := q.eng.state()
	to := from
	if mask&provider.QPAttrState != 0 {
		to = a.State
	}
	req, opt, ok := attrs(q.typ, from, to)
	if !ok || mask&req != req || mask&^(req|opt|provider.QPAttrState) != 0 || mask&provider.QPAttrCurState != 0 && a.CurState != from {
		return syscall.EINVAL
	}
	p := q.path
	if err := q.checkAttrs(a, mask, &p); err != nil {
		return err
	}
	n.settle(q)
	now := n.now()
	if err := q.eng.modify(now, a, mask); err != nil {
		return err
	}
	q.path = p
	if to == provider.QPSReset && from != to {
		q.forgotten()
	}
	n.schedule(q)
	n.pump(now, pumpBudget)
	n.arm(now)
	return nil
}

// checkAttrs checks values against the device; p becomes the path.
func (q *qp) checkAttrs(a *provider.QPAttr, mask provider.QPAttrMask, p *path) error {
	has := func(m provider.QPAttrMask) bool { return mask&m != 0 }
	switch {
	case has(provider.QPAttrPKeyIndex) && a.PKeyIndex != 0,
		has(provider.QPAttrPort) && a.PortNum != devicePort,
		has(provider.QPAttrMaxQPRdAtomic) && a.MaxRdAtomic > maxRdAtomic,
		has(provider.QPAttrMaxDestRdAtomic) && a.MaxDestRdAtomic > maxRdAtomic,
		has(provider.QPAttrTimeout) && a.Timeout > 31,
		has(provider.QPAttrMinRNRTimer) && a.MinRNRTimer > 31,
		has(provider.QPAttrRetryCnt) && a.RetryCnt > 7,
		has(provider.QPAttrRNRRetry) && a.RNRRetry > 7,
		has(provider.QPAttrAltPath) && a.AltPortNum != devicePort:
		return syscall.EINVAL
	case has(provider.QPAttrAltPath), has(provider.QPAttrRateLimit),
		has(provider.QPAttrPathMigState) && a.PathMigState != provider.MigMigrated:
		return syscall.EOPNOTSUPP
	}
	if has(provider.QPAttrAV) {
		var ok bool
		if *p, ok = q.n.pathOf(&a.AH); !ok || p.dst.IsMulticast() {
			return syscall.EINVAL
		}
	}
	if has(provider.QPAttrPathMTU) && (a.PathMTU < provider.MTU256 || a.PathMTU > provider.MTU4096 || 128<<a.PathMTU > q.n.links[p.link].MTU()) {
		return syscall.EINVAL
	}
	if has(provider.QPAttrQKey) && a.QKey>>31 != 0 && !mayUseQKey() {
		return syscall.EPERM
	}
	return nil
}
