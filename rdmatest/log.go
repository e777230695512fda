package rdmatest

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/zrdma/zrdma/internal/roce/link"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

const (
	kept    = 10_000 // packets that a log remembers
	printed = 100    // of them, when a test fails
)

// Packet is a packet that a device sent, and what the network did to it.
type Packet struct {
	Time     time.Duration // of sending, since the network was made
	From, To netip.Addr
	N        uint64 // its number in this direction, from 0
	Len      int    // payload bytes
	// Fate is "sent" or what happened instead, separated by commas: dropped, cut,
	// queue full, corrupted, duplicated, reordered, delayed.
	Fate  string
	Delay time.Duration // before it left, when delayed

	pkt wire.Packet
}

// Text is the packet itself: operation, numbers and what the operation has.
func (p *Packet) Text() string { return string(p.pkt.AppendText(nil, p.Len)) }

// String is a line of the log.
func (p *Packet) String() string {
	s := fmt.Sprintf("%12v %v > %v #%d: %s", p.Time, p.From, p.To, p.N, p.Text())
	if p.Fate != link.Fate(0).String() {
		s += " [" + p.Fate + "]"
	}
	if p.Delay != 0 {
		s += fmt.Sprintf(" +%v", p.Delay)
	}
	return s
}

// packetLog is a ring of the last packets.
type packetLog struct {
	mu   sync.Mutex
	ring []link.Seen // guarded by mu
	n    int         // guarded by mu: packets in all
}

func (l *packetLog) add(s *link.Seen) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := *s
	p := *s.Pkt
	p.Payload = nil
	x.Pkt = &p
	if len(l.ring) < kept {
		l.ring = append(l.ring, x)
	} else {
		l.ring[l.n%kept] = x
	}
	l.n++
}

func (l *packetLog) total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// Log is the last 10,000 packets that were sent, in order.
func (n *Network) Log() []Packet {
	l := &n.log
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Packet, 0, len(l.ring))
	for i := range l.ring {
		s := &l.ring[i]
		if len(l.ring) == kept {
			s = &l.ring[(l.n+i)%kept]
		}
		out = append(out, Packet{
			Time: s.Time.Sub(n.start), From: s.Src, To: s.Dst, N: s.N, Len: s.Len,
			Fate: s.Fate.String(), Delay: s.Delay, pkt: *s.Pkt,
		})
	}
	return out
}
