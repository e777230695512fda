package link

import (
	"net/netip"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

const (
	// batchBytes bounds what is sent in one system call: less than a UDP datagram
	// can hold, with its headers, on IPv4 and IPv6.
	batchBytes = 65_000
	// batchPackets is what every kernel with UDP_SEGMENT takes (UDP_MAX_SEGMENTS
	// was 64, later 128).
	batchPackets = 64
)

// batch collects packets that one system call sends: one destination, one size,
// only the last may be shorter. The kernel numbers the packets of a call from 0
// in the IPv4 identification, which the ICRC covers.
type batch struct {
	buf    []byte   // packets back to back, but for what refs hold
	refs   []ref    // payloads that are sent from where they lie
	parts  [][]byte // scratch of whole
	flat   []byte   // scratch of flatten
	size   int      // of all packets, in bytes
	n      int
	seg    int  // size of every packet but the last
	closed bool // a shorter packet was the last
	max    int  // packets
	bare   bool // no ICRC between loopback addresses
	dst    netip.Addr
	addrs  wire.Addrs
}

// ref is a payload that comes before buf[at:].
type ref struct {
	at      int
	payload []byte
}

// refMin is what is not worth a copy.
const refMin = 2048

func newBatch(src netip.Addr, max int, o UDPOptions) *batch {
	return &batch{
		buf: make([]byte, 0, batchBytes), max: max, bare: src.IsLoopback() && !o.ICRC,
		addrs: wire.Addrs{Src: src, SrcPort: wire.Port, DstPort: wire.Port, DF: true},
	}
}

// packetSize is the UDP payload of a packet that carries n bytes; 0 when there
// is no such packet.
func packetSize(p *wire.Packet, n int) int {
	h := p.Opcode.HeaderLen()
	if h == 0 || n < 0 || n > batchBytes-wire.MaxHeader-wire.ICRCSize-3 {
		return 0
	}
	return h + n + wire.Pad(n) + wire.ICRCSize
}

// fits tells whether a packet of the size can be sent with those that are there.
func (b *batch) fits(dst netip.Addr, size int) bool {
	return b.n == 0 || !b.closed && b.n < b.max && size <= b.seg && b.size+size <= batchBytes && dst == b.dst
}

// full tells that no other packet fits.
func (b *batch) full() bool {
	return b.closed || b.n == b.max || b.size+b.seg > batchBytes
}

// add appends a packet that fits; size is its packetSize.
func (b *batch) add(dst netip.Addr, p *wire.Packet, segs [][]byte, n, size int) {
	if b.n == 0 {
		b.seg = size
		b.dst, b.addrs.Dst, b.addrs.None = dst, dst, b.bare && dst.IsLoopback()
	}
	at := len(b.buf)
	b.addrs.ID = uint16(b.n)
	if n >= refMin && len(segs) > 0 && len(segs[0]) >= n && b.max > 1 && !p.Volatile && byRef(p.Opcode) {
		b.addRef(at, p, segs[0][:n])
	} else {
		b.buf = appendPacket(b.buf, at, &b.addrs, p, segs, n)
	}
	b.n++
	b.size += size
	b.closed = size < b.seg
}

func byRef(o wire.Opcode) bool {
	return o <= wire.RCWriteOnlyImm || o >= wire.RCReadRespFirst && o <= wire.RCReadRespOnly
}

// addRef appends a packet whose payload stays where it is until the batch is sent,
// which is before who added it gives up the device's lock. The owner of memory that
// a peer READs may write it meanwhile, though: the packet then does not agree with
// its ICRC, and must come again. It is copied then, or that might go on for ever.
func (b *batch) addRef(at int, p *wire.Packet, payload []byte) {
	b.buf = p.Append(b.buf, len(payload))
	head := len(b.buf)
	b.refs = append(b.refs, ref{head, payload})
	for range wire.Pad(len(payload)) {
		b.buf = append(b.buf, 0)
	}
	c := b.addrs.ICRCParts(b.buf[at:head], payload, b.buf[head:])
	b.buf = append(b.buf, byte(c), byte(c>>8), byte(c>>16), byte(c>>24))
}

// whole is the packets back to back, in pieces; valid until the next call.
func (b *batch) whole() [][]byte {
	b.parts = b.parts[:0]
	from := 0
	for _, r := range b.refs {
		b.parts = append(b.parts, b.buf[from:r.at], r.payload)
		from = r.at
	}
	b.parts = append(b.parts, b.buf[from:])
	return b.parts
}

// flatten copies what refs hold: from now on it may change.
func (b *batch) flatten() {
	if len(b.refs) == 0 {
		return
	}
	if b.flat == nil {
		b.flat = make([]byte, 0, batchBytes)
	}
	f := b.flat[:0]
	for _, p := range b.whole() {
		f = append(f, p...)
	}
	b.buf, b.flat = f, b.buf
	b.forget()
}

func (b *batch) forget() {
	clear(b.refs)
	clear(b.parts)
	b.refs, b.parts = b.refs[:0], b.parts[:0]
}

// appendPacket appends a whole packet at the end of b, which is at.
func appendPacket(b []byte, at int, a *wire.Addrs, p *wire.Packet, segs [][]byte, n int) []byte {
	b = gather(p.Append(b, n), segs, n)
	for range wire.Pad(n) {
		b = append(b, 0)
	}
	c := a.ICRC(b[at:])
	return append(b, byte(c), byte(c>>8), byte(c>>16), byte(c>>24))
}

// gather appends n bytes of segs; what they lack is zero.
func gather(b []byte, segs [][]byte, n int) []byte {
	for _, s := range segs {
		if len(s) >= n {
			return append(b, s[:n]...)
		}
		b = append(b, s...)
		n -= len(s)
	}
	for range n {
		b = append(b, 0)
	}
	return b
}

// rawPacket appends a whole packet, not necessarily a good one, at the end of b.
type rawPacket func(b []byte, a *wire.Addrs) []byte

// addRaw makes a batch of one packet.
func (b *batch) addRaw(dst netip.Addr, build rawPacket) {
	b.dst, b.addrs.Dst, b.addrs.ID, b.addrs.None = dst, dst, 0, false
	b.buf = build(b.buf[:0], &b.addrs)
	b.n, b.seg, b.size, b.closed = 1, len(b.buf), len(b.buf), true
}

// packet is the i-th packet of a batch that is flat.
func (b *batch) packet(i int) []byte { return b.buf[i*b.seg : min((i+1)*b.seg, len(b.buf))] }

// alone closes the i-th packet anew for a system call of its own.
func (b *batch) alone(i int) []byte {
	p := b.packet(i)
	if i > 0 {
		b.addrs.ID = 0
		p = b.addrs.AppendICRC(p[:len(p)-wire.ICRCSize])
	}
	return p
}

func (b *batch) reset() {
	b.buf, b.n, b.size, b.closed = b.buf[:0], 0, 0, false
	b.forget()
}
