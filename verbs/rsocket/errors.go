package rsocket

import (
	"errors"
	"syscall"

	"github.com/zrdma/zrdma/internal/ibv"
	"github.com/zrdma/zrdma/verbs"
)

// ErrClosed is returned by every method of a closed socket; it is also net.ErrClosed.
var ErrClosed = verbs.ErrClosed

// opErr names the C call. EAGAIN and EINPROGRESS are answers rather than
// failures and pass bare, without an allocation.
func opErr(call string, err error) error {
	switch err {
	case nil, syscall.EAGAIN, syscall.EINPROGRESS, ErrClosed:
		return err
	}
	if _, named := err.(*verbs.Error); named {
		return err
	}
	return &verbs.Error{Verb: call, Cause: err}
}

// createErr says what to do when there can be no rsockets at all.
func createErr(err error) error {
	if l := ibv.Loaded(true); l != nil {
		return &verbs.Error{Verb: "rsocket", Cause: l}
	}
	e := &verbs.Error{Verb: "rsocket", Cause: err}
	switch {
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOSYS):
		e.Hint = "no connection manager: is there an RDMA device (rdma link), and is rdma_ucm loaded (modprobe rdma_ucm)?"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		e.Hint = "no right to open /dev/infiniband/rdma_cm"
	}
	return e
}

// unsupported is for what the library would do with memory that is not there.
func unsupported(call, why string) error {
	return &verbs.Error{Verb: call, Cause: syscall.EOPNOTSUPP, Hint: why}
}

// datagramErr explains the errno that the library's clean-up leaves behind.
func datagramErr(call string, err error) error {
	return &verbs.Error{Verb: call, Cause: err, Hint: "datagram rsockets of librdmacm need InfiniBand: on RoCE and Soft-RoCE they cannot make their address handle"}
}
