package link

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// memBatch is how many packets go to an inbox, or to a handler, in one turn.
const memBatch = 64

// memLink is an address of a network in memory. Order of locks: rx before
// anything of the handler's; tx and inbox are innermost.
type memLink struct {
	counters
	net     *MemNetwork
	addr    netip.Addr
	handler Handler
	shift   *shift
	closed  atomic.Bool
	wg      sync.WaitGroup // the reader
	bell    chan struct{}  // capacity 1; wakes the reader

	tx struct {
		sync.Mutex // uncontended but for Close
		dst        netip.Addr
		to         *memLink // of dst
		batch      []*memPacket
		dirs       map[netip.Addr]*direction // Virtual
	}
	rx struct {
		sync.Mutex // held during the handler's call
		taken      []*memPacket
		pkts       []Rx
		addrs      wire.Addrs
	}
	_     [64]byte // what peers write to is apart from what pollers do
	inbox struct {
		sync.Mutex
		waiting atomic.Int32 // n, for a poller to look at: reading disturbs nobody
		ring    []*memPacket // of a power of two
		head    int
		n       int
		parked  bool // the reader waits for the bell
	}
	_       [64]byte
	pending atomic.Int64 // packets on their way, Virtual
}

// direction is the state of packets to one address, Virtual.
type direction struct {
	seed uint64
	n    uint64
	last int64 // arrival of the last one
}

// memPacket is a packet on its way, in memory of its own.
type memPacket struct {
	src netip.Addr
	pkt wire.Packet
	buf []byte
	raw bool // buf is the whole packet, to be checked
}

// size is the packet's on a wire.
func (m *memPacket) size() int {
	if m.raw {
		return len(m.buf)
	}
	return packetSize(&m.pkt, len(m.buf))
}

var memPackets = sync.Pool{New: func() any { return new(memPacket) }}

func newMemLink(n *MemNetwork, addr netip.Addr, h Handler) *memLink {
	l := &memLink{net: n, addr: addr, handler: h, shift: newShift(), bell: make(chan struct{}, 1)}
	l.tx.dirs = map[netip.Addr]*direction{}
	l.inbox.ring = make([]*memPacket, 64)
	l.rx.addrs = wire.Addrs{Dst: addr, SrcPort: wire.Port, DstPort: wire.Port, DF: true}
	return l
}

func (l *memLink) Addr() netip.Addr { return l.addr }
func (l *memLink) MTU() int         { return l.net.opts.MTU }
func (l *memLink) Stats() Stats     { return l.stats() }

// RecvBuffer is how many bytes can wait here.
func (l *memLink) RecvBuffer() int { return l.net.opts.Inbox * l.net.opts.MTU }

func (l *memLink) Idle() { l.shift.idle() }

// Send implements Link.
func (l *memLink) Send(dst netip.Addr, p *wire.Packet, segs [][]byte, n int) {
	if packetSize(p, n) == 0 {
		l.txDropped.Add(1)
		return
	}
	m := memPackets.Get().(*memPacket)
	m.src, m.pkt, m.raw = l.addr, *p, false
	m.buf = gather(m.buf[:0], segs, n)
	m.pkt.Payload = m.buf
	l.enqueue(dst.Unmap(), m)
}

func (l *memLink) sendRaw(dst netip.Addr, build rawPacket) {
	m := memPackets.Get().(*memPacket)
	m.src, m.raw = l.addr, true
	m.buf = build(m.buf[:0], &wire.Addrs{Src: l.addr, Dst: dst, SrcPort: wire.Port, DstPort: wire.Port, DF: true})
	l.enqueue(dst.Unmap(), m)
}

func (l *memLink) enqueue(dst netip.Addr, m *memPacket) {
	t := &l.tx
	t.Lock()
	defer t.Unlock()
	if len(t.batch) > 0 && (dst != t.dst || len(t.batch) == memBatch) {
		l.push()
	}
	t.dst = dst
	t.batch = append(t.batch, m)
}

// Flush implements Link.
func (l *memLink) Flush() error {
	l.tx.Lock()
	defer l.tx.Unlock()
	if l.closed.Load() {
		return net.ErrClosed
	}
	l.push()
	return nil
}

// push hands the batch to its destination. The caller holds tx.
func (l *memLink) push() {
	t := &l.tx
	n := len(t.batch)
	if n == 0 {
		return
	}
	if t.to == nil || t.to.addr != t.dst || t.to.closed.Load() {
		t.to = l.net.find(t.dst)
	}
	bytes := 0
	for _, m := range t.batch {
		bytes += m.size()
	}
	k := 0
	switch {
	case l.closed.Load() || t.to == nil:
		l.txDropped.Add(uint64(n))
	case l.net.time != nil:
		k = l.launch()
	default:
		k = t.to.accept(t.batch)
	}
	if t.to != nil {
		l.sent(n, bytes)
	}
	for _, m := range t.batch[k:] {
		memPackets.Put(m)
	}
	clear(t.batch)
	t.batch = t.batch[:0]
}

