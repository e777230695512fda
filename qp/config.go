package qp

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// Config says how a connection is made and what it may use. The zero value is good.
type Config struct {
	// SendDepth is how many operations may be posted and not completed; 0: 128.
	SendDepth int
	// RecvDepth is how many messages of the peer have a receive ready, and so the
	// credits it gets; 0: 64.
	RecvDepth int
	// MaxMessage is the longest message that is received, in bytes; 0: 4096.
	MaxMessage int
	// MaxSGE is the number of buffers of one operation; 0: 4.
	MaxSGE int
	// Inline is the longest message that is copied into its work request, in
	// bytes; 0: 128, less where the device has less; negative: none.
	Inline int
	// MaxRdAtomic is how many READs and atomics are outstanding in each direction;
	// 0: 16, or the device's or the peer's limit.
	MaxRdAtomic int
	// MTU is the path MTU; 0: the largest that both ports have.
	MTU verbs.MTU

	// Raw leaves out what only another Conn understands: no hello, no credits, and
	// immediates are the caller's. A message that finds no receive is tried again
	// by the device (RNR).
	Raw bool

	// DeadAfter is how long an operation may go without an answer before the peer
	// counts as dead; an idle connection is probed that often. 0: 5 s. Negative:
	// only the device's own retries tell, which take minutes on some.
	DeadAfter time.Duration
	// Timeout and RetryCount are the device's: it waits 4.096 us * 2^Timeout for an
	// acknowledgement, 0: 14 (67 ms), and tries again RetryCount times, 0: 7, or 6
	// when DeadAfter is negative: 7 never ends on rxe, where DeadAfter does it, so
	// that a peer that stalls for less is not given up.
	Timeout, RetryCount uint8

	// OnMessage takes messages as they come, in the engine's goroutine; it must not
	// block. nil: they wait for Recv.
	OnMessage func(*Conn, Message)
	// OnEnd is called once when the connection has ended and everything posted has
	// completed, with the reason, in a goroutine of its own.
	OnEnd func(*Conn, error)
	// OnComplete is a hook for metrics: it hears of every operation that completed,
	// with its bytes, in the engine's goroutine; it must not block.
	OnComplete func(c *Conn, k Kind, bytes int, err error)

	Engine *Engine        // nil: the device's, in turn
	Shared *SharedReceive // nil: receives of its own
	Logger *slog.Logger   // nil: the device's
}

func (c Config) withDefaults() (Config, error) {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.SendDepth, 128)
	def(&c.RecvDepth, 64)
	def(&c.MaxMessage, 4096)
	def(&c.MaxSGE, 4)
	def(&c.Inline, 128)
	def(&c.MaxRdAtomic, 16)
	if c.DeadAfter == 0 {
		c.DeadAfter = 5 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 14
	}
	if c.RetryCount == 0 {
		c.RetryCount = 7
		if c.DeadAfter < 0 {
			c.RetryCount = 6
		}
	}
	for _, f := range []struct {
		name    string
		v, hi   int
		example string
	}{
		{"SendDepth", c.SendDepth, 1 << 15, "operations"},
		{"RecvDepth", c.RecvDepth, 1 << 14, "messages"},
		{"MaxMessage", c.MaxMessage, 1 << 30, "bytes"},
		{"MaxSGE", c.MaxSGE, 32, "buffers"},
		{"MaxRdAtomic", c.MaxRdAtomic, 128, "operations"},
	} {
		if f.v < 1 || f.v > f.hi {
			return c, fmt.Errorf("qp: Config.%s is %d %s; it must be 1 to %d", f.name, f.v, f.example, f.hi)
		}
	}
	if c.MaxMessage < controlSize {
		return c, fmt.Errorf("qp: Config.MaxMessage is %d bytes; control messages need %d", c.MaxMessage, controlSize)
	}
	if c.Timeout > 31 || c.RetryCount > 7 {
		return c, fmt.Errorf("qp: Config.Timeout is %d and RetryCount %d; they must be at most 31 and 7", c.Timeout, c.RetryCount)
	}
	c.Inline = max(c.Inline, 0)
	return c, nil
}

// Places that control messages have for themselves, beyond what callers use:
// a credit message and a probe at a time, each way. A peer sends a credit message
// for a quarter of the window at least, so five of them and a probe can wait here.
const (
	sendReserve = 4
	recvReserve = 8
	controlSize = 16
)
