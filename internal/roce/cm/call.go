package cm

import (
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

const (
	hopLimit = 64
	maxMTU   = 5 // 4096 bytes

	errTimedOut = syscall.ETIMEDOUT
	errInval    = syscall.EINVAL
)

// Reasons of a REJ that we give.
const (
	rejTimeout   = 4
	rejCommID    = 6
	rejService   = 8
	rejTransport = 9
	rejStale     = 10
	rejGID       = 12
	rejMTU       = 26
	rejConsumer  = 28
	rejVendor    = 35
)

// Statuses of a SIDR_REP.
const (
	sidrOK          = 0
	sidrUnsupported = 1
	sidrReject      = 2
)

// request is what an id asks a peer for.
type request struct {
	owner              any
	local, peer        netip.Addr
	localPort          uint16
	service            uint64
	qpn                uint32
	respRes, initDepth uint8
	flow, srq          bool
	retry, rnr         uint8
	mtu                uint8
	ackTimeout         uint8
	tclass             uint8
	flowLabel          uint32
	vendor, mod        uint32
	private            []byte
}

// connect sends a REQ: noteReply, noteRejected or noteUnreachable follows.
func (m *machine) connect(now time.Time, r *request) *conn {
	m.now = now
	c := m.newConn(stReqSent, r.local, r.peer)
	c.owner, c.service, c.localQPN, c.rqPSN = r.owner, r.service, r.qpn, m.psn()
	c.respRes, c.initDepth, c.retry = r.respRes, r.initDepth, r.retry
	c.ackTimeout, c.mtu, c.tclass, c.flowLabel = r.ackTimeout, r.mtu, r.tclass, r.flowLabel
	c.tid = m.newTID(c)
	q := req{
		localID: c.id, service: r.service, guid: m.guid, vendor: r.vendor, qpn: r.qpn,
		respRes: r.respRes, initDepth: r.initDepth, remoteTimeout: respTime, flow: r.flow,
		psn: c.rqPSN, localTimeout: respTime, retry: r.retry, pkey: anyPKey, mtu: r.mtu, rnr: r.rnr,
		maxRetries: maxTries, srq: r.srq, lids: [2]uint16{0xffff, 0xffff},
		localGID: r.local.As16(), remoteGID: r.peer.As16(),
		flowLabel: r.flowLabel, tclass: r.tclass, hop: hopLimit, ackTimeout: r.ackTimeout,
	}
	e := endpoints{src: netip.AddrPortFrom(r.local, r.localPort), dst: r.peer}
	e.put(q.private[:addrSize])
	copy(q.private[addrSize:], r.private)
	header{attr: attrREQ, tid: c.tid, mod: r.mod}.put(&c.msg)
	q.put(&c.msg)
	m.persist(c)
	return c
}

// lookup sends a SIDR_REQ: noteSidrReply or noteUnreachable follows.
func (m *machine) lookup(now time.Time, r *request) *conn {
	m.now = now
	c := m.newConn(stSidrSent, r.local, r.peer)
	c.owner, c.service, c.tclass, c.flowLabel = r.owner, r.service, r.tclass, r.flowLabel
	c.tid = m.newTID(c)
	q := sidrReq{id: c.id, pkey: anyPKey, service: r.service}
	e := endpoints{src: netip.AddrPortFrom(r.local, r.localPort), dst: r.peer}
	e.put(q.private[:addrSize])
	copy(q.private[addrSize:], r.private)
	header{attr: attrSIDRREQ, tid: c.tid}.put(&c.msg)
	q.put(&c.msg)
	m.persist(c)
	return c
}

func (m *machine) newTID(c *conn) uint64 { return 1<<32 | uint64(c.id) }

// answer is how an id agrees to a connection.
type answer struct {
	qpn                uint32
	respRes, initDepth uint8
	flow, srq          bool
	rnr                uint8
	ackDelay           uint8
	vendor, mod        uint32
	private            []byte
}

// accept sends a REP: noteEstablished, noteRejected, noteDisconnected or
// noteUnreachable follows.
func (m *machine) accept(now time.Time, c *conn, a *answer) error {
	m.now = now
	if c.st != stReqRcvd {
		return errInval
	}
	c.st, c.localQPN, c.respRes, c.initDepth = stRepSent, a.qpn, a.respRes, a.initDepth
	p := rep{
		localID: c.id, remoteID: c.peerID, qpn: a.qpn, vendor: a.vendor, psn: c.rqPSN,
		respRes: a.respRes, initDepth: a.initDepth, ackDelay: a.ackDelay, flow: a.flow, rnr: a.rnr, srq: a.srq, guid: m.guid,
	}
	copy(p.private[:], a.private)
	c.msg = mad{}
	header{attr: attrREP, tid: c.tid, mod: a.mod}.put(&c.msg)
	p.put(&c.msg)
	m.waiting[a.qpn] = c
	m.persist(c)
	return nil
}

// answerLookup sends the SIDR_REP. The request is then done with.
func (m *machine) answerLookup(now time.Time, c *conn, status uint8, qpn, qkey uint32, private []byte) error {
	m.now = now
	if c.st != stSidrRcvd {
		return errInval
	}
	p := sidrRep{id: c.peerID, status: status, qpn: qpn, service: c.service, qkey: qkey}
	copy(p.private[:], private)
	c.msg = mad{}
	header{attr: attrSIDRREP, tid: c.tid}.put(&c.msg)
	p.put(&c.msg)
	m.refuse(c, stSidrDone)
	m.orphan(c)
	return nil
}

// putREJ fills c.msg with a refusal of the message that c's state says came.
func (m *machine) putREJ(c *conn, about uint8, reason uint16, info, private []byte) {
	r := rej{localID: c.id, remoteID: c.peerID, about: about, reason: reason, infoLen: uint8(len(info))}
	copy(r.info[:], info)
	copy(r.private[:], private)
	c.msg = mad{}
	header{attr: attrREJ, tid: c.tid}.put(&c.msg)
	r.put(&c.msg)
}

// reject refuses a request, or an answer. c is done with.
func (m *machine) reject(now time.Time, c *conn, reason uint16, private []byte) error {
	m.now = now
	switch c.st {
	case stReqRcvd:
		m.putREJ(c, aboutREQ, reason, nil, private)
		m.refuse(c, stRejected)
	case stRepRcvd:
		m.putREJ(c, aboutREP, reason, nil, private)
		m.send(c, &c.msg)
		m.free(c)
	default:
		return errInval
	}
	m.orphan(c)
	return nil
}

// ready completes a connection that the peer agreed to.
func (m *machine) ready(now time.Time, c *conn) error {
	m.now = now
	if c.st != stRepRcvd {
		return errInval
	}
	c.st = stEstablished
	m.sendIDs(c, attrRTU)
	return nil
}

// arrived says that data came on a connection: the RTU is not missed any more.
func (m *machine) arrived(now time.Time, c *conn) error {
	m.now = now
	switch c.st {
	case stRepSent:
		m.establish(c)
		return nil
	case stEstablished:
		return syscall.EISCONN
	}
	return errInval
}

func (m *machine) establish(c *conn) {
	m.stop(c)
	if m.waiting[c.localQPN] == c {
		delete(m.waiting, c.localQPN)
	}
	c.st = stEstablished
	m.notify(notice{kind: noteEstablished, c: c})
}

// sendIDs sends an RTU or a DREP, which are not repeated of themselves.
func (m *machine) sendIDs(c *conn, a attrID) {
	var b mad
	header{attr: a, tid: c.tid}.put(&b)
	x := ids{localID: c.id, remoteID: c.peerID}
	x.put(&b)
	m.send(c, &b)
}

// disconnect ends a connection, or agrees to its end; nothing in other states.
func (m *machine) disconnect(now time.Time, c *conn) {
	m.now = now
	switch c.st {
	case stEstablished:
		m.sendDREQ(c)
	case stDreqRcvd:
		m.sendIDs(c, attrDREP)
		m.timewait(c)
	}
}

func (m *machine) sendDREQ(c *conn) {
	c.st, c.tid = stDreqSent, m.newTID(c)
	c.msg = mad{}
	header{attr: attrDREQ, tid: c.tid}.put(&c.msg)
	x := ids{c.id, c.peerID, c.peerQPN}
	x.put(&c.msg)
	m.persist(c)
}

// destroy takes c from its owner, who hears no more of it. The peer is told.
func (m *machine) destroy(now time.Time, c *conn) {
	m.now = now
	switch c.st {
	case stReqSent:
		// By the id alone the peer cannot know whose it is: hence the GUID.
		m.putREJ(c, aboutOther, rejTimeout, be.AppendUint64(nil, m.guid), nil)
		m.send(c, &c.msg)
		m.free(c)
	case stSidrSent:
		m.free(c)
	case stReqRcvd, stRepRcvd:
		_ = m.reject(now, c, rejConsumer, nil)
	case stRepSent:
		m.putREJ(c, aboutOther, rejConsumer, nil, nil)
		m.refuse(c, stRejected)
		// A peer that never saw our id matches only a refusal of its request.
		m.putREJ(c, aboutREQ, rejConsumer, nil, nil)
	case stSidrRcvd:
		_ = m.answerLookup(now, c, sidrReject, 0, 0, nil)
	case stEstablished, stDreqRcvd:
		m.disconnect(now, c)
	}
	m.orphan(c)
}

// farewell says of every connection, once more, that it ends. The order is that
// of their ids, for runs that are to be the same.
func (m *machine) farewell(now time.Time) {
	for _, i := range slices.Sorted(maps.Keys(m.conns)) {
		switch c := m.conns[i]; {
		case c == nil: // evicted just now
		case c.st == stDreqSent:
			m.send(c, &c.msg)
		default:
			m.destroy(now, c)
		}
	}
}

// abandon undoes a request whose first message could not be sent.
func (m *machine) abandon(c *conn) {
	c.owner = nil
	m.free(c)
}

func (m *machine) listen(l *listener) { m.listeners[l.service] = append(m.listeners[l.service], l) }

func (m *machine) unlisten(l *listener) {
	s := m.listeners[l.service]
	for i, x := range s {
		if x == l {
			s = append(s[:i:i], s[i+1:]...)
			break
		}
	}
	if m.listeners[l.service] = s; len(s) == 0 {
		delete(m.listeners, l.service)
	}
}

// listener finds who is offered a connection to dst: one on that very address first.
func (m *machine) listener(service uint64, dst netip.Addr) (found *listener) {
	for _, l := range m.listeners[service] {
		if l.takes(dst) && (found == nil || !l.addr.IsUnspecified() || found.addr.IsUnspecified() && l.addr.Is4() == dst.Is4()) {
			found = l
		}
	}
	return found
}
