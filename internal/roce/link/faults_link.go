package link

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// rawSender is a link that sends bytes as they are: what a network has damaged.
type rawSender interface {
	sendRaw(dst netip.Addr, build rawPacket)
}

// faultLink is a link with faults. It is the inner link's handler, too.
type faultLink struct {
	net     *Faults
	addr    netip.Addr
	handler Handler
	inner   Link
	opened  chan struct{} // closed once inner is set

	mu     sync.Mutex // held while the inner link sends
	closed bool
	dirs   map[netip.Addr]*faultDir

	// Input's own: one call at a time.
	in   map[netip.Addr]*faultDir
	pkts []Rx
}

// faultDir is the state of one direction.
type faultDir struct {
	src, dst netip.Addr
	seed     uint64
	n        uint64 // packets so far
	free     int64  // when the line is free, of Rate
	last     int64  // when the last delayed packet passes
	waiting  int    // bytes that wait
	held     []*heldPacket
}

// heldPacket is a copy of a packet.
type heldPacket struct {
	i    uint64
	pkt  wire.Packet
	data []byte
	fate Fate
	left int // packets that pass before it does
}

// Open implements Network.
func (f *Faults) Open(addr netip.Addr, h Handler) (Link, error) {
	addr = addr.Unmap()
	l := &faultLink{net: f, addr: addr, handler: h, opened: make(chan struct{}), dirs: map[netip.Addr]*faultDir{}, in: map[netip.Addr]*faultDir{}}
	inner, err := f.inner.Open(addr, l)
	if err != nil {
		return nil, err
	}
	l.inner = inner
	close(l.opened)
	f.mu.Lock()
	f.links[addr] = l
	f.mu.Unlock()
	return l, nil
}

func (l *faultLink) Addr() netip.Addr { return l.addr }
func (l *faultLink) MTU() int         { return l.inner.MTU() }
func (l *faultLink) Stats() Stats     { return l.inner.Stats() }
func (l *faultLink) Poll() int        { return l.inner.Poll() }
func (l *faultLink) Idle()            { l.inner.Idle() }

// Writable implements Handler.
func (l *faultLink) Writable(Link) {
	<-l.opened
	l.handler.Writable(l)
}

// Send implements Link.
func (l *faultLink) Send(dst netip.Addr, p *wire.Packet, segs [][]byte, n int) {
	dst = dst.Unmap()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	d := l.dirs[dst]
	if d == nil {
		d = &faultDir{src: l.addr, dst: dst, seed: dirSeed(l.net.seed, l.addr, dst)}
		l.dirs[dst] = d
	}
	r := l.net.Rules(l.addr, dst)
	i := d.n
	d.n++
	fate := r.fate(d.seed, i)
	// What is held back counts this packet, but not if it is this packet.
	held := len(d.held)
	switch {
	case fate&(Dropped|Cut) != 0 || packetSize(p, n) == 0:
		l.net.tell(d.src, d.dst, i, p, n, fate, 0)
	case fate&Reordered != 0:
		l.hold(d, &r, i, p, segs, n, fate)
	default:
		l.pass(d, &r, i, p, segs, n, fate)
	}
	keep := d.held[:0]
	for k, h := range d.held {
		if k < held {
			h.left--
		}
		if h.left > 0 {
			keep = append(keep, h)
			continue
		}
		l.passHeld(d, &r, h)
	}
	clear(d.held[len(keep):])
	d.held = keep
}

func (l *faultLink) hold(d *faultDir, r *Rules, i uint64, p *wire.Packet, segs [][]byte, n int, fate Fate) {
	depth := r.ReorderDepth
	if depth <= 0 {
		depth = 3
	}
	h := &heldPacket{i: i, pkt: *p, data: gather(nil, segs, n), fate: fate}
	h.left = 1 + int(draw(d.seed, i, forDepth)%uint64(depth))
	d.held = append(d.held, h)
	l.net.time.add(l.net.time.now()+int64(reorderWait), d.seed, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if h.left <= 0 || l.closed {
			return
		}
		h.left = 0
		for k, x := range d.held {
			if x == h {
				d.held = append(d.held[:k], d.held[k+1:]...)
				break
			}
		}
		r := l.net.Rules(d.src, d.dst)
		l.passHeld(d, &r, h)
		_ = l.inner.Flush() // what is left goes with the next
	})
}

func (l *faultLink) passHeld(d *faultDir, r *Rules, h *heldPacket) {
	l.pass(d, r, h.i, &h.pkt, [][]byte{h.data}, len(h.data), h.fate)
}

