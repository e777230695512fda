package iouring

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ring is an io_uring with its two queues.
type Ring struct {
	fd       int
	ring     []byte
	sqeMem   []byte
	sqes     []sqe
	sqHead   *uint32
	sqTail   *uint32
	sqMask   uint32
	cqHead   *uint32
	cqTail   *uint32
	cqMask   uint32
	cqes     []cqe
	queued   uint32 // prepared and not submitted
	usage    bool   // the kernel says of a send whether it copied
	pinned   runtime.Pinner
	waitArg  extArg
	waitTime unix.Timespec

	// Enters counts system calls: io_uring_enter, nothing else is made after New.
	Enters int64
}

type extArg struct {
	sigmask   uint64
	sigmaskSz uint32
	_         uint32
	ts        uint64
}

// New makes a ring for that many operations at a time.
func New(entries int) (_ *Ring, err error) {
	var p params
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, whyNot(e)
	}
	r := &Ring{fd: int(fd)}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if p.features&(featSingleMmap|featExtArg) != featSingleMmap|featExtArg {
		return nil, fmt.Errorf("io_uring: this kernel's lacks a wait with a time-out; Linux 5.11 has it: %w", errors.ErrUnsupported)
	}
	size := max(int(p.sq.array)+int(p.sqEntries)*4, int(p.cq.cqes)+int(p.cqEntries)*int(unsafe.Sizeof(cqe{})))
	if r.ring, err = unix.Mmap(r.fd, offSQRing, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("io_uring: mapping the queues: %w", err)
	}
	if r.sqeMem, err = unix.Mmap(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("io_uring: mapping the requests: %w", err)
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.ring[off])) }
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.sqeMem[0])), p.sqEntries)
	r.sqHead, r.sqTail, r.sqMask = at(p.sq.head), at(p.sq.tail), *at(p.sq.ringMask)
	r.cqHead, r.cqTail, r.cqMask = at(p.cq.head), at(p.cq.tail), *at(p.cq.ringMask)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.ring[p.cq.cqes])), p.cqEntries)
	array := unsafe.Slice((*uint32)(unsafe.Pointer(&r.ring[p.sq.array])), p.sqEntries)
	for i := range array {
		array[i] = uint32(i)
	}
	major, minor := kernel()
	r.usage = major > 6 || major == 6 && minor >= 2
	r.pinned.Pin(&r.waitArg)
	r.pinned.Pin(&r.waitTime)
	return r, nil
}

// whyNot explains that io_uring_setup failed.
func whyNot(e syscall.Errno) error {
	switch e {
	case unix.ENOSYS:
		return fmt.Errorf("io_uring: this kernel has none: %w", errors.ErrUnsupported)
	case unix.EPERM:
		return fmt.Errorf("io_uring: switched off here (sysctl kernel.io_uring_disabled, or a seccomp profile as container runtimes have it): %w", e)
	case unix.ENOMEM:
		return fmt.Errorf("io_uring: no locked memory left; raise it with `ulimit -l`: %w", e)
	}
	return fmt.Errorf("io_uring: io_uring_setup: %w", e)
}

// Probe says whether the kernel has the operations: nil, or what is missing.
func Probe(ops ...Op) error {
	r, err := New(2)
	if err != nil {
		return err
	}
	defer r.Close()
	var p struct {
		lastOp, n uint8
		_         uint16
		_         [3]uint32
		ops       [256]struct {
			op, _ uint8
			flags uint16
			_     uint32
		}
	}
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerProbe, uintptr(unsafe.Pointer(&p)), 256, 0, 0); e != 0 {
		return fmt.Errorf("io_uring: asking for its operations: %w", e)
	}
	for _, o := range ops {
		if o > Op(p.lastOp) || p.ops[o].flags&1 == 0 {
			need := "5.1"
			if o == OpSendZC {
				need = "6.0 (zero-copy send)"
			}
			major, minor := kernel()
			return fmt.Errorf("io_uring: this kernel, %d.%d, lacks operation %d; Linux %s has it: %w", major, minor, o, need, errors.ErrUnsupported)
		}
	}
	return nil
}

// Register registers buffers; an operation names one by its index, and touches
// nothing outside it.
func (r *Ring) Register(bufs ...[]byte) error {
	iov := make([]unix.Iovec, len(bufs))
	for i, b := range bufs {
		iov[i].Base = unsafe.SliceData(b)
		iov[i].SetLen(len(b))
	}
	_, _, e := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerBuffers, uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)), 0, 0)
	if e == unix.ENOMEM {
		return fmt.Errorf("io_uring: registering buffers: the limit of locked memory is too low; raise it with `ulimit -l` or LimitMEMLOCK=: %w", e)
	}
	if e != 0 {
		return fmt.Errorf("io_uring: registering buffers: %w", e)
	}
	return nil
}

