package rsocket

import (
	"syscall"

	"github.com/zrdma/zrdma/internal/ibv"
)

// optOK refuses what the library would read from a connection that a datagram
// socket does not have.
func (s *Socket) optOK(call string, level, name int) error {
	if s.typ == Dgram && (level == SolTCP || level == SolRDMA && name == RDMARoute) {
		return unsupported(call, "not on a datagram rsocket")
	}
	return nil
}

// SetSockOpt sets an option from its C value.
//
// Verb: rsetsockopt(7).
func (s *Socket) SetSockOpt(level, name int, value []byte) error {
	if err := s.optOK("rsetsockopt", level, name); err != nil {
		return err
	}
	if len(value) < 4 { // the library reads an int without looking at the length
		return opErr("rsetsockopt", syscall.EINVAL)
	}
	return s.do("rsetsockopt", func() error { return ibv.RSetSockOpt(s.fd, level, name, value) })
}

// GetSockOpt reads an option into value and returns the length of it.
//
// Verb: rgetsockopt(7).
func (s *Socket) GetSockOpt(level, name int, value []byte) (n int, err error) {
	if err := s.optOK("rgetsockopt", level, name); err != nil {
		return 0, err
	}
	// The library writes an int, or a struct linger, without looking at the room.
	room := make([]byte, max(len(value), 16))
	err = s.do("rgetsockopt", func() error {
		n, err = ibv.RGetSockOpt(s.fd, level, name, room)
		return err
	})
	n = min(n, len(value))
	copy(value, room[:n])
	return n, err
}

// SetSockOptInt sets an option that is a C int.
func (s *Socket) SetSockOptInt(level, name, value int) error {
	v := int32(value)
	return s.SetSockOpt(level, name, bytesOf(&v))
}

// GetSockOptInt reads an option that is a C int.
func (s *Socket) GetSockOptInt(level, name int) (int, error) {
	var v int32
	_, err := s.GetSockOpt(level, name, bytesOf(&v))
	return int(v), err
}
