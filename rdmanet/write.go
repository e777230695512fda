package rdmanet

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// batch is how many messages of a large write go out with one doorbell.
const batch = 8

// writer is what one Write at a time uses. Its slices are its own, so that
// posting allocates nothing.
type writer struct {
	size   int // of a message, header included
	batch  int
	inline [256]byte
	short  int // bytes that fit into a work request
	ops    [batch]qp.Op
	bufs   [batch]mr.Buf
}

func (w *writer) init(q *qp.Conn) {
	w.size = min(q.MaxSend(), q.Device().Pool().MaxLen())
	w.batch = min(batch, q.MaxBatch())
	w.short = max(min(q.MaxInline(), len(w.inline))-headerSize, 0)
	putHeader(w.inline[:], kindData)
}

// one is the operation that sends b.
func (w *writer) one(b mr.Buf) []qp.Op {
	w.bufs[0] = b
	w.ops[0] = qp.Op{Kind: qp.Send, Bufs: w.bufs[:1]}
	return w.ops[:1]
}

// Write writes p. It may return before the peer has the last message of it; an
// error after that is one of a later call.
func (c *Conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	n, err := c.write(p)
	return n, c.opError("write", err)
}

func (c *Conn) write(p []byte) (n int, err error) {
	for {
		x := c.wr.wait()
		if err := c.writable(x); err != nil || n == len(p) {
			return n, err
		}
		k, err := c.put(x, p[n:])
		n += k
		c.sent.Add(uint64(k))
		if err != nil {
			return n, err
		}
	}
}

// writable is nil when bytes can be written.
func (c *Conn) writable(x *expiry) error {
	if err := x.Err(); err != nil {
		return err
	}
	if c.wclosed.Load() {
		return fmt.Errorf("written after CloseWrite: %w", syscall.EPIPE)
	}
	return c.q.Err()
}

// put takes some of p.
func (c *Conn) put(x *expiry, p []byte) (int, error) {
	w := &c.writer
	switch {
	case c.behind():
		return c.join(x, p)
	case len(p) <= w.short:
		n := headerSize + copy(w.inline[headerSize:], p)
		w.ops[0] = qp.Op{Kind: qp.Send, Data: w.inline[:n]}
		err := c.q.TryPost(w.ops[:1]...)
		if err == nil || !errors.Is(err, qp.ErrQueueFull) {
			return taken(p, err), err
		}
	case len(p) > w.size-headerSize:
		return c.putMany(x, p)
	}
	b, err := c.message(x, p)
	if err != nil {
		return 0, err
	}
	err = c.q.TryPost(w.one(b)...)
	switch {
	case errors.Is(err, qp.ErrQueueFull):
		c.later(b)
		return len(p), nil
	case err != nil:
		release(b)
	}
	return taken(p, err), err
}

func taken(p []byte, err error) int {
	if err != nil {
		return 0
	}
	return len(p)
}

// release gives back a buffer that may have been posted.
func release(b mr.Buf) {
	if b.Err() == nil {
		_ = b.Release()
	}
}

// message copies p, as far as it fits, into a message.
func (c *Conn) message(x *expiry, p []byte) (mr.Buf, error) {
	n := min(len(p)+headerSize, c.writer.size)
	b, m, err := c.blank(x, n)
	if err == nil {
		copy(m[headerSize:], p)
	}
	return b, err
}

// blank is a message of n bytes, header included.
func (c *Conn) blank(x *expiry, n int) (mr.Buf, []byte, error) {
	b, err := c.q.Device().Pool().Get(x, n)
	if err != nil {
		return b, nil, err
	}
	m, err := b.Bytes()
	if err != nil {
		return b, nil, err
	}
	putHeader(m, kindData)
	return b, m, nil
}

// putMany sends messages that are full, as many as make one doorbell, and waits
// for room for them: the rest of the write has to wait anyway.
func (c *Conn) putMany(x *expiry, p []byte) (n int, err error) {
	w := &c.writer
	k := 0
	defer func() {
		clear(w.ops[:k])
		clear(w.bufs[:k])
	}()
	full := w.size - headerSize
	for ; k < w.batch && len(p)-n >= full; k++ {
		b, err := c.message(x, p[n:])
		if err != nil {
			for _, b := range w.bufs[:k] {
				release(b)
			}
			return 0, err
		}
		w.bufs[k] = b
		w.ops[k] = qp.Op{Kind: qp.Send, Bufs: w.bufs[k : k+1]}
		n += full
	}
	if err := c.q.Post(x, w.ops[:k]...); err != nil {
		for _, b := range w.bufs[:k] {
			release(b)
		}
		return 0, err
	}
	return n, nil
}

// ReadFrom writes all that r has, reading it straight into registered memory.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for {
		b, m, err := c.blank(c.wr.wait(), c.writer.size)
		if err != nil {
			return total, c.opError("write", err)
		}
		n, rerr := r.Read(m[headerSize:])
		if n > 0 {
			if err := c.send(b, headerSize+n); err != nil {
				return total, c.opError("write", err)
			}
			total += int64(n)
		} else {
			_ = b.Release()
		}
		if rerr == io.EOF {
			return total, nil
		} else if rerr != nil {
			return total, rerr
		}
	}
}

// send sends the first n bytes of a message, after what was written before.
func (c *Conn) send(b mr.Buf, n int) (err error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	b, err = b.Narrow(0, n)
	for err == nil {
		x := c.wr.wait()
		if err = c.writable(x); err != nil {
			break
		}
		if c.behind() {
			_ = c.waitRoom(x) // the next turn sees why
			continue
		}
		if err = c.q.Post(x, c.writer.one(b)...); err == nil {
			c.sent.Add(uint64(n - headerSize))
			return nil
		}
	}
	release(b)
	return err
}
