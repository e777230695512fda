package qp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

// Remote is memory of the peer that this side may use.
type Remote = mr.Remote

// ErrQueueFull is returned by TryPost when it would have to wait: for a place in
// the send queue, or for a credit of the peer.
var ErrQueueFull = errors.New("queue is full")

// EndError says why a connection ended. Every operation that had not completed,
// and every call afterwards, gets it.
type EndError struct {
	Peer  string // the peer's address
	Cause error  // verbs.ErrClosed (closed on this side), ErrPeerClosed, ErrPeerDead, or what failed
}

func (e *EndError) Error() string {
	if errors.Is(e.Cause, verbs.ErrClosed) {
		return "qp: connection to " + e.Peer + " was closed"
	}
	return "qp: connection to " + e.Peer + " ended: " + e.Cause.Error()
}

func (e *EndError) Unwrap() error { return e.Cause }

var (
	// ErrPeerClosed: the peer closed the connection.
	ErrPeerClosed = errors.New("the peer closed it")
	// ErrPeerDead: the peer did not answer for Config.DeadAfter.
	ErrPeerDead = fmt.Errorf("no answer from the peer: %w", syscall.ETIMEDOUT)
)

// errFlushed is the cause where the device names none: rxe tells a responder
// nothing about the request that it refused.
var errFlushed = errors.New("the queue pair failed: most often the peer used memory that it has no right to, or sent more than a receive holds")

// Conn is a connected reliable queue pair. Its methods may be called from any
// goroutine.
type Conn struct {
	cfg    Config
	dev    *Device
	eng    *Engine
	qp     *verbs.QP
	log    *slog.Logger
	name   string // the peer's address
	peer   hello
	inline int
	flow   bool // messages are paid for with credits

	slots   *slots // places in the send queue
	credits *slots // receives of the peer; nil without flow control
	up      bool   // connected; guarded by Engine.turn
	send    sendQueue
	recv    *ring // of its own, or shared
	in      inbox
	calls   sync.Pool

	mu        sync.Mutex
	closing   bool        // Close was called; guarded by mu
	ended     bool        // end was called
	hangUp    func()      // tells the peer, by the way the connection was made
	cleanup   []func()    // after the queue pair is gone
	timer     *time.Timer // of the watchdog
	destroyed bool        // the queue pair is gone; written before gone is closed
	cause     atomic.Pointer[EndError]
	done      chan struct{} // closed when cause is set
	quiet     chan struct{} // closed when no completion is to come any more
	gone      chan struct{} // closed when nothing is in flight and the queue pair is destroyed
	life      context.Context
	die       context.CancelFunc
	heard     atomic.Int64 // when the last completion came, in ns of the device's clock
	waits     atomic.Int64 // since when something waits for an answer, 0 for nothing

	stats connStats
}

// sendQueue is the work requests posted and not completed, in order: a ring by
// running number, which is the WR ID.
type sendQueue struct {
	sync.Mutex
	ring       []pending
	head, tail uint64 // guarded by the mutex, as all below
	bytes      uint64 // of the operations in flight
	quiet      int    // unsignalled since the last signalled one
	wr         []verbs.SendWR
	sge        []verbs.SGE
	controls   int        // control messages in flight
	probing    bool       // one of them is a probe
	down       bool       // the queue pair takes no more
	done       []finished // scratch of the engine's goroutine
	spare      [][]flight
}

// Peer is the address of the other side.
func (c *Conn) Peer() string { return c.name }

// QPN is the number of the queue pair on this side.
func (c *Conn) QPN() uint32 { return c.qp.QPN() }

// PD is the domain of the connection: memory it uses is registered there.
func (c *Conn) PD() *verbs.PD { return c.qp.PD() }

// Device is the device the connection is on.
func (c *Conn) Device() *Device { return c.dev }

// MaxInline is the largest Op.Data in bytes.
func (c *Conn) MaxInline() int { return c.inline }

