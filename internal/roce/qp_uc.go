package roce

import (
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
	"github.com/zrdma/zrdma/internal/roce/rc"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// ucEngine is an unreliable connected queue pair: SEND and WRITE of any length,
// without answers. A message that loses a packet is dropped.
type ucEngine struct {
	unacked
	epsn   uint32
	msg    wire.Opcode // of the first packet of the message under way; 0: none
	got    uint32      // bytes of it
	va     uint64      // WRITE
	rkey   provider.RKey
	length uint32
}

func newUC(q *qp) *ucEngine {
	e := &ucEngine{}
	e.init(q)
	return e
}

func (e *ucEngine) check(wr *provider.WR, sge []provider.SGE) error {
	switch wr.Opcode {
	case provider.WRSend, provider.WRSendWithImm, provider.WRRDMAWrite, provider.WRRDMAWriteWithImm,
		provider.WRLocalInv, provider.WRBindMW:
	default:
		return syscall.EINVAL
	}
	_, err := e.checkList(wr, sge)
	return err
}

func (e *ucEngine) postSend(wr *provider.WR, sge []provider.SGE) error {
	if err := e.check(wr, sge); err != nil {
		return err
	}
	length, _ := rc.Total(sge)
	return e.enqueue(wr, sge, length, path{})
}

func (e *ucEngine) query(a *provider.QPAttr) {
	e.unacked.query(a)
	a.RQPSN = e.epsn
}

func (e *ucEngine) modify(_ int64, a *provider.QPAttr, mask provider.QPAttrMask) error {
	if mask&provider.QPAttrRQPSN != 0 {
		e.epsn = a.RQPSN & wire.PSNMask
	}
	if mask&provider.QPAttrState != 0 && a.State == provider.QPSReset {
		e.epsn, e.msg = 0, 0
	}
	e.set(a, mask)
	return nil
}

func (e *ucEngine) pump(_ int64, budget int) int {
	sent := 0
	for ; sent < budget && e.mayBegin(); sent++ {
		w := e.at(e.head)
		switch w.wr.Opcode {
		case provider.WRLocalInv:
			if !e.mem.Invalidate(provider.RKey(w.wr.Imm), false) {
				e.fail(provider.WCLocQPOpErr)
				continue
			}
			e.retire(provider.WCSuccess)
			continue
		case provider.WRBindMW:
			if !e.mem.Bind(&w.wr) {
				e.fail(provider.WCMWBindErr)
				continue
			}
			e.retire(provider.WCSuccess)
			continue
		}
		size := min(w.length-e.off, uint32(e.mtu))
		if !e.payload(w, e.off, size) {
			e.fail(provider.WCLocProtErr)
			continue
		}
		e.header(w, e.off == 0, e.off+size == w.length)
		e.psn = (e.psn + 1) & wire.PSNMask
		e.n.send(e.path.link, e.path.dst, &e.pkt, e.segs, int(size))
		if e.off += size; e.off == w.length {
			e.retire(provider.WCSuccess)
		}
	}
	e.checkSQD()
	return sent
}

// header fills in the packet for a place in a message.
func (e *ucEngine) header(w *sendReq, first, last bool) {
	base, imm := wire.UCSendFirst, false
	switch w.wr.Opcode {
	case provider.WRSendWithImm:
		imm = true
	case provider.WRRDMAWrite:
		base = wire.UCWriteFirst
	case provider.WRRDMAWriteWithImm:
		base, imm = wire.UCWriteFirst, true
	}
	p := &e.pkt
	*p = wire.Packet{PKey: defaultPKey, DestQP: e.attr.DestQPN, PSN: e.psn, VA: w.wr.RemoteAddr, RKey: uint32(w.wr.RKey), DMALen: w.length}
	switch {
	case first && last:
		p.Opcode = base + 4
	case first:
		p.Opcode = base
	case last:
		p.Opcode = base + 2
	default:
		p.Opcode = base + 1
	}
	if last {
		p.Solicited = w.wr.Flags&provider.SendSolicited != 0 && w.wr.Opcode != provider.WRRDMAWrite
		if imm {
			p.Opcode++
			p.Imm = w.wr.Imm
		}
	}
}

func (e *ucEngine) input(_ int64, i int, rx *link.Rx) {
	p := &rx.Pkt
	st := &e.n.stat
	if p.Opcode < wire.UCSendFirst || p.Opcode > wire.UCWriteOnlyImm {
		st.BadOpcode++
		return
	}
	if !e.receives() || !e.fromPeer(i, rx) {
		return
	}
	lost := p.PSN != e.epsn
	e.epsn = (p.PSN + 1) & wire.PSNMask
	o := p.Opcode - wire.UCSendFirst
	write := o >= 6
	if write {
		o -= 6
	}
	first, last, imm := o == 0 || o >= 4, o >= 2, o == 3 || o == 5
	base := wire.UCSendFirst
	if write {
		base = wire.UCWriteFirst
	}
	if lost || first {
		if e.msg != 0 || lost && !first {
			st.OutOfOrder++
		}
		e.msg, e.got = 0, 0
	}
	if first {
		e.msg = base
		e.va, e.rkey, e.length = p.VA, provider.RKey(p.RKey), p.DMALen
	}
	n := len(p.Payload)
	if e.msg != base || n > e.mtu || !last && n != e.mtu {
		e.msg = 0
		return
	}
	var ok bool
	if write {
		ok = e.writeIn(p, first, last, imm)
	} else {
		ok = e.sendIn(p)
	}
	if !ok {
		e.msg = 0
		return
	}
	e.got += uint32(n)
	if last {
		e.done(p, write, imm)
	}
}

func (e *ucEngine) sendIn(p *wire.Packet) bool {
	if !e.takeRecv() {
		return false
	}
	if uint64(e.got)+uint64(len(p.Payload)) > uint64(e.space) {
		e.n.stat.TooLong++
		return false
	}
	if !rc.Scatter(e.mem, e.recv.SGE, e.got, p.Payload) {
		e.recvErr(provider.WCLocProtErr)
		e.toErr()
		return false
	}
	return true
}

func (e *ucEngine) writeIn(p *wire.Packet, first, last, imm bool) bool {
	n := uint32(len(p.Payload))
	end := uint64(e.got) + uint64(n)
	ok := e.attr.AccessFlags&provider.AccessRemoteWrite != 0 && e.length <= maxMsg && end <= uint64(e.length) && last == (end == uint64(e.length))
	if ok && first && e.length > 0 {
		_, ok = e.mem.Remote(e.rkey, e.va, e.length, provider.AccessRemoteWrite)
	}
	var b []byte
	if ok && n > 0 {
		b, ok = e.mem.Remote(e.rkey, e.va+uint64(e.got), n, provider.AccessRemoteWrite)
	}
	if !ok {
		e.n.stat.BadWrite++
		return false
	}
	if imm && !e.takeRecv() {
		return false
	}
	copy(b, p.Payload)
	return true
}

// done ends a message.
func (e *ucEngine) done(p *wire.Packet, write, imm bool) {
	e.msg = 0
	if write && !imm {
		return
	}
	e.wc = provider.WC{Opcode: provider.WCRecv, ByteLen: e.got, SrcQP: e.attr.DestQPN}
	if write {
		e.wc.Opcode = provider.WCRecvRDMAWithImm
	}
	if imm {
		e.wc.Flags = provider.WCWithImm
		e.wc.SetImm(p.Imm)
	}
	e.recvDone(p.Solicited)
}
