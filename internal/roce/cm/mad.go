package cm

import (
	"encoding/binary"
	"net/netip"
)

// A MAD is 256 bytes: 24 of header, 232 of message.
const (
	madSize = 256
	madHdr  = 24

	madBase    = 1
	madClass   = 7 // communication management
	madVersion = 2
	madSend    = 3
)

// attrID is the kind of a message.
type attrID uint16

const (
	attrREQ     attrID = 0x10
	attrMRA     attrID = 0x11
	attrREJ     attrID = 0x12
	attrREP     attrID = 0x13
	attrRTU     attrID = 0x14
	attrDREQ    attrID = 0x15
	attrDREP    attrID = 0x16
	attrSIDRREQ attrID = 0x17
	attrSIDRREP attrID = 0x18
	attrLAP     attrID = 0x19
	attrAPR     attrID = 0x1a
)

// Room for private data, in bytes. A request of rdma_cm shares its with the
// addresses in front.
const (
	privREQ     = 92
	privREJ     = 148
	privREP     = 196
	privSIDRREQ = 216
	privSIDRREP = 136
	addrSize    = 36
)

type mad = [madSize]byte

var be = binary.BigEndian

// header is what counts of a MAD's header. mod carries ECE options in REQ and REP.
type header struct {
	attr attrID
	tid  uint64
	mod  uint32
}

func (h header) put(b *mad) {
	b[0], b[1], b[2], b[3] = madBase, madClass, madVersion, madSend
	be.PutUint64(b[8:], h.tid)
	be.PutUint16(b[16:], uint16(h.attr))
	be.PutUint32(b[20:], h.mod)
}

// parseHeader reports false for what is no message of this manager.
func parseHeader(b *mad) (h header, ok bool) {
	h = header{attrID(be.Uint16(b[16:])), be.Uint64(b[8:]), be.Uint32(b[20:])}
	return h, b[0] == madBase && b[1] == madClass && b[2] == madVersion && b[3] == madSend && h.attr >= attrREQ && h.attr <= attrAPR
}

func u24(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }

func put24(b []byte, v uint32) { b[0], b[1], b[2] = byte(v>>16), byte(v>>8), byte(v) }

func bit(v bool, n uint) byte {
	if v {
		return 1 << n
	}
	return 0
}

// endpoints are the addresses that rdma_cm puts in front of the private data of
// REQ and SIDR_REQ. The destination's port is in the service id.
type endpoints struct {
	src  netip.AddrPort
	dst  netip.Addr
	mark uint8 // the version of the header, 0
}

func put16(b []byte, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		copy(b[12:], v[:])
	} else {
		v := a.As16()
		copy(b, v[:])
	}
}

func (e *endpoints) put(b []byte) {
	b[0], b[1] = e.mark, 6<<4
	if e.src.Addr().Is4() {
		b[1] = 4 << 4
	}
	be.PutUint16(b[2:], e.src.Port())
	put16(b[4:20], e.src.Addr())
	put16(b[20:36], e.dst)
}

func parseEndpoints(b []byte) (e endpoints, ok bool) {
	e.mark = b[0]
	at := func(i int) netip.Addr { return netip.AddrFrom16([16]byte(b[i : i+16])) }
	if b[1]>>4 == 4 {
		at = func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i+12 : i+16])) }
	}
	e.src, e.dst = netip.AddrPortFrom(at(4), be.Uint16(b[2:])), at(20)
	return e, e.mark == 0 && (b[1]>>4 == 4 || b[1]>>4 == 6) && !e.src.Addr().Is4In6() && !e.dst.Is4In6()
}
