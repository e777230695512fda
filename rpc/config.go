package rpc

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"github.com/zrdma/zrdma/qp"
)

// BulkMode is how a result gets into the memory of the caller.
type BulkMode uint8

const (
	// Push: the server writes into a window on the caller's buffer, made for this
	// call, and its answer takes the window away.
	Push BulkMode = iota
	// Pull: the server shows its buffer and the caller reads it, so that nobody has
	// a right to write into the caller's memory. One round trip more.
	Pull
)

// Config configures a Client, and what a Server uses for its sessions. The zero
// value is good.
type Config struct {
	Device *qp.Device // nil: one that the package opens for all (qp.Open)

	// TLS makes the connection begin over TCP with TLS 1.3 and certificates on both
	// sides, so that no key to memory is known before the peer is; nil: rdma_cm.
	TLS *tls.Config
	// PlainTCP makes it begin over TCP without any of that. For tests.
	PlainTCP bool
	// Secret, when set, must be the same on both sides.
	Secret []byte

	SlotSize int // longest message in bytes, header and arguments; 0: 4096. At most 64 KiB
	MaxCalls int // calls at a time; 0: 256
	DataQPs  int // queue pairs for bulk data; 0: 1

	Bulk      BulkMode
	DeadAfter time.Duration // a peer that is silent for so long is dead; 0: 1 s
	// Grace is how long a cancelled call waits for the peer to say that it is done
	// with the memory, before the right to it is taken away; 0: 50 ms.
	Grace time.Duration

	DialTimeout time.Duration // of one attempt; 0: 5 s
	NoReconnect bool          // a session that ended is the end of the client
	// MaxBackoff bounds the pause between attempts; 0: 5 s.
	MaxBackoff time.Duration

	ClientInterceptors []ClientInterceptor // the first is the outermost
	Logger             *slog.Logger        // nil: slog.Default()
}

func (c Config) withDefaults() (Config, error) {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	defD := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.SlotSize, 4096)
	def(&c.MaxCalls, 256)
	def(&c.DataQPs, 1)
	defD(&c.DeadAfter, time.Second)
	defD(&c.Grace, 50*time.Millisecond)
	defD(&c.DialTimeout, 5*time.Second)
	defD(&c.MaxBackoff, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	switch {
	case c.SlotSize < 512 || c.SlotSize > maxMessage:
		return c, fmt.Errorf("rpc: Config.SlotSize is %d bytes; it must be 512 to %d", c.SlotSize, maxMessage)
	case c.MaxCalls < 1 || c.MaxCalls > 1<<14:
		return c, fmt.Errorf("rpc: Config.MaxCalls is %d; it must be 1 to %d", c.MaxCalls, 1<<14)
	case c.DataQPs < 1 || c.DataQPs > maxData:
		return c, fmt.Errorf("rpc: Config.DataQPs is %d; it must be 1 to %d", c.DataQPs, maxData)
	case c.DeadAfter < 0 || c.Grace < 0 || c.DialTimeout < 0 || c.MaxBackoff < 0:
		return c, fmt.Errorf("rpc: a duration in Config is negative")
	case c.TLS != nil && c.PlainTCP:
		return c, fmt.Errorf("rpc: Config.TLS and PlainTCP exclude each other")
	case c.Bulk > Pull:
		return c, fmt.Errorf("rpc: Config.Bulk is %d; it must be Push or Pull", c.Bulk)
	}
	return c, nil
}

// conn is the configuration of the session's queue pairs. Every call can have a
// request, a cancellation and a few words about bulk data under way.
func (c *Config) conn(on func(*qp.Conn, qp.Message), end func(*qp.Conn, error)) qp.Config {
	depth := min(c.MaxCalls, 256)
	return qp.Config{SendDepth: 2 * depth, RecvDepth: depth, MaxMessage: c.SlotSize, DeadAfter: c.DeadAfter,
		OnMessage: on, OnEnd: end, Logger: c.Logger, Inline: 256}
}
