package cm

import (
	"net/netip"
	"time"
)

// input takes a message. Whatever its content, it costs a bounded amount of
// memory: a request a place in a backlog, anything else nothing.
//
// A message about a connection counts only when it comes from the address that
// the connection is with.
func (m *machine) input(now time.Time, src, dst netip.Addr, b *mad) {
	m.now = now
	m.stats.In++
	h, ok := parseHeader(b)
	if !ok {
		m.stats.Malformed++
		return
	}
	switch h.attr {
	case attrREQ:
		m.inREQ(src, dst, h, b)
	case attrREP:
		ok = m.inREP(src, dst, h, b)
	case attrRTU:
		ok = m.inRTU(src, b)
	case attrREJ:
		ok = m.inREJ(src, b)
	case attrMRA:
		ok = m.inMRA(src, b)
	case attrDREQ:
		ok = m.inDREQ(src, dst, h, b)
	case attrDREP:
		ok = m.inDREP(src, b)
	case attrSIDRREQ:
		m.inSIDRREQ(src, dst, h, b)
	case attrSIDRREP:
		ok = m.inSIDRREP(src, b)
	default: // alternate paths are InfiniBand's
		ok = false
	}
	if !ok {
		m.stats.Unknown++
	}
}

// find gives our connection of that id, if it is with that peer under peerID.
func (m *machine) find(src netip.Addr, id, peerID uint32) *conn {
	if c := m.conns[id]; c != nil && c.peer == src && c.peerID == peerID {
		return c
	}
	return nil
}

// refuseREQ answers a request of which nothing is kept.
func (m *machine) refuseREQ(src, dst netip.Addr, h header, peerID uint32, reason uint16, info []byte) {
	var b mad
	header{attr: attrREJ, tid: h.tid}.put(&b)
	r := rej{remoteID: peerID, about: aboutREQ, reason: reason, infoLen: uint8(len(info))}
	copy(r.info[:], info)
	r.put(&b)
	m.sendTo(dst, src, &b)
}

func (m *machine) inREQ(src, dst netip.Addr, h header, b *mad) {
	var q req
	q.parse(b)
	k := peerKey{peer: src, id: q.localID}
	if c := m.byPeer[k]; c != nil {
		m.repeatedREQ(c, &q, h)
		return
	}
	no := func(reason uint16, info []byte) { m.refuseREQ(src, dst, h, q.localID, reason, info) }
	if q.transport != 0 || q.ext != 0 {
		no(rejTransport, nil)
		return
	}
	if c := m.byQPN[qpnKey{src, q.qpn}]; c != nil {
		if c.st != stReqRcvd && c.st != stRepSent {
			// The peer has lost the connection that used this queue pair.
			no(rejStale, nil)
			m.disconnect(m.now, c)
			return
		}
		// It gave up an earlier attempt with it.
		m.notify(notice{kind: noteRejected, c: c, status: rejTimeout})
		m.free(c)
	}
	l := m.listener(q.service, dst)
	if l == nil {
		no(rejService, nil)
		return
	}
	from, ok := parseEndpoints(q.private[:addrSize])
	if !ok || from.src.Addr() != src || from.dst != dst || q.localGID != src.As16() || q.remoteGID != dst.As16() {
		// Not an address that an answer reaches, or one of somebody else.
		m.stats.Malformed++
		no(rejGID, nil)
		return
	}
	if q.mtu < 1 || q.mtu > maxMTU {
		no(rejMTU, []byte{maxMTU << 4})
		return
	}
	if l.pending >= l.backlog {
		m.stats.BacklogDrops++
		return
	}
	l.pending++
	c := m.newConn(stReqRcvd, dst, src)
	c.passive, c.peerID, c.tid, c.service = true, q.localID, h.tid, q.service
	c.sqPSN, c.rqPSN = q.psn, m.psn()
	c.respRes, c.initDepth, c.retry, c.rnr = q.initDepth, q.respRes, q.retry, q.rnr
	c.mtu, c.tclass, c.flowLabel = q.mtu, q.tclass, q.flowLabel
	c.ackTimeout = q.ackTimeout
	c.peerVendor, c.peerMod = q.vendor, h.mod
	c.limit = min(max(expTime(q.localTimeout), firstWait), longest)
	m.byPeer[k] = c
	m.usePeerQPN(c, q.qpn)
	m.notify(notice{
		kind: noteRequest, c: c, listener: l, from: from, private: append([]byte(nil), q.private[addrSize:]...),
		respRes: c.respRes, initDep: c.initDepth, flow: q.flow, srq: q.srq, retry: q.retry, rnr: q.rnr, qpn: q.qpn,
	})
}

