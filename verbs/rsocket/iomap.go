package rsocket

import (
	"runtime"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/internal/ibv"
)

// iomap is a buffer that the peer may know.
type iomap struct {
	b   []byte
	pin runtime.Pinner
}

// IOMap lets the peer write to b (ProtWrite) under the returned offset, which is
// the given one, or one of the library's choice for -1. The peer must have set
// RDMAIOMapSize before it connected or listened, and learns of the mapping with
// the next data sent to it. b stays pinned until IOUnmap or Close; the peer may
// write at any moment, so read it only after a message that says it is done.
//
// Verb: riomap(7).
func (s *Socket) IOMap(b []byte, prot, flags int, offset int64) (off int64, err error) {
	if err := s.streamOnly("riomap"); err != nil {
		return 0, err
	}
	err = s.do("riomap", func() error {
		if len(b) == 0 {
			return syscall.EINVAL
		}
		m := &iomap{b: b}
		m.pin.Pin(unsafe.SliceData(b))
		s.mu.Lock()
		defer s.mu.Unlock()
		if off, err = ibv.RIOMap(s.fd, b, prot, flags, offset); err != nil {
			m.pin.Unpin()
			return err
		}
		s.maps = append(s.maps, m)
		return nil
	})
	return off, err
}

// IOUnmap ends the mapping of b, exactly as it was given to IOMap. The peer is
// not told: a later write of it fails its connection.
//
// Verb: riounmap(7).
func (s *Socket) IOUnmap(b []byte) error {
	if err := s.streamOnly("riounmap"); err != nil {
		return err
	}
	return s.do("riounmap", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, m := range s.maps {
			if unsafe.SliceData(m.b) != unsafe.SliceData(b) || len(m.b) != len(b) {
				continue
			}
			if err := ibv.RIOUnmap(s.fd, b); err != nil {
				return err
			}
			m.pin.Unpin()
			s.maps = append(s.maps[:i], s.maps[i+1:]...)
			return nil
		}
		return syscall.EINVAL
	})
}

// unmapAll goes before rclose, which in librdmacm 44 never returns while a
// mapping is left. Inside Close.
func (s *Socket) unmapAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.maps {
		// One that cannot be unmapped stays pinned: the device may write to it.
		if ibv.RIOUnmap(s.fd, m.b) == nil {
			m.pin.Unpin()
		}
	}
	s.maps = nil
}

// IOWrite writes b into what the peer mapped at offset, without the peer's
// taking part; data sent later arrives later. It may write less than all, and
// writes nothing where no mapping is known.
//
// Verb: riowrite(7).
func (s *Socket) IOWrite(b []byte, offset int64, flags int) (n int, err error) {
	if err := s.streamOnly("riowrite"); err != nil {
		return 0, err
	}
	err = s.do("riowrite", func() error {
		n, err = ibv.RIOWrite(s.fd, b, offset, flags|MsgDontWait)
		return err
	})
	return n, err
}
