package link

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

const (
	recvBytes = 1 << 16 // the longest UDP datagram, or train of them
	// recvTrains bounds what one call of the handler gets: so many long trains, or
	// recvShort datagrams when the last call found short ones. A cache holds the first.
	recvTrains = 4
	recvShort  = 16
	// recvLong is what a long train has at least.
	recvLong = 16 << 10
)

// slot is where one datagram, or train of them, is received.
type slot struct {
	iov unix.Iovec
	sa  unix.RawSockaddrInet6 // or an Inet4, which is shorter
	ctl [128]byte
}

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

// receiver is the receiving half of a socket.
type receiver struct {
	mu    sync.Mutex // held by whoever receives, during the handler's call too
	buf   []byte     // recvShort times recvBytes; untouched pages cost nothing
	slots [recvShort]slot
	msgs  [recvShort]mmsghdr
	used  int  // of msgs: to be made ready again
	long  bool // the last call found a long train
	pkts  []Rx
	addrs wire.Addrs
	lost  uint32 // the kernel's last count of packets dropped
}

func (r *receiver) init(l *udpLink, gro bool) {
	r.buf = make([]byte, recvShort*recvBytes)
	r.addrs = wire.Addrs{Dst: l.addr, DstPort: port, DF: true}
	r.pkts = make([]Rx, 0, batchPackets)
	for i := range r.msgs {
		s, m := &r.slots[i], &r.msgs[i].Msghdr
		s.iov.Base = &r.buf[i*recvBytes]
		s.iov.SetLen(recvBytes)
		m.Name = (*byte)(unsafe.Pointer(&s.sa))
		m.Iov = &s.iov
		m.SetIovlen(1)
		m.Control = &s.ctl[0]
	}
	r.used = len(r.msgs)
}

// receive takes what has arrived, with one system call, and hands it to the
// handler. It returns the number of packets, and whether nothing was left. The
// caller holds mu.
func (r *receiver) receive(l *udpLink) (n int, drained bool) {
	if l.closed.Load() {
		return 0, true
	}
	most := recvShort
	if r.long {
		most = recvTrains
	}
	k, e := r.recvmmsg(l.fd, most)
	if e != 0 {
		// Anything but EAGAIN is about an earlier packet; reading on clears it.
		return 0, e == unix.EAGAIN
	}
	r.pkts, r.long = r.pkts[:0], false
	for i := range k {
		n, seg := r.taken(l, i)
		r.split(l, i, r.buf[i*recvBytes:i*recvBytes+n], seg)
		r.long = r.long || n >= recvLong
	}
	if len(r.pkts) > 0 {
		l.handler.Input(l, r.pkts)
	}
	return len(r.pkts), false
}

// recvmmsg receives into the first slots, at most most of them.
func (r *receiver) recvmmsg(fd, most int) (int, syscall.Errno) {
	for i := range r.msgs[:r.used] {
		m := &r.msgs[i].Msghdr
		m.Namelen, m.Flags = unix.SizeofSockaddrInet6, 0
		m.SetControllen(len(r.slots[i].ctl))
	}
	r.used = 0
	k, _, e := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.msgs)), uintptr(most), unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		r.used = 1 // the kernel writes to none then, but may have begun with the first
		return 0, e
	}
	r.used = int(k)
	return int(k), 0
}

// taken reads what came with message i: n bytes, in packets of seg bytes, the
// last shorter.
func (r *receiver) taken(l *udpLink, i int) (n, seg int) {
	m := &r.msgs[i]
	n, seg = int(m.n), int(m.n)
	for c := r.slots[i].ctl[:m.Controllen]; len(c) >= unix.SizeofCmsghdr; {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		if h.Len < unix.SizeofCmsghdr || uint64(h.Len) > uint64(len(c)) {
			break
		}
		v := c[unix.CmsgLen(0):h.Len]
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(v) >= 2:
			seg = int(binary.NativeEndian.Uint16(v))
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(v) >= 4:
			d := binary.NativeEndian.Uint32(v)
			l.rxDropped.Add(uint64(d - r.lost))
			r.lost = d
		}
		c = c[min(len(c), unix.CmsgSpace(len(v))):]
	}
	l.received(0, n)
	if m.Flags&unix.MSG_TRUNC != 0 || seg <= 0 {
		l.rxMalformed.Add(1)
		return 0, 1
	}
	return n, seg
}

// split checks the packets of the train that is message i and adds the good ones
// to pkts.
func (r *receiver) split(l *udpLink, i int, b []byte, seg int) {
	var good, bad, odd int
	src, srcPort := r.source(l, i)
	r.addrs.Src, r.addrs.SrcPort = src, srcPort
	for id := uint16(0); len(b) > 0; id++ {
		r.addrs.ID = id // of a train that a link like this one sent
		k := min(seg, len(b))
		p := b[:k:k]
		b = b[k:]
		if len(r.pkts) == cap(r.pkts) {
			r.pkts = append(r.pkts, Rx{})[:len(r.pkts)]
		}
		rx := &r.pkts[:len(r.pkts)+1][len(r.pkts)]
		*rx = Rx{Src: src, SrcPort: srcPort}
		switch {
		case !trusted(src, l.addr, p) && !r.addrs.CheckUnknownID(p):
			bad++
		case rx.Pkt.Decode(p) != nil:
			odd++
		default:
			r.pkts = r.pkts[:len(r.pkts)+1]
			good++
		}
	}
	l.rxPackets.Add(uint64(good))
	if bad > 0 {
		l.rxBadICRC.Add(uint64(bad))
	}
	if odd > 0 {
		l.rxMalformed.Add(uint64(odd))
	}
}

// source is where message i came from.
func (r *receiver) source(l *udpLink, i int) (netip.Addr, uint16) {
	sa := &r.slots[i].sa
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port
	}
	a := netip.AddrFrom16(sa.Addr)
	if a.IsLinkLocalUnicast() {
		a = a.WithZone(l.addr.Zone())
	}
	return a, port
}
