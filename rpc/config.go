package rpc

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/zrdma/zrdma/qp"
)

// BulkMode is how a result gets into the memory of the caller.
type BulkMode uint8

const (
	// Auto is what was measured to be best for the size of the result, which is Push,
	// but for results of 64 KiB or more when Config.DevicePushes of them are under way:
	// then the client fetches them itself, so that servers which answer all at once do
	// not overrun its link.
	Auto BulkMode = iota
	// Push: the server writes into a window on the caller's buffer, made for this
	// call, and its answer takes the window away.
	Push
	// Pull: the server shows its buffer and the caller reads it, so that nobody has
	// a right to write into the caller's memory. One round trip more.
	Pull
)

// String is the mode in a word.
func (m BulkMode) String() string {
	if m > Pull {
		return fmt.Sprintf("BulkMode(%d)", uint8(m))
	}
	return [...]string{"auto", "push", "pull"}[m]
}

// Config configures a Client, and what a Server uses for its sessions. The zero
// value is good.
type Config struct {
	Device *qp.Device // nil: one that the package opens for all (qp.Open)
	// Rails are further devices of this host, at most 7. A session uses as many as
	// both sides have: the i-th of one side is joined with the i-th of the other. Calls
	// are spread over them, and buffers of more than two times Stripe cut. A rail that
	// is lost costs the calls it has; it is tried again until it is back. Close these
	// devices after Device, whose memory is registered with them as it is used.
	Rails []*qp.Device
	// Stripe is the least part of a buffer, in bytes, that goes over a rail of its
	// own; 0: 128 KiB. Negative: buffers are not cut.
	Stripe int

	// TLS makes the connection begin over TCP with TLS 1.3 and certificates on both
	// sides, so that no key to memory is known before the peer is; nil: rdma_cm.
	TLS *tls.Config
	// PlainTCP makes it begin over TCP without any of that. For tests.
	PlainTCP bool
	// Secret, when set, must be the same on both sides.
	Secret []byte

	SlotSize int // longest message in bytes, header and arguments; 0: 4096. At most 64 KiB
	MaxCalls int // calls at a time; 0: 256
	// Window is how many messages a queue pair can take before it says so: what a
	// session costs is mostly this many slots per queue pair. 0: MaxCalls, at most 256.
	Window  int
	DataQPs int // queue pairs for bulk data; 0: 1

	Bulk BulkMode
	// DeviceReads and DevicePushes are what all clients and servers of the process may
	// have under way on a device: READs, of handlers that pull and of clients that
	// fetch, and calls for results of 64 KiB or more that servers will push (see Auto).
	// Others wait, or fetch. 0: 32 and 64. Of those who share a device and say
	// something else the last decides.
	DeviceReads, DevicePushes int

	DeadAfter time.Duration // a peer that is silent for so long is dead; 0: 1 s
	// Grace is how long a cancelled call waits for the peer to say that it is done
	// with the memory, before the right to it is taken away; 0: DeadAfter. Taking it
	// from a peer that is only slow, and still writes, costs the connection.
	Grace time.Duration

	DialTimeout time.Duration // of one attempt; 0: 5 s
	NoReconnect bool          // a session that ended is the end of the client
	// MaxBackoff bounds the pause between attempts; 0: 5 s.
	MaxBackoff time.Duration

	ClientInterceptors []ClientInterceptor // the first is the outermost
	// OnCall hears of every call of a client, when it ends, how long its stages
	// took. It runs in the caller's goroutine.
	OnCall func(*Stages)
	Logger *slog.Logger // nil: slog.Default()
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
	def(&c.Window, min(c.MaxCalls, 256))
	def(&c.Stripe, 128<<10)
	defD(&c.DeadAfter, time.Second)
	defD(&c.Grace, c.DeadAfter)
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
	case c.Window < 1 || c.Window > 1<<14:
		return c, fmt.Errorf("rpc: Config.Window is %d; it must be 1 to %d", c.Window, 1<<14)
	case c.DeadAfter < 0 || c.Grace < 0 || c.DialTimeout < 0 || c.MaxBackoff < 0:
		return c, fmt.Errorf("rpc: a duration in Config is negative")
	case c.TLS != nil && c.PlainTCP:
		return c, fmt.Errorf("rpc: Config.TLS and PlainTCP exclude each other")
	case c.Bulk > Pull:
		return c, fmt.Errorf("rpc: Config.Bulk is %d; it must be Auto, Push or Pull", c.Bulk)
	case c.DeviceReads < 0 || c.DevicePushes < 0:
		return c, fmt.Errorf("rpc: Config.DeviceReads is %d and DevicePushes %d; they must not be negative", c.DeviceReads, c.DevicePushes)
	case c.Stripe > 0 && c.Stripe < 4096:
		return c, fmt.Errorf("rpc: Config.Stripe is %d bytes; it must be 4096 or more, or negative for none", c.Stripe)
	case len(c.Rails) >= maxRails:
		return c, fmt.Errorf("rpc: Config.Rails has %d devices; at most %d beside Device", len(c.Rails), maxRails-1)
	case len(c.Rails) > 0 && c.Device == nil:
		return c, fmt.Errorf("rpc: Config.Rails without Device: name the first device too")
	}
	for i, d := range c.Rails {
		if d == nil || d == c.Device || slices.Contains(c.Rails[:i], d) {
			return c, fmt.Errorf("rpc: Config.Rails[%d] is nil, or a device that is there twice", i)
		}
	}
	return c, nil
}

// conn is the configuration of the session's queue pairs. Every call can have a
// request, a cancellation and a few words about bulk data under way.
func (c *Config) conn(n *nic, on func(*qp.Conn, qp.Message), end func(*qp.Conn, error)) qp.Config {
	return qp.Config{SendDepth: 2 * min(c.MaxCalls, 256), RecvDepth: c.Window, MaxMessage: c.SlotSize, DeadAfter: c.DeadAfter,
		OnMessage: on, OnEnd: end, Logger: c.Logger, Inline: 256, Shared: n.shared}
}

// memory is what a session holds for messages to come, in bytes.
func (c *Config) memory() int64 {
	const reserve = 8 // of package qp, for its own
	return int64(c.DataQPs*(1+len(c.Rails))+1) * int64(c.Window+reserve) * int64(c.SlotSize)
}

// fenceGrace is how long a fence may take before a harder one. A queue pair whose
// peer is dead flushes by then; on one that lives an invalidation that is only
// slow would fail if its window went away under it, and cost the connection.
func fenceGrace(deadAfter time.Duration) time.Duration { return 2 * deadAfter }
