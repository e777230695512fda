package qp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// hello is what the two sides of a connection tell each other before the first
// message: in the private data of the connection manager, or in an Endpoint.
// The connection manager has room for 56 bytes.
type hello struct {
	raw        bool // sent by no Conn, or by one with Config.Raw
	credits    int  // messages that may be sent before a credit comes back
	maxMessage int  // bytes
	rdAtomic   int
}

const (
	helloSize    = 16
	helloMagic   = 0x5a51 // "QZ"
	helloVersion = 1
)

// ErrVersion: the peer speaks another version of the connection's own messages.
var ErrVersion = errors.New("the peer is of another version")

func (h hello) encode() []byte {
	b := make([]byte, helloSize)
	binary.LittleEndian.PutUint16(b, helloMagic)
	b[2] = helloVersion
	b[3] = byte(h.rdAtomic)
	binary.LittleEndian.PutUint32(b[4:], uint32(h.credits))
	binary.LittleEndian.PutUint32(b[8:], uint32(h.maxMessage))
	return b
}

// decodeHello reads private data, which may be followed by zeros. Sizes are
// taken as limits only, never to allocate.
func decodeHello(b []byte) (hello, error) {
	if len(b) < helloSize || binary.LittleEndian.Uint16(b) != helloMagic {
		return hello{}, errors.New("qp: the peer did not say hello: it is no zrdma connection; both sides need Config.Raw to talk to such a peer")
	}
	if b[2] != helloVersion {
		return hello{}, fmt.Errorf("qp: this side speaks version %d, the peer %d: %w", helloVersion, b[2], ErrVersion)
	}
	h := hello{
		rdAtomic: int(b[3]), credits: int(binary.LittleEndian.Uint32(b[4:])), maxMessage: int(binary.LittleEndian.Uint32(b[8:])),
	}
	if h.credits < 1 || h.credits > 1<<14 || h.maxMessage < controlSize || h.maxMessage > 1<<30 || h.rdAtomic > 128 {
		return hello{}, fmt.Errorf("qp: the peer's hello makes no sense: %d credits, messages of %d bytes, %d reads", h.credits, h.maxMessage, h.rdAtomic)
	}
	return h, nil
}
