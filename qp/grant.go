package qp

import (
	"context"
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

var _ mr.GrantQP = (*Conn)(nil)

// PostControl posts a WRBindMW or WRLocalInv for package mr; see mr.GrantQP.
func (c *Conn) PostControl(ctx context.Context, wr verbs.SendWR, done func(error)) error {
	if wr.Opcode != verbs.WRBindMW && wr.Opcode != verbs.WRLocalInv {
		return fmt.Errorf("qp: PostControl takes WRBindMW and WRLocalInv, not %v", wr.Opcode)
	}
	if err := c.slots.take(ctx, 1); err != nil {
		return err
	}
	q := &c.send
	q.Lock()
	if q.down {
		q.Unlock()
		c.slots.give(1)
		return c.Err()
	}
	p := &q.ring[q.tail%uint64(len(q.ring))]
	*p = pending{kind: local, flights: p.flights[:0], signaled: true, control: done}
	if wr.Opcode == verbs.WRLocalInv {
		p.unbinds = wr.InvalidateRKey
	}
	wr.ID, q.quiet = q.tail, 0
	wr.Flags |= verbs.SendSignaled
	q.add(wr)
	if wr.Opcode == verbs.WRBindMW {
		q.binds++
	}
	mine := 1
	if c.dev.repeats && !c.advance() {
		mine = 0 // others are behind it: it is not taken back
		c.signalLast()
	}
	n, err := c.submit(mine)
	if mine == 0 {
		n, err = 1, nil
	}
	if n > 0 && wr.Opcode == verbs.WRBindMW {
		if c.windows == nil {
			c.windows = map[verbs.RKey]*verbs.MW{}
		}
		c.windows[wr.RKey] = wr.BindMW
		c.bound.Store(int32(len(c.windows)))
	}
	q.Unlock()
	if n == 0 {
		c.slots.give(1)
		return fmt.Errorf("qp: %v: %w", wr.Opcode, err)
	}
	return nil
}

// Unbound notes that the window with a key is not bound to this queue pair any more;
// for package mr, when it deallocated one.
func (c *Conn) Unbound(k verbs.RKey) {
	c.send.Lock()
	delete(c.windows, k)
	c.bound.Store(int32(len(c.windows)))
	c.send.Unlock()
}

// invalidated looks whether a message of the peer took a key away. rxe gives the
// key without the flag.
func (c *Conn) invalidated(wc *verbs.WC) {
	if c.bound.Load() > 0 && (wc.Flags&verbs.WCWithInv != 0 || wc.Flags&verbs.WCWithImm == 0) {
		c.Unbound(wc.InvalidatedRKey())
	}
}

// freeWindows deallocates the windows that are bound to the queue pair still. On
// rxe each holds a reference to it, without which to destroy it takes 50 s and
// leaves it in the kernel for ever. A grant that is revoked later finds its window
// closed, which is what it would do to it, and goes on from there.
func (c *Conn) freeWindows() {
	c.send.Lock()
	l := c.windows
	c.windows = nil
	c.bound.Store(0)
	c.send.Unlock()
	for _, w := range l {
		if err := w.Close(); err != nil {
			c.log.Warn("qp: a memory window stays bound", "peer", c.name, "err", err)
		}
	}
}

// Kill ends the connection and waits until everything posted to it was flushed;
// see mr.GrantQP. The queue pair is destroyed by Close.
func (c *Conn) Kill(ctx context.Context) (destroyed bool, err error) {
	c.end(errKilled)
	select {
	case <-c.quiet:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	switch {
	case c.razed.Load():
		return true, nil
	case c.flushed:
		return false, nil
	}
	return false, fmt.Errorf("qp: the device did not flush the queue pair of %s, and does not destroy it", c.name)
}

var errKilled = errors.New("ended to take memory back from the peer")
