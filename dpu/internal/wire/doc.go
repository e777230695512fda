// Package wire is what a host and its agent say to each other: messages, descriptors
// of operations, and entries of the status ring. Little-endian, fixed offsets, the
// same on every processor; docs/dpu-protocol.md has the tables and vectors.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Version of messages, descriptors and status entries.
const Version = 1

// ErrVersion: the peer speaks another version.
var ErrVersion = errors.New("another version of the protocol")

// ErrMalformed: bytes that are none of this protocol's.
var ErrMalformed = errors.New("malformed")

func malformed(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, a...)...)
}

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Type of a message.
type Type uint8

// Values of Type.
const (
	Hello       Type = 1 // host to agent, control: who it is
	Welcome     Type = 2 // agent to host, control: what it may do, and the agent's proof
	Proof       Type = 3 // host to agent, control: its proof, and the status ring
	Ready       Type = 4 // agent to host, control
	Descriptors Type = 5 // host to agent, data
	Cancel      Type = 6 // host to agent, data: an id
	Beat        Type = 7 // both ways, control
	Bye         Type = 8 // both ways, control: the end, and why
)

// HeaderLen is the length of the header before every message.
const HeaderLen = 16

const magic = 'D'

// Header of a message.
type Header struct {
	Type  Type
	Epoch uint32
	Count uint16 // descriptors
}

// Append appends a message: its header and body. Seal it.
func (h Header) Append(b []byte) []byte {
	b = append(b, magic, Version, byte(h.Type), 0)
	b = le.AppendUint32(b, h.Epoch)
	b = le.AppendUint16(b, h.Count)
	return append(b, 0, 0, 0, 0, 0, 0)
}

// Seal puts the checksum into a message that is complete.
func Seal(m []byte) []byte {
	le.PutUint32(m[12:], 0)
	le.PutUint32(m[12:], crc32.Checksum(m, castagnoli))
	return m
}

var zero4 [4]byte

func sum(m []byte, at int) uint32 {
	c := crc32.Update(0, castagnoli, m[:at])
	c = crc32.Update(c, castagnoli, zero4[:])
	return crc32.Update(c, castagnoli, m[at+4:])
}

// Parse takes a message apart; body is part of m. A message of another version is
// an error before its checksum is looked at.
func Parse(m []byte) (h Header, body []byte, err error) {
	if len(m) < HeaderLen || m[0] != magic {
		return h, nil, malformed("%d bytes that are no message of an agent or its host", len(m))
	}
	if m[1] != Version {
		return h, nil, fmt.Errorf("%w: the peer sends %d, this side speaks %d: upgrade the older one", ErrVersion, m[1], Version)
	}
	if got, want := le.Uint32(m[12:]), sum(m, 12); got != want {
		return h, nil, malformed("the checksum of a message is %#x and should be %#x", got, want)
	}
	h = Header{Type: Type(m[2]), Epoch: le.Uint32(m[4:]), Count: le.Uint16(m[8:])}
	if h.Type < Hello || h.Type > Bye || m[3] != 0 || m[10] != 0 || m[11] != 0 {
		return h, nil, malformed("a message of type %d", m[2])
	}
	return h, m[HeaderLen:], nil
}
