package rdmanet

import (
	"errors"
	"fmt"
)

// A message is a header and bytes of the stream. The header is checked on every
// message: the first one of a peer that speaks something else says so.
const (
	headerSize = 4
	minMessage = 64

	magic0, magic1 = 'z', 'n'
	version        = 1
)

// Kinds of messages.
const (
	kindData = 1 + iota // bytes follow, at least one
	kindEnd             // no bytes will follow
)

// ErrProtocol: the peer is not of this package, or of another version.
var ErrProtocol = errors.New("the peer does not speak the protocol of package rdmanet")

func putHeader(b []byte, kind byte) {
	b[0], b[1], b[2], b[3] = magic0, magic1, version, kind
}

// parse gives the bytes of a message.
func parse(b []byte) (kind byte, data []byte, err error) {
	switch {
	case len(b) < headerSize || b[0] != magic0 || b[1] != magic1:
		return 0, nil, fmt.Errorf("a message that begins with %x: %w", b[:min(len(b), headerSize)], ErrProtocol)
	case b[2] != version:
		return 0, nil, fmt.Errorf("this side speaks version %d, the peer %d: %w", version, b[2], ErrProtocol)
	}
	kind, data = b[3], b[headerSize:]
	if kind == kindData && len(data) > 0 || kind == kindEnd && len(data) == 0 {
		return kind, data, nil
	}
	return 0, nil, fmt.Errorf("a message of kind %d with %d bytes: %w", kind, len(data), ErrProtocol)
}
