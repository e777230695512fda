package verbs

import (
	"os"
	"runtime"
	"syscall"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// XRCD is an extended connection domain: XRC receive queue pairs and shared
// receive queues of one domain reach each other, also across processes that
// opened the domain through the same file.
type XRCD struct {
	h handle.Handle
	p any
}

// OpenXRCD opens a domain. A nil file makes a private one. A file (its inode
// counts) names a shared one; flags are os.O_CREATE to make it when it does not
// exist (ENOENT otherwise) and os.O_EXCL to insist on that (EEXIST otherwise).
//
// Verb: ibv_open_xrcd(3).
func (c *Context) OpenXRCD(file *os.File, flags int) (*XRCD, error) {
	const verb = "ibv_open_xrcd"
	if flags&^(os.O_CREATE|os.O_EXCL) != 0 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "flags are os.O_CREATE and os.O_EXCL"}
	}
	fd := -1
	if file != nil {
		var err error
		if fd, err = fileFD(file); err != nil {
			return nil, verbErr(verb, err)
		}
	} else {
		flags |= os.O_CREATE
	}
	p, err := createRare(&c.h, verb, c.p, func(i provider.XRCDOpener) (provider.XRCD, error) { return i.OpenXRCD(fd, flags) })
	runtime.KeepAlive(file)
	if err != nil {
		return nil, err
	}
	x := &XRCD{p: p}
	if err := adopt(&x.h, "verbs.XRCD", verb, p, &c.h); err != nil {
		return nil, err
	}
	watch(x, &x.h)
	return x, nil
}

// fileFD reads the descriptor without making the file blocking, as Fd does. The
// caller keeps the file alive while it uses the number.
func fileFD(f *os.File) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	n := -1
	err = rc.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

// Close closes the domain: ErrInUse while queue pairs or shared receive queues
// of it are open. A shared one ends with its last user.
//
// Verb: ibv_close_xrcd(3).
func (x *XRCD) Close() error {
	return verbErr("ibv_close_xrcd", x.h.Close(x.p.(provider.XRCD).Close))
}

// OpenQP opens the XRC receive queue pair of number qpn, which another process
// made in the shared domain x. It is no queue to post to: it keeps the queue
// pair alive, can be modified and queried, and gets its events.
//
// Verb: ibv_open_qp(3).
func (c *Context) OpenQP(x *XRCD, qpn uint32) (*QP, error) {
	const verb = "ibv_open_qp"
	if x == nil {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "a domain is required"}
	}
	if err := enter(&x.h, verb); err != nil {
		return nil, err
	}
	defer x.h.Exit()
	return openQP(c, x.p.(provider.XRCD), qpn, &c.h, &x.h)
}

func openQP(c *Context, x provider.XRCD, qpn uint32, parents ...*handle.Handle) (*QP, error) {
	const verb = "ibv_open_qp"
	in := provider.QPInit{Cookie: newCookie(), Type: QPTXRCRecv}
	q := &QP{c: c}
	q.state.Store(-1) // its maker changes it
	return finishQP(q, verb, &in, parents, func() (provider.QP, error) {
		o, ok := c.p.(provider.XRCDOpener)
		if !ok {
			return nil, errUnsupported
		}
		return o.OpenQP(&provider.OpenQPInit{Cookie: in.Cookie, QPN: qpn, XRCD: x, Type: in.Type})
	})
}
