package rsocket

import (
	"net/netip"
	"syscall"

	"github.com/zrdma/zrdma/internal/ibv"
)

// Recv receives into b. 0 means that the stream has ended, or failed: see Err.
//
// Verb: rrecv(7).
func (s *Socket) Recv(b []byte, flags int) (int, error) {
	if err := s.h.Enter(); err != nil {
		return 0, err
	}
	defer s.h.Exit()
	n, err := ibv.RRecv(s.fd, b, flags|MsgDontWait)
	return n, opErr("rrecv", err)
}

// RecvFrom is Recv that also tells the sender.
//
// Verb: rrecvfrom(7).
func (s *Socket) RecvFrom(b []byte, flags int) (n int, from netip.AddrPort, err error) {
	err = s.do("rrecvfrom", func() error {
		var raw [ibv.SockAddrLen]byte
		var l int
		n, l, err = ibv.RRecvFrom(s.fd, b, flags|MsgDontWait, &raw)
		from = addrPort(raw[:min(l, len(raw))])
		return err
	})
	return n, from, err
}

// RecvMsg receives into the first of bufs: the library looks at no other.
//
// Verb: rrecvmsg(7).
func (s *Socket) RecvMsg(bufs [][]byte, flags int) (n int, err error) {
	err = s.do("rrecvmsg", func() error {
		n, err = ibv.RRecvMsg(s.fd, bufs, flags|MsgDontWait)
		return err
	})
	return n, err
}

// Read is Recv without flags.
//
// Verb: rread(7).
func (s *Socket) Read(b []byte) (n int, err error) {
	err = s.do("rread", func() error {
		n, err = ibv.RRead(s.fd, b)
		return err
	})
	return n, err
}

// ReadV receives into the first of bufs: the library looks at no other.
//
// Verb: rreadv(7).
func (s *Socket) ReadV(bufs [][]byte) (n int, err error) {
	err = s.do("rreadv", func() error {
		n, err = ibv.RReadV(s.fd, bufs)
		return err
	})
	return n, err
}

// fits keeps a datagram inside the library's buffer, which it does not check.
func (s *Socket) fits(n int) error {
	room := MaxDatagram
	if s.domain == AFInet {
		room += 12
	}
	if s.typ == Dgram && n > room {
		return syscall.EMSGSIZE
	}
	return nil
}

// Send sends from b, as much as there is room for: it may be less than all.
//
// Verb: rsend(7).
func (s *Socket) Send(b []byte, flags int) (int, error) {
	if err := s.h.Enter(); err != nil {
		return 0, err
	}
	defer s.h.Exit()
	if err := s.canSend(len(b)); err != nil {
		return 0, opErr("rsend", err)
	}
	n, err := ibv.RSend(s.fd, b, flags|MsgDontWait)
	return n, opErr("rsend", err)
}

// canSend refuses what the library would crash on.
func (s *Socket) canSend(n int) error {
	if s.typ == Dgram {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.peer {
			return syscall.EDESTADDRREQ
		}
	}
	return s.fits(n)
}

// SendTo sends a datagram. The first to a peer travels by UDP.
//
// Verb: rsendto(7).
func (s *Socket) SendTo(b []byte, flags int, to netip.AddrPort) (n int, err error) {
	err = s.do("rsendto", func() error {
		if err := s.fits(len(b)); err != nil {
			return err
		}
		a, err := sockaddr(to, s.domain)
		if err != nil {
			return err
		}
		n, err = ibv.RSendTo(s.fd, b, flags|MsgDontWait, a)
		if err == nil {
			s.mu.Lock()
			s.peer = true
			s.mu.Unlock()
		}
		return err
	})
	return n, err
}

// SendMsg sends from all of bufs, as much as there is room for.
//
// Verb: rsendmsg(7).
func (s *Socket) SendMsg(bufs [][]byte, flags int) (n int, err error) {
	if err := s.streamOnly("rsendmsg"); err != nil {
		return 0, err
	}
	err = s.do("rsendmsg", func() error {
		n, err = ibv.RSendMsg(s.fd, bufs, flags|MsgDontWait)
		return err
	})
	return n, err
}

// Write is Send without flags.
//
// Verb: rwrite(7).
func (s *Socket) Write(b []byte) (n int, err error) {
	err = s.do("rwrite", func() error {
		if err := s.canSend(len(b)); err != nil {
			return err
		}
		n, err = ibv.RWrite(s.fd, b)
		return err
	})
	return n, err
}

// WriteV is SendMsg without flags.
//
// Verb: rwritev(7).
func (s *Socket) WriteV(bufs [][]byte) (n int, err error) {
	if err := s.streamOnly("rwritev"); err != nil {
		return 0, err
	}
	err = s.do("rwritev", func() error {
		n, err = ibv.RWriteV(s.fd, bufs)
		return err
	})
	return n, err
}
