package wire

import (
	"fmt"
	"math"
)

// Op is what a descriptor asks for.
type Op uint8

// Values of Op.
const (
	OpGet    Op = 1 // the block into the host's memory
	OpPut    Op = 2 // the host's memory as a block
	OpStat   Op = 3
	OpList   Op = 4 // keys behind Key into the host's memory
	OpDelete Op = 5
)

// String is the name of the operation.
func (o Op) String() string {
	if int(o) < len(opNames) && opNames[o] != "" {
		return opNames[o]
	}
	return fmt.Sprintf("Op(%d)", uint8(o))
}

var opNames = [...]string{OpGet: "get", OpPut: "put", OpStat: "stat", OpList: "list", OpDelete: "delete"}

// HasMemory reports an operation that names memory of the host.
func (o Op) HasMemory() bool { return o == OpGet || o == OpPut || o == OpList }

// Writes reports an operation that changes the store.
func (o Op) Writes() bool { return o == OpPut || o == OpDelete }

// Flags of a descriptor.
const (
	HasSum uint16 = 1 << 0 // Sum is the CRC-32C of the block
	Replay uint16 = 1 << 1 // the write was sent before
)

const knownFlags = HasSum | Replay

// FixedLen is the length of a descriptor without its key; with it the length is
// rounded up to a multiple of 8.
const FixedLen = 64

// MaxKey is the longest key in bytes.
const MaxKey = 255

// Descriptor is one operation for the agent.
type Descriptor struct {
	Op      Op
	Epoch   uint32 // of the session
	ID      uint64 // the host's: it comes back in the status
	Backend uint32 // handle
	Timeout uint32 // microseconds that remain; 0: none
	Addr    uint64 // memory of the host
	Len     uint32
	RKey    uint32
	Sum     uint32
	Flags   uint16
	Seq     uint64 // of a write: its number among the writer's
	Boot    uint64 // of a write: the server's process, as the host knows it
	Key     string
}

// Size is the length of the encoded descriptor.
func (d *Descriptor) Size() int { return (FixedLen + len(d.Key) + 7) &^ 7 }

// Append appends the descriptor. Key must not be longer than MaxKey.
func (d *Descriptor) Append(b []byte) []byte {
	n := d.Size()
	b = le.AppendUint16(b, uint16(n))
	b = append(b, Version, byte(d.Op))
	b = le.AppendUint32(b, d.Epoch)
	b = le.AppendUint64(b, d.ID)
	b = le.AppendUint32(b, d.Backend)
	b = le.AppendUint32(b, d.Timeout)
	b = le.AppendUint64(b, d.Addr)
	b = le.AppendUint32(b, d.Len)
	b = le.AppendUint32(b, d.RKey)
	b = le.AppendUint32(b, d.Sum)
	b = le.AppendUint16(b, d.Flags)
	b = append(b, byte(len(d.Key)), 0)
	b = le.AppendUint64(b, d.Seq)
	b = le.AppendUint64(b, d.Boot)
	b = append(b, d.Key...)
	for range n - FixedLen - len(d.Key) {
		b = append(b, 0)
	}
	return b
}

// Next takes the first descriptor off b. An error that wraps ErrMalformed says that
// b cannot be walked any further. With any other error d.ID, d.Epoch and rest are
// valid: that one operation is to be refused.
func (d *Descriptor) Next(b []byte) (rest []byte, err error) {
	*d = Descriptor{}
	if len(b) < FixedLen {
		return nil, malformed("%d bytes of a descriptor", len(b))
	}
	n := int(le.Uint16(b))
	if n < FixedLen || n%8 != 0 || n > len(b) {
		return nil, malformed("a descriptor of %d bytes in %d", n, len(b))
	}
	rest = b[n:]
	d.Op, d.Epoch, d.ID = Op(b[3]), le.Uint32(b[4:]), le.Uint64(b[8:])
	if v := b[2]; v != Version {
		return rest, fmt.Errorf("%w: a descriptor of version %d, this agent speaks %d: upgrade the older one", ErrVersion, v, Version)
	}
	d.Backend, d.Timeout, d.Addr = le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint64(b[24:])
	d.Len, d.RKey, d.Sum, d.Flags = le.Uint32(b[32:]), le.Uint32(b[36:]), le.Uint32(b[40:]), le.Uint16(b[44:])
	d.Seq, d.Boot = le.Uint64(b[48:]), le.Uint64(b[56:])
	k := int(b[46])
	if FixedLen+k > n || n-FixedLen-k > 7 {
		return rest, fmt.Errorf("a key of %d bytes in a descriptor of %d", k, n)
	}
	d.Key = string(b[FixedLen : FixedLen+k])
	switch {
	case d.Op < OpGet || d.Op > OpDelete:
		return rest, fmt.Errorf("operation %d is unknown", b[3])
	case d.Flags&^knownFlags != 0 || b[47] != 0:
		return rest, fmt.Errorf("flags %#x are unknown", d.Flags&^knownFlags)
	case d.Op.HasMemory() && uint64(d.Len) > math.MaxUint64-d.Addr:
		return rest, fmt.Errorf("%d bytes at %#x run over the end of the address space", d.Len, d.Addr)
	case d.Op.HasMemory() && d.Len == 0 && d.Op != OpPut:
		return rest, fmt.Errorf("%v without memory", d.Op)
	}
	return rest, nil
}
