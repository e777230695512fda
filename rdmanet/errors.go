package rdmanet

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/verbs"
)

// network is what Addr.Network and errors say.
const network = "rdma"

// lost is a failed connection under the number that TCP would give it.
type lost struct {
	errno syscall.Errno
	err   error
}

func (e *lost) Error() string   { return e.errno.Error() + ": " + e.err.Error() }
func (e *lost) Unwrap() []error { return []error{e.errno, e.err} }

// opError is err as a net.Error.
func (c *Conn) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if c.q.Err() != nil {
		c.told.Store(true)
	}
	return &net.OpError{Op: op, Net: network, Source: c.local, Addr: c.remote, Err: c.cause(err)}
}

// cause names what qp says in the way of package net. OpError.Timeout looks at
// what it wraps and no deeper, so a deadline must be bare.
func (c *Conn) cause(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case c.closed.Load(), errors.Is(err, verbs.ErrClosed) && !errors.Is(err, qp.ErrPeerClosed):
		return net.ErrClosed
	case errors.Is(err, qp.ErrPeerClosed) && c.eof.Load():
		return &lost{syscall.EPIPE, err}
	case errors.Is(err, qp.ErrPeerClosed):
		return &lost{syscall.ECONNRESET, err}
	}
	return err
}
