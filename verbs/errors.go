package verbs

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// Errors that callers branch on.
var (
	// ErrClosed is returned by every method of a closed object; it is also net.ErrClosed.
	ErrClosed = handle.ErrClosed
	// ErrInUse is returned by Close while objects made from this one are open.
	ErrInUse = handle.ErrInUse
	// ErrQueueFull is returned by posts when the queue has no room for the work request.
	ErrQueueFull = errors.New("work queue is full")
)

// Error is a verb that failed. It unwraps to the cause, usually a
// syscall.Errno, so errors.Is(err, syscall.EINVAL) works. What a device, a
// driver or an old library cannot do is errors.ErrUnsupported.
type Error struct {
	Verb  string // ibv_reg_mr
	Cause error
	Hint  string // what to do about it, or empty
}

func (e *Error) Error() string {
	s := "verbs: " + e.Verb + ": " + e.Cause.Error()
	if e.Cause == provider.ENOTSUPP {
		s = "verbs: " + e.Verb + ": operation not supported by the kernel (errno 524)"
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Cause }

// Is makes errno 524, which Go's table lacks, an errors.ErrUnsupported, and a
// full queue an ErrQueueFull.
func (e *Error) Is(target error) bool {
	switch target {
	case errors.ErrUnsupported:
		return e.Cause == provider.ENOTSUPP
	case ErrQueueFull:
		return e.Cause == syscall.ENOMEM && isPost(e.Verb) || e.Cause == syscall.ENOSPC
	}
	return false
}

func isPost(verb string) bool {
	switch verb {
	case "ibv_post_send", "ibv_post_recv", "ibv_post_srq_recv", "ibv_wr_complete", "ibv_bind_mw":
		return true
	}
	return false
}

// verbErr names the verb. Errors of the life cycle and of contexts pass as they are.
func verbErr(verb string, err error) error {
	if err == nil {
		return nil
	}
	if err == ErrClosed || errors.Is(err, ErrInUse) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &Error{Verb: verb, Cause: err}
}

func hinted(verb string, err error, hint string) error {
	err = verbErr(verb, err)
	var e *Error
	if errors.As(err, &e) {
		e.Hint = hint
	}
	return err
}

var errUnsupported = syscall.EOPNOTSUPP

// CompletionError is a work completion whose status is not WCSuccess.
type CompletionError struct {
	Status    WCStatus
	Opcode    WCOpcode // undefined on some devices when Status is an error
	WRID      uint64
	QPN       uint32
	VendorErr uint32
}

func (e *CompletionError) Error() string {
	return fmt.Sprintf("verbs: completion of work request %#x on QP %#x: %v (vendor error %#x)", e.WRID, e.QPN, e.Status, e.VendorErr)
}

// WCErr is nil for a successful completion, else its *CompletionError.
func WCErr(w *WC) error {
	if w.Status == WCSuccess {
		return nil
	}
	return &CompletionError{w.Status, w.Opcode, w.WRID, w.QPN, w.VendorErr}
}
