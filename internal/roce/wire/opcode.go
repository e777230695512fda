// Package wire is the RoCEv2 packet format: base transport header, extension
// headers, invariant CRC. It allocates nothing and keeps no state.
//
// Source: InfiniBand Architecture Specification 1.4, chapters 9 and A17.
package wire

// Opcode is the first byte of the base transport header: transport service in
// the upper three bits, operation in the lower five.
type Opcode uint8

// Opcodes of the services this device speaks.
const (
	RCSendFirst      Opcode = 0x00
	RCSendMiddle     Opcode = 0x01
	RCSendLast       Opcode = 0x02
	RCSendLastImm    Opcode = 0x03
	RCSendOnly       Opcode = 0x04
	RCSendOnlyImm    Opcode = 0x05
	RCWriteFirst     Opcode = 0x06
	RCWriteMiddle    Opcode = 0x07
	RCWriteLast      Opcode = 0x08
	RCWriteLastImm   Opcode = 0x09
	RCWriteOnly      Opcode = 0x0a
	RCWriteOnlyImm   Opcode = 0x0b
	RCReadRequest    Opcode = 0x0c
	RCReadRespFirst  Opcode = 0x0d
	RCReadRespMiddle Opcode = 0x0e
	RCReadRespLast   Opcode = 0x0f
	RCReadRespOnly   Opcode = 0x10
	RCAck            Opcode = 0x11
	RCAtomicAck      Opcode = 0x12
	RCCompareSwap    Opcode = 0x13
	RCFetchAdd       Opcode = 0x14
	RCSendLastInv    Opcode = 0x16
	RCSendOnlyInv    Opcode = 0x17
	UCSendFirst      Opcode = 0x20 // UC: RC's SEND and WRITE, without acknowledgements
	UCSendMiddle     Opcode = 0x21
	UCSendLast       Opcode = 0x22
	UCSendLastImm    Opcode = 0x23
	UCSendOnly       Opcode = 0x24
	UCSendOnlyImm    Opcode = 0x25
	UCWriteFirst     Opcode = 0x26
	UCWriteMiddle    Opcode = 0x27
	UCWriteLast      Opcode = 0x28
	UCWriteLastImm   Opcode = 0x29
	UCWriteOnly      Opcode = 0x2a
	UCWriteOnlyImm   Opcode = 0x2b
	UDSendOnly       Opcode = 0x64
	UDSendOnlyImm    Opcode = 0x65
	CNP              Opcode = 0x81
	numOpcodes              = 256
)

// headers says which extension headers an opcode carries, in wire order.
type headers uint16

const (
	hasRETH headers = 1 << iota
	hasAETH
	hasAtomicETH
	hasAtomicAck
	hasDETH
	hasImm
	hasIETH
	hasPayload
	hasCNP // 16 reserved bytes
	known
)

var layout = [numOpcodes]headers{
	RCSendFirst:      known | hasPayload,
	RCSendMiddle:     known | hasPayload,
	RCSendLast:       known | hasPayload,
	RCSendLastImm:    known | hasImm | hasPayload,
	RCSendOnly:       known | hasPayload,
	RCSendOnlyImm:    known | hasImm | hasPayload,
	RCWriteFirst:     known | hasRETH | hasPayload,
	RCWriteMiddle:    known | hasPayload,
	RCWriteLast:      known | hasPayload,
	RCWriteLastImm:   known | hasImm | hasPayload,
	RCWriteOnly:      known | hasRETH | hasPayload,
	RCWriteOnlyImm:   known | hasRETH | hasImm | hasPayload,
	RCReadRequest:    known | hasRETH,
	RCReadRespFirst:  known | hasAETH | hasPayload,
	RCReadRespMiddle: known | hasPayload,
	RCReadRespLast:   known | hasAETH | hasPayload,
	RCReadRespOnly:   known | hasAETH | hasPayload,
	RCAck:            known | hasAETH,
	RCAtomicAck:      known | hasAETH | hasAtomicAck,
	RCCompareSwap:    known | hasAtomicETH,
	RCFetchAdd:       known | hasAtomicETH,
	RCSendLastInv:    known | hasIETH | hasPayload,
	RCSendOnlyInv:    known | hasIETH | hasPayload,
	UCSendFirst:      known | hasPayload,
	UCSendMiddle:     known | hasPayload,
	UCSendLast:       known | hasPayload,
	UCSendLastImm:    known | hasImm | hasPayload,
	UCSendOnly:       known | hasPayload,
	UCSendOnlyImm:    known | hasImm | hasPayload,
	UCWriteFirst:     known | hasRETH | hasPayload,
	UCWriteMiddle:    known | hasPayload,
	UCWriteLast:      known | hasPayload,
	UCWriteLastImm:   known | hasImm | hasPayload,
	UCWriteOnly:      known | hasRETH | hasPayload,
	UCWriteOnlyImm:   known | hasRETH | hasImm | hasPayload,
	UDSendOnly:       known | hasDETH | hasPayload,
	UDSendOnlyImm:    known | hasDETH | hasImm | hasPayload,
	CNP:              known | hasCNP,
}

// Sizes in bytes.
const (
	BTHSize       = 12
	RETHSize      = 16
	AETHSize      = 4
	AtomicETHSize = 28
	AtomicAckSize = 8
	DETHSize      = 8
	ImmSize       = 4
	IETHSize      = 4
	CNPSize       = 16
	ICRCSize      = 4
	// MaxHeader is the longest header of any opcode.
	MaxHeader = BTHSize + AtomicETHSize
	// Port is RoCEv2's UDP port.
	Port = 4791
	// PSNMask bounds packet sequence numbers and queue pair numbers to 24 bits.
	PSNMask = 1<<24 - 1
)

// Known reports an opcode that this package can decode.
func (o Opcode) Known() bool { return layout[o]&known != 0 }

// HeaderLen is the length of the base and extension headers, 0 for an unknown opcode.
func (o Opcode) HeaderLen() int { return int(headerLen[o]) }

// HasPayload reports whether packets of the opcode carry data.
func (o Opcode) HasPayload() bool { return layout[o]&hasPayload != 0 }

var headerLen = func() (t [numOpcodes]uint8) {
	for o, h := range layout {
		if h&known == 0 {
			continue
		}
		n := BTHSize
		for _, e := range []struct {
			bit headers
			n   int
		}{{hasRETH, RETHSize}, {hasAETH, AETHSize}, {hasAtomicETH, AtomicETHSize}, {hasAtomicAck, AtomicAckSize},
			{hasDETH, DETHSize}, {hasImm, ImmSize}, {hasIETH, IETHSize}, {hasCNP, CNPSize}} {
			if h&e.bit != 0 {
				n += e.n
			}
		}
		t[o] = uint8(n)
	}
	return t
}()