// MaxSend is the longest message the peer takes, in bytes; 0 is unknown.
func (c *Conn) MaxSend() int { return c.peer.maxMessage }

// Done is closed when the connection has ended; Err says why.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is nil while the connection is up, then a *EndError.
func (c *Conn) Err() error {
	if e := c.cause.Load(); e != nil {
		return e
	}
	return nil
}

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
	c.mu.Unlock()
	close(c.done)
	c.die()
	c.slots.fail(e)
	if c.credits != nil {
		c.credits.fail(e)
	}
	// From here on nothing is posted: what was is flushed.
	c.send.Lock()
	c.send.down = true
	c.send.Unlock()
	if c.recv.own {
		c.recv.stop()
	}
	if err := c.qp.Modify(verbs.QPAttr{State: verbs.QPSErr}, verbs.QPAttrState); err != nil && !errors.Is(err, verbs.ErrClosed) {
		c.log.Warn("qp: the queue pair does not go to the error state", "peer", c.name, "err", err)
	}
	if !errors.Is(cause, verbs.ErrClosed) {
		c.log.Debug("qp: connection ended", "peer", c.name, "cause", cause)
	}
	go c.afterEnd(hangUp)
}

// afterEnd waits until everything posted has been flushed.
func (c *Conn) afterEnd(hangUp func()) {
	if hangUp != nil {
		hangUp()
	}
	deadline := time.Now().Add(drainLimit)
	for pause := 50 * time.Microsecond; !c.drained() && time.Now().Before(deadline); pause = min(2*pause, 5*time.Millisecond) {
		time.Sleep(pause)
	}
	c.eng.barrier()
	close(c.quiet)
	if f := c.cfg.OnEnd; f != nil {
		f(c, c.Err())
	}
}

// fail ends the connection for an error of the engine.
func (c *Conn) fail(err error) { c.end(err) }

// drainLimit bounds the wait for flushed completions. What is then left is fenced
// by destroying the queue pair.
const drainLimit = 5 * time.Second

// Close ends the connection: the queue pair goes to the error state, everything
// posted completes (its callers get a *EndError with verbs.ErrClosed), every Buf
// comes back, and the queue pair is destroyed. When it returns the device
// touches none of the connection's memory. Messages that came before stay to be
// received. It must not be called from Done, OnMessage or OnEnd callbacks of the
// same engine; use end there by returning.
//
// Verb: ibv_modify_qp(3), ibv_destroy_qp(3).
func (c *Conn) Close() error {
	c.end(verbs.ErrClosed)
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		<-c.gone
		return nil
	}
	c.closing = true
	c.mu.Unlock()
	defer close(c.gone)
	return c.teardown()
}

func (c *Conn) teardown() error {
	<-c.quiet
	if !c.drained() {
		c.log.Warn("qp: the device did not flush everything; destroying the queue pair", "peer", c.name)
	}
	err := c.qp.Close()
	c.eng.qps.remove(c.qp.QPN())
	// A turn of the engine may still hold completions of this queue pair: the
	// barrier lets it finish, so that nothing is ended twice.
	c.eng.barrier()
	c.eng.unreserve(c.reservation())
	if s := c.cfg.Shared; s != nil {
		s.leave(c.cfg.RecvDepth)
	}
	c.destroyed = err == nil
	switch {
	case err == nil: // a destroyed queue pair touches nothing
		c.abandon(func(p *pending) { c.finishAll(p, c.Err()) }, func(f flight) { f.Release() })
	default:
		why := "the queue pair of " + c.name + " cannot be destroyed: " + err.Error()
		c.abandon(func(p *pending) { c.leakAll(p, why) }, func(f flight) { f.Leak(why) })
		err = fmt.Errorf("qp: closing the connection to %s: %w", c.name, err)
	}
	for i := len(c.cleanup) - 1; i >= 0; i-- {
		c.cleanup[i]()
	}
	c.dev.forget(c)
	return err
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
