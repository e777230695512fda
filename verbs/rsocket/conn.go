package rsocket

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/ibv"
)

// Conn is a stream connection, a net.Conn.
type Conn struct {
	s             *Socket
	local, remote net.Addr
	rd, wr        *deadline

	wmu      sync.Mutex // one Write at a time
	emu      sync.Mutex
	err      error // guarded by emu: why the connection failed
	wrClosed bool  // guarded by emu: after CloseWrite
}

var _ net.Conn = (*Conn)(nil)

// NewConn takes ownership of a connected stream socket.
func NewConn(s *Socket) (*Conn, error) {
	l, err := s.SockName()
	if err != nil {
		return nil, err
	}
	r, err := s.PeerName()
	if err != nil {
		return nil, err
	}
	return &Conn{s: s, local: net.TCPAddrFromAddrPort(l), remote: net.TCPAddrFromAddrPort(r),
		rd: newDeadline(), wr: newDeadline()}, nil
}

// Socket is the rsocket below, for options and IOMap. It stays the Conn's.
func (c *Conn) Socket() *Socket { return c.s }

// LocalAddr is the local address, a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the peer's address, a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

func (c *Conn) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "rsocket", Source: c.local, Addr: c.remote, Err: err}
}

// Read reads what has arrived, after a wait when nothing has. Verb: rrecv(7).
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.read(b)
	return n, c.opError("read", err)
}

func (c *Conn) read(b []byte) (int, error) {
	for {
		if c.s.h.Closed() {
			return 0, ErrClosed
		}
		if c.rd.passed() {
			return 0, os.ErrDeadlineExceeded
		}
		if len(b) == 0 {
			return 0, nil
		}
		n, err := c.s.Recv(b, 0)
		switch {
		case err == nil && n > 0:
			return n, nil
		case err == nil:
			return 0, c.ended(io.EOF)
		case err != syscall.EAGAIN:
			return 0, err
		}
		if err := c.park(ibv.PollIn, c.rd); err != nil {
			return 0, err
		}
	}
}

// ended tells a failure from an orderly end: SO_ERROR says it once.
func (c *Conn) ended(orderly error) error {
	c.emu.Lock()
	defer c.emu.Unlock()
	if c.err == nil {
		c.err = c.s.Err()
	}
	if c.err != nil {
		return c.err
	}
	return orderly
}

func (c *Conn) park(events int16, d *deadline) error {
	_, err := poll.park(c.s, events, d.done(), false)
	if err == errStopped {
		// It may have been moved since: the caller looks again.
		return nil
	}
	return err
}

// Write writes all of b, waiting for the peer to make room. Verb: rsend(7).
func (c *Conn) Write(b []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	n, err := c.write(b)
	return n, c.opError("write", err)
}

func (c *Conn) write(b []byte) (n int, err error) {
	for first := true; ; first = false {
		if c.s.h.Closed() {
			return n, ErrClosed
		}
		if c.wr.passed() {
			return n, os.ErrDeadlineExceeded
		}
		if n == len(b) {
			return n, nil
		}
		if first {
			if err := c.gone(); err != nil {
				return n, err
			}
		}
		m, err := c.s.Send(b[n:], 0)
		n += max(m, 0)
		switch {
		case err == nil:
			continue
		case err != syscall.EAGAIN:
			return n, err
		}
		if err := c.park(ibv.PollOut, c.wr); err != nil {
			return n, err
		}
	}
}

// gone looks for the peer's goodbye: rsend does not, while there is room.
func (c *Conn) gone() error {
	c.emu.Lock()
	closed := c.wrClosed
	c.emu.Unlock()
	if closed {
		return syscall.EPIPE
	}
	fds := [1]PollFD{{FD: int32(c.s.fd), Events: ibv.PollOut}}
	err := c.s.do("rpoll", func() error {
		_, err := ibv.RPoll(fds[:], 0)
		return err
	})
	if err == nil && fds[0].Revents&(ibv.PollErr|ibv.PollHup) != 0 {
		return c.ended(syscall.EPIPE)
	}
	return err
}

// CloseWrite ends the sending half: the peer reads io.EOF after what was
// written. Verb: rshutdown(7).
func (c *Conn) CloseWrite() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.emu.Lock()
	c.wrClosed = true
	c.emu.Unlock()
	err := c.s.Shutdown(ShutWr)
	for err == syscall.EAGAIN {
		t := time.NewTimer(time.Millisecond)
		select {
		case <-t.C:
			err = c.s.Shutdown(ShutWr)
		case <-c.s.done:
			err = ErrClosed
		case <-c.wr.done():
			err = os.ErrDeadlineExceeded
		}
		t.Stop()
	}
	return c.opError("close", err)
}

// Close ends the connection and every call on it; see Socket.SetLinger.
func (c *Conn) Close() error { return c.opError("close", c.s.Close()) }

// SetDeadline bounds Read and Write.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(c.rd, t) }

// SetWriteDeadline bounds Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(c.wr, t) }

func (c *Conn) setDeadline(d *deadline, t time.Time) error {
	if c.s.h.Closed() {
		return c.opError("set", ErrClosed)
	}
	d.set(t)
	return nil
}
