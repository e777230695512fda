package compare

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapSender sends from the mapped file without a copy, as far as the kernel and
// the path go along: it tells afterwards, on the error queue of the socket.
type mapSender struct {
	e       *env
	sent    uint32 // zero-copy sends, each of which is answered
	done    uint32 // answered
	copied  uint32 // of them, those that the kernel copied after all
	refused int64  // sends that were ordinary, for want of room for notices
	control [256]byte
}

func newMapSender(e *env) (*mapSender, error) {
	// The notices on the error queue wake the Go runtime's poller, which takes them
	// for a descriptor that cannot be polled.
	fd, err := e.conn.block()
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1); err != nil {
		return nil, fmt.Errorf("SO_ZEROCOPY: this kernel does not send from where data lies; Linux 4.14 does: %w", err)
	}
	return &mapSender{e: e}, nil
}

func (s *mapSender) send(block uint64) error {
	b := s.e.src.block(block)
	for len(b) > 0 {
		flags := unix.MSG_ZEROCOPY | unix.MSG_NOSIGNAL
		n, err := s.e.conn.writable("send", func(fd int) (int, error) {
			n, err := unix.SendmsgN(fd, b, nil, nil, flags)
			if err == unix.ENOBUFS && flags&unix.MSG_ZEROCOPY != 0 {
				// net.core.optmem_max holds no more notices: take some, or do without.
				if k, e := s.reap(fd); e != nil {
					return 0, e
				} else if k == 0 {
					flags &^= unix.MSG_ZEROCOPY
					s.refused++
				}
				s.e.m.call()
				n, err = unix.SendmsgN(fd, b, nil, nil, flags)
			}
			return n, err
		})
		if err != nil {
			return err
		}
		if flags&unix.MSG_ZEROCOPY != 0 {
			s.sent++
		}
		b = b[n:]
	}
	_, err := s.reap(s.e.conn.num)
	return err
}

// sockExtendedErr is struct sock_extended_err: notices lo to hi.
type sockExtendedErr struct {
	errno   uint32
	origin  uint8
	_       uint8
	code, _ uint8
	lo, hi  uint32
}

const (
	originZeroCopy = 5 // SO_EE_ORIGIN_ZEROCOPY
	codeCopied     = 1 // SO_EE_CODE_ZEROCOPY_COPIED
)

// reap takes the notices that are there and returns how many sends they are of.
func (s *mapSender) reap(fd int) (n uint32, err error) {
	for s.done < s.sent {
		s.e.m.call()
		_, k, _, _, err := unix.Recvmsg(fd, nil, s.control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return n, nil
		}
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("reading what became of zero-copy sends: %w", err)
		}
		msgs, err := unix.ParseSocketControlMessage(s.control[:k])
		if err != nil {
			return n, err
		}
		for _, m := range msgs {
			if len(m.Data) < int(unsafe.Sizeof(sockExtendedErr{})) {
				continue
			}
			x := sockExtendedErr{errno: binary.NativeEndian.Uint32(m.Data), origin: m.Data[4], code: m.Data[6],
				lo: binary.NativeEndian.Uint32(m.Data[8:]), hi: binary.NativeEndian.Uint32(m.Data[12:])}
			if x.origin != originZeroCopy {
				return n, fmt.Errorf("the connection failed: %w", unix.Errno(x.errno))
			}
			c := x.hi - x.lo + 1
			n += c
			s.done += c
			if x.code == codeCopied {
				s.copied += c
			}
		}
	}
	return n, nil
}

// finish takes the notices that are late, before the meter is read.
func (s *mapSender) finish() {
	for end := time.Now().Add(time.Second); s.done < s.sent && time.Now().Before(end); {
		n, err := s.reap(s.e.conn.num)
		if err != nil {
			break
		}
		if n == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	copiedNote(s.e.m, "MSG_ZEROCOPY", int64(s.sent), int64(s.copied), true)
	if s.refused > 0 {
		s.e.m.note(fmt.Sprintf("%d sends were ordinary ones: no room for notices; raise sysctl net.core.optmem_max", s.refused))
	}
}

func (s *mapSender) close() error { return nil }

// copiedNote says how many zero-copy sends were none.
func copiedNote(m *meter, what string, sent, copied int64, told bool) {
	switch {
	case !told:
		m.note(what + ": this kernel does not tell whether it copied; Linux 6.2 does")
	case copied == sent && sent > 0:
		m.note(what + ": the kernel copied the data of every send after all, as it does on loopback and where a device cannot gather")
	case copied > 0:
		m.note(what + ": the kernel copied the data of some sends after all")
	}
}
