// Package link carries RoCEv2 packets between devices: over UDP, or in memory,
// through faults if asked.
package link

import (
	"net/netip"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// Network makes links.
type Network interface {
	// Open makes the link of an address; h gets what arrives there. A taken
	// address is EADDRINUSE, an address that is not this machine's EADDRNOTAVAIL.
	Open(addr netip.Addr, h Handler) (Link, error)
	// Virtual says that packets move only as a test's clock does: looking for
	// them again and again without letting time pass finds nothing.
	Virtual() bool
}

// Handler takes what arrived in one go, with the ICRC checked. Slices are lent
// for the call. One call at a time for each link; the device's locks are not
// held when the link calls.
type Handler interface {
	Input(l Link, batch []Rx)
	// Writable tells that a link whose Flush gave EAGAIN takes packets again.
	Writable(l Link)
}

// Rx is a packet that arrived.
type Rx struct {
	Src     netip.Addr // never IPv4-mapped
	SrcPort uint16
	Pkt     wire.Packet
}

// Link is one address on UDP port 4791.
type Link interface {
	Addr() netip.Addr
	// MTU is the largest IB path MTU that fits: 256, 512, 1024, 2048 or 4096 bytes.
	MTU() int
	// Send builds a packet of p's headers and n bytes gathered from segs, closes
	// it with the ICRC and adds it to the batch to be sent; a full batch is sent.
	// One goroutine at a time, under the device's lock.
	Send(dst netip.Addr, p *wire.Packet, segs [][]byte, n int)
	// Flush sends the batch. EAGAIN: the socket is full, what is left is kept until
	// the next Flush, and Writable will be called; packets sent meanwhile may be
	// dropped, as on any network. After Close it is net.ErrClosed. What the network
	// does to a packet is no error.
	Flush() error
	// Poll takes what has arrived, without waiting, and hands it to the handler in
	// the caller's goroutine. It returns the number of packets, 0 also when
	// another goroutine is at it.
	//
	// While it is called busily the link's own goroutine stays away: it comes back
	// within a millisecond after the last call, or at once after Idle.
	Poll() int
	// Idle tells that the caller of Poll is about to sleep until something arrives.
	// Cheap, any goroutine.
	Idle()
	// Stats are running counts.
	Stats() Stats
	// Close ends the link and waits for calls of the handler under way: not to be
	// called from the handler or with a lock that it takes.
	Close() error
}

// Stats counts packets of a link, and why others were dropped.
type Stats struct {
	TxPackets, TxBytes, TxCalls uint64
	RxPackets, RxBytes, RxCalls uint64
	RxBadICRC                   uint64 // corrupt
	RxMalformed                 uint64 // not a packet of ours
	RxDropped                   uint64 // by the operating system, for want of room
	TxDropped                   uint64 // no room, no route
}
