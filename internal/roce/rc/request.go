package rc

import (
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// pumpRequests sends what the window, the READ limit and fences let pass.
func (q *QP) pumpRequests(now int64, budget int) int {
	r := &q.req
	sent := 0
	for sent < budget && r.cur != r.tail && r.rnrUntil == 0 && !(r.probing && r.nxt > r.una) {
		if q.state != provider.QPSRTS && q.state != provider.QPSSQD {
			break
		}
		w := r.at(r.cur)
		if !w.started && q.state == provider.QPSSQD || !q.start(w) {
			break
		}
		switch {
		case w.fail != 0: // start has settled it, or it waits for those before
			if r.cur != r.head {
				return sent
			}
			q.settle()
			continue
		case w.done:
			r.cur++
			q.settle()
			continue
		}
		if !q.sendOne(w) {
			break
		}
		if w.fail != 0 {
			continue
		}
		sent++
		if r.nxt > r.high {
			r.high = r.nxt
			if r.asked == r.nxt {
				r.rtt.start(now, r.nxt)
			}
		}
		if r.nxt == w.end() {
			r.cur++
		}
		q.startTimers(now)
	}
	q.checkSQD()
	return sent
}

// start prepares the request at cur, once; local operations run here. It is
// false when the request has to wait.
func (q *QP) start(w *request) bool {
	r := &q.req
	if w.started {
		return true
	}
	// READs before cur were all asked for in this pass, so none is in flight only
	// when all are answered: a fence that was passed once holds for ever.
	if w.wr.Flags&provider.SendFence != 0 && r.rdOut > 0 {
		return false
	}
	switch w.wr.Opcode {
	case provider.WRLocalInv:
		if r.cur != r.head {
			return false
		}
		if !q.mem.Invalidate(provider.RKey(w.wr.Imm), false) {
			w.fail = provider.WCLocQPOpErr
		}
		w.done = true
	case provider.WRBindMW:
		if !q.mem.Bind(&w.wr) {
			w.fail = provider.WCMWBindErr
		}
		w.done = true
	default:
		w.npsn = packets(w.length, q.mtu)
		if w.isRd() && q.maxRdOut == 0 {
			w.fail = provider.WCLocQPOpErr
		}
		for i := range w.sge {
			s := &w.sge[i]
			if s.Length == 0 {
				continue
			}
			if _, ok := q.mem.Local(s.LKey, s.Addr, s.Length, w.isRd()); !ok {
				w.fail = provider.WCLocProtErr
			}
		}
	}
	w.psn, w.started = r.nxt, true
	return true
}

// sendOne sends the packet numbered nxt, or the READ request that begins there.
// It is false when it has to wait. A failing gather marks the request.
func (q *QP) sendOne(w *request) bool {
	r := &q.req
	off := r.nxt - w.psn
	k := int64(1)
	rd := w.isRd()
	if rd {
		if r.rdOut >= q.maxRdOut {
			return false
		}
		k = q.pieceEnd(w, r.nxt) - r.nxt
	}
	if r.nxt != r.una && r.nxt-r.una+k > q.win.now {
		return false
	}
	p := &q.pkt
	*p = wire.Packet{PSN: narrow(r.nxt), VA: w.wr.RemoteAddr, RKey: uint32(w.wr.RKey), AckReq: true}
	at := uint32(off * int64(q.mtu))
	n := uint32(0)
	q.segs = q.segs[:0]
	switch w.wr.Opcode {
	case provider.WRRDMARead:
		p.Opcode = wire.RCReadRequest
		p.VA += uint64(at)
		p.DMALen = uint32(min(int64(w.length)-int64(at), k*int64(q.mtu)))
	case provider.WRAtomicCmpAndSwp:
		p.Opcode, p.Compare, p.Swap = wire.RCCompareSwap, w.wr.CompareAdd, w.wr.Swap
	case provider.WRAtomicFetchAndAdd:
		p.Opcode, p.Swap = wire.RCFetchAdd, w.wr.CompareAdd
	default:
		n = min(w.length-at, uint32(q.mtu))
		if len(w.inline) > 0 {
			q.segs = append(q.segs, w.inline[at:at+n])
		} else if !q.gather(w.sge, at, n) {
			w.fail = provider.WCLocProtErr
			return true
		}
		q.dataHeader(p, w, off == 0, off == w.npsn-1)
		p.AckReq = off == w.npsn-1 || r.nxt+1-r.asked >= q.win.ackEvery() || r.nxt+1-r.una >= q.win.now || r.probing
	}
	if rd {
		r.rdOut++
	}
	r.nxt += k
	if p.AckReq {
		r.asked = r.nxt
	}
	q.emit(int(n))
	return true
}

// pieceEnd is where the piece of a READ that holds packet x ends; pieces are
// aligned to the request, so that asking again from the middle ends there too.
func (q *QP) pieceEnd(w *request, x int64) int64 {
	return w.psn + min(w.npsn, ((x-w.psn)/q.chunk+1)*q.chunk)
}

// dataHeader fills in what depends on the place of a packet in a SEND or WRITE.
func (q *QP) dataHeader(p *wire.Packet, w *request, first, last bool) {
	p.DMALen = w.length
	write := w.wr.Opcode == provider.WRRDMAWrite || w.wr.Opcode == provider.WRRDMAWriteWithImm
	base := wire.RCSendFirst
	if write {
		base = wire.RCWriteFirst
	}
	switch {
	case first && last:
		p.Opcode = base + 4 // only
	case first:
		p.Opcode = base
	case last:
		p.Opcode = base + 2
	default:
		p.Opcode = base + 1
	}
	if !last {
		return
	}
	switch w.wr.Opcode {
	case provider.WRSendWithImm, provider.WRRDMAWriteWithImm:
		p.Opcode++
		p.Imm = w.wr.Imm
	case provider.WRSendWithInv:
		p.Opcode = wire.RCSendLastInv
		if first {
			p.Opcode = wire.RCSendOnlyInv
		}
		p.RKey = w.wr.Imm
	}
	p.Solicited = w.wr.Flags&provider.SendSolicited != 0 && w.wr.Opcode != provider.WRRDMAWrite
}
