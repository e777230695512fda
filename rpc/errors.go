package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/zrdma/zrdma/mr"
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
	// Refused says that the server did not begin the call: no handler has seen it,
	// it may be done again.
	Refused bool
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
	case ResourceExhausted:
		return target == ErrBusy && e.Refused
	case Unauthenticated:
		return target == ErrUnauthenticated
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
	case errors.Is(err, ErrClosed):
		return FailedPrecondition
	case errors.Is(err, mr.ErrMoved), errors.Is(err, ErrForeignBuffer):
		return InvalidArgument
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
	// ErrTooLong: arguments or an answer do not fit into a message. Send them as
	// bulk data, or set a larger Config.SlotSize on the side that receives.
	ErrTooLong = errors.New("rpc: too long for a message")
	// ErrBusy: the server is at one of its limits and did not begin the call.
	ErrBusy = errors.New("rpc: the server is at its limits")
	// ErrVersion: the peer speaks another version of the protocol.
	ErrVersion = errors.New("rpc: the peer is of another version")
	// ErrUnauthenticated: the peer does not know Config.Secret, or a certificate was
	// not accepted, here or there.
	ErrUnauthenticated = errors.New("rpc: authentication failed")
	// ErrForeignBuffer: a buffer is not registered with the device of the client.
	ErrForeignBuffer = errors.New("rpc: the buffer is not registered with this client's device: take it from Device.Pool, or add the domain (mr.Region.AddDomain)")
)

// authentication gives a failure of TLS to trust the peer, or of the peer to
// trust this side, its code.
func authentication(err error) error {
	var (
		verify *tls.CertificateVerificationError
		bad    x509.CertificateInvalidError
		who    x509.UnknownAuthorityError
		alert  *net.OpError // crypto/tls has no other word for what the peer says
	)
	if errors.As(err, &verify) || errors.As(err, &bad) || errors.As(err, &who) ||
		errors.As(err, &alert) && alert.Op == "remote error" {
		return &Error{Code: Unauthenticated, Method: "hello", Cause: err}
	}
	return err
}