func (r *Ring) prepare(q sqe) error {
	tail := *r.sqTail // only this side writes it
	if tail-atomic.LoadUint32(r.sqHead) >= uint32(len(r.sqes)) {
		return errors.New("io_uring: the submission queue is full")
	}
	r.sqes[tail&r.sqMask] = q
	atomic.StoreUint32(r.sqTail, tail+1)
	r.queued++
	return nil
}

// ReadFixed prepares a read of a file or socket into b, part of registered buffer
// index. off is -1 for a socket. With link the next operation waits for it.
func (r *Ring) ReadFixed(fd int, b []byte, index int, off int64, link bool, user uint64) error {
	q := sqe{op: OpReadFixed, fd: int32(fd), off: uint64(off), addr: uint64(uintptr(unsafe.Pointer(&b[0]))), len: uint32(len(b)), bufIndex: uint16(index), user: user}
	if link {
		q.flags = flagLink
	}
	return r.prepare(q)
}

// SendZC prepares a send of all of b, part of registered buffer index, from where
// it lies. b is free again with the notification, not with the result.
func (r *Ring) SendZC(fd int, b []byte, index int, link bool, user uint64) error {
	q := sqe{op: OpSendZC, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(&b[0]))), len: uint32(len(b)), bufIndex: uint16(index), user: user,
		opFlags: unix.MSG_WAITALL | unix.MSG_NOSIGNAL, ioprio: fixedBuf}
	if r.usage {
		q.ioprio |= reportUsage
	}
	if link {
		q.flags = flagLink
	}
	return r.prepare(q)
}

// Completion is what became of an operation.
type Completion struct {
	User uint64
	N    int   // bytes
	Err  error // a syscall.Errno
	// More: a notification of the same User follows. Notified: this is it; Copied
	// says then that the kernel copied the data after all, which Linux before 6.2
	// does not tell.
	More, Notified, Copied bool
}

// lookAround is how long a wait does not see that its context has ended.
const lookAround = 100 * time.Millisecond

// Wait submits what was prepared and calls each for every completion, at least
// one. ctx ends the wait, not the operations.
func (r *Ring) Wait(ctx context.Context, each func(Completion)) error {
	for {
		if n := r.reap(each); n > 0 && r.queued == 0 {
			return nil
		} else if n > 0 {
			return r.enter(0)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.enter(1); err != nil {
			return err
		}
	}
}

// enter submits, and waits for n completions for a while.
func (r *Ring) enter(n int) error {
	var flags uintptr
	if n > 0 {
		r.waitTime = unix.NsecToTimespec(int64(lookAround))
		r.waitArg = extArg{ts: uint64(uintptr(unsafe.Pointer(&r.waitTime)))}
		flags = enterGetEvents | enterExtArg
	}
	r.Enters++
	done, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.queued), uintptr(n), flags, uintptr(unsafe.Pointer(&r.waitArg)), unsafe.Sizeof(r.waitArg))
	switch e {
	case 0:
		r.queued -= uint32(done)
		return nil
	case unix.ETIME, unix.EINTR, unix.EAGAIN, unix.EBUSY:
		// With a time-out the submissions have been taken: the kernel reports it
		// only where none were.
		return nil
	}
	return fmt.Errorf("io_uring: io_uring_enter: %w", e)
}

func (r *Ring) reap(each func(Completion)) (n int) {
	head := *r.cqHead
	for tail := atomic.LoadUint32(r.cqTail); head != tail; head++ {
		c := r.cqes[head&r.cqMask]
		out := Completion{User: c.user, More: c.flags&cqeMore != 0, Notified: c.flags&cqeNotif != 0}
		switch {
		case out.Notified:
			out.Copied = c.res&zcCopied != 0
		case c.res < 0:
			out.Err = syscall.Errno(-c.res)
		default:
			out.N = int(c.res)
		}
		atomic.StoreUint32(r.cqHead, head+1)
		each(out)
		n++
	}
	return n
}

// TellsCopies says whether Completion.Copied means something on this kernel.
func (r *Ring) TellsCopies() bool { return r.usage }

// Close ends the ring. The kernel cancels what is under way, after Close.
func (r *Ring) Close() error {
	var errs []error
	for _, m := range []*[]byte{&r.ring, &r.sqeMem} {
		if *m != nil {
			errs = append(errs, unix.Munmap(*m))
			*m = nil
		}
	}
	if r.fd >= 0 {
		errs = append(errs, unix.Close(r.fd))
		r.fd = -1
	}
	r.pinned.Unpin()
	return errors.Join(errs...)
}

// kernel is the version of the kernel that runs.
func kernel() (major, minor int) {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		_, _ = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	}
	return major, minor
}