// pass sends a packet now, or when delay and rate allow. The caller holds mu.
func (l *faultLink) pass(d *faultDir, r *Rules, i uint64, p *wire.Packet, segs [][]byte, n int, fate Fate) {
	now, size := l.net.time.now(), packetSize(p, n)
	at := now
	if r.Rate > 0 {
		d.free = max(now, d.free) + int64(size)*int64(time.Second)/r.Rate
		at = d.free
	}
	at += int64(r.Delay)
	if r.Jitter > 0 {
		at += int64(draw(d.seed, i, forJitter) % uint64(r.Jitter))
	}
	at = max(at, d.last) // in order
	if at <= now {
		l.net.tell(d.src, d.dst, i, p, n, fate, 0)
		l.transmit(d, i, p, segs, n, fate)
		return
	}
	queue := r.Queue
	if queue <= 0 {
		queue = 4 << 20
	}
	if d.waiting+size > queue {
		if r.Rate > 0 {
			d.free -= int64(size) * int64(time.Second) / r.Rate
		}
		l.net.tell(d.src, d.dst, i, p, n, fate|QueueFull, 0)
		return
	}
	fate |= Delayed
	l.net.tell(d.src, d.dst, i, p, n, fate, time.Duration(at-now))
	d.waiting += size
	d.last = at + 1
	c, data := *p, gather(nil, segs, n)
	l.net.time.add(at, d.seed, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		d.waiting -= size
		if l.closed {
			return
		}
		if l.net.Rules(d.src, d.dst).Cut {
			l.net.tell(d.src, d.dst, i, &c, n, fate|Cut, 0)
			return
		}
		l.transmit(d, i, &c, [][]byte{data}, n, fate)
		_ = l.inner.Flush() // what is left goes with the next
	})
}

// transmit gives a packet to the inner link.
func (l *faultLink) transmit(d *faultDir, i uint64, p *wire.Packet, segs [][]byte, n int, fate Fate) {
	times := 1
	if fate&Duplicated != 0 {
		times = 2
	}
	for range times {
		if fate&Corrupted == 0 {
			l.inner.Send(d.dst, p, segs, n)
			continue
		}
		l.sendRaw(d.dst, func(b []byte, a *wire.Addrs) []byte {
			at := len(b)
			b = appendPacket(b, at, a, p, segs, n)
			damage(b[at:], a, d.seed, i)
			return b
		})
	}
}

// sendRaw implements rawSender, so that faults can be put over faults.
func (l *faultLink) sendRaw(dst netip.Addr, build rawPacket) {
	if r, ok := l.inner.(rawSender); ok {
		r.sendRaw(dst, build)
	}
}

// damage flips a few bits of a packet such that the ICRC finds it even where the
// identification is unknown, which makes it miss one in 65536.
func damage(b []byte, a *wire.Addrs, dir, i uint64) {
	good := bytes.Clone(b)
	for k := uint64(0); ; k++ {
		copy(b, good)
		x := draw(dir, i, forBits) + k
		for range 1 + mix(x)%3 {
			x = mix(x)
			b[x>>3%uint64(len(b))] ^= 1 << (x & 7)
		}
		if !a.CheckUnknownID(b) {
			return
		}
	}
}

// Flush implements Link.
func (l *faultLink) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	return l.inner.Flush()
}

// Input implements Handler.
func (l *faultLink) Input(_ Link, batch []Rx) {
	<-l.opened
	if l.suffers(batch) {
		batch = l.filter(batch)
	}
	if len(batch) > 0 {
		l.handler.Input(l, batch)
	}
}

// suffers tells whether some of a batch is from outside.
func (l *faultLink) suffers(batch []Rx) bool {
	l.net.mu.RLock()
	defer l.net.mu.RUnlock()
	var last netip.Addr
	for i := range batch {
		if src := batch[i].Src; src != last {
			if l.net.links[src] == nil {
				return true
			}
			last = src
		}
	}
	return false
}

// filter does to packets from outside what the rules say.
func (l *faultLink) filter(batch []Rx) []Rx {
	out := l.pkts[:0]
	for i := range batch {
		x := &batch[i]
		l.net.mu.RLock()
		inside := l.net.links[x.Src] != nil
		l.net.mu.RUnlock()
		if inside {
			out = append(out, *x)
			continue
		}
		d := l.in[x.Src]
		if d == nil {
			if len(l.in) >= 1024 { // anybody can send
				clear(l.in)
			}
			d = &faultDir{src: x.Src, dst: l.addr, seed: dirSeed(l.net.seed, x.Src, l.addr)}
			l.in[x.Src] = d
		}
		r := l.net.Rules(d.src, d.dst)
		fate := r.fate(d.seed, d.n) &^ Reordered
		p := x.Pkt
		p.Payload = nil
		l.net.tell(d.src, d.dst, d.n, &p, len(x.Pkt.Payload), fate, 0)
		d.n++
		if fate&(Dropped|Cut|Corrupted) != 0 {
			continue
		}
		out = append(out, *x)
		if fate&Duplicated != 0 {
			out = append(out, *x)
		}
	}
	l.pkts = out
	return out
}

// Close implements Link.
func (l *faultLink) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.net.mu.Lock()
	if l.net.links[l.addr] == l {
		delete(l.net.links, l.addr)
	}
	l.net.mu.Unlock()
	return l.inner.Close()
}
