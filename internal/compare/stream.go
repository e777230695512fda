package compare

import (
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stream is the TCP connection that blocks go over. It makes its system calls
// itself, to count them; where one would block, the Go runtime waits.
type stream struct {
	c  *net.TCPConn
	rc syscall.RawConn
	m  *meter
	// blocking: calls wait in the kernel, of this descriptor.
	blocking bool
	num      int
}

func newStream(c *net.TCPConn, m *meter) (*stream, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &stream{c: c, rc: rc, m: m}, nil
}

// readable calls f, which makes one system call, until it would not block; n is
// what it returned, and io.EOF for 0.
func (s *stream) readable(name string, f func(fd int) (int, error)) (n int, err error) {
	e := s.wait(s.rc.Read, func(fd uintptr) bool {
		n, err = s.once(fd, f)
		return err != unix.EAGAIN
	})
	switch {
	case e != nil:
		return 0, e
	case err != nil:
		return 0, errnoOf(name, err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// writable is readable for the other direction.
func (s *stream) writable(name string, f func(fd int) (int, error)) (n int, err error) {
	e := s.wait(s.rc.Write, func(fd uintptr) bool {
		n, err = s.once(fd, f)
		return err != unix.EAGAIN
	})
	if e != nil {
		return 0, e
	}
	if err != nil {
		return 0, errnoOf(name, err)
	}
	return n, nil
}

func (s *stream) wait(poll func(func(uintptr) bool) error, f func(uintptr) bool) error {
	if !s.blocking {
		return poll(f)
	}
	f(uintptr(s.num))
	return nil
}

func (s *stream) once(fd uintptr, f func(fd int) (int, error)) (n int, err error) {
	for {
		s.m.call()
		if n, err = f(int(fd)); err != unix.EINTR {
			return n, err
		}
	}
}

func errnoOf(name string, err error) error {
	if e, ok := err.(syscall.Errno); ok {
		return &net.OpError{Op: name, Net: "tcp", Err: e}
	}
	return err
}

// readSome reads at least a byte.
func (s *stream) readSome(b []byte) (int, error) {
	return s.readable("read", func(fd int) (int, error) { return unix.Read(fd, b) })
}

// readFull fills b.
func (s *stream) readFull(b []byte) error {
	for got := 0; got < len(b); {
		n, err := s.readSome(b[got:])
		if err != nil {
			if err == io.EOF && got > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		got += n
	}
	return nil
}

func (s *stream) writeAll(b []byte) error {
	for len(b) > 0 {
		n, err := s.writable("write", func(fd int) (int, error) { return unix.Write(fd, b) })
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// block makes calls wait in the kernel and not in the Go runtime, until abort. It
// returns the descriptor, which is valid while the connection is open.
func (s *stream) block() (fd int, err error) {
	if err := s.rc.Control(func(u uintptr) { s.num = int(u) }); err != nil {
		return 0, err
	}
	s.blocking = true
	return s.num, unix.SetNonblock(s.num, false)
}

// abort makes everything that waits for the connection return.
func (s *stream) abort() {
	_ = s.c.SetDeadline(time.Unix(1, 0))
	_ = s.c.CloseRead()
	_ = s.c.CloseWrite()
}
