//go:build linux

// Package netpoll waits for a file descriptor that C code owns in Go's network
// poller, so that a waiter holds no operating system thread.
package netpoll

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FD is a duplicate of a C library's descriptor, in the poller.
type FD struct {
	f       *os.File
	rc      syscall.RawConn
	turn    chan struct{} // one waiter at a time owns the deadline
	stopped atomic.Bool
	trying  sync.Mutex // held around try, so that Interrupt can wait for it
}

// New duplicates fd, puts it in non-blocking mode (a property of the open file,
// shared with the original) and registers the duplicate.
func New(fd int, name string) (*FD, error) {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(d, true); err != nil {
		unix.Close(d)
		return nil, err
	}
	f := os.NewFile(uintptr(d), name)
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	// A descriptor that the poller refuses cannot have deadlines: say so now.
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, err
	}
	x := &FD{f: f, rc: rc, turn: make(chan struct{}, 1)}
	x.turn <- struct{}{}
	return x, nil
}

// Wait calls try until it returns something other than EAGAIN, parking between
// calls until the descriptor is readable. It returns what try returned, the
// context's error, or ECANCELED after Interrupt.
func (x *FD) Wait(ctx context.Context, try func() syscall.Errno) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if x.stopped.Load() {
		return syscall.ECANCELED
	}
	select {
	case <-x.turn:
	default:
		select {
		case <-x.turn:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { x.turn <- struct{}{} }()
	if ctx.Done() != nil {
		fired := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			x.f.SetReadDeadline(time.Unix(1, 0))
			close(fired)
		})
		// The turn is given back only when the deadline can no longer come: it
		// would end the next waiter.
		defer func() {
			if stop() {
				return
			}
			<-fired
			if !x.stopped.Load() {
				x.f.SetReadDeadline(time.Time{})
			}
		}()
	}
	var e syscall.Errno
	err := x.rc.Read(func(uintptr) bool {
		x.trying.Lock()
		defer x.trying.Unlock()
		if x.stopped.Load() {
			e = syscall.ECANCELED
			return true
		}
		e = try()
		return e != syscall.EAGAIN
	})
	switch {
	case err == nil && e == 0:
		return nil
	case err == nil:
		return e
	case x.stopped.Load():
		return syscall.ECANCELED
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		// A Kick, or several: the deadline of one may come when another has been
		// answered already. Who made it did so before this returns.
		x.f.SetReadDeadline(time.Time{})
		return syscall.EAGAIN
	}
	return err
}

// Kick makes the Wait under way, or else the next one, return EAGAIN, so that
// its caller looks at the world again.
func (x *FD) Kick() {
	x.f.SetReadDeadline(time.Unix(1, 0))
}

// Interrupt ends every Wait, now and later, with ECANCELED. When it returns no
// try is running, so the C object behind the descriptor may be destroyed.
func (x *FD) Interrupt() {
	x.trying.Lock() // waits for the try under way
	x.stopped.Store(true)
	x.trying.Unlock()
	x.f.SetReadDeadline(time.Unix(1, 0))
}

// Resume undoes Interrupt.
func (x *FD) Resume() {
	x.stopped.Store(false)
	x.f.SetReadDeadline(time.Time{})
}

// Close closes the duplicate; the original stays the library's.
func (x *FD) Close() error {
	x.Interrupt()
	return x.f.Close()
}
