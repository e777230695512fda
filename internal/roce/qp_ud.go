package roce

import (
	"net/netip"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
	"github.com/zrdma/zrdma/internal/roce/rc"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// udEngine is an unreliable datagram queue pair: one packet a message.
type udEngine struct {
	unacked
	grh [grhSize]byte
}

func newUD(q *qp) *udEngine {
	e := &udEngine{}
	e.init(q)
	return e
}

func (e *udEngine) check(wr *provider.WR, sge []provider.SGE) error {
	if wr.Opcode != provider.WRSend && wr.Opcode != provider.WRSendWithImm || e.n.ahs[wr.AH] == nil {
		return syscall.EINVAL
	}
	_, err := e.checkList(wr, sge)
	return err
}

func (e *udEngine) postSend(wr *provider.WR, sge []provider.SGE) error {
	if err := e.check(wr, sge); err != nil {
		return err
	}
	length, _ := rc.Total(sge)
	return e.enqueue(wr, sge, length, e.n.ahs[wr.AH].path)
}

func (e *udEngine) modify(_ int64, a *provider.QPAttr, mask provider.QPAttrMask) error {
	e.set(a, mask)
	return nil
}

func (e *udEngine) pump(_ int64, budget int) int {
	sent := 0
	for ; sent < budget && e.mayBegin(); sent++ {
		w := e.at(e.head)
		switch {
		case int(w.length) > e.n.links[w.path.link].MTU():
			e.fail(provider.WCLocLenErr)
			continue
		case !e.payload(w, 0, w.length):
			e.fail(provider.WCLocProtErr)
			continue
		}
		p := &e.pkt
		*p = wire.Packet{Opcode: wire.UDSendOnly, PKey: defaultPKey, DestQP: w.wr.RemoteQPN & wire.PSNMask, PSN: e.psn,
			QKey: w.wr.RemoteQKey, SrcQP: e.num, Solicited: w.wr.Flags&provider.SendSolicited != 0}
		if p.QKey>>31 != 0 { // the controlled Q_Keys are not the poster's to choose
			p.QKey = e.attr.QKey
		}
		if w.wr.Opcode == provider.WRSendWithImm {
			p.Opcode, p.Imm = wire.UDSendOnlyImm, w.wr.Imm
		}
		e.psn = (e.psn + 1) & wire.PSNMask
		if w.path.dst.IsMulticast() {
			e.n.toGroup(w.path, p, e.segs, int(w.length))
		} else {
			e.n.send(w.path.link, w.path.dst, p, e.segs, int(w.length))
		}
		e.retire(provider.WCSuccess)
	}
	e.checkSQD()
	return sent
}

func (e *udEngine) input(_ int64, i int, rx *link.Rx) {
	e.receive(rx.Src, e.n.links[i].Addr(), &rx.Pkt)
}

// receive takes a message that was sent to dst.
func (e *udEngine) receive(src, dst netip.Addr, p *wire.Packet) {
	st := &e.n.stat
	switch {
	case p.Opcode != wire.UDSendOnly && p.Opcode != wire.UDSendOnlyImm:
		st.BadOpcode++
		return
	case !e.receives():
		return
	case p.QKey != e.attr.QKey:
		st.BadQKey++
		return
	case !e.takeRecv():
		return
	case uint64(e.space) < grhSize+uint64(len(p.Payload)):
		st.TooLong++
		return
	}
	size := p.Opcode.HeaderLen() + len(p.Payload) + wire.Pad(len(p.Payload)) + wire.ICRCSize
	putGRH(&e.grh, src, dst, size)
	if !rc.Scatter(e.mem, e.recv.SGE, 0, e.grh[:]) || !rc.Scatter(e.mem, e.recv.SGE, grhSize, p.Payload) {
		e.recvErr(provider.WCLocProtErr)
		e.toErr()
		return
	}
	e.wc = provider.WC{Opcode: provider.WCRecv, ByteLen: uint32(grhSize + len(p.Payload)), SrcQP: p.SrcQP}
	if p.Opcode == wire.UDSendOnlyImm {
		e.wc.Flags = provider.WCWithImm
		e.wc.SetImm(p.Imm)
	}
	e.recvDone(p.Solicited)
}
