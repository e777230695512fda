package link

import (
	"net/netip"
	"syscall"
	"time"
)

// MemOptions of a network in memory. The zero value is the default.
type MemOptions struct {
	// Virtual makes packets move with a test's clock (testing/synctest): one at a
	// time, in an order that the seed fixes.
	Virtual bool
	Latency time.Duration // of a packet, Virtual only; default 1 µs
	Inbox   int           // packets that wait at an address before others are dropped; default 8192
	MTU     int           // path MTU in bytes; default 4096
}

// Memory is a network inside this process.
func Memory(seed uint64, o MemOptions) *MemNetwork { return &MemNetwork{seed: seed, opts: o} }

// MemNetwork is a network inside this process; any address can be opened on it.
type MemNetwork struct {
	seed uint64
	opts MemOptions
}

// Virtual implements Network.
func (n *MemNetwork) Virtual() bool { return n.opts.Virtual }

// Open implements Network.
func (n *MemNetwork) Open(addr netip.Addr, h Handler) (Link, error) { return nil, syscall.EOPNOTSUPP }
