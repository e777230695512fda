package wire

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// The invariant CRC covers the packet as it crosses the network, from the IP
// header on, with what routers change replaced by ones. It is the Ethernet
// CRC-32, stored little-endian.

const (
	ipv4Header = 20
	ipv6Header = 40
	udpHeader  = 8
	// crcHead is how much of a packet is copied behind the pseudo header: so that
	// there is enough in one piece for the CPU's CRC instructions.
	crcHead = 128
	// ones stand for the link header, which an InfiniBand packet would have here.
	linkOnes = 8
)

// Addrs is what the ICRC covers of the IP and UDP headers, and the scratch space
// to compute it in: one goroutine at a time.
type Addrs struct {
	Src, Dst         netip.Addr // both IPv4 (or IPv4-mapped) or both IPv6
	SrcPort, DstPort uint16
	ID               uint16 // IPv4 identification; where it is unknown, the first guess
	DF               bool   // IPv4 don't-fragment
	// None puts 0 in place of the ICRC, which says that it was not computed, as a
	// checksum of 0 does in UDP.
	None bool

	scratch [linkOnes + ipv6Header + udpHeader + crcHead]byte // a local one would escape
}

// prefix writes the masked pseudo header for n bytes behind the UDP header and
// returns its length.
func (a *Addrs) prefix(n int) int {
	b := &a.scratch
	for i := range linkOnes {
		b[i] = 0xff
	}
	var u []byte
	ip := b[linkOnes:]
	if src, dst := a.Src.Unmap(), a.Dst.Unmap(); src.Is4() {
		ip[0] = 0x45
		ip[1] = 0xff // type of service
		binary.BigEndian.PutUint16(ip[2:], uint16(ipv4Header+udpHeader+n))
		binary.BigEndian.PutUint16(ip[4:], a.ID)
		ip[6], ip[7] = 0, 0
		if a.DF {
			ip[6] = 0x40
		}
		ip[8], ip[9] = 0xff, 17 // time to live, UDP
		ip[10], ip[11] = 0xff, 0xff
		s, d := src.As4(), dst.As4()
		copy(ip[12:], s[:])
		copy(ip[16:], d[:])
		u = ip[ipv4Header:]
	} else {
		ip[0], ip[1], ip[2], ip[3] = 0x6f, 0xff, 0xff, 0xff // traffic class and flow label
		binary.BigEndian.PutUint16(ip[4:], uint16(udpHeader+n))
		ip[6], ip[7] = 17, 0xff // UDP, hop limit
		s, d := src.As16(), dst.As16()
		copy(ip[8:], s[:])
		copy(ip[24:], d[:])
		u = ip[ipv6Header:]
	}
	binary.BigEndian.PutUint16(u, a.SrcPort)
	binary.BigEndian.PutUint16(u[2:], a.DstPort)
	binary.BigEndian.PutUint16(u[4:], uint16(udpHeader+n))
	u[6], u[7] = 0xff, 0xff // checksum
	return len(b) - len(u) + udpHeader
}

// ICRC computes the CRC of a packet: b is everything behind the UDP header
// except the ICRC itself.
func (a *Addrs) ICRC(b []byte) uint32 {
	if len(b) < BTHSize || a.None {
		return 0
	}
	n := a.prefix(len(b) + ICRCSize)
	// The CPU's instructions take 16 bytes at a time: with this split what follows
	// the copy has no rest in a packet of full size.
	k := copy(a.scratch[n:n+crcHead-(n+crcHead)%16], b)
	a.scratch[n+4] = 0xff // resv8a: FECN, BECN
	c := crc32.Update(0, crc32.IEEETable, a.scratch[:n+k])
	return crc32.Update(c, crc32.IEEETable, b[k:])
}

