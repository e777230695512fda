package link

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

const port = wire.Port

// sender is the sending half of a socket. What a system call reads lies here, so
// that nothing is allocated for one.
type sender struct {
	mu      sync.Mutex // uncontended but for Close
	batch   *batch
	blocked bool // the socket is full; the batch waits
	waiting bool // a goroutine waits for room

	msg  unix.Msghdr
	iov  [2*batchBytes/refMin + 1]unix.Iovec
	sa4  unix.RawSockaddrInet4
	sa6  unix.RawSockaddrInet6
	ctl  [cmsgSpace]byte
	zone uint32

	// transmit sends the pieces as one datagram, in segments of seg bytes when seg is
	// not 0, to the address in msg. Tests replace it.
	transmit func(pieces [][]byte, seg int) syscall.Errno
}

// cmsgSpace holds one control message of up to 8 bytes.
const cmsgSpace = unix.SizeofCmsghdr + 8

func (s *sender) init(l *udpLink, o UDPOptions) {
	n := batchPackets
	if o.NoOffload {
		n = 1
	}
	s.batch, s.zone = newBatch(l.addr, n, o), l.zone
	s.msg.Iov = &s.iov[0]
	if l.addr.Is4() {
		s.sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&s.sa4.Port))[:], port)
		s.msg.Name, s.msg.Namelen = (*byte)(unsafe.Pointer(&s.sa4)), unix.SizeofSockaddrInet4
	} else {
		s.sa6 = unix.RawSockaddrInet6{Family: unix.AF_INET6}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&s.sa6.Port))[:], port)
		s.msg.Name, s.msg.Namelen = (*byte)(unsafe.Pointer(&s.sa6)), unix.SizeofSockaddrInet6
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&s.ctl[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	s.transmit = func(pieces [][]byte, seg int) syscall.Errno {
		for i, p := range pieces {
			s.iov[i].Base = &p[0]
			s.iov[i].SetLen(len(p))
		}
		s.msg.SetIovlen(len(pieces))
		s.msg.Control = nil
		s.msg.SetControllen(0)
		if seg != 0 {
			*(*uint16)(unsafe.Pointer(&s.ctl[unix.CmsgLen(0)])) = uint16(seg)
			s.msg.Control = &s.ctl[0]
			s.msg.SetControllen(unix.CmsgSpace(2))
		}
		_, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(l.fd), uintptr(unsafe.Pointer(&s.msg)), 0)
		for i := range pieces { // some is not Go's memory, and may be gone soon
			s.iov[i].Base = nil
		}
		return e
	}
}

// Send implements Link.
func (l *udpLink) Send(dst netip.Addr, p *wire.Packet, segs [][]byte, n int) {
	t := &l.tx
	size := packetSize(p, n)
	dst = dst.Unmap()
	t.mu.Lock()
	defer t.mu.Unlock()
	if size == 0 || dst.Is4() != l.addr.Is4() || l.closed.Load() {
		l.txDropped.Add(1)
		return
	}
	if !t.batch.fits(dst, size) {
		if t.blocked || l.push() == unix.EAGAIN {
			l.txDropped.Add(1)
			return
		}
	}
	t.batch.add(dst, p, segs, n, size)
	if t.batch.full() && !t.blocked {
		l.push()
	}
}

// sendRaw sends a packet by itself.
func (l *udpLink) sendRaw(dst netip.Addr, build rawPacket) {
	t := &l.tx
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.closed.Load() || t.blocked || t.batch.n > 0 && l.push() == unix.EAGAIN {
		l.txDropped.Add(1)
		return
	}
	t.batch.addRaw(dst, build)
	l.push()
}

// Flush implements Link.
func (l *udpLink) Flush() error {
	t := &l.tx
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.closed.Load() {
		return net.ErrClosed
	}
	if t.batch.n > 0 && l.push() == unix.EAGAIN {
		return unix.EAGAIN
	}
	return nil
}

// push sends the batch; it is empty afterwards unless the result is EAGAIN. The
// caller holds tx.mu.
func (l *udpLink) push() syscall.Errno {
	t := &l.tx
	b := t.batch
	t.address(b.dst)
	seg := b.seg
	if b.n == 1 {
		seg = 0
	}
	pieces := b.whole()
	e := t.transmit(pieces, seg)
	for e == unix.EINTR {
		e = t.transmit(pieces, seg)
	}
	switch {
	case e == 0:
		l.sent(b.n, b.size)
	case e == unix.EAGAIN:
		t.blocked = true
		b.flatten()
		if !t.waiting {
			t.waiting = true
			l.wg.Add(1)
			go l.waitRoom()
		}
		return e
	case seg != 0 && (e == unix.EINVAL || e == unix.EIO || e == unix.EMSGSIZE):
		l.pushAlone()
	default:
		l.txDropped.Add(uint64(b.n))
	}
	t.blocked = false
	b.reset()
	return 0
}

// pushAlone sends the batch packet by packet: the kernel, or the way to this
// destination, does not take it whole. When that helps, later ones go so at once.
func (l *udpLink) pushAlone() {
	t := &l.tx
	t.batch.flatten()
	for i := range t.batch.n {
		p := t.batch.alone(i)
		if t.transmit([][]byte{p}, 0) != 0 {
			l.txDropped.Add(1)
			continue
		}
		l.sent(1, len(p))
		t.batch.max = 1
	}
}

// address sets where transmit sends to.
func (s *sender) address(dst netip.Addr) {
	if dst.Is4() {
		s.sa4.Addr = dst.As4()
		return
	}
	s.sa6.Addr = dst.As16()
	s.sa6.Scope_id = 0
	if dst.IsLinkLocalUnicast() {
		s.sa6.Scope_id = s.zone
	}
}

// waitRoom tells the handler when the socket takes packets again. It holds a
// thread while it waits, which is rare and short: loopback never gets here.
func (l *udpLink) waitRoom() {
	defer l.wg.Done()
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLOUT}}
	for !l.closed.Load() {
		n, err := unix.Poll(fds, 50)
		if n > 0 || err != nil && err != unix.EINTR {
			break
		}
	}
	l.tx.mu.Lock()
	l.tx.waiting = false
	l.tx.mu.Unlock()
	if !l.closed.Load() {
		l.handler.Writable(l)
	}
}