// launch sends the batch on its way in virtual time; it returns how many.
func (l *memLink) launch() int {
	t := &l.tx
	d := t.dirs[t.dst]
	if d == nil {
		d = &direction{seed: dirSeed(l.net.seed, l.addr, t.dst)}
		t.dirs[t.dst] = d
	}
	now, lat, to := l.net.time.now(), uint64(l.net.opts.Latency), t.to
	for i, m := range t.batch {
		if to.pending.Add(1) > int64(l.net.opts.Inbox) {
			to.pending.Add(-1)
			to.rxDropped.Add(uint64(len(t.batch) - i))
			return i
		}
		d.n++
		d.last = max(d.last+1, now+int64(lat+draw(d.seed, d.n, 0)%lat))
		l.net.time.add(d.last, d.seed, func() { to.arrive(m) })
	}
	return len(t.batch)
}

// arrive hands one packet to the handler.
func (l *memLink) arrive(m *memPacket) {
	l.pending.Add(-1)
	l.rx.Lock()
	defer l.rx.Unlock()
	l.rx.taken = append(l.rx.taken[:0], m)
	l.deliver()
}

// accept puts packets into the inbox, as many as there is room for.
func (l *memLink) accept(batch []*memPacket) int {
	b := &l.inbox
	b.Lock()
	k := min(len(batch), l.net.opts.Inbox-b.n)
	for b.n+k > len(b.ring) {
		l.grow()
	}
	for i, m := range batch[:k] {
		b.ring[(b.head+b.n+i)&(len(b.ring)-1)] = m
	}
	b.n += k
	b.waiting.Store(int32(b.n))
	ring := b.parked
	b.parked = false
	b.Unlock()
	if k < len(batch) {
		l.rxDropped.Add(uint64(len(batch) - k))
	}
	if ring {
		l.ring()
	}
	return k
}

func (l *memLink) grow() {
	b := &l.inbox
	r := make([]*memPacket, 2*len(b.ring))
	k := copy(r, b.ring[b.head:])
	copy(r[k:], b.ring[:b.head])
	b.ring, b.head = r, 0
}

func (l *memLink) ring() {
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// take moves packets from the inbox to rx.taken. When there are none and park is
// set, the bell rings with the next one.
func (l *memLink) take(park bool) {
	b := &l.inbox
	b.Lock()
	defer b.Unlock()
	k := min(b.n, memBatch)
	for range k {
		l.rx.taken = append(l.rx.taken, b.ring[b.head])
		b.ring[b.head] = nil
		b.head = (b.head + 1) & (len(b.ring) - 1)
	}
	b.n -= k
	b.waiting.Store(int32(b.n))
	if park && k == 0 {
		b.parked = true
	}
}

// receive hands a batch of what is in the inbox to the handler. The caller holds
// rx.
func (l *memLink) receive(park bool) int {
	l.rx.taken = l.rx.taken[:0]
	if l.closed.Load() {
		return 0
	}
	l.take(park)
	return l.deliver()
}

// deliver hands rx.taken to the handler. The caller holds rx.
func (l *memLink) deliver() int {
	r := &l.rx
	if len(r.taken) == 0 || l.closed.Load() {
		return 0
	}
	r.pkts = r.pkts[:0]
	bytes := 0
	for _, m := range r.taken {
		bytes += m.size()
		if m.raw && !l.check(m) {
			continue
		}
		r.pkts = append(r.pkts, Rx{Src: m.src, SrcPort: wire.Port, Pkt: m.pkt})
	}
	n := len(r.pkts)
	l.received(n, bytes)
	if n > 0 {
		l.handler.Input(l, r.pkts)
	}
	for i, m := range r.taken {
		memPackets.Put(m)
		r.taken[i] = nil
	}
	clear(r.pkts)
	return n
}

// check decodes a packet that is bytes.
func (l *memLink) check(m *memPacket) bool {
	m.pkt = wire.Packet{}
	l.rx.addrs.Src = m.src
	switch {
	case !l.rx.addrs.Check(m.buf):
		l.rxBadICRC.Add(1)
	case m.pkt.Decode(m.buf) != nil:
		l.rxMalformed.Add(1)
	default:
		return true
	}
	return false
}

// Poll implements Link.
func (l *memLink) Poll() int {
	if l.net.time != nil {
		return 0
	}
	l.shift.polls.Add(1)
	if l.inbox.waiting.Load() == 0 || !l.rx.TryLock() {
		return 0
	}
	defer l.rx.Unlock()
	return l.receive(false)
}

// read is the link's own goroutine.
func (l *memLink) read() {
	defer l.wg.Done()
	for !l.closed.Load() {
		idles := l.shift.idles.Load()
		if l.turn(false) || l.shift.doze(idles) || l.turn(true) {
			continue
		}
		<-l.bell
	}
}

// turn receives until there is nothing; it tells whether there was something.
func (l *memLink) turn(park bool) bool {
	l.rx.Lock()
	defer l.rx.Unlock()
	l.receive(park)
	return len(l.rx.taken) > 0
}

// Close implements Link.
func (l *memLink) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	l.net.mu.Lock()
	delete(l.net.links, l.addr)
	l.net.mu.Unlock()
	l.shift.rouse()
	l.ring()
	l.wg.Wait()
	// Whoever is in the handler by way of Poll, or of the timeline.
	l.rx.Lock()
	defer l.rx.Unlock()
	return nil
}
