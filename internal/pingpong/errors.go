package pingpong

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/zrdma/zrdma/verbs"
)

// StepError names the step that failed: "device", "port", "gid", "resources",
// "exchange", "mtu", "connect" or "ping".
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

// step names the step of an error that has none yet.
func step(name string, err error) error {
	var have *StepError
	if err == nil || errors.As(err, &have) {
		return err
	}
	return &StepError{Step: name, Cause: err, Hint: hint(err)}
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

// connectErr names the state that a queue pair could not reach.
func connectErr(state verbs.QPState, err error) error {
	if err == nil {
		return nil
	}
	h := ""
	if state == verbs.QPSRTR && (errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)) {
		h = "no route or no neighbour for the peer's GID: are both in one network, and is it the right GID?"
	}
	return &StepError{Step: "connect", Cause: fmt.Errorf("queue pair to %v: %w", state, err), Hint: h}
}
