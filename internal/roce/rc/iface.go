package rc

import (
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// Memory finds memory by key, for one queue pair: its protection domain and, for
// windows, its number count.
type Memory interface {
	// Local gives n bytes at addr of the region lkey; to be written when write.
	Local(lkey provider.LKey, addr uint64, n uint32, write bool) ([]byte, bool)
	// Inline gives n bytes of the caller's memory, which needs no region.
	Inline(addr uint64, n uint32) ([]byte, bool)
	// Remote gives n bytes at va when rkey grants this queue pair the access.
	Remote(rkey provider.RKey, va uint64, n uint32, access provider.AccessFlags) ([]byte, bool)
	// CompareSwap and FetchAdd work on 8 aligned bytes under the device's lock and
	// return what was there. They check the rkey for AccessRemoteAtomic.
	CompareSwap(rkey provider.RKey, va, compare, swap uint64) (uint64, bool)
	FetchAdd(rkey provider.RKey, va, add uint64) (uint64, bool)
	// Invalidate takes a key away, on request of the peer when remote.
	Invalidate(rkey provider.RKey, remote bool) bool
	// Bind does a BIND_MW request.
	Bind(wr *provider.WR) bool
}

// Sink takes what a queue pair puts out. Arguments are lent for the call.
type Sink interface {
	// Packet sends headers and n bytes of payload, gathered from segs. DestQP and
	// PSN are set, addresses are the sink's.
	Packet(p *wire.Packet, segs [][]byte, n int)
	SendDone(wc *provider.WC)
	// RecvDone completes a receive; solicited is for completion events.
	RecvDone(wc *provider.WC, solicited bool)
	Event(provider.EventType)
}

// Recv is a receive work request taken from a queue.
type Recv struct {
	ID  uint64
	SGE []provider.SGE // a copy in memory of the taker
}

// RecvSource is a queue of receive work requests.
type RecvSource interface {
	// NextRecv takes the oldest request; it fills r, appending to r.SGE[:0].
	NextRecv(r *Recv) bool
}

// RecvQueue is a bounded queue of receive work requests: a QP's own, or a shared
// one, whose lock is the caller's.
type RecvQueue struct {
	id         []uint64
	n          []int
	sge        []provider.SGE
	maxSGE     int
	head, tail uint64
}

// NewRecvQueue makes a queue of the given capacity.
func NewRecvQueue(maxWR, maxSGE int) *RecvQueue {
	return &RecvQueue{id: make([]uint64, maxWR), n: make([]int, maxWR), sge: make([]provider.SGE, maxWR*maxSGE), maxSGE: maxSGE}
}

// Len is the number of requests waiting.
func (q *RecvQueue) Len() int { return int(q.tail - q.head) }

// Post adds a request, copying sge.
func (q *RecvQueue) Post(id uint64, sge []provider.SGE) error {
	if len(sge) > q.maxSGE {
		return errInval
	}
	if q.Len() == len(q.id) {
		return errFull
	}
	i := int(q.tail % uint64(len(q.id)))
	q.id[i], q.n[i] = id, copy(q.sge[i*q.maxSGE:], sge)
	q.tail++
	return nil
}

// NextRecv implements RecvSource.
func (q *RecvQueue) NextRecv(r *Recv) bool {
	if q.head == q.tail {
		return false
	}
	i := int(q.head % uint64(len(q.id)))
	r.ID, r.SGE = q.id[i], append(r.SGE[:0], q.sge[i*q.maxSGE:i*q.maxSGE+q.n[i]]...)
	q.head++
	return true
}

// Clear forgets every request.
func (q *RecvQueue) Clear() { q.head = q.tail }
