package rc

import (
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// message is what a request packet continues.
type message uint8

const (
	noMessage message = iota
	inSend
	inWrite
)

// responder is the receiving half; its invariants are in the package comment.
type responder struct {
	epsn    int64
	plain   int64 // the last packet of a SEND or WRITE: what an ACK may name
	msn     uint32
	nakSent bool  // this gap was reported
	ackDue  bool  // FlushAcks owes an ACK
	ackSoon bool  // and not only for messages of one packet
	nakDue  uint8 // or this syndrome, 0 for none
	nakPSN  int64
	fatal   provider.EventType // what to raise with it
	dead    bool               // nakDue ends the connection

	msg      message
	haveRecv bool // recv is taken and not completed
	recv     Recv
	room     uint32 // of recv
	off      uint32 // bytes of the message so far
	va       uint64 // WRITE
	rkey     provider.RKey
	length   uint32

	pend   []pending // in order of packet numbers
	fresh  int       // of them, not asked for a second time
	atoms  []atomic  // the latest, by age modulo length
	atomAt int
}

// size changes how much is kept, also while something is: the latest atomics stay.
func (r *responder) size(maxRd int) {
	if cap(r.pend) < 2*maxRd {
		r.pend = append(make([]pending, 0, 2*maxRd), r.pend...)
	}
	if len(r.atoms) == maxRd {
		return
	}
	atoms := make([]atomic, maxRd)
	k := min(maxRd, len(r.atoms))
	for i := range k { // the latest is the one before atomAt
		atoms[k-1-i] = r.atoms[(r.atomAt+len(r.atoms)-1-i)%len(r.atoms)]
	}
	r.atoms, r.atomAt = atoms, 0
	if k < maxRd {
		r.atomAt = k
	}
}

func (r *responder) clear() {
	clear(r.atoms)
	*r = responder{epsn: r.epsn, recv: Recv{SGE: r.recv.SGE[:0]}, pend: r.pend[:0], atoms: r.atoms}
}

// request takes a request packet of the peer.
func (q *QP) request(p *wire.Packet) {
	r := &q.resp
	if r.dead {
		return
	}
	x := widen(r.epsn, p.PSN)
	switch {
	case x > r.epsn:
		if !r.nakSent {
			q.stats.Gaps++
			r.nakSent, r.nakDue, r.nakPSN = true, synSeq, r.epsn
		}
		return
	case x < r.epsn:
		q.stats.Repeats++
		q.duplicate(x, p)
		return
	}
	r.nakSent, r.nakDue = false, 0
	if !q.commEst && q.state == provider.QPSRTR {
		q.commEst = true
		q.sink.Event(provider.EventCommEst)
	}
	switch op := p.Opcode; {
	case op <= wire.RCSendOnlyImm, op == wire.RCSendLastInv, op == wire.RCSendOnlyInv:
		q.sendIn(p)
	case op <= wire.RCWriteOnlyImm:
		q.writeIn(p)
	case r.msg != noMessage:
		q.refuse(synInvReq)
	case op == wire.RCReadRequest:
		q.readIn(p)
	default:
		q.atomicIn(p)
	}
}

// place says whether a packet begins and ends its message.
func place(o wire.Opcode) (first, last bool) {
	switch o {
	case wire.RCSendFirst, wire.RCWriteFirst:
		return true, false
	case wire.RCSendMiddle, wire.RCWriteMiddle:
		return false, false
	case wire.RCSendLast, wire.RCSendLastImm, wire.RCSendLastInv, wire.RCWriteLast, wire.RCWriteLastImm:
		return false, true
	}
	return true, true
}

// fits checks the order of packets in a message and their sizes.
func (q *QP) fits(m message, first, last bool, n int) bool {
	if first != (q.resp.msg == noMessage) || !first && q.resp.msg != m || n > q.mtu {
		return false
	}
	return last && (first || n > 0) || n == q.mtu
}

// refuse ends the connection with a NAK of the packet expected.
func (q *QP) refuse(syndrome uint8) {
	ev := provider.EventQPReqErr
	if syndrome == synRemAccess {
		ev = provider.EventQPAccessErr
	}
	r := &q.resp
	r.dead, r.fatal, r.nakDue, r.nakPSN = true, ev, syndrome, r.epsn
}

// refuseRecv is refuse after the receive request in use completed in error.
func (q *QP) refuseRecv(s provider.WCStatus, syndrome uint8) {
	q.recvDone(s, false)
	q.refuse(syndrome)
	q.resp.fatal = provider.EventQPFatal
}

// takeRecv gets a receive request; without one the packet is to be sent again.
func (q *QP) takeRecv() bool {
	r := &q.resp
	src := q.cfg.SRQ
	if src == nil {
		src = q.rq
	}
	if !src.NextRecv(&r.recv) {
		r.nakSent, r.nakDue, r.nakPSN = true, synRNR|q.minRNR, r.epsn
		return false
	}
	r.haveRecv = true
	r.room, _ = Total(r.recv.SGE)
	return true
}

func (q *QP) sendIn(p *wire.Packet) {
	r := &q.resp
	first, last := place(p.Opcode)
	n := uint32(len(p.Payload))
	if !q.fits(inSend, first, last, len(p.Payload)) {
		q.refuse(synInvReq)
		return
	}
	if first {
		if !q.takeRecv() {
			return
		}
		r.off = 0
	}
	switch {
	case n > r.room-r.off:
		q.refuseRecv(provider.WCLocLenErr, synInvReq)
		return
	case !q.scatter(r.recv.SGE, r.off, p.Payload):
		q.refuseRecv(provider.WCLocProtErr, synRemOp)
		return
	}
	r.off += n
	r.ackSoon = r.ackSoon || p.AckReq && !(first && last)
	inv := p.Opcode == wire.RCSendLastInv || p.Opcode == wire.RCSendOnlyInv
	if inv && !q.mem.Invalidate(provider.RKey(p.RKey), true) {
		q.refuseRecv(provider.WCRemInvReqErr, synRemAccess)
		return
	}
	r.msg = inSend
	q.accept(p, last)
	if last {
		q.wc = provider.WC{ByteLen: r.off}
		switch {
		case inv:
			q.wc.Flags = provider.WCWithInv
			q.wc.SetInvalidatedRKey(provider.RKey(p.RKey))
		case p.Opcode == wire.RCSendLastImm || p.Opcode == wire.RCSendOnlyImm:
			q.wc.Flags = provider.WCWithImm
			q.wc.SetImm(p.Imm)
		}
		q.wc.Opcode = provider.WCRecv
		q.recvOK(p.Solicited)
	}
}

func (q *QP) writeIn(p *wire.Packet) {
	r := &q.resp
	first, last := place(p.Opcode)
	n := uint32(len(p.Payload))
	va, rkey, length, off := r.va, r.rkey, r.length, r.off
	if first {
		va, rkey, length, off = p.VA, provider.RKey(p.RKey), p.DMALen, 0
	}
	if !q.fits(inWrite, first, last, len(p.Payload)) || length > 1<<31 || off+n > length || last != (off+n == length) ||
		q.access&provider.AccessRemoteWrite == 0 {
		q.refuse(synInvReq)
		return
	}
	if first && length > 0 {
		if _, ok := q.mem.Remote(rkey, va, length, provider.AccessRemoteWrite); !ok {
			q.refuse(synRemAccess)
			return
		}
	}
	imm := p.Opcode == wire.RCWriteLastImm || p.Opcode == wire.RCWriteOnlyImm
	if imm && !q.takeRecv() {
		return
	}
	if n > 0 {
		b, ok := q.mem.Remote(rkey, va+uint64(off), n, provider.AccessRemoteWrite)
		if !ok {
			q.refuse(synRemAccess)
			return
		}
		copy(b, p.Payload)
	}
	r.va, r.rkey, r.length, r.off = va, rkey, length, off+n
	r.ackSoon = r.ackSoon || p.AckReq
	r.msg = inWrite
	q.accept(p, last)
	if imm {
		q.wc = provider.WC{ByteLen: length, Opcode: provider.WCRecvRDMAWithImm, Flags: provider.WCWithImm}
		q.wc.SetImm(p.Imm)
		q.recvOK(p.Solicited)
	}
}

// accept steps over the packet expected.
func (q *QP) accept(p *wire.Packet, last bool) {
	r := &q.resp
	r.plain = r.epsn
	r.epsn++
	if last {
		r.msn = (r.msn + 1) & wire.PSNMask
		r.msg = noMessage
	}
	r.ackDue = r.ackDue || p.AckReq
}

// recvOK completes the receive in use; q.wc says what of it.
func (q *QP) recvOK(solicited bool) {
	q.wc.WRID, q.wc.QPN, q.wc.SrcQP = q.resp.recv.ID, q.cfg.QPN, q.destQPN
	q.resp.haveRecv = false
	q.sink.RecvDone(&q.wc, solicited)
}

// recvDone completes the receive in use in error.
func (q *QP) recvDone(s provider.WCStatus, solicited bool) {
	q.wc = provider.WC{Status: s, Opcode: provider.WCRecv}
	q.recvOK(solicited)
}
