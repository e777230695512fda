package hub

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

const (
	queueLen = 4096  // frames that wait for one port
	maxFrame = 65550 // the largest IP packet and its Ethernet header
	// holdMax ends the wait of a reordered frame when no other follows.
	holdMax = 20 * time.Millisecond
)

// Config of a hub.
type Config struct {
	Ports int
	Seed  uint64 // of every link's dice
	Pcap  *Pcap  // gets every frame a port sends, lost ones too; nil for none
}

// Hub is one L2 network.
type Hub struct {
	pcap *Pcap

	mu     sync.Mutex // guards all that follows
	links  [][]*link  // [from][to]
	ports  []*port    // nil where nothing is attached
	macs   map[[6]byte]int
	queue  delayed
	seq    uint64 // of the frames in queue
	timer  *time.Timer
	closed bool
	wg     sync.WaitGroup
}

// Stats counts the frames of one direction of one link.
type Stats struct {
	Sent       uint64 // given to the link
	Delivered  uint64 // put into the receiver's queue, copies too
	Lost       uint64 // dropped by a fault
	Duplicated uint64
	Reordered  uint64
	Overflow   uint64 // dropped because the receiver does not read, or is not there
}

type link struct {
	faults Faults
	rng    *rand.Rand
	stats  Stats
	held   []byte // a frame that waits for the next one to pass
	heldAt uint64 // stats.Sent when it was held
}

type port struct {
	conn net.Conn
	out  chan []byte
	quit chan struct{}
}

// New makes a hub; nothing is attached yet.
func New(cfg Config) *Hub {
	h := &Hub{pcap: cfg.Pcap, ports: make([]*port, cfg.Ports), macs: make(map[[6]byte]int)}
	for from := range cfg.Ports {
		h.links = append(h.links, nil)
		for to := range cfg.Ports {
			h.links[from] = append(h.links[from], &link{rng: rand.New(rand.NewPCG(cfg.Seed, uint64(from)<<32|uint64(to)))})
		}
	}
	h.timer = time.AfterFunc(time.Hour, h.deliverDue)
	return h
}

// Attach plugs conn into a port: one Read and one Write is one frame. What was
// plugged in before is closed.
func (h *Hub) Attach(n int, conn net.Conn) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || n < 0 || n >= len(h.ports) {
		_ = conn.Close() // it is ours
		if h.closed {
			return fmt.Errorf("hub: attach: %w", net.ErrClosed)
		}
		return fmt.Errorf("hub: no port %d", n)
	}
	h.unplug(n)
	p := &port{conn: conn, out: make(chan []byte, queueLen), quit: make(chan struct{})}
	h.ports[n] = p
	h.wg.Go(func() { h.receive(n, p) })
	h.wg.Go(func() { p.send() })
	return nil
}

// Detach closes what is plugged into a port.
func (h *Hub) Detach(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n >= 0 && n < len(h.ports) {
		h.unplug(n)
	}
}

func (h *Hub) unplug(n int) {
	if p := h.ports[n]; p != nil {
		close(p.quit)
		_ = p.conn.Close() // the peer is gone or is to be
		h.ports[n] = nil
	}
}

// Close detaches everything.
func (h *Hub) Close() error {
	h.mu.Lock()
	h.closed = true
	for n := range h.ports {
		h.unplug(n)
	}
	h.timer.Stop()
	h.queue = nil
	h.mu.Unlock()
	h.wg.Wait()
	return nil
}

// SetLink sets what happens to the frames that port from sends to port to.
func (h *Hub) SetLink(from, to int, f Faults) error {
	return h.change(from, to, func(l *link) error {
		if err := f.check(); err != nil {
			return err
		}
		l.faults = f
		return nil
	})
}

