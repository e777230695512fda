package cm

import (
	"container/list"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Times and bounds of the protocol.
const (
	firstWait  = 250 * time.Millisecond // for the first answer; doubled for each try
	maxTries   = 15                     // messages of one kind beside the first, as rdma_cm's
	orphanTry  = 5                      // the same for a DREQ whose id is gone
	respTime   = 20                     // what we may take to answer, 4.096 us * 2^t: 4.3 s
	longest    = 4300 * time.Millisecond
	mraTime    = 24 // how long an application may take to answer: 69 s, as rdma_cm's
	mraMax     = 70 * time.Second
	rememberNo = 8 * time.Second // a refusal, for a request that is repeated

	defaultAck = 15 // 4.096 us * 2^15 = 134 ms to wait for an acknowledgement

	maxParked  = 4096 // connections that no id belongs to any more
	maxBacklog = 1024

	udQKey  = 0x01234567 // of rdma_cm's datagram services
	anyPKey = 0xffff
)

// expTime is a time in the encoding of the messages.
func expTime(t uint8) time.Duration { return 4096 * time.Nanosecond << min(t, 31) }

type state uint8

const (
	stClosed state = iota // not in the machine any more
	stReqSent
	stReqRcvd
	stRepSent
	stRepRcvd
	stEstablished
	stDreqSent
	stDreqRcvd
	stTimewait
	stRejected // we refused; msg answers repetitions
	stSidrSent
	stSidrRcvd
	stSidrDone // we answered; msg answers repetitions
)

// conn is a connection, or the asking for one. The machine owns it; its owner
// knows it until destroy.
type conn struct {
	owner any // nil once nobody is told any more
	st    state

	id, peerID          uint32
	tid                 uint64
	local, peer         netip.Addr // without zones
	service             uint64
	localQPN, peerQPN   uint32
	sqPSN, rqPSN        uint32
	respRes, initDepth  uint8 // our own end's
	retry, rnr          uint8
	ackTimeout, mtu     uint8
	tclass              uint8
	flowLabel           uint32
	peerVendor, peerMod uint32 // its ECE
	passive             bool

	msg   mad // the one that is sent again
	tries int
	wait  time.Duration
	limit time.Duration // waits grow up to this: what the peer may take to answer

	deadline time.Time     // zero for none
	slot     int           // in the heap, plus one
	parked   *list.Element // in machine.parked
}

// peerKey names a request as its sender did.
type peerKey struct {
	peer netip.Addr
	id   uint32
	sidr bool
}

type qpnKey struct {
	peer netip.Addr
	qpn  uint32
}

// listener is one that connections to a service are offered to.
type listener struct {
	owner   any
	service uint64
	addr    netip.Addr // unspecified for all
	dual    bool       // :: takes IPv4 as well
	backlog int
	pending int // offered and not taken; guarded by what guards the machine
}

func (l *listener) takes(dst netip.Addr) bool {
	if !l.addr.IsUnspecified() {
		return l.addr == dst
	}
	return l.addr.Is4() == dst.Is4() || l.dual
}

// Stats count what a manager did with messages.
type Stats struct {
	In, Out, Repeated uint64
	Malformed         uint64 // no message of a connection manager, or with impossible content
	Unknown           uint64 // about no connection of ours, or not in this state
	BacklogDrops      uint64 // requests over a listener's backlog
	Evicted           uint64 // former connections forgotten early, for there were too many
}

// machine is the protocol without a clock, a socket or a lock: an event goes in
// with its time, messages and notices come out in out.
//
// Invariants: a conn is in conns as long as it is not stClosed; it is in byPeer
// when the peer asked for it, in byQPN while it uses the peer's queue pair; one
// without an owner is in parked, at most maxParked of them, and has a deadline.
type machine struct {
	now       time.Time
	guid      uint64
	conns     map[uint32]*conn
	byPeer    map[peerKey]*conn
	byQPN     map[qpnKey]*conn
	waiting   map[uint32]*conn // stRepSent by our queue pair
	listeners map[uint64][]*listener
	timers    timerHeap
	parked    *list.List
	nextID    uint32
	rnd       *rand.Rand
	stats     Stats
	out       outbox
}

func newMachine(guid uint64, rnd *rand.Rand) *machine {
	return &machine{
		guid: guid, rnd: rnd, nextID: rnd.Uint32(),
		conns: map[uint32]*conn{}, byPeer: map[peerKey]*conn{}, byQPN: map[qpnKey]*conn{},
		waiting: map[uint32]*conn{}, listeners: map[uint64][]*listener{}, parked: list.New(),
	}
}

// datagram is a message to send, with addresses that have no zone.
type datagram struct {
	src, dst netip.Addr
	mad      mad
}

type noticeKind uint8

const (
	noteRequest      noticeKind = iota // listener is offered a connection
	noteReply                          // the peer agrees
	noteEstablished                    // the peer knows that we agreed
	noteRejected                       // status is the reason
	noteUnreachable                    // status is minus an errno
	noteDisconnected                   // the same
	noteTimewaitExit
	noteSidrReply // status is the service's
)

// notice is for the owner of a connection, or of the listener with noteRequest.
type notice struct {
	kind     noticeKind
	c        *conn
	listener *listener
	status   int32
	from     endpoints // of a request
	private  []byte
	respRes  uint8 // the peer's wishes seen from our end
	initDep  uint8
	flow     bool
	srq      bool
	retry    uint8
	rnr      uint8
	qpn      uint32
	qkey     uint32
}

type outbox struct {
	sends   []datagram
	notices []notice
}

func (m *machine) psn() uint32 { return m.rnd.Uint32() & 0xffffff }

// newConn makes a connection with an id of its own, never 0.
func (m *machine) newConn(st state, local, peer netip.Addr) *conn {
	for m.nextID == 0 || m.conns[m.nextID] != nil {
		m.nextID++
	}
	c := &conn{st: st, id: m.nextID, local: local, peer: peer, limit: longest}
	m.nextID++
	m.conns[c.id] = c
	return c
}

func (c *conn) peerKey() peerKey {
	return peerKey{c.peer, c.peerID, c.st == stSidrRcvd || c.st == stSidrDone}
}

// usePeerQPN says that c has the peer's queue pair.
func (m *machine) usePeerQPN(c *conn, qpn uint32) {
	c.peerQPN = qpn
	m.byQPN[qpnKey{c.peer, qpn}] = c
}

func (m *machine) dropPeerQPN(c *conn) {
	if k := (qpnKey{c.peer, c.peerQPN}); m.byQPN[k] == c {
		delete(m.byQPN, k)
	}
}

func (m *machine) notify(n notice) {
	if n.listener != nil || n.c.owner != nil {
		m.out.notices = append(m.out.notices, n)
	}
}

func (m *machine) send(c *conn, b *mad) { m.sendTo(c.local, c.peer, b) }

func (m *machine) sendTo(src, dst netip.Addr, b *mad) {
	m.stats.Out++
	m.out.sends = append(m.out.sends, datagram{src, dst, *b})
}

// persist sends c.msg now and again until stop.
func (m *machine) persist(c *conn) {
	c.tries, c.wait = 0, firstWait
	m.send(c, &c.msg)
	m.arm(c, c.wait)
}

func (m *machine) arm(c *conn, d time.Duration) { m.timers.set(c, m.now.Add(d)) }

func (m *machine) stop(c *conn) { m.timers.remove(c) }

// free forgets c.
func (m *machine) free(c *conn) {
	if c.st == stClosed {
		return
	}
	if k := c.peerKey(); c.passive && m.byPeer[k] == c {
		delete(m.byPeer, k)
	}
	m.leave(c)
	m.stop(c)
	if c.parked != nil {
		m.parked.Remove(c.parked)
		c.parked = nil
	}
	delete(m.conns, c.id)
	c.st = stClosed
}

// leave undoes what ends with the connection itself.
func (m *machine) leave(c *conn) {
	m.dropPeerQPN(c)
	if m.waiting[c.localQPN] == c {
		delete(m.waiting, c.localQPN)
	}
}

// orphan takes c from its owner. There are at most maxParked orphans: the one
// that has been one for longest is forgotten.
func (m *machine) orphan(c *conn) {
	c.owner = nil
	if c.st == stClosed || c.parked != nil {
		return
	}
	c.parked = m.parked.PushBack(c)
	if m.parked.Len() > maxParked {
		m.stats.Evicted++
		m.free(m.parked.Front().Value.(*conn))
	}
}

// timewait keeps c to answer late messages. It lasts as long as a packet of the
// connection may be under way.
func (m *machine) timewait(c *conn) {
	m.leave(c)
	c.st = stTimewait
	m.arm(c, max(expTime(c.ackTimeout), firstWait))
}

// refuse keeps c to repeat the answer in msg.
func (m *machine) refuse(c *conn, st state) {
	m.leave(c)
	c.st = st
	m.send(c, &c.msg)
	m.arm(c, rememberNo)
}

// next is when tick wants to be called; zero for never.
func (m *machine) next() time.Time {
	if len(m.timers) == 0 {
		return time.Time{}
	}
	return m.timers[0].deadline
}

// tick does what is due.
func (m *machine) tick(now time.Time) {
	m.now = now
	for len(m.timers) > 0 && !m.timers[0].deadline.After(now) {
		m.expire(m.timers[0])
	}
}

func (m *machine) expire(c *conn) {
	m.stop(c)
	switch c.st {
	case stReqSent, stRepSent, stDreqSent, stSidrSent:
		tries := maxTries
		if c.owner == nil {
			tries = orphanTry
		}
		if c.tries < tries {
			c.tries++
			m.stats.Repeated++
			c.wait = min(2*c.wait, c.limit)
			m.send(c, &c.msg)
			m.arm(c, c.wait)
			return
		}
		if c.st == stDreqSent {
			m.notify(notice{kind: noteDisconnected, c: c, status: -int32(errTimedOut)})
			m.timewait(c)
			return
		}
		m.notify(notice{kind: noteUnreachable, c: c, status: -int32(errTimedOut)})
		m.free(c)
	case stTimewait:
		m.notify(notice{kind: noteTimewaitExit, c: c})
		m.free(c)
	default:
		m.free(c)
	}
}
