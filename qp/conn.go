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
	own    string // this side's
	peer   hello
	inline int
	flow   bool // messages are paid for with credits

	slots   *slots // places in the send queue
	credits *slots // receives of the peer; nil without flow control
	up      bool   // connected; guarded by Engine.turn
	send    sendQueue
	recv    *ring // of its own, or shared
	unpaid  int   // receives it used up and that were not replaced; guarded by recv.mu
	in      inbox
	calls   sync.Pool
	given   []mr.Buf // scratch of finish

	mu       sync.Mutex
	closing  bool        // Close was called; guarded by mu, as all of this group
	ended    bool        // end was called
	hangUp   func()      // tells the peer, by the way the connection was made
	cleanup  []func()    // after the queue pair is gone
	timer    *time.Timer // of the watchdog
	cause    atomic.Pointer[EndError]
	done     chan struct{} // closed when cause is set
	lastOnce atomic.Bool   // lastRecv is closed
	lastRecv chan struct{} // closed when the device takes no more shared receives for it
	hung     chan struct{} // closed when hangUp, called by end, has returned
	quiet    chan struct{} // closed when no completion is to come any more
	gone     chan struct{} // closed when nothing is in flight and the queue pair is destroyed
	stir     chan struct{} // a token: completions came after the end
	lost     chan struct{} // closed when the connection manager has destroyed the queue pair
	flushed  bool          // everything posted has completed; written before quiet is closed
	razing   sync.Once     // of destroy
	razed    atomic.Bool   // the queue pair was destroyed
	closeErr error         // of destroy; written before gone is closed
	life     context.Context
	die      context.CancelFunc
	heard    atomic.Int64 // when the last completion came, in ns of the device's clock
	waits    atomic.Int64 // since when something waits for an answer, 0 for nothing

	windows map[verbs.RKey]*verbs.MW // bound to the queue pair, by key; guarded by send
	bound   atomic.Int32             // how many

	stats connStats
}

// sendQueue is the work requests not completed, in order: a ring by running
// number, which is the WR ID. The last of them, those in wr, wait for the doorbell.
type sendQueue struct {
	sync.Mutex
	ring       []pending // twice as long as what may be under way: see complete
	head, tail uint64    // guarded by the mutex, as all below
	bytes      uint64    // of the operations in flight
	quiet      int       // unsignalled since the last signalled one
	wr         []verbs.SendWR
	sge        []verbs.SGE // of wr
	data       []byte      // of wr, inline: copies
	binds      int         // of wr
	joining    bool        // somebody is about to ring the doorbell
	joinAt     int64       // since when, in ns of the device's clock
	controls   int         // control messages in flight
	probing    bool        // one of them is a probe
	down       bool        // the queue pair takes no more
}

// Peer is the address of the other side.
func (c *Conn) Peer() string { return c.name }

// Local is the address of this side.
func (c *Conn) Local() string { return c.own }

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