func (m *machine) repeatedREQ(c *conn, q *req, h header) {
	switch c.st {
	case stReqRcvd:
		m.sendMRA(c, aboutREQ)
	case stRepSent, stRejected:
		m.stats.Repeated++
		m.send(c, &c.msg)
	case stTimewait:
		m.refuseREQ(c.peer, c.local, h, q.localID, rejStale, nil)
	}
}

func (m *machine) sendMRA(c *conn, about uint8) {
	var b mad
	header{attr: attrMRA, tid: c.tid}.put(&b)
	x := mra{c.id, c.peerID, about, mraTime}
	x.put(&b)
	m.send(c, &b)
}

func (m *machine) inREP(src, dst netip.Addr, h header, b *mad) bool {
	var p rep
	p.parse(b)
	c := m.conns[p.remoteID]
	if c == nil || c.peer != src || c.passive || c.st != stReqSent && c.peerID != p.localID || c.st == stSidrSent {
		// Its connection is none of ours any more: end the peer's waiting.
		var b mad
		header{attr: attrREJ, tid: h.tid}.put(&b)
		r := rej{localID: p.remoteID, remoteID: p.localID, about: aboutREP, reason: rejCommID}
		r.put(&b)
		m.sendTo(dst, src, &b)
		return false
	}
	switch c.st {
	case stReqSent:
	case stRepRcvd:
		m.sendMRA(c, aboutREP)
		return true
	case stEstablished:
		m.sendIDs(c, attrRTU)
		return true
	default:
		return false
	}
	m.stop(c)
	c.st, c.peerID, c.sqPSN = stRepRcvd, p.localID, p.psn
	m.usePeerQPN(c, p.qpn)
	// What the peer serves limits what we ask, and the other way round.
	c.initDepth, c.respRes, c.rnr = min(c.initDepth, p.respRes), min(c.respRes, p.initDepth), p.rnr
	c.peerVendor, c.peerMod = p.vendor, h.mod
	m.notify(notice{
		kind: noteReply, c: c, private: append([]byte(nil), p.private[:]...),
		respRes: p.initDepth, initDep: p.respRes, flow: p.flow, srq: p.srq, rnr: p.rnr, qpn: p.qpn,
	})
	return true
}

func (m *machine) inRTU(src netip.Addr, b *mad) bool {
	var x ids
	x.parse(b)
	c := m.find(src, x.remoteID, x.localID)
	if c == nil || c.st != stRepSent {
		return c != nil
	}
	m.establish(c)
	return true
}

func (m *machine) inREJ(src netip.Addr, b *mad) bool {
	var r rej
	r.parse(b)
	var c *conn
	switch {
	case r.reason == rejTimeout && m.byPeer[peerKey{peer: src, id: r.localID}] != nil:
		c = m.byPeer[peerKey{peer: src, id: r.localID}]
	case r.about == aboutREQ:
		if c = m.conns[r.remoteID]; c == nil || c.peer != src || c.st != stReqSent {
			return false
		}
	default:
		c = m.find(src, r.remoteID, r.localID)
	}
	if c == nil {
		return false
	}
	n := notice{kind: noteRejected, c: c, status: int32(r.reason), private: append([]byte(nil), r.private[:]...)}
	switch c.st {
	case stReqSent, stReqRcvd, stRepSent, stRepRcvd:
		m.notify(n)
		m.free(c)
	case stEstablished, stDreqSent, stDreqRcvd:
		if c.st != stEstablished {
			n = notice{kind: noteDisconnected, c: c}
		}
		if c.st != stDreqRcvd {
			m.notify(n)
		}
		m.timewait(c)
	default:
		return false
	}
	return true
}

