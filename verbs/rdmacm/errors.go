package rdmacm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/zrdma/zrdma/verbs"
)

// ErrClosed is returned by every method of a closed object; it is also net.ErrClosed.
var ErrClosed = verbs.ErrClosed

// ErrInUse is returned by Close while something made from the object is open.
var ErrInUse = verbs.ErrInUse

const hintModule = "the connection manager's kernel module is not loaded: modprobe rdma_ucm"

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// cmErr names the verb. Errors of the life cycle and of contexts pass as they are.
func cmErr(verb string, err error) error { return hinted(verb, err, "") }

func hinted(verb string, err error, hint string) error {
	if err == nil || err == ErrClosed || errors.Is(err, ErrInUse) || isContext(err) {
		return err
	}
	if errors.Is(err, syscall.ECANCELED) {
		return closed(verb)
	}
	var v *verbs.Error
	if errors.As(err, &v) {
		return err
	}
	return &verbs.Error{Verb: verb, Cause: err, Hint: hint}
}

func invalid(verb, hint string) error {
	return &verbs.Error{Verb: verb, Cause: syscall.EINVAL, Hint: hint}
}

func closed(verb string) error { return fmt.Errorf("rdmacm: %s: %w", verb, ErrClosed) }

// Step is a part of connecting.
type Step string

// Steps, in their order.
const (
	StepAddress Step = "resolving the address"
	StepRoute   Step = "resolving the route"
	StepQP      Step = "creating the queue pair"
	StepConnect Step = "connecting"
	StepAccept  Step = "accepting"
)

// ConnectError is a connection that could not be made. It unwraps to the cause:
// a syscall.Errno (ECONNREFUSED for a rejection), or the context's error.
type ConnectError struct {
	Step        Step
	Peer        netip.AddrPort
	Event       EventType    // what said so; 0 with Cause of a call that failed
	Status      int          // the event's: minus an errno, or the reason of a rejection
	Reason      RejectReason // of EventRejected
	PrivateData []byte       // of EventRejected: the peer's, zero padded
	Cause       error
}

func (e *ConnectError) Error() string {
	s := fmt.Sprintf("rdmacm: %s %v: ", e.Step, e.Peer)
	switch e.Event {
	case EventRejected:
		s += "rejected: " + e.Reason.String()
	case 0:
		s += e.Cause.Error()
	default:
		s += fmt.Sprintf("%v (status %d): %v", e.Event, e.Status, e.Cause)
	}
	if h := e.hint(); h != "" {
		s += " (" + h + ")"
	}
	return s
}

func (e *ConnectError) Unwrap() error { return e.Cause }

// hint says what to do about it.
func (e *ConnectError) hint() string {
	switch {
	case e.Event == EventRejected:
		switch e.Reason {
		case RejectInvalidServiceID:
			return "nobody listens on that port"
		case RejectConsumer:
			return "the application there refused; see PrivateData"
		case RejectStale:
			return "the peer still has an old connection of this queue pair; try again"
		}
	case e.Event == EventUnreachable:
		return "the peer's host is there but its connection manager does not answer: is RDMA up on it, and UDP port 4791 open?"
	case e.Step == StepAddress && errors.Is(e.Cause, syscall.ENODEV):
		return "no RDMA device is on the interface that leads there: see `rdma link`"
	case e.Step == StepAddress && (errors.Is(e.Cause, syscall.ETIMEDOUT) || errors.Is(e.Cause, syscall.EHOSTUNREACH)):
		return "no host answers at that address: check `ip route get` and `ip neigh`"
	case e.Step == StepAddress && errors.Is(e.Cause, syscall.ENETUNREACH):
		return "there is no route to that address"
	case e.Step == StepQP && errors.Is(e.Cause, syscall.ENOMEM):
		return "ask for smaller queues, or raise the locked-memory limit"
	}
	return ""
}

// RejectReason says why a peer refused a connection. The numbers are those of
// the InfiniBand specification, 12.6.7.2.
type RejectReason int

// Reasons that occur.
const (
	RejectNoQP             RejectReason = 1
	RejectNoResources      RejectReason = 3
	RejectTimeout          RejectReason = 4
	RejectUnsupported      RejectReason = 5
	RejectInvalidCommID    RejectReason = 6
	RejectInvalidServiceID RejectReason = 8
	RejectInvalidTransport RejectReason = 9
	RejectStale            RejectReason = 10
	RejectInvalidGID       RejectReason = 12
	RejectInvalidMTU       RejectReason = 26
	RejectResponderRes     RejectReason = 27
	RejectConsumer         RejectReason = 28
	RejectRNRRetry         RejectReason = 29
	RejectDuplicateCommID  RejectReason = 30
	RejectVendorOption     RejectReason = 35
)

var reasons = map[RejectReason]string{
	RejectNoQP: "no queue pair", RejectNoResources: "no resources", RejectTimeout: "timeout",
	RejectUnsupported: "unsupported request", RejectInvalidCommID: "invalid communication id",
	RejectInvalidServiceID: "invalid service id", RejectInvalidTransport: "invalid transport type",
	RejectStale: "stale connection", RejectInvalidGID: "invalid port GID", RejectInvalidMTU: "unsupported path MTU",
	RejectResponderRes: "insufficient responder resources", RejectConsumer: "refused by the application",
	RejectRNRRetry: "RNR retry count", RejectDuplicateCommID: "duplicate communication id",
	RejectVendorOption: "vendor option (ECE) not supported",
}

// String describes the reason.
func (r RejectReason) String() string {
	if s, ok := reasons[r]; ok {
		return s
	}
	return fmt.Sprintf("reason %d", int(r))
}

// eventErr is the error that an event of failure stands for, else nil.
func eventErr(e *Event, step Step, peer netip.AddrPort) error {
	c := &ConnectError{Step: step, Peer: peer, Event: e.Type, Status: e.Status}
	switch e.Type {
	case EventRejected:
		c.Reason, c.PrivateData, c.Cause = RejectReason(e.Status), e.PrivateData, syscall.ECONNREFUSED
		return c
	case EventAddrError, EventRouteError, EventConnectError, EventUnreachable, EventMulticastError, EventAddrinfoError:
		c.Cause = syscall.EIO
		if e.Status < 0 {
			c.Cause = syscall.Errno(-e.Status)
		}
	case EventDeviceRemoval:
		c.Cause = syscall.ENODEV
	case EventDisconnected:
		c.Cause = syscall.ECONNRESET
	default:
		return nil
	}
	return c
}
