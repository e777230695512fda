package rdmanet

import (
	"io"

	"github.com/zrdma/zrdma/mr"
)

// Read reads what has come, waiting for the first byte.
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.leaveRead()
	if err := c.fill(len(p) == 0); err != nil {
		return 0, c.opError("read", err)
	}
	n := copy(p, c.left)
	c.took(n)
	return n, nil
}

// WriteTo writes all that comes to w, straight from the memory it came in, until
// the peer has ended its half.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	c.rmu.Lock()
	defer c.leaveRead()
	var total int64
	for {
		if err := c.fill(false); err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, c.opError("read", err)
		}
		n, err := w.Write(c.left)
		if n < 0 || n > len(c.left) {
			n = 0 // a Writer that lies must not move us out of the message
		}
		if err == nil && n < len(c.left) {
			err = io.ErrShortWrite
		}
		total += int64(n)
		c.took(n)
		if err != nil {
			return total, err
		}
	}
}

// leaveRead unlocks rmu. A reader may be away in a Writer for long: Close does not
// wait for it, and it does then what Close could not.
func (c *Conn) leaveRead() {
	c.rmu.Unlock()
	c.dropClosed()
}

// dropClosed gives back what was not read of a closed connection, unless a reader is
// there, who does.
func (c *Conn) dropClosed() {
	if c.closed.Load() && c.rmu.TryLock() {
		c.drop()
		c.rmu.Unlock()
	}
}

// fill waits until left has a byte; peek: it does not wait.
func (c *Conn) fill(peek bool) error {
	x := c.rd.wait()
	if err := x.Err(); err != nil {
		return err
	}
	for len(c.left) == 0 {
		switch {
		case peek:
			return nil
		case c.rerr != nil:
			return c.rerr
		case c.eof.Load():
			return io.EOF
		}
		m, err := c.q.Recv(x)
		if err != nil {
			return err
		}
		if err := c.open(m.Buf); err != nil {
			return err
		}
	}
	return nil
}

// open makes a message the one that is read.
func (c *Conn) open(b mr.Buf) error {
	p, err := b.Bytes()
	var kind byte
	var data []byte
	if err == nil {
		kind, data, err = parse(p)
	}
	if err == nil && kind == kindData {
		c.cur, c.left = b, data
		return nil
	}
	if !b.IsZero() {
		_ = b.Release()
	}
	if err != nil {
		c.rerr = err
		return err
	}
	c.eof.Store(true)
	return nil
}

// took moves on by n bytes, and gives the message back when it was read.
func (c *Conn) took(n int) {
	c.left = c.left[n:]
	c.received.Add(uint64(n))
	if len(c.left) == 0 {
		c.drop()
	}
}

func (c *Conn) drop() {
	if !c.cur.IsZero() {
		_ = c.cur.Release()
	}
	c.cur, c.left = mr.Buf{}, nil
}
