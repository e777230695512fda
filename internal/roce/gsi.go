package roce

import (
	"net/netip"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/cm"
	"github.com/zrdma/zrdma/internal/roce/link"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

const (
	madSize = 256
	// maxMADs bounds the datagrams that wait for the manager.
	maxMADs = 1024
)

// gsi is QP 1. A goroutine, there only while something waits, takes what arrived
// to the connection manager, which is called without node.mu.
type gsi struct {
	queue []madIn
	busy  bool // the goroutine runs
	psn   uint32
	pkt   wire.Packet
	seg   [1][]byte
}

// madIn is a datagram, or the number of a queue pair whose connection the first
// message established.
type madIn struct {
	src, dst netip.Addr
	mad      [madSize]byte
	qpn      uint32 // 0: a datagram
}

// gsiInput takes a packet for QP 1.
func (n *node) gsiInput(i int, rx *link.Rx) {
	p := &rx.Pkt
	switch {
	case p.Opcode != wire.UDSendOnly || len(p.Payload) != madSize:
		n.stat.BadOpcode++
		return
	case p.QKey != gsiQKey:
		n.stat.BadQKey++
		return
	}
	m := madIn{src: rx.Src, dst: n.links[i].Addr()}
	copy(m.mad[:], p.Payload)
	n.gsi.add(n, &m)
}

// commEst tells the manager that qpn's peer talks already.
func (g *gsi) commEst(n *node, qpn uint32) {
	if n.hasCM {
		g.add(n, &madIn{qpn: qpn})
	}
}

func (g *gsi) add(n *node, m *madIn) {
	if len(g.queue) >= maxMADs {
		n.stat.MADDropped++
		return
	}
	g.queue = append(g.queue, *m)
	if !g.busy {
		g.busy = true
		go n.deliverMADs()
	}
}

func (n *node) deliverMADs() {
	g := &n.gsi
	var done []madIn
	for {
		n.mu.Lock()
		batch := g.queue
		g.queue = done[:0]
		if len(batch) == 0 || !n.open {
			g.busy = false
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		if m := n.manager(); m != nil {
			for i := range batch {
				if b := &batch[i]; b.qpn != 0 {
					m.HandleQPEvent(b.qpn, provider.EventCommEst)
				} else {
					m.HandleMAD(b.src, b.dst, b.mad[:])
				}
			}
		}
		done = batch
	}
}

// manager is the device's connection manager, made at first use; nil when the
// device closes.
func (n *node) manager() *cm.Manager {
	n.cmOnce.Do(func() {
		if n.mem.seed != 0 {
			n.cm = cm.New(seededPort{cmPort{n}})
		} else {
			n.cm = cm.New(cmPort{n})
		}
	})
	return n.cm
}

// CM is the device's connection manager.
func (c *devCtx) CM() provider.CM { return c.n.manager() }

// cmPort is the device as the manager sees it.
type cmPort struct{ n *node }

// seededPort makes the manager repeat itself.
type seededPort struct{ cmPort }

func (p seededPort) Seed() uint64 { return p.n.mem.seed }

func (p cmPort) Context() provider.Context { return p.n.own }

func (p cmPort) Addrs() []netip.Addr {
	a := make([]netip.Addr, len(p.n.links))
	for i, l := range p.n.links {
		a[i] = l.Addr()
	}
	return a
}

func (p cmPort) SendMAD(src, dst netip.Addr, mad []byte) error { return p.n.sendMAD(src, dst, mad) }

// sendMAD sends a datagram to the QP 1 behind dst.
func (n *node) sendMAD(src, dst netip.Addr, mad []byte) error {
	if len(mad) != madSize {
		return syscall.EINVAL
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.open {
		return syscall.ENODEV
	}
	for i, l := range n.links {
		if a := l.Addr(); a.WithZone("") != src.WithZone("") {
			continue
		} else if dst.Is6() && dst.IsLinkLocalUnicast() {
			dst = dst.WithZone(a.Zone())
		}
		g := &n.gsi
		g.psn = (g.psn + 1) & wire.PSNMask
		g.pkt = wire.Packet{Opcode: wire.UDSendOnly, PKey: defaultPKey, DestQP: gsiQPN, PSN: g.psn, QKey: gsiQKey, SrcQP: gsiQPN}
		g.seg[0] = mad
		n.send(i, dst, &g.pkt, g.seg[:], madSize)
		g.seg[0] = nil
		n.flush()
		return nil
	}
	return syscall.EADDRNOTAVAIL
}