// ICRCParts is ICRC of a packet in pieces: the headers, the payload, which is
// longer than crcHead, and the padding.
func (a *Addrs) ICRCParts(head, payload, pad []byte) uint32 {
	if a.None {
		return 0
	}
	n := a.prefix(len(head) + len(payload) + len(pad) + ICRCSize)
	first := a.scratch[n : n+crcHead-(n+crcHead)%16]
	k := copy(first, head)
	k = copy(first[k:], payload)
	a.scratch[n+4] = 0xff // resv8a: FECN, BECN
	c := crc32.Update(0, crc32.IEEETable, a.scratch[:n+len(first)])
	c = crc32.Update(c, crc32.IEEETable, payload[k:])
	if len(pad) == 0 {
		return c
	}
	return crc32.Update(c, crc32.IEEETable, pad)
}

// AppendICRC closes a packet.
func (a *Addrs) AppendICRC(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, a.ICRC(b))
}

// Bare tells that the ICRC of a packet was not computed.
func Bare(b []byte) bool {
	n := len(b) - ICRCSize
	return n >= BTHSize && binary.LittleEndian.Uint32(b[n:]) == 0
}

// Check verifies a packet, ICRC included, whose identification is known.
func (a *Addrs) Check(b []byte) bool {
	if len(b) < BTHSize+ICRCSize {
		return false
	}
	n := len(b) - ICRCSize
	return binary.LittleEndian.Uint32(b[n:]) == a.ICRC(b[:n])
}

// CheckUnknownID verifies a packet received on a UDP socket, which does not show
// the IPv4 identification. The CRC is linear in it, so it is solved for: 16 of
// the 32 bits are spent, and 16 remain to detect corruption. On IPv6, which has
// no identification, the check keeps its full strength.
func (a *Addrs) CheckUnknownID(b []byte) bool {
	_, ok := a.SolveID(b)
	return ok
}

// SolveID is CheckUnknownID that also returns the identification (0 on IPv6). It
// is cheapest when a.ID is right.
func (a *Addrs) SolveID(b []byte) (uint16, bool) {
	if len(b) < BTHSize+ICRCSize {
		return 0, false
	}
	if !a.Src.Unmap().Is4() {
		return 0, a.Check(b)
	}
	n := len(b) - ICRCSize
	d := binary.LittleEndian.Uint32(b[n:]) ^ a.ICRC(b[:n])
	if d == 0 {
		return a.ID, true
	}
	// Behind the identification lie 14 bytes of IP header, 8 of UDP and the packet.
	// Its two bytes enter the low half of the register and are then shifted by
	// themselves and all of those.
	w := unshift(d, n+udpHeader+ipv4Header-6+2)
	return a.ID ^ (uint16(w&0xff)<<8 | uint16(w>>8)), w>>16 == 0
}

const poly = crc32.IEEE // reflected: the register's low bit is the highest power

// maxShift bounds the table of inverse shifts: a jumbo packet.
const maxShift = 9216

// inverse[n] is x^(-8n) modulo the polynomial, reflected: x^0 is the top bit.
var inverse = func() *[maxShift]uint32 {
	t := new([maxShift]uint32)
	c := uint32(1) << 31
	for n := range t {
		t[n] = c
		for range 8 {
			c = divX(c)
		}
	}
	return t
}()

// divX divides by x.
func divX(c uint32) uint32 {
	if c>>31 != 0 {
		return (c^poly)<<1 | 1
	}
	return c << 1
}

// mulX multiplies by x.
func mulX(c uint32) uint32 { return c>>1 ^ poly&-(c&1) }

// unshift undoes n zero bytes having been pushed through the CRC register.
func unshift(c uint32, n int) uint32 {
	for n >= maxShift {
		c = mul(c, inverse[maxShift-1])
		n -= maxShift - 1
	}
	return mul(c, inverse[n])
}

// mul multiplies two polynomials modulo the CRC's.
func mul(a, b uint32) uint32 {
	var r uint32
	for b != 0 {
		r ^= a & uint32(int32(b)>>31)
		b <<= 1
		a = mulX(a)
	}
	return r
}