func (m *machine) inMRA(src netip.Addr, b *mad) bool {
	var x mra
	x.parse(b)
	c := m.conns[x.remoteID]
	switch {
	case c == nil || c.peer != src:
		return false
	case x.about == aboutREQ && c.st == stReqSent:
	case x.about == aboutREP && c.st == stRepSent && c.peerID == x.localID:
	default:
		return false
	}
	m.arm(c, max(c.wait, min(expTime(x.service), mraMax)))
	return true
}

func (m *machine) inDREQ(src, dst netip.Addr, h header, b *mad) bool {
	var x ids
	x.parse(b)
	c := m.find(src, x.remoteID, x.localID)
	if c == nil {
		// Whatever it was, it is over.
		var b mad
		header{attr: attrDREP, tid: h.tid}.put(&b)
		y := ids{localID: x.remoteID, remoteID: x.localID}
		y.put(&b)
		m.sendTo(dst, src, &b)
		return false
	}
	if c.localQPN != x.qpn {
		return false
	}
	switch c.st {
	case stRepSent, stEstablished:
		m.stop(c)
		c.tid = h.tid
		if c.st == stRepSent && m.waiting[c.localQPN] == c {
			delete(m.waiting, c.localQPN)
		}
		c.st = stDreqRcvd
		m.notify(notice{kind: noteDisconnected, c: c})
		if c.owner == nil {
			m.disconnect(m.now, c)
		}
	case stDreqSent:
		// Both said so at once; each answers the other.
		c.tid = h.tid
		m.sendIDs(c, attrDREP)
		m.notify(notice{kind: noteDisconnected, c: c})
		m.timewait(c)
	case stTimewait:
		c.tid = h.tid
		m.sendIDs(c, attrDREP)
	case stDreqRcvd: // until the application has said so as well
	default:
		return false
	}
	return true
}

func (m *machine) inDREP(src netip.Addr, b *mad) bool {
	var x ids
	x.parse(b)
	c := m.find(src, x.remoteID, x.localID)
	if c == nil || c.st != stDreqSent {
		return c != nil
	}
	m.notify(notice{kind: noteDisconnected, c: c})
	m.timewait(c)
	return true
}

func (m *machine) inSIDRREQ(src, dst netip.Addr, h header, b *mad) {
	var q sidrReq
	q.parse(b)
	k := peerKey{peer: src, id: q.id, sidr: true}
	if c := m.byPeer[k]; c != nil {
		if c.st == stSidrDone {
			m.stats.Repeated++
			m.send(c, &c.msg)
		}
		return
	}
	from, ok := parseEndpoints(q.private[:addrSize])
	l := m.listener(q.service, dst)
	if l == nil || !ok || from.src.Addr() != src || from.dst != dst {
		var b mad
		header{attr: attrSIDRREP, tid: h.tid}.put(&b)
		p := sidrRep{id: q.id, status: sidrUnsupported, service: q.service}
		p.put(&b)
		m.sendTo(dst, src, &b)
		return
	}
	if l.pending >= l.backlog {
		m.stats.BacklogDrops++
		return
	}
	l.pending++
	c := m.newConn(stSidrRcvd, dst, src)
	c.passive, c.peerID, c.tid, c.service = true, q.id, h.tid, q.service
	m.byPeer[k] = c
	m.notify(notice{kind: noteRequest, c: c, listener: l, from: from, private: append([]byte(nil), q.private[addrSize:]...)})
}

func (m *machine) inSIDRREP(src netip.Addr, b *mad) bool {
	var p sidrRep
	p.parse(b)
	c := m.conns[p.id]
	if c == nil || c.st != stSidrSent || c.peer != src {
		return false
	}
	n := notice{kind: noteSidrReply, c: c, status: int32(p.status), qpn: p.qpn, qkey: p.qkey, private: append([]byte(nil), p.private[:]...)}
	m.notify(n)
	m.free(c)
	return true
}
