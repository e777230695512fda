package rc

import (
	"encoding/binary"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// response takes what the peer answers.
func (q *QP) response(now int64, p *wire.Packet) {
	r := &q.req
	x := widen(r.una, p.PSN)
	if x < r.una || x >= r.high {
		return // answered already, or never asked
	}
	before := r.una
	reached := false
	kind := p.Syndrome >> 5
	if p.Opcode == wire.RCReadRespMiddle {
		kind = 0 // has no such header
	}
	switch {
	case p.Opcode == wire.RCAck && kind == 0:
		reached = q.answered(x + 1)
	case kind == 0 || p.Opcode == wire.RCAck && (kind == 1 || kind == 3):
		reached = q.answered(x)
	default:
		return
	}
	q.progress(now, before)
	switch {
	case q.state == provider.QPSErr:
	case !reached:
		q.lost()
	case p.Opcode == wire.RCAck && kind == 0:
	case p.Opcode == wire.RCAck && kind == 1:
		q.rnr(now, p.Syndrome)
	case p.Opcode == wire.RCAck:
		q.nak(p.Syndrome)
	case p.Opcode == wire.RCAtomicAck:
		q.atomicDone(now, p)
	default:
		q.readData(now, x, p)
	}
}

// answered moves una up to the packet numbered to, retiring requests. It stops
// with false at a READ or an atomic, which an answer to something later does
// not complete.
func (q *QP) answered(to int64) bool {
	r := &q.req
	for r.una < to && r.head != r.tail {
		w := r.at(r.head)
		switch {
		case w.isRd():
			return false
		case to < w.end():
			r.una = to
		default:
			r.una = w.end()
			q.retire(provider.WCSuccess)
			q.settle()
		}
	}
	return r.una >= to
}

func (q *QP) nak(syndrome uint8) {
	switch syndrome {
	case synSeq:
		q.lost()
	case synInvReq:
		q.failHead(provider.WCRemInvReqErr)
	case synRemAccess:
		q.failHead(provider.WCRemAccessErr)
	case synRemOp:
		q.failHead(provider.WCRemOpErr)
	}
}

// readData takes the READ response numbered una.
func (q *QP) readData(now, x int64, p *wire.Packet) {
	r := &q.req
	w := r.at(r.head)
	if r.head == r.tail || w.wr.Opcode != provider.WRRDMARead || !w.started {
		return
	}
	at := uint32((x - w.psn) * int64(q.mtu))
	last := p.Opcode == wire.RCReadRespLast || p.Opcode == wire.RCReadRespOnly
	if last != (x+1 == q.pieceEnd(w, x)) || len(p.Payload) != int(min(w.length-at, uint32(q.mtu))) {
		q.failHead(provider.WCBadRespErr)
		return
	}
	if !q.scatter(w.sge, at, p.Payload) {
		q.failHead(provider.WCLocProtErr)
		return
	}
	q.rdAnswered(now, w, last)
}

// atomicDone takes the response to the atomic numbered una.
func (q *QP) atomicDone(now int64, p *wire.Packet) {
	r := &q.req
	w := r.at(r.head)
	if r.head == r.tail || !w.isRd() || w.wr.Opcode == provider.WRRDMARead || !w.started {
		return
	}
	b := q.req.orig[:]
	binary.NativeEndian.PutUint64(b, p.Orig)
	if !q.scatter(w.sge, 0, b) {
		q.failHead(provider.WCLocProtErr)
		return
	}
	q.rdAnswered(now, w, true)
}

// rdAnswered moves una over one response; last ends a piece.
func (q *QP) rdAnswered(now int64, w *request, last bool) {
	r := &q.req
	before := r.una
	r.una++
	if last && r.nxt >= r.una { // asked for in this pass
		r.rdOut--
	}
	if r.una == w.end() {
		q.retire(provider.WCSuccess)
		q.settle()
	}
	q.progress(now, before)
}
