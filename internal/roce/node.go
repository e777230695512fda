package roce

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/cm"
	"github.com/zrdma/zrdma/internal/roce/link"
	"github.com/zrdma/zrdma/internal/roce/rc"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// node is the device itself, shared by every Context of it in this process.
//
// mu guards all of it. Order of locks: node.mu, srq.mu, cq.mu, channel. The
// connection manager and a link's Poll are called without mu.
//
// Whoever has taken mu and made work for a queue pair puts that into run, calls
// pump and then arm: pump sends in turn, a bounded number of packets, and arm
// sees to it that what is left, and what waits for a time, is taken up again.
type node struct {
	name      string
	key       nodeKey
	refs      int                  // contexts; guarded by nodes
	ctxs      map[*devCtx]struct{} // those; guarded by nodes
	net       link.Network
	links     []link.Link // by GID index; fixed once the node is open
	ifindexes sync.Map    // of uint32, by address
	base      time.Time   // of now
	inMemory  bool        // links make no system calls
	own       *devCtx     // the connection manager's context

	mu      sync.Mutex
	open    bool // links is complete, and not closed yet
	mem     memTable
	qps     map[uint32]*qp // by number
	lastQPN uint32
	ahs     map[uint64]*ah
	lastAH  uint64
	groups  map[netip.Addr][]*qp
	stat    Counters

	run     runQueue
	touched []*qp  // of the batch that is being taken
	dirty   []bool // by link: sent to since the last flush
	stuck   []bool // by link: its socket is full
	nStuck  int
	timers  timers
	owed    []*qp // whose ACK waits for company, see owe
	owedAt  int64 // since when the first of them does
	eager   int   // so many ACKs go at once, for the last that waited did so in vain
	gsi     gsi
	hasCM   bool
	mcast   []byte // a message to a group, on its way to the members here

	pollers atomic.Int32 // in progress
	nOwed   atomic.Int32 // len(owed)

	cmOnce sync.Once
	cm     *cm.Manager
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
	TooLong    uint64 // UD: longer than the receive request or the MTU
	OutOfOrder uint64 // UC: packets of a message that lost one
	BadWrite   uint64 // UC: a WRITE that the memory does not grant
	MADDropped uint64 // management datagrams nobody took in time

	RC   rc.Stats
	Link link.Stats // of all links together
}

// Counters gives the counts of the device.
func (n *node) Counters() Counters {
	n.mu.Lock()
	c := n.stat
	n.mu.Unlock()
	for _, l := range n.links {
		addStats(&c.Link, l.Stats())
	}
	return c
}

func addStats(t *link.Stats, s link.Stats) {
	t.TxPackets, t.TxBytes, t.TxCalls = t.TxPackets+s.TxPackets, t.TxBytes+s.TxBytes, t.TxCalls+s.TxCalls
	t.RxPackets, t.RxBytes, t.RxCalls = t.RxPackets+s.RxPackets, t.RxBytes+s.RxBytes, t.RxCalls+s.RxCalls
	t.RxBadICRC, t.RxMalformed = t.RxBadICRC+s.RxBadICRC, t.RxMalformed+s.RxMalformed
	t.RxDropped, t.TxDropped = t.RxDropped+s.RxDropped, t.TxDropped+s.TxDropped
}

// engine is the transport of a queue pair. All under node.mu.
type engine interface {
	// check says whether postSend would take a request, room left aside.
	check(wr *provider.WR, sge []provider.SGE) error
	// room is how many send requests can be posted.
	room() int
	postSend(wr *provider.WR, sge []provider.SGE) error
	postRecv(id uint64, sge []provider.SGE) error
	// modify changes state and attributes; roce has checked the transition.
	modify(now int64, a *provider.QPAttr, mask provider.QPAttrMask) error
	// query gives the attributes.
	query(a *provider.QPAttr)
	state() provider.QPState
	// input takes a packet whose DestQP is this one's number, from link i.
	input(now int64, i int, rx *link.Rx)
	// pump sends at most budget packets and returns how many; when that is the
	// budget, there may be more.
	pump(now int64, budget int) int
	// flushAcks ends a batch of input.
	flushAcks()
	// canWait says that flushAcks would send an ACK that nobody needs at once; polled:
	// somebody polls the device.
	canWait(polled bool) bool
	tick(now int64)
	deadline() int64 // 0 for none
}

const (
	// quantum is how many packets a queue pair sends in its turn.
	quantum = 32
	// pumpBudget bounds what one caller sends for all.
	pumpBudget = 512
	// flushEvery bounds the batch that waits for the socket.
	flushEvery = 128
)

// now is the device's clock: nanoseconds, never 0.
func (n *node) now() int64 { return int64(time.Since(n.base)) + int64(time.Second) }

// progress looks for packets that have arrived and hands them on, without
// waiting and without holding mu.
func (n *node) progress() int {
	k := 0
	for _, l := range n.links {
		k += l.Poll()
	}
	return k
}

// look is progress for the poller of an empty queue.
func (n *node) look() {
	if n.nOwed.Load() > 0 {
		n.mu.Lock()
		n.pump(n.now(), pumpBudget)
		n.mu.Unlock()
	}
	n.pollers.Add(1)
	n.progress()
	n.pollers.Add(-1)
}

// inbox is the handler of one link.
type inbox struct {
	n *node
	i int
}

