package roce

import (
	"net/netip"
	"sync"

	"github.com/zrdma/zrdma/internal/roce/link"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// node is the device itself, shared by every Context of it in this process.
//
// mu guards all of it. Order of locks: node.mu, srq.mu, cq.mu, channel. The
// connection manager and a link's Poll are called without mu.
type node struct {
	name  string
	net   link.Network
	links []link.Link // by GID index; fixed once the node is open

	mu   sync.Mutex
	mem  memTable
	qps  map[uint32]transport // by number
	stat Counters
}

// Counters says what arrived and was dropped, and why.
type Counters struct {
	Packets    uint64 // that arrived
	BadPKey    uint64 // P_Key not ours; also a counter of the port
	BadQKey    uint64 // Q_Key not the queue pair's; also a counter of the port
	NoQP       uint64 // unknown queue pair
	BadSource  uint64 // not the connected peer
	BadOpcode  uint64 // not of the queue pair's transport
	BadState   uint64 // queue pair cannot receive
	NoRecv     uint64 // UD, UC: no receive request was there
	TooLong    uint64 // UD: longer than the receive request
	OutOfOrder uint64 // UC: packets of a message that lost one
	MADDropped uint64 // management datagrams nobody took in time
}

// transport is a queue pair as the node sees it. All under node.mu.
type transport interface {
	// input takes a packet whose DestQP is this one's number.
	input(now int64, l link.Link, rx *link.Rx)
	// pump sends at most budget packets and returns how many.
	pump(now int64, budget int) int
	// flushAcks ends a batch of input.
	flushAcks()
	tick(now int64)
	deadline() int64 // 0 for none
}

// progress looks for packets that have arrived and hands them on, without
// waiting and without holding mu. A poller of an empty queue calls it.
func (n *node) progress() int {
	k := 0
	for _, l := range n.links {
		k += l.Poll()
	}
	return k
}

// Counters gives the counts of the device.
func (n *node) Counters() Counters {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stat
}

// mads is QP 1 of the device.
type mads interface {
	HandleMAD(src, dst netip.Addr, mad []byte)
}

var _ = wire.Port
