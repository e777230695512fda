package endpoint

import (
	"errors"
	"syscall"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// StepError names the step that failed:
//
//	device     opening it
//	port       is it there, is its link up
//	gid        an address of ours to reach the peer from
//	resources  memory, queues, queue pairs
//	route      the way to the peer's address
//	exchange   the TCP connection on which the ends meet
//	cm         the connection manager, here or there
//	qp         a queue pair's way to RTS
//	rnr        the peer had no receive buffer
//	retry      nobody acknowledges
//
// or the work itself, as the tool calls it.
type StepError struct {
	Step  string
	Cause error
	Hint  string // what to do about it, or empty
}

func (e *StepError) Error() string {
	s := e.Step + ": " + e.Cause.Error()
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *StepError) Unwrap() error { return e.Cause }

// Step names the step of an error that has none yet. A queue pair that gave up
// is "rnr" or "retry", whatever name says.
func Step(name string, err error) error {
	var have *StepError
	if err == nil || errors.As(err, &have) {
		return err
	}
	var ce *verbs.CompletionError
	if errors.As(err, &ce) {
		switch ce.Status {
		case verbs.WCRetryExcErr:
			name = "retry"
		case verbs.WCRNRRetryExcErr:
			name = "rnr"
		}
	}
	var cm *rdmacm.ConnectError
	if errors.As(err, &cm) {
		return &StepError{Step: cmStep(cm), Cause: err}
	}
	return &StepError{Step: name, Cause: err, Hint: hint(err)}
}

// cmStep is ours for the connection manager's.
func cmStep(e *rdmacm.ConnectError) string {
	switch e.Step {
	case rdmacm.StepAddress, rdmacm.StepRoute:
		return "route"
	case rdmacm.StepQP:
		return "qp"
	}
	return "cm"
}

func hint(err error) string {
	var ce *verbs.CompletionError
	if errors.As(err, &ce) {
		switch ce.Status {
		case verbs.WCRetryExcErr:
			return "retry exceeded, nobody acknowledges: the peer's queue pair is gone, or UDP port 4791 is blocked on the way"
		case verbs.WCRNRRetryExcErr:
			return "RNR retry exceeded: the peer has no receive buffer posted"
		case verbs.WCRemInvReqErr:
			return "the peer's buffer is too small for the message"
		case verbs.WCWRFlushErr:
			return "the queue pair went to the error state"
		}
	}
	if errors.Is(err, syscall.ENOMEM) {
		return "perhaps more than the limit of locked memory: ulimit -l"
	}
	return ""
}