// Input takes a batch of packets.
func (b *inbox) Input(_ link.Link, batch []link.Rx) {
	n := b.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.open {
		return
	}
	now := n.now()
	for i := range batch {
		n.packet(now, b.i, &batch[i])
	}
	for i, q := range n.touched {
		q.touched = false
		n.touched[i] = nil
		n.owe(now, q)
		n.schedule(q)
	}
	n.touched = n.touched[:0]
	n.pumpAll(now, pumpBudget)
	if slices.Contains(n.dirty, true) { // the ACKs have company
		n.pay()
	}
	n.flush()
	n.arm(now)
}

const (
	// ackWait is how long an ACK may wait at most, in nanoseconds.
	ackWait = 200_000
	// eagerFor is how many ACKs go at once after one that waited so long.
	eagerFor = 256
)

// owe ends a batch of input of q. While somebody polls an ACK waits for what he
// does next: he posts an answer, and both leave in one system call, or he polls
// again. That of a short message waits for the answer also while nobody does.
func (n *node) owe(now int64, q *qp) {
	switch {
	case !q.eng.canWait(n.pollers.Load() > 0):
		q.eng.flushAcks()
	case n.eager > 0:
		n.eager--
		q.eng.flushAcks()
	case !q.owes:
		if len(n.owed) == 0 {
			n.owedAt = now
		}
		q.owes = true
		n.owed = append(n.owed, q)
		n.nOwed.Add(1)
	}
}

// pay sends the ACKs that waited.
func (n *node) pay() {
	for i, q := range n.owed {
		q.owes = false
		n.owed[i] = nil
		if !q.closed {
			q.eng.flushAcks()
		}
	}
	n.owed = n.owed[:0]
	n.nOwed.Store(0)
}

// packet hands one packet to its queue pair.
func (n *node) packet(now int64, i int, rx *link.Rx) {
	p := &rx.Pkt
	n.stat.Packets++
	if p.PKey&0x7fff != defaultPKey&0x7fff { // ours is a full member: either kind may talk to it
		n.stat.BadPKey++
		return
	}
	if p.DestQP == gsiQPN {
		n.gsiInput(i, rx)
		return
	}
	if p.Opcode == wire.CNP { // no congestion control
		return
	}
	q := n.qps[p.DestQP]
	if q == nil {
		n.stat.NoQP++
		return
	}
	q.eng.input(now, i, rx)
	if !q.touched {
		q.touched = true
		n.touched = append(n.touched, q)
	}
}

// Writable tells that a full socket has room again.
func (b *inbox) Writable(link.Link) {
	n := b.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.open {
		return
	}
	if n.stuck[b.i] {
		n.stuck[b.i] = false
		n.nStuck--
	}
	n.dirty[b.i] = true // what the link kept
	now := n.now()
	n.pump(now, pumpBudget)
	n.arm(now)
}

// send puts a packet on link i.
func (n *node) send(i int, dst netip.Addr, p *wire.Packet, segs [][]byte, size int) {
	n.links[i].Send(dst, p, segs, size)
	n.dirty[i] = true
}

func (n *node) flush() {
	for i, d := range n.dirty {
		if !d {
			continue
		}
		n.dirty[i] = false
		if err := n.links[i].Flush(); err == syscall.EAGAIN && !n.stuck[i] {
			n.stuck[i] = true
			n.nStuck++
		}
	}
}

// schedule gives a queue pair its turn to send.
func (n *node) schedule(q *qp) {
	if !q.queued && !q.closed {
		q.queued = true
		n.run.push(q)
	}
}

// settle pays before q changes so that it could not any more: the peer's request
// has succeeded and must not fail for want of an ACK.
func (n *node) settle(q *qp) {
	if q.owes {
		n.pay()
		n.flush()
	}
}

// pump is pumpAll, the ACKs that wait, and a flush. ACKs are short: behind what
// is longer they fit into its batch.
func (n *node) pump(now int64, budget int) {
	n.pumpAll(now, budget)
	n.pay()
	n.flush()
}

// pumpAll lets queue pairs send in turn, at most budget packets altogether.
// While a socket is full it sends nothing: what is queued there would be dropped.
func (n *node) pumpAll(now int64, budget int) {
	sent := 0
	for budget > 0 && n.nStuck == 0 && n.run.n > 0 {
		q := n.run.pop()
		q.queued = false
		if q.closed {
			continue
		}
		k := min(quantum, budget)
		got := q.eng.pump(now, k)
		if got >= k {
			n.schedule(q)
		}
		n.timers.follow(q)
		budget -= got
		if sent += got; sent >= flushEvery {
			n.flush()
			sent = 0
		}
	}
}

// post ends a call that posted work to q.
func (n *node) post(q *qp) {
	now := n.now()
	n.schedule(q)
	n.pump(now, pumpBudget)
	n.arm(now)
}

// runQueue is a ring of queue pairs that may have something to send.
type runQueue struct {
	ring    []*qp
	head, n int
}

func (r *runQueue) push(q *qp) {
	if r.n == len(r.ring) {
		ring := make([]*qp, max(16, 2*len(r.ring)))
		for i := range r.n {
			ring[i] = r.ring[(r.head+i)%len(r.ring)]
		}
		r.ring, r.head = ring, 0
	}
	r.ring[(r.head+r.n)%len(r.ring)] = q
	r.n++
}

func (r *runQueue) pop() *qp {
	q := r.ring[r.head]
	r.ring[r.head] = nil
	r.head = (r.head + 1) % len(r.ring)
	r.n--
	return q
}
