//go:build !linux

package link

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// udpLink is an address's socket where the system's own tricks are not known: a
// packet for each system call. Such a system may number packets in the IPv4
// identification as it likes; links of this package do not mind, but a device
// that sees the number finds the ICRC wrong.
type udpLink struct {
	counters
	addr    netip.Addr
	mtu     int
	conn    *net.UDPConn
	handler Handler
	closed  atomic.Bool
	wg      sync.WaitGroup

	mu    sync.Mutex // guards batch
	batch *batch
}

func openUDP(addr netip.Addr, h Handler, o UDPOptions) (*udpLink, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, wire.Port)))
	if err != nil {
		return nil, err
	}
	// The system may allow less.
	_ = c.SetReadBuffer(o.RecvBuffer)
	_ = c.SetWriteBuffer(o.SendBuffer)
	l := &udpLink{addr: addr, handler: h, mtu: interfaceMTU(addr), conn: c, batch: newBatch(addr, 1, o)}
	l.wg.Add(1)
	go l.read()
	return l, nil
}

func (l *udpLink) Addr() netip.Addr { return l.addr }
func (l *udpLink) MTU() int         { return l.mtu }
func (l *udpLink) Stats() Stats     { return l.stats() }
func (l *udpLink) Idle()            {}

// Poll implements Link: the goroutine receives.
func (l *udpLink) Poll() int { return 0 }

// Send implements Link.
func (l *udpLink) Send(dst netip.Addr, p *wire.Packet, segs [][]byte, n int) {
	size := packetSize(p, n)
	dst = dst.Unmap()
	l.mu.Lock()
	defer l.mu.Unlock()
	if size == 0 || dst.Is4() != l.addr.Is4() || l.closed.Load() {
		l.txDropped.Add(1)
		return
	}
	l.batch.add(dst, p, segs, n, size)
	if _, err := l.conn.WriteToUDPAddrPort(l.batch.buf, netip.AddrPortFrom(dst, wire.Port)); err != nil {
		l.txDropped.Add(1)
	} else {
		l.sent(1, size)
	}
	l.batch.reset()
}

func (l *udpLink) sendRaw(dst netip.Addr, build rawPacket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batch.addRaw(dst, build)
	if _, err := l.conn.WriteToUDPAddrPort(l.batch.buf, netip.AddrPortFrom(dst, wire.Port)); err != nil {
		l.txDropped.Add(1)
	}
	l.batch.reset()
}

// Flush implements Link.
func (l *udpLink) Flush() error {
	if l.closed.Load() {
		return net.ErrClosed
	}
	return nil
}

func (l *udpLink) read() {
	defer l.wg.Done()
	addrs := wire.Addrs{Dst: l.addr, DstPort: wire.Port, DF: true}
	buf := make([]byte, 1<<16)
	batch := make([]Rx, 1)
	for {
		n, from, err := l.conn.ReadFromUDPAddrPort(buf)
		switch {
		case l.closed.Load():
			return
		case err != nil:
			continue
		}
		src := from.Addr().Unmap()
		l.received(0, n)
		addrs.Src, addrs.SrcPort = src, from.Port()
		batch[0] = Rx{Src: src, SrcPort: from.Port()}
		switch {
		case !trusted(src, l.addr, buf[:n]) && !addrs.CheckUnknownID(buf[:n]):
			l.rxBadICRC.Add(1)
		case batch[0].Pkt.Decode(buf[:n]) != nil:
			l.rxMalformed.Add(1)
		default:
			l.rxPackets.Add(1)
			l.handler.Input(l, batch)
		}
	}
}

// Close implements Link.
func (l *udpLink) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	err := l.conn.Close()
	l.wg.Wait()
	return err
}
