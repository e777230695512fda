package verbs

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// TransitionError is a change of state that was refused, with the attribute mask
// bits that the InfiniBand specification requires or forbids for it.
type TransitionError struct {
	From, To       QPState
	Type           QPType
	Missing, Extra QPAttrMask
	Cause          error
}

func (e *TransitionError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "verbs: ibv_modify_qp: %v to %v of a %v queue pair: %v", e.From, e.To, e.Type, e.Cause)
	if e.Missing != 0 {
		fmt.Fprintf(&b, "; missing in the mask: %v", e.Missing)
	}
	if e.Extra != 0 {
		fmt.Fprintf(&b, "; not allowed here: %v", e.Extra)
	}
	if e.Missing == 0 && e.Extra == 0 && !legal(e.From, e.To) {
		b.WriteString("; there is no such transition: the order is RESET, INIT, RTR, RTS")
	}
	return b.String()
}

func (e *TransitionError) Unwrap() error { return e.Cause }

func legal(from, to QPState) bool {
	switch to {
	case QPSReset, QPSErr:
		return true
	case QPSInit:
		return from == QPSReset || from == QPSInit
	case QPSRTR:
		return from == QPSInit
	case QPSRTS:
		return from == QPSRTR || from == QPSRTS || from == QPSSQD || from == QPSSQE
	case QPSSQD:
		return from == QPSRTS || from == QPSSQD
	}
	return false
}

// masks gives the required and the optional attributes of a transition
// (InfiniBand Architecture Specification 1.4, tables 91 to 96).
func masks(t QPType, from, to QPState) (req, opt QPAttrMask) {
	req = QPAttrState
	conn := t == QPTRC || t == QPTXRCSend || t == QPTXRCRecv
	uc := t == QPTUC
	switch {
	case from == QPSReset && to == QPSInit:
		req |= QPAttrPKeyIndex | QPAttrPort
		if t == QPTUD {
			req |= QPAttrQKey
		} else {
			req |= QPAttrAccessFlags
		}
	case from == QPSInit && to == QPSRTR:
		opt |= QPAttrPKeyIndex
		if t == QPTUD {
			return req, opt | QPAttrQKey
		}
		req |= QPAttrAV | QPAttrPathMTU | QPAttrDestQPN | QPAttrRQPSN
		opt |= QPAttrAltPath | QPAttrAccessFlags
		if t == QPTRC || t == QPTXRCRecv {
			req |= QPAttrMaxDestRdAtomic | QPAttrMinRNRTimer
		}
	case from == QPSRTR && to == QPSRTS:
		req |= QPAttrSQPSN
		opt |= QPAttrCurState
		if t == QPTUD {
			return req, opt | QPAttrQKey
		}
		if t == QPTRC || t == QPTXRCSend {
			req |= QPAttrTimeout | QPAttrRetryCnt | QPAttrRNRRetry | QPAttrMaxQPRdAtomic
		}
		if conn || uc {
			opt |= QPAttrAltPath | QPAttrAccessFlags | QPAttrPathMigState
		}
		if t == QPTRC || t == QPTXRCRecv {
			opt |= QPAttrMinRNRTimer
		}
		opt |= QPAttrRateLimit
	}
	return req, opt
}

// modifyErr follows the state and explains a refusal. The caller holds the gate.
func (q *QP) modifyErr(a QPAttr, mask QPAttrMask, err error) error {
	if err == nil {
		if mask&QPAttrState != 0 {
			q.state.Store(int32(a.State))
		}
		return nil
	}
	if mask&QPAttrState == 0 || !errors.Is(err, syscall.EINVAL) {
		return verbErr("ibv_modify_qp", err)
	}
	from := QPState(q.state.Load())
	e := &TransitionError{From: from, To: a.State, Type: q.typ, Cause: err}
	if legal(from, a.State) && (a.State == QPSInit || a.State == QPSRTR || a.State == QPSRTS) && from != a.State {
		req, opt := masks(q.typ, from, a.State)
		e.Missing = req &^ mask
		if from < QPSRTS {
			e.Extra = mask &^ (req | opt)
		}
	}
	return e
}
