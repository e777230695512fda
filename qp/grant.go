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
	*p = pending{kind: local, flights: p.flights[:0], signaled: true, done: func(r Result) { done(r.Err) }}
	wr.ID, q.quiet = q.tail, 0
	wr.Flags |= verbs.SendSignaled
	q.wr = append(q.wr[:0], wr)
	n, err := c.submit()
	q.Unlock()
	if n == 0 {
		c.slots.give(1)
		return fmt.Errorf("qp: %v: %w", wr.Opcode, err)
	}
	return nil
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
