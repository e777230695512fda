package link

import (
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// MemOptions of a network in memory. The zero value is the default.
type MemOptions struct {
	// Virtual makes packets move with a test's clock (testing/synctest): one at a
	// time, in an order that the seed fixes. The network is made in the bubble.
	Virtual bool
	Latency time.Duration // of a packet at least, and at most twice that; Virtual only; default 1 µs
	Inbox   int           // packets that wait at an address before others are dropped; default 8192
	MTU     int           // IB path MTU in bytes; default 4096
}

func (o MemOptions) withDefaults() MemOptions {
	if o.Latency <= 0 {
		o.Latency = time.Microsecond
	}
	if o.Inbox <= 0 {
		o.Inbox = 8192
	}
	if o.MTU == 0 {
		o.MTU = 4096
	}
	return o
}

// Memory is a network inside this process. The seed matters only when virtual.
func Memory(seed uint64, o MemOptions) *MemNetwork {
	n := &MemNetwork{seed: seed, opts: o.withDefaults(), links: map[netip.Addr]*memLink{}}
	if o.Virtual {
		n.time = newTimeline(true)
	}
	return n
}

// MemNetwork is a network inside this process; any address can be opened on it.
type MemNetwork struct {
	seed uint64
	opts MemOptions
	time *timeline // nil when not virtual

	mu    sync.RWMutex
	links map[netip.Addr]*memLink
}

// Virtual implements Network.
func (n *MemNetwork) Virtual() bool { return n.time != nil }

func (n *MemNetwork) timeline() *timeline { return n.time }

// Open implements Network.
func (n *MemNetwork) Open(addr netip.Addr, h Handler) (Link, error) {
	addr = addr.Unmap()
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() {
		return nil, fmt.Errorf("roce: %v: a device needs one address: %w", addr, syscall.EADDRNOTAVAIL)
	}
	l := newMemLink(n, addr, h)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.links[addr] != nil {
		return nil, fmt.Errorf("roce: %v is taken on this network in memory: %w", addr, syscall.EADDRINUSE)
	}
	n.links[addr] = l
	if n.time == nil {
		l.wg.Add(1)
		go l.read()
	}
	return l, nil
}

func (n *MemNetwork) find(addr netip.Addr) *memLink {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.links[addr]
}
