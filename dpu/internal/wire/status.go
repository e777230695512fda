package wire

import (
	"hash/crc32"
	"unicode/utf8"
)

// EntryLen is the length of an entry of the status ring.
const EntryLen = 256

// MaxSlots bounds the entries of a ring, which is the operations at a time.
const MaxSlots = 4096

const textAt, crcAt = 48, EntryLen - 4

// MaxText is the longest text of a status in bytes; a longer one is cut.
const MaxText = crcAt - textAt

// Flags of a status.
const (
	NotBegun      uint8 = 1 << 0 // the agent asked no server for anything
	Indeterminate uint8 = 1 << 1 // a write that the server may have done, or may do
)

// Status is how an operation ended: one entry of the ring.
type Status struct {
	ID      uint64
	Epoch   uint32
	Code    uint16 // package rpc's; 0: good
	Flags   uint8
	Size    uint32 // bytes of the block, or of what a list put into memory
	Sum     uint32 // CRC-32C of the block
	Boot    uint64 // of a write: the server's process
	Number  uint64 // of the entry, from 0: it lies in slot Number mod slots
	Version uint64 // of the block
	Text    string // of an error
}

// Put writes the entry to b, EntryLen bytes.
func (s *Status) Put(b []byte) {
	_ = b[EntryLen-1]
	clear(b[:EntryLen])
	le.PutUint64(b, s.ID)
	le.PutUint32(b[8:], s.Epoch)
	le.PutUint16(b[12:], s.Code)
	b[14], b[15] = Version, s.Flags
	le.PutUint32(b[16:], s.Size)
	le.PutUint32(b[20:], s.Sum)
	le.PutUint64(b[24:], s.Boot)
	le.PutUint64(b[32:], s.Number)
	le.PutUint64(b[40:], s.Version)
	t := s.Text
	if len(t) > MaxText {
		t = t[:MaxText]
		for len(t) > 0 && !utf8.ValidString(t) {
			t = t[:len(t)-1]
		}
	}
	copy(b[textAt:], t)
	le.PutUint32(b[crcAt:], crc32.Checksum(b[:crcAt], castagnoli))
}

// Get reads an entry from b.
func (s *Status) Get(b []byte) error {
	*s = Status{}
	if len(b) < EntryLen {
		return malformed("%d bytes of a status entry", len(b))
	}
	if b[14] != Version {
		return malformed("a status entry of version %d, this host speaks %d", b[14], Version)
	}
	if le.Uint32(b[crcAt:]) != crc32.Checksum(b[:crcAt], castagnoli) {
		return malformed("the checksum of a status entry is wrong")
	}
	t := b[textAt:crcAt]
	n := len(t)
	for n > 0 && t[n-1] == 0 {
		n--
	}
	*s = Status{ID: le.Uint64(b), Epoch: le.Uint32(b[8:]), Code: le.Uint16(b[12:]), Flags: b[15], Size: le.Uint32(b[16:]), Sum: le.Uint32(b[20:]),
		Boot: le.Uint64(b[24:]), Number: le.Uint64(b[32:]), Version: le.Uint64(b[40:]), Text: string(t[:n])}
	return nil
}

// Imm is the immediate that announces n entries from slot first on.
func Imm(first, n int) uint32 { return uint32(n)<<16 | uint32(first) }

// ParseImm takes an immediate apart.
func ParseImm(imm uint32) (first, n int) { return int(imm & 0xffff), int(imm >> 16) }
