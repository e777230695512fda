package qp

import (
	"errors"
	"fmt"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// end records why the connection ended, once; it makes every wait end, and the
// queue pair flush. It does not wait.
func (c *Conn) end(cause error) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.ended = true
	e := &EndError{Peer: c.name, Cause: cause}
	c.cause.Store(e)
	hangUp := c.hangUp
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	close(c.done)
	c.die()
	c.slots.fail(e)
	if c.credits != nil {
		c.credits.fail(e)
	}
	// From here on nothing is posted: what was is flushed.
	c.send.Lock()
	if !c.send.down {
		c.ring()
	}
	c.send.down = true
	c.send.Unlock()
	if c.recv.own {
		c.recv.stop()
	}
	err := c.qp.Modify(verbs.QPAttr{State: verbs.QPSErr}, verbs.QPAttrState)
	if err != nil && !errors.Is(err, verbs.ErrClosed) {
		c.log.Warn("qp: the queue pair does not go to the error state", "peer", c.name, "err", err)
	}
	if !errors.Is(cause, verbs.ErrClosed) {
		c.log.Debug("qp: connection ended", "peer", c.name, "cause", cause)
	}
	go func() { // it may wait for the network
		defer close(c.hung)
		if hangUp != nil {
			hangUp()
		}
	}()
	go c.afterEnd(errors.Is(err, verbs.ErrClosed))
}

// fail ends the connection for an error of the engine.
func (c *Conn) fail(err error) { c.end(err) }

// onHangUp says how the peer is told of the end.
func (c *Conn) onHangUp(f func()) {
	c.mu.Lock()
	c.hangUp = f
	ended := c.ended
	c.mu.Unlock()
	if ended {
		f()
	}
}

// noAnswer is the cause when the peer does not answer; ce may be nil.
func (c *Conn) noAnswer(ce error) error {
	err := ErrPeerDead
	if c.dev.down.Load() {
		err = fmt.Errorf("%w: %w", ErrPortDown, err)
	}
	if ce != nil {
		err = fmt.Errorf("%w: %w", err, ce)
	}
	return err
}

// drainLimit bounds the wait for flushed completions, lastRecvLimit its part
// for the device's word that it takes no more shared receives. What is left then
// is fenced by destroying the queue pair. mr gives Kill 5 s: it must fit in.
const (
	drainLimit    = 4 * time.Second
	lastRecvLimit = time.Second
)

// afterEnd waits until everything posted has been flushed; failing that it
// destroys the queue pair, so that who waits for an operation does not wait for
// Close. taken: somebody else has destroyed the queue pair.
func (c *Conn) afterEnd(taken bool) {
	if !taken {
		c.drain()
	}
	c.eng.barrier()
	if c.flushed = c.drained(); !c.flushed {
		if !taken {
			c.log.Warn("qp: the device did not flush everything; destroying the queue pair", "peer", c.name)
		}
		c.destroy()
	}
	close(c.quiet)
	if f := c.cfg.OnEnd; f != nil {
		f(c, c.Err())
	}
}

func (c *Conn) drain() {
	deadline := time.Now().Add(drainLimit)
	if !c.recv.own {
		// Of shared receives it cannot be counted which this queue pair has. The
		// device says when it will take no more; the marker's completion then comes
		// after those of all that it took.
		t := time.NewTimer(lastRecvLimit)
		select {
		case <-c.lastRecv:
		case <-c.lost:
		case <-t.C:
		}
		t.Stop()
	}
	c.mark()
	for pause := 50 * time.Microsecond; !c.drained() && time.Now().Before(deadline); pause = min(2*pause, 5*time.Millisecond) {
		t := time.NewTimer(pause)
		select {
		case <-c.stir:
		case <-c.lost:
			t.Stop()
			return // a destroyed queue pair takes the completions that nobody has read along
		case <-t.C:
		}
		t.Stop()
	}
}

// mark posts a request that is flushed after all others, where their own
// completions do not tell that they are done: shared receives, and operations
// without one at the end of the queue.
func (c *Conn) mark() {
	q := &c.send
	q.Lock()
	defer q.Unlock()
	n := uint64(len(q.ring))
	if c.recv.own && (q.head == q.tail || q.ring[(q.tail-1)%n].signaled) {
		return
	}
	p := &q.ring[q.tail%n]
	*p = pending{kind: control, flights: p.flights[:0], signaled: true}
	q.add(verbs.SendWR{ID: q.tail, Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled})
	q.controls++
	if n, err := c.submit(1); n == 0 {
		q.controls--
		if !errors.Is(err, verbs.ErrClosed) {
			c.log.Debug("qp: no marker in the error state", "peer", c.name, "err", err)
		}
	}
}

// Close ends the connection: the queue pair goes to the error state, everything
// posted completes (its callers get a *EndError with verbs.ErrClosed), every Buf
// comes back, and the queue pair is destroyed. When it returns the device
// touches none of the connection's memory. Messages that nobody has received are
// dropped. It must not be called from a Done or OnMessage callback, whose
// goroutine it waits for; from OnEnd it may be.
//
// Verb: ibv_modify_qp(3), ibv_destroy_qp(3).
func (c *Conn) Close() error {
	c.end(verbs.ErrClosed)
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		<-c.gone
		return c.closeErr
	}
	c.closing = true
	c.mu.Unlock()
	defer close(c.gone)
	c.teardown()
	return c.closeErr
}

func (c *Conn) teardown() {
	<-c.quiet
	c.destroy()
	for n := c.in.close(); n > 0; n-- {
		c.recv.owes(debt{})
	}
	c.eng.unreserve(c.reservation())
	if s := c.cfg.Shared; s != nil {
		s.ring.top()
		s.leave(c.cfg.RecvDepth, c.eng)
	}
	<-c.hung
	c.mu.Lock()
	cleanup := c.cleanup
	c.cleanup = nil
	c.mu.Unlock()
	for i := len(cleanup) - 1; i >= 0; i-- {
		cleanup[i]()
	}
	c.dev.forget(c)
}

// destroy destroys the queue pair, which fences what was not flushed, and ends
// all that has not completed.
func (c *Conn) destroy() {
	c.razing.Do(func() {
		c.freeWindows()
		err := c.qp.Close()
		c.eng.qps.remove(c.qp.QPN(), c)
		// A turn of the engine may still hold completions of this queue pair: the
		// barrier lets it finish, so that nothing is ended twice.
		c.eng.barrier()
		if err == nil { // a destroyed queue pair touches nothing
			c.razed.Store(true)
			c.abandon(func(p *pending) { c.finish(p, c.Err()) }, flight.Release)
			return
		}
		why := "the queue pair of " + c.name + " cannot be destroyed: " + err.Error()
		c.abandon(func(p *pending) { c.leakAll(p, why) }, func(f flight) { f.Leak(why) })
		c.closeErr = fmt.Errorf("qp: closing the connection to %s: %w", c.name, err)
	})
}

// drained reports that no completion is to come.
func (c *Conn) drained() bool {
	c.send.Lock()
	n := c.send.tail - c.send.head
	c.send.Unlock()
	return n == 0 && (!c.recv.own || c.recv.posted() == 0)
}

// reservation is how many completions the connection can have outstanding.
func (c *Conn) reservation() int {
	n := c.cfg.SendDepth + sendReserve
	if c.cfg.Shared == nil {
		n += c.cfg.RecvDepth + recvReserve
	}
	return n
}
