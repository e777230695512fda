package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/verbs"
)

// msgType is what a message is for. See docs/rpc-protocol.md.
type msgType uint8

const (
	msgHello     msgType = 1 + iota // both ways, on the control queue pair
	msgReady                        // the last of the handshake
	msgRequest                      //
	msgResponse                     //
	msgCancel                       // the caller does not wait any more
	msgCancelAck                    // the call is over and touches no memory of the caller's
	msgBulkDone                     // the caller has read what the response offered
	msgPing                         //
	msgPong                         //
	msgGoAway                       // no new calls, please: the sender drains
	msgClose                        // the session ends
	msgJoin                         // queue pairs of one more rail (minor 1, as all below)
	msgJoined                       // those that answer
	msgRailDown                     // the sender does not use a rail any more
	msgLimit
)

var msgNames = [...]string{"0", "HELLO", "READY", "REQUEST", "RESPONSE", "CANCEL", "CANCEL_ACK", "BULK_DONE", "PING", "PONG", "GOAWAY", "CLOSE", "JOIN", "JOINED", "RAIL_DOWN"}

func (t msgType) String() string {
	if int(t) < len(msgNames) {
		return msgNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Flags of a header.
const (
	flagIdempotent  = 1 << 0 // REQUEST: a token follows the descriptors, and it may be done twice
	flagReplay      = 1 << 1 // REQUEST: it was sent before, on another session
	flagPull        = 1 << 2 // REQUEST: the caller reads the result itself. RESPONSE: descriptors say where
	flagInvalidated = 1 << 3 // RESPONSE: sent with invalidation of the first descriptor's key
	flagError       = 1 << 4 // RESPONSE: the code is in method, the text inline
	flagMore        = 1 << 5 // REQUEST of a stream: more parts follow
	flagRail        = 1 << 5 // RESPONSE, with flagError: a rail was lost, whose place is in order
	flagStream      = 1 << 6 // REQUEST: the offset of the part follows the token
	flagRefused     = 1 << 7 // RESPONSE, with flagError: no handler has seen the call
)

// header begins every message: 40 bytes, little-endian.
//
//	0  magic 'Z'        1  version      2  type         3  flags
//	4  method or code   8  request id (generation 32, slot 32)
//	16 epoch            20 deadline, us that remain; 0: none
//	24 inline length    28 credits, reserved: 0 (package qp counts them)
//	30 descriptors      32 order key; RESPONSE: bytes put into the caller's buffer
//	36 CRC-32C of the whole message, this field 0
type header struct {
	typ      msgType
	flags    uint8
	method   uint32
	id       uint64
	epoch    uint32
	deadline uint32
	inline   uint32
	descs    uint16
	order    uint32
}

const (
	headerLen  = 40
	descLen    = 24
	tokenLen   = 16
	offsetLen  = 8
	magic      = 'Z'
	version    = 1 // of the wire format; see hello for what a peer may speak
	maxDescs   = 16
	crcOffset  = 36
	dirToPeer  = 1 << 0 // descriptor: the peer of its sender may write it
	dirFrom    = 1 << 1 // descriptor: the peer of its sender may read it
	maxMessage = 64 << 10
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// desc is memory that the sender of a message shows to its peer.
type desc struct {
	mr.Remote
	rail  uint16 // the queue pair it may be reached through: see rail.number
	flags uint16
	nonce uint32 // RESPONSE: where in the caller's buffer it belongs

	conn *qp.Conn // the one that rail says; not on the wire
}

func (d *desc) put(b []byte) {
	binary.LittleEndian.PutUint64(b, d.Addr)
	binary.LittleEndian.PutUint32(b[8:], d.Len)
	binary.LittleEndian.PutUint32(b[12:], uint32(d.RKey))
	binary.LittleEndian.PutUint16(b[16:], d.rail)
	binary.LittleEndian.PutUint16(b[18:], d.flags)
	binary.LittleEndian.PutUint32(b[20:], d.nonce)
}

func (d *desc) get(b []byte) {
	d.Addr = binary.LittleEndian.Uint64(b)
	d.Len = binary.LittleEndian.Uint32(b[8:])
	d.RKey = verbs.RKey(binary.LittleEndian.Uint32(b[12:]))
	d.rail = binary.LittleEndian.Uint16(b[16:])
	d.flags = binary.LittleEndian.Uint16(b[18:])
	d.nonce = binary.LittleEndian.Uint32(b[20:])
}

// put writes the header into b, whose remainder up to n is the message's, and
// closes it with the CRC.
func (h *header) put(b []byte, n int) {
	b[0], b[1], b[2], b[3] = magic, version, byte(h.typ), h.flags
	le := binary.LittleEndian
	le.PutUint32(b[4:], h.method)
	le.PutUint64(b[8:], h.id)
	le.PutUint32(b[16:], h.epoch)
	le.PutUint32(b[20:], h.deadline)
	le.PutUint32(b[24:], h.inline)
	le.PutUint16(b[28:], 0)
	le.PutUint16(b[30:], h.descs)
	le.PutUint32(b[32:], h.order)
	le.PutUint32(b[crcOffset:], 0)
	le.PutUint32(b[crcOffset:], crc32.Checksum(b[:n], crcTable))
}

// Errors of decoding. They are values: a hostile peer costs nothing.
var (
	errShort   = errors.New("rpc: message is shorter than its header says")
	errMagic   = errors.New("rpc: message of another protocol")
	errVersion = errors.New("rpc: message of another version")
	errCRC     = errors.New("rpc: message with a wrong checksum")
	errType    = errors.New("rpc: message of an unknown type")
	errDescs   = errors.New("rpc: message with too many descriptors")
)

// message is a decoded message; its slices are views into the received one.
type message struct {
	header
	descs  []byte // descLen each
	token  []byte // with flagIdempotent
	offset uint64 // with flagStream
	body   []byte
}

func (m *message) decode(b []byte) error {
	if len(b) < headerLen {
		return errShort
	}
	if b[0] != magic {
		return errMagic
	}
	if b[1] != version {
		return errVersion
	}
	le := binary.LittleEndian
	m.typ, m.flags = msgType(b[2]), b[3]
	if m.typ == 0 || m.typ >= msgLimit {
		return errType
	}
	m.method, m.id = le.Uint32(b[4:]), le.Uint64(b[8:])
	m.epoch, m.deadline = le.Uint32(b[16:]), le.Uint32(b[20:])
	m.inline, m.header.descs, m.order = le.Uint32(b[24:]), le.Uint16(b[30:]), le.Uint32(b[32:])
	if m.header.descs > maxDescs {
		return errDescs
	}
	n := headerLen + int(m.header.descs)*descLen
	m.token, m.offset = nil, 0
	if m.typ == msgRequest && m.flags&flagIdempotent != 0 {
		n += tokenLen
	}
	if m.typ == msgRequest && m.flags&flagStream != 0 {
		n += offsetLen
	}
	if uint64(len(b)) != uint64(n)+uint64(m.inline) {
		return errShort
	}
	// The sum was made with zeros in its own place.
	want := le.Uint32(b[crcOffset:])
	sum := crc32.Update(0, crcTable, b[:crcOffset])
	sum = crc32.Update(sum, crcTable, zero4[:])
	if sum = crc32.Update(sum, crcTable, b[crcOffset+4:]); sum != want {
		return errCRC
	}
	m.descs = b[headerLen : headerLen+int(m.header.descs)*descLen]
	at := headerLen + len(m.descs)
	if m.typ == msgRequest && m.flags&flagIdempotent != 0 {
		m.token = b[at : at+tokenLen : at+tokenLen]
		at += tokenLen
	}
	if m.typ == msgRequest && m.flags&flagStream != 0 {
		m.offset = le.Uint64(b[at:])
	}
	m.body = b[n:]
	return nil
}

var zero4 [4]byte

func putOffset(b []byte, off uint64) { binary.LittleEndian.PutUint64(b, off) }

// desc is the i-th descriptor.
func (m *message) desc(i int) (d desc) {
	d.get(m.descs[i*descLen:])
	return d
}
