package rc

import (
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// pending is a READ response to stream, or an atomic's to send. Packet x of a
// READ is at va + (x-first)*mtu.
type pending struct {
	first, end int64
	from, next int64 // this pass: its first packet, the one to send
	va         uint64
	rkey       provider.RKey
	length     uint32
	msn        uint32
	orig       uint64
	atomic     bool
	replay     bool // asked for again: the peer may have it already
}

// atomic is an executed atomic, to answer duplicates.
type atomic struct {
	psn  int64 // 0: none
	va   uint64
	rkey provider.RKey
	op   wire.Opcode
	orig uint64
	msn  uint32
}

// roomFor accepts one more READ or atomic, or refuses it.
func (q *QP) roomFor() bool {
	if q.resp.fresh < q.maxRdIn {
		return true
	}
	q.refuse(synInvReq)
	return false
}

func (q *QP) readIn(p *wire.Packet) {
	r := &q.resp
	if q.access&provider.AccessRemoteRead == 0 || p.DMALen > 1<<31 {
		q.refuse(synInvReq)
		return
	}
	if !q.roomFor() {
		return
	}
	rkey := provider.RKey(p.RKey)
	if p.DMALen > 0 {
		if _, ok := q.mem.Remote(rkey, p.VA, p.DMALen, provider.AccessRemoteRead); !ok {
			q.refuse(synRemAccess)
			return
		}
	}
	n := packets(p.DMALen, q.mtu)
	r.msn = (r.msn + 1) & wire.PSNMask
	r.pend = append(r.pend, pending{first: r.epsn, end: r.epsn + n, from: r.epsn, next: r.epsn,
		va: p.VA, rkey: rkey, length: p.DMALen, msn: r.msn})
	r.fresh++
	r.epsn += n
}

func (q *QP) atomicIn(p *wire.Packet) {
	r := &q.resp
	if q.access&provider.AccessRemoteAtomic == 0 || p.VA%8 != 0 {
		q.refuse(synInvReq)
		return
	}
	if !q.roomFor() {
		return
	}
	rkey := provider.RKey(p.RKey)
	var orig uint64
	var ok bool
	if p.Opcode == wire.RCCompareSwap {
		orig, ok = q.mem.CompareSwap(rkey, p.VA, p.Compare, p.Swap)
	} else {
		orig, ok = q.mem.FetchAdd(rkey, p.VA, p.Swap)
	}
	if !ok {
		q.refuse(synRemAccess)
		return
	}
	r.msn = (r.msn + 1) & wire.PSNMask
	a := atomic{psn: r.epsn, va: p.VA, rkey: rkey, op: p.Opcode, orig: orig, msn: r.msn}
	r.atoms[r.atomAt] = a
	r.atomAt = (r.atomAt + 1) % len(r.atoms)
	r.pend = append(r.pend, a.pending())
	r.fresh++
	r.epsn++
}

func (a *atomic) pending() pending {
	return pending{first: a.psn, end: a.psn + 1, from: a.psn, next: a.psn, msn: a.msn, orig: a.orig, atomic: true}
}

// duplicate answers a packet that was executed: it or its answer came twice, or
// the answer was lost.
func (q *QP) duplicate(x int64, p *wire.Packet) {
	r := &q.resp
	switch p.Opcode {
	default:
		r.ackDue, r.ackSoon = true, true
	case wire.RCReadRequest:
		n := packets(p.DMALen, q.mtu)
		if p.DMALen > 1<<31 || x+n > r.epsn || q.access&provider.AccessRemoteRead == 0 {
			return
		}
		for i := range r.pend {
			if e := &r.pend[i]; e.first <= x && x < e.end {
				if !e.atomic && x < e.next && e.rkey == provider.RKey(p.RKey) && e.va+uint64((x-e.first)*int64(q.mtu)) == p.VA {
					e.from, e.next = x, x // what was streamed from there on is lost
				}
				return
			}
		}
		q.replay(pending{first: x, end: x + n, from: x, next: x, va: p.VA, rkey: provider.RKey(p.RKey), length: p.DMALen, msn: r.msn})
	case wire.RCCompareSwap, wire.RCFetchAdd:
		for i := range r.atoms {
			if a := &r.atoms[i]; a.psn == x && a.op == p.Opcode && a.va == p.VA && a.rkey == provider.RKey(p.RKey) {
				q.replay(a.pending())
			}
		}
	}
}

// replay puts a response in its place among the pending, when there is room.
func (q *QP) replay(e pending) {
	r := &q.resp
	if len(r.pend)-r.fresh >= q.maxRdIn {
		return
	}
	e.replay = true
	i := 0
	for i < len(r.pend) && r.pend[i].end <= e.first {
		i++
	}
	if i < len(r.pend) && r.pend[i].first < e.end {
		return
	}
	r.pend = append(r.pend, pending{})
	copy(r.pend[i+1:], r.pend[i:])
	r.pend[i] = e
}

func (q *QP) popPending() {
	r := &q.resp
	if !r.pend[0].replay {
		r.fresh--
	}
	r.pend = r.pend[:copy(r.pend, r.pend[1:])]
}

// pumpResponses streams at most budget responses, then what waited for them.
func (q *QP) pumpResponses(budget int) int {
	r := &q.resp
	if len(r.pend) == 0 {
		return 0
	}
	n := 0
	for ; n < budget && len(r.pend) > 0; n++ {
		e := &r.pend[0]
		if e.atomic {
			q.segs = q.segs[:0]
			q.pkt = wire.Packet{Opcode: wire.RCAtomicAck, PSN: narrow(e.first), Syndrome: synAck, MSN: e.msn, Orig: e.orig}
			q.emit(0)
			q.popPending()
			continue
		}
		if !q.streamOne(e) {
			break
		}
	}
	if len(r.pend) == 0 {
		q.FlushAcks()
	}
	return n
}

// streamOne sends the next packet of a READ response. It is false when the
// memory is gone.
func (q *QP) streamOne(e *pending) bool {
	r := &q.resp
	at := uint32((e.next - e.first) * int64(q.mtu))
	k := min(e.length-at, uint32(q.mtu))
	q.segs = q.segs[:0]
	if k > 0 {
		b, ok := q.mem.Remote(e.rkey, e.va+uint64(at), k, provider.AccessRemoteRead)
		switch {
		case !ok && e.replay:
			// The peer may have had its data and have let the memory go since.
			q.popPending()
			return true
		case !ok:
			r.dead, r.fatal, r.nakDue, r.nakPSN = true, provider.EventQPAccessErr, synRemAccess, e.next
			r.pend, r.fresh = r.pend[:0], 0
			return false
		}
		q.segs = append(q.segs, b)
	}
	q.pkt = wire.Packet{PSN: narrow(e.next), Syndrome: synAck, MSN: e.msn, Volatile: e.replay}
	first, last := e.next == e.from, e.next+1 == e.end
	switch {
	case first && last:
		q.pkt.Opcode = wire.RCReadRespOnly
	case first:
		q.pkt.Opcode = wire.RCReadRespFirst
	case last:
		q.pkt.Opcode = wire.RCReadRespLast
	default:
		q.pkt.Opcode = wire.RCReadRespMiddle
	}
	e.next++
	q.emit(int(k))
	if last {
		q.popPending()
	}
	return true
}

// AckCanWait says that FlushAcks would send an ACK, no more: the caller may put it
// off for a moment.
func (q *QP) AckCanWait() bool {
	r := &q.resp
	return r.ackDue && r.nakDue == 0 && len(r.pend) == 0
}

// AckIsIdle says that the ACK which can wait is for messages of one packet only:
// the peer's window is not what it holds up, and an answer is likely.
func (q *QP) AckIsIdle() bool { return !q.resp.ackSoon }

// FlushAcks sends the one ACK or NAK that the packets since the last call have
// earned. An ACK never names the packet of a READ or an atomic: rxe would take
// that for its response, and complete the request without its data. The caller calls it at the end of every batch of input. While READ
// responses wait, Pump does it behind them.
func (q *QP) FlushAcks() {
	r := &q.resp
	if len(r.pend) > 0 || !r.ackDue && r.nakDue == 0 || q.state == provider.QPSErr {
		return
	}
	q.segs = q.segs[:0]
	q.pkt = wire.Packet{Opcode: wire.RCAck, PSN: narrow(r.plain), Syndrome: synAck, MSN: r.msn}
	if r.nakDue != 0 {
		q.pkt.PSN, q.pkt.Syndrome = narrow(r.nakPSN), r.nakDue
	}
	r.ackDue, r.ackSoon, r.nakDue = false, false, 0
	q.emit(0)
	if r.dead {
		q.sink.Event(r.fatal)
		q.toErr()
	}
}
