package mr

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/verbs"
)

// Remote is memory as a peer addresses it. It is what a Grant shows, and what
// is sent to the peer: RemoteLen bytes, little-endian.
type Remote struct {
	Addr uint64
	Len  uint32 // bytes
	RKey verbs.RKey
}

// RemoteLen is the length of an encoded Remote in bytes.
const RemoteLen = 16

// AppendBinary appends the encoded Remote. It never fails.
func (r Remote) AppendBinary(b []byte) ([]byte, error) {
	b = binary.LittleEndian.AppendUint64(b, r.Addr)
	b = binary.LittleEndian.AppendUint32(b, r.Len)
	return binary.LittleEndian.AppendUint32(b, uint32(r.RKey)), nil
}

// MarshalBinary encodes the Remote. It never fails.
func (r Remote) MarshalBinary() ([]byte, error) { return r.AppendBinary(nil) }

// UnmarshalBinary decodes a Remote from exactly RemoteLen bytes. A range that
// wraps round the address space is refused.
func (r *Remote) UnmarshalBinary(b []byte) error {
	if len(b) != RemoteLen {
		return fmt.Errorf("mr: a Remote has %d bytes, not %d", RemoteLen, len(b))
	}
	v := Remote{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:]), verbs.RKey(binary.LittleEndian.Uint32(b[12:]))}
	if v.Addr+uint64(v.Len) < v.Addr {
		return errWraps
	}
	*r = v
	return nil
}

var errWraps = errors.New("mr: a Remote whose range wraps round the address space")

// Slice is n bytes at off of r, or an error when they are not inside.
func (r Remote) Slice(off uint64, n int) (Remote, error) {
	if n < 0 || off > uint64(r.Len) || uint64(n) > uint64(r.Len)-off {
		return Remote{}, fmt.Errorf("mr: bytes [%d, %d+%d) of a Remote of %d", off, off, n, r.Len)
	}
	return Remote{r.Addr + off, uint32(n), r.RKey}, nil
}
