package rdmanet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// CloseWrite ends the half of this side: the peer reads io.EOF after what was
// written. It waits for a Write that is under way, and no longer.
func (c *Conn) CloseWrite() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.closed.Load() {
		return c.opError("close", net.ErrClosed)
	}
	return c.opError("close", c.endHalf())
}

// endHalf sends kindEnd after what was written. wmu is held.
func (c *Conn) endHalf() error {
	if c.wclosed.Swap(true) {
		return nil
	}
	c.mu.Lock()
	if c.out.busy {
		c.out.end = true
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	err := c.q.TryPost(endOp())
	if !errors.Is(err, qp.ErrQueueFull) {
		return err
	}
	c.mu.Lock()
	c.out.end = true
	c.mu.Unlock()
	c.later(mr.Buf{})
	return nil
}

// ErrUndelivered: Close waited for Config.Linger, and the peer had not taken all
// that was written.
var ErrUndelivered = errors.New("the peer did not take everything that was written; the connection was reset")

// Close ends the connection. It waits until the device of the peer has all that
// was written, up to Config.Linger; then the connection is reset and the error is
// ErrUndelivered. What has come and was not read is dropped.
func (c *Conn) Close() error {
	c.closing.Do(func() {
		c.closed.Store(true)
		c.rd.close()
		c.wr.close()
		c.wmu.Lock() // a writer has left, or does now
		err := c.deliver()
		c.wmu.Unlock()
		err = errors.Join(err, c.q.Close())
		c.dropClosed()
		if err != nil {
			c.closeErr = &net.OpError{Op: "close", Net: network, Source: c.local, Addr: c.remote, Err: err}
		}
	})
	return c.closeErr
}

// deliver waits until the peer has all. That the connection had failed before is for
// Close to say when nobody has said it, and something was written that the peer may
// not have.
func (c *Conn) deliver() error {
	if c.linger < 0 {
		return nil
	}
	if err := c.q.Err(); err != nil {
		// A peer that closes has read what it wanted.
		if !c.told.Load() && (c.behind() || c.sent.Load() > 0 && !errors.Is(err, qp.ErrPeerClosed)) {
			return fmt.Errorf("%w: %w", ErrUndelivered, err)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.linger)
	defer cancel()
	start := time.Now()
	err := c.endHalf()
	for err == nil && c.behind() {
		select {
		case <-c.room:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err == nil {
		err = c.q.Flush(ctx)
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w (after %v)", ErrUndelivered, time.Since(start).Round(time.Millisecond))
	}
	if err != nil && !errors.Is(err, qp.ErrPeerClosed) {
		return fmt.Errorf("%w: %w", ErrUndelivered, err) // it failed just now, and nobody else will say so
	}
	return nil
}