// SetAll sets the same faults for every direction of every link.
func (h *Hub) SetAll(f Faults) error {
	for from := range h.links {
		for to := range h.links {
			if err := h.SetLink(from, to, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// Partition cuts both directions between two ports; other faults stay set.
func (h *Hub) Partition(a, b int) error { return h.setDown(a, b, true) }

// Heal ends a Partition.
func (h *Hub) Heal(a, b int) error { return h.setDown(a, b, false) }

func (h *Hub) setDown(a, b int, down bool) error {
	set := func(l *link) error { l.faults.Down = down; return nil }
	return errors.Join(h.change(a, b, set), h.change(b, a, set))
}

// Stats returns the counters of one direction.
func (h *Hub) Stats(from, to int) (Stats, error) {
	var s Stats
	err := h.change(from, to, func(l *link) error { s = l.stats; return nil })
	return s, err
}

func (h *Hub) change(from, to int, do func(*link) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if from < 0 || to < 0 || from >= len(h.links) || to >= len(h.links) {
		return fmt.Errorf("hub: no link from port %d to port %d", from, to)
	}
	return do(h.links[from][to])
}

func (h *Hub) receive(n int, p *port) {
	buf := make([]byte, maxFrame)
	for {
		k, err := p.conn.Read(buf)
		if err != nil { // unplugged, or the VM is gone
			h.mu.Lock()
			if h.ports[n] == p {
				h.unplug(n)
			}
			h.mu.Unlock()
			return
		}
		if k >= 14 {
			h.forward(n, append([]byte(nil), buf[:k]...))
		}
	}
}

func (p *port) send() {
	for {
		select {
		case <-p.quit:
			return
		case f := <-p.out:
			// A failed write is a lost frame; a dead VM ends receive as well.
			_, _ = p.conn.Write(f)
		}
	}
}

// forward switches one frame: to the port that has its address, else to all.
func (h *Hub) forward(from int, frame []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	now := time.Now()
	if h.pcap != nil {
		h.pcap.frame(now, frame)
	}
	h.macs[[6]byte(frame[6:12])] = from
	if to, ok := h.macs[[6]byte(frame[:6])]; ok && frame[0]&1 == 0 {
		if to != from {
			h.pass(from, to, frame, now)
		}
		return
	}
	for to := range h.ports {
		if to != from {
			h.pass(from, to, frame, now)
		}
	}
}

func (h *Hub) pass(from, to int, frame []byte, now time.Time) {
	l := h.links[from][to]
	l.stats.Sent++
	v := l.faults.decide(l.rng, frame)
	switch {
	case len(v.copies) == 0:
		l.stats.Lost++
		return
	case v.hold && l.held == nil:
		l.stats.Reordered++
		l.held, l.heldAt = frame, l.stats.Sent
		sent := l.heldAt
		time.AfterFunc(holdMax, func() { h.release(from, to, sent) })
		return
	}
	l.stats.Duplicated += uint64(len(v.copies) - 1)
	for _, d := range v.copies {
		h.deliver(from, to, frame, now, d)
	}
	if held := l.held; held != nil {
		l.held = nil
		h.deliver(from, to, held, now, l.faults.Delay)
	}
}

// release lets a held frame go that no other frame has passed.
func (h *Hub) release(from, to int, sent uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.links[from][to]
	if held := l.held; held != nil && l.heldAt == sent && !h.closed {
		l.held = nil
		h.deliver(from, to, held, time.Now(), 0)
	}
}

func (h *Hub) deliver(from, to int, frame []byte, now time.Time, d time.Duration) {
	if d > 0 {
		h.seq++
		h.queue.add(delayedFrame{due: now.Add(d), seq: h.seq, from: from, to: to, frame: frame})
		h.timer.Reset(time.Until(h.queue[0].due))
		return
	}
	s := &h.links[from][to].stats
	if p := h.ports[to]; p != nil {
		select {
		case p.out <- frame:
			s.Delivered++
			return
		default:
		}
	}
	s.Overflow++
}

func (h *Hub) deliverDue() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	now := time.Now()
	for len(h.queue) > 0 && !h.queue[0].due.After(now) {
		e := h.queue.pop()
		h.deliver(e.from, e.to, e.frame, now, 0)
	}
	if len(h.queue) > 0 {
		h.timer.Reset(time.Until(h.queue[0].due))
	}
}
