package rpc

import (
	"context"
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/verbs"
)

// Code says what kind of failure an Error is. The values are gRPC's.
type Code uint32

// Values of Code, numbered as gRPC's.
const (
	OK                 Code = 0
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	DataLoss           Code = 15
	Unauthenticated    Code = 16
)

var codeNames = [...]string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

// String is gRPC's name of the code.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("CODE_%d", uint32(c))
}

// Error is what a handler returned, as its caller sees it, or a failure of the
// call with a code.
type Error struct {
	Code    Code
	Method  string
	Message string
	Cause   error // on this side; nil for what the peer said
}

func (e *Error) Error() string {
	s := "rpc: " + e.Method + ": " + e.Code.String()
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is find context.Canceled and context.DeadlineExceeded in the
// codes that stand for them.
func (e *Error) Is(target error) bool {
	switch e.Code {
	case Canceled:
		return target == context.Canceled
	case DeadlineExceeded:
		return target == context.DeadlineExceeded
	case Unimplemented:
		return target == errors.ErrUnsupported
	}
	return false
}

// Errorf makes an error for a handler to return.
func Errorf(c Code, format string, a ...any) error {
	return &Error{Code: c, Message: fmt.Sprintf(format, a...)}
}

// CodeOf is the code that an error stands for; Unknown for one that has none.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, ErrIndeterminate), errors.Is(err, ErrUnavailable):
		return Unavailable
	case errors.Is(err, errors.ErrUnsupported):
		return Unimplemented
	}
	return Unknown
}

// Errors that callers branch on.
var (
	// ErrIndeterminate: the connection ended after the request was sent and before
	// its answer came: it was done once or not at all.
	ErrIndeterminate = errors.New("rpc: the connection ended before the answer came; the call was done once or not at all")
	// ErrUnavailable: the peer could not be reached, or is shutting down; the call
	// was not done.
	ErrUnavailable = errors.New("rpc: the peer is unavailable")
	// ErrClosed is verbs.ErrClosed: the client or server was closed.
	ErrClosed = verbs.ErrClosed
)
