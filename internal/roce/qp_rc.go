package roce

import (
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
	"github.com/zrdma/zrdma/internal/roce/rc"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// rcEngine joins package rc to the device; it is the rc.Sink.
type rcEngine struct {
	*qp
	t *rc.QP
}

// probeAfter is how long a peer may be silent, in nanoseconds, before it is asked
// whether something was lost: long for a network, short for an ACK timeout.
const probeAfter = 4_000_000

const (
	// longRead is what one READ asks for where a socket has roomyBuffer, some of them
	// at a time: a long answer fills its system calls better.
	longRead    = 512 << 10
	roomyBuffer = 4 << 20
)

// readChunk is rc.Config.ReadChunk, 0 for its default.
func (n *node) readChunk() int {
	for _, l := range n.links {
		if b, ok := l.(interface{ RecvBuffer() int }); !ok || b.RecvBuffer() < roomyBuffer {
			return 0
		}
	}
	return longRead
}

func newRC(q *qp) *rcEngine {
	e := &rcEngine{qp: q}
	cfg := rc.Config{QPN: q.num, Cap: q.cap, SQSigAll: q.sigAll, Mem: q.n.mem.view(q.pd, q.num), Sink: e, PKey: defaultPKey,
		Probe: probeAfter, Stats: &q.n.stat.RC, ReadChunk: q.n.readChunk()}
	if q.srq != nil {
		cfg.SRQ = q.srq
	}
	e.t = rc.New(cfg)
	return e
}

func (e *rcEngine) check(wr *provider.WR, sge []provider.SGE) error { return e.t.CheckSend(wr, sge) }
func (e *rcEngine) room() int                                       { return e.t.SendRoom() }
func (e *rcEngine) postSend(wr *provider.WR, sge []provider.SGE) error {
	return e.t.PostSend(wr, sge)
}
func (e *rcEngine) postRecv(id uint64, sge []provider.SGE) error { return e.t.PostRecv(id, sge) }
func (e *rcEngine) modify(now int64, a *provider.QPAttr, mask provider.QPAttrMask) error {
	return e.t.Modify(now, a, mask)
}
func (e *rcEngine) query(a *provider.QPAttr)       { *a = e.t.Attr() }
func (e *rcEngine) state() provider.QPState        { return e.t.State() }
func (e *rcEngine) pump(now int64, budget int) int { return e.t.Pump(now, budget) }
func (e *rcEngine) flushAcks()                     { e.t.FlushAcks() }
func (e *rcEngine) canWait(polled bool) bool {
	return e.t.AckCanWait() && (polled || e.t.AckIsIdle())
}
func (e *rcEngine) tick(now int64)  { e.t.Tick(now) }
func (e *rcEngine) deadline() int64 { return e.t.NextDeadline() }

func (e *rcEngine) input(now int64, i int, rx *link.Rx) {
	if rx.Pkt.Opcode > wire.RCSendOnlyInv {
		e.n.stat.BadOpcode++
		return
	}
	switch e.t.State() {
	case provider.QPSRTR, provider.QPSRTS, provider.QPSSQD:
	default:
		e.n.stat.BadState++
		return
	}
	if !e.fromPeer(i, rx) {
		return
	}
	e.t.Input(now, &rx.Pkt)
}

// fromPeer checks that a packet came from the peer, on the link that leads there.
func (q *qp) fromPeer(i int, rx *link.Rx) bool {
	if i == q.path.link && (rx.Src == q.path.dst || rx.Src.WithZone("") == q.path.dst.WithZone("")) {
		return true
	}
	q.n.stat.BadSource++
	return false
}

// Packet implements rc.Sink.
func (e *rcEngine) Packet(p *wire.Packet, segs [][]byte, size int) {
	e.n.send(e.path.link, e.path.dst, p, segs, size)
}

// SendDone implements rc.Sink.
func (e *rcEngine) SendDone(wc *provider.WC) { e.scq.push(wc, wc.Status != provider.WCSuccess) }

// RecvDone implements rc.Sink. Completions of every transport have the flag that
// says where a datagram came from, as on rxe; only datagrams have the header.
func (e *rcEngine) RecvDone(wc *provider.WC, solicited bool) {
	e.pushRecv(wc, solicited)
}

// Event implements rc.Sink.
func (e *rcEngine) Event(t provider.EventType) { e.event(t) }

// pushRecv completes a receive.
func (q *qp) pushRecv(wc *provider.WC, solicited bool) {
	if wc.Status == provider.WCSuccess {
		wc.Flags |= provider.WCGRH
	}
	q.rcq.push(wc, solicited || wc.Status != provider.WCSuccess)
}
