package wire

import (
	"encoding/binary"
	"errors"
)

// Packet is one transport packet, without IP and UDP. Which fields count
// depends on Opcode; the others are ignored by Append and left alone by Decode.
type Packet struct {
	Opcode     Opcode
	Solicited  bool
	MigReq     bool
	AckReq     bool
	FECN, BECN bool
	PKey       uint16
	DestQP     uint32 // 24 bits
	PSN        uint32 // 24 bits

	VA     uint64 // RETH, AtomicETH
	RKey   uint32 // RETH, AtomicETH, or the key that IETH invalidates
	DMALen uint32 // RETH

	Syndrome uint8  // AETH
	MSN      uint32 // AETH, 24 bits

	Swap    uint64 // AtomicETH: swap or add
	Compare uint64 // AtomicETH
	Orig    uint64 // AtomicAckETH

	QKey  uint32 // DETH
	SrcQP uint32 // DETH, 24 bits

	Imm uint32 // host order

	// Payload is a view into the decoded packet, without padding. Append does not
	// look at it: the caller gathers it behind the header.
	Payload []byte

	// Volatile is of a payload that is copied before it is sent, for it may change
	// meanwhile. It is not on the wire.
	Volatile bool
}

// Errors of Decode. They are values, so that dropping a packet costs nothing.
var (
	ErrShort   = errors.New("wire: packet is shorter than its headers")
	ErrOpcode  = errors.New("wire: unknown opcode")
	ErrVersion = errors.New("wire: transport header version is not 0")
	ErrPad     = errors.New("wire: padding is longer than the payload")
	ErrLength  = errors.New("wire: payload on an opcode that carries none, or not a multiple of 4")
)

// Decode reads one packet: everything behind the UDP header, with the ICRC,
// which it does not check.
func (p *Packet) Decode(b []byte) error {
	if len(b) < BTHSize+ICRCSize {
		return ErrShort
	}
	p.Opcode = Opcode(b[0])
	h := layout[p.Opcode]
	if h&known == 0 {
		return ErrOpcode
	}
	n := p.Opcode.HeaderLen()
	if len(b) < n+ICRCSize {
		return ErrShort
	}
	if b[1]&0x0f != 0 {
		return ErrVersion
	}
	p.Solicited = b[1]&0x80 != 0
	p.MigReq = b[1]&0x40 != 0
	pad := int(b[1] >> 4 & 3)
	p.PKey = binary.BigEndian.Uint16(b[2:])
	p.FECN, p.BECN = b[4]&0x80 != 0, b[4]&0x40 != 0
	p.DestQP = binary.BigEndian.Uint32(b[4:]) & PSNMask
	w := binary.BigEndian.Uint32(b[8:])
	p.AckReq, p.PSN = w>>31 != 0, w&PSNMask
	e := b[BTHSize:]
	if h&hasDETH != 0 {
		p.QKey = binary.BigEndian.Uint32(e)
		p.SrcQP = binary.BigEndian.Uint32(e[4:]) & PSNMask
		e = e[DETHSize:]
	}
	if h&hasRETH != 0 {
		p.VA = binary.BigEndian.Uint64(e)
		p.RKey = binary.BigEndian.Uint32(e[8:])
		p.DMALen = binary.BigEndian.Uint32(e[12:])
		e = e[RETHSize:]
	}
	if h&hasAtomicETH != 0 {
		p.VA = binary.BigEndian.Uint64(e)
		p.RKey = binary.BigEndian.Uint32(e[8:])
		p.Swap = binary.BigEndian.Uint64(e[12:])
		p.Compare = binary.BigEndian.Uint64(e[20:])
		e = e[AtomicETHSize:]
	}
	if h&hasAETH != 0 {
		w := binary.BigEndian.Uint32(e)
		p.Syndrome, p.MSN = uint8(w>>24), w&PSNMask
		e = e[AETHSize:]
	}
	if h&hasAtomicAck != 0 {
		p.Orig = binary.BigEndian.Uint64(e)
		e = e[AtomicAckSize:]
	}
	if h&hasImm != 0 {
		p.Imm = binary.BigEndian.Uint32(e)
	}
	if h&hasIETH != 0 {
		p.RKey = binary.BigEndian.Uint32(e)
	}
	p.Payload = b[n : len(b)-ICRCSize]
	switch {
	case len(p.Payload)&3 != 0, h&hasPayload == 0 && len(p.Payload) > 0:
		return ErrLength
	case pad > len(p.Payload):
		return ErrPad
	}
	p.Payload = p.Payload[:len(p.Payload)-pad]
	return nil
}

// Pad is the number of bytes that bring a payload of n bytes to a multiple of 4.
func Pad(n int) int { return -n & 3 }

// Append writes the headers of a packet that carries n payload bytes. Behind
// them the caller puts the payload, Pad(n) zero bytes and the ICRC.
func (p *Packet) Append(b []byte, n int) []byte {
	h := layout[p.Opcode]
	flags := byte(Pad(n)) << 4
	if p.Solicited {
		flags |= 0x80
	}
	if p.MigReq {
		flags |= 0x40
	}
	b = append(b, byte(p.Opcode), flags)
	b = binary.BigEndian.AppendUint16(b, p.PKey)
	q := p.DestQP & PSNMask
	if p.FECN {
		q |= 1 << 31
	}
	if p.BECN {
		q |= 1 << 30
	}
	b = binary.BigEndian.AppendUint32(b, q)
	s := p.PSN & PSNMask
	if p.AckReq {
		s |= 1 << 31
	}
	b = binary.BigEndian.AppendUint32(b, s)
	if h&hasDETH != 0 {
		b = binary.BigEndian.AppendUint32(b, p.QKey)
		b = binary.BigEndian.AppendUint32(b, p.SrcQP&PSNMask)
	}
	if h&hasRETH != 0 {
		b = binary.BigEndian.AppendUint64(b, p.VA)
		b = binary.BigEndian.AppendUint32(b, p.RKey)
		b = binary.BigEndian.AppendUint32(b, p.DMALen)
	}
	if h&hasAtomicETH != 0 {
		b = binary.BigEndian.AppendUint64(b, p.VA)
		b = binary.BigEndian.AppendUint32(b, p.RKey)
		b = binary.BigEndian.AppendUint64(b, p.Swap)
		b = binary.BigEndian.AppendUint64(b, p.Compare)
	}
	if h&hasAETH != 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(p.Syndrome)<<24|p.MSN&PSNMask)
	}
	if h&hasAtomicAck != 0 {
		b = binary.BigEndian.AppendUint64(b, p.Orig)
	}
	if h&hasImm != 0 {
		b = binary.BigEndian.AppendUint32(b, p.Imm)
	}
	if h&hasIETH != 0 {
		b = binary.BigEndian.AppendUint32(b, p.RKey)
	}
	if h&hasCNP != 0 {
		b = append(b, make([]byte, CNPSize)...)
	}
	return b
}
