package rdmanet

import (
	"context"
	"fmt"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// backlog is what was written and waits for the peer to make room: a message that
// a goroutine, which lives as long as that, wants to post, and the one that is
// filled meanwhile. Small writes become one message so.
type backlog struct {
	busy bool // the goroutine is there
	next mr.Buf
	mem  []byte // of next
	n    int    // bytes of it that are written, header included
	end  bool   // kindEnd is to follow
}

// behind reports that something waits: what is written now goes after it.
func (c *Conn) behind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.busy
}

// join puts bytes behind those that wait, waiting for a place among them.
func (c *Conn) join(x *expiry, p []byte) (int, error) {
	if n, ok := c.add(p, mr.Buf{}, nil); !ok {
		b, m, err := c.blank(x, c.writer.size)
		if err != nil {
			return 0, err
		}
		if n, ok := c.add(p, b, m); ok {
			return n, nil
		}
		_ = b.Release()
		return 0, nil // nothing waits any more
	} else if n > 0 {
		return n, nil
	}
	return 0, c.waitRoom(x)
}

// add appends to the next message, which b becomes if there is none. ok is false
// when nothing waits, or a message is missing.
func (c *Conn) add(p []byte, b mr.Buf, m []byte) (n int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	if !o.busy {
		return 0, false
	}
	if o.mem == nil {
		if m == nil {
			return 0, false
		}
		o.next, o.mem, o.n = b, m, headerSize
	}
	n = copy(o.mem[o.n:], p)
	o.n += n
	if n > 0 {
		c.merged.Add(1)
	}
	return n, true
}

func (c *Conn) waitRoom(x *expiry) error {
	select {
	case <-c.room:
		return nil
	case <-x.Done():
		return x.Err()
	}
}

// later posts b when there is room. Only who holds wmu calls it, when not behind.
func (c *Conn) later(b mr.Buf) {
	c.mu.Lock()
	c.out.busy = true
	c.mu.Unlock()
	select {
	case <-c.room: // of an earlier backlog
	default:
	}
	go c.drain(b)
}

// drain posts the backlog. The end of the connection ends it.
func (c *Conn) drain(b mr.Buf) {
	var err error
	for {
		if err == nil && !b.IsZero() {
			err = c.q.Post(context.Background(), qp.Op{Kind: qp.Send, Bufs: []mr.Buf{b}})
		}
		if err != nil && !b.IsZero() {
			release(b)
		}
		c.mu.Lock()
		o := &c.out
		next, n, end := o.next, o.n, o.end
		o.next, o.mem, o.n = mr.Buf{}, nil, 0
		if next.IsZero() && (err != nil || !end) {
			o.busy = false
			c.mu.Unlock()
			c.moved()
			return
		}
		if next.IsZero() {
			o.end = false
		}
		c.mu.Unlock()
		c.moved()
		if b = next; !b.IsZero() {
			b, err = narrow(b, n, err)
			continue
		}
		err = c.q.Post(context.Background(), endOp())
	}
}

func narrow(b mr.Buf, n int, err error) (mr.Buf, error) {
	if err != nil {
		return b, err
	}
	v, err := b.Narrow(0, n)
	if err != nil {
		return b, fmt.Errorf("rdmanet: %w", err)
	}
	return v, nil
}

func (c *Conn) moved() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// endOp is the message that ends a half. The bytes of a header fit into every
// work request of a connection with credits.
func endOp() qp.Op {
	h := make([]byte, headerSize)
	putHeader(h, kindEnd)
	return qp.Op{Kind: qp.Send, Data: h}
}
