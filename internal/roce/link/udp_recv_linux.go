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
	// recvCalls bounds what one call of the handler gets, in system calls.
	recvCalls = 4
	// recvMore is the length of a train behind which another one is likely: then
	// both go to the handler in one call.
	recvMore = 16 << 10
)

// receiver is the receiving half of a socket.
type receiver struct {
	mu    sync.Mutex // held by whoever receives, during the handler's call too
	buf   []byte     // recvCalls times recvBytes
	pkts  []Rx
	addrs wire.Addrs
	lost  uint32 // the kernel's last count of packets dropped

	msg unix.Msghdr
	iov unix.Iovec
	sa  unix.RawSockaddrInet6 // or an Inet4, which is shorter
	ctl [128]byte
}

func (r *receiver) init(l *udpLink, gro bool) {
	r.buf = make([]byte, recvCalls*recvBytes)
	r.addrs = wire.Addrs{Dst: l.addr, DstPort: port, DF: true}
	r.pkts = make([]Rx, 0, batchPackets)
	r.msg.Name = (*byte)(unsafe.Pointer(&r.sa))
	r.msg.Iov = &r.iov
	r.msg.SetIovlen(1)
	r.msg.Control = &r.ctl[0]
}

// receive takes what has arrived, a few system calls' worth, and hands it to the
// handler. It returns the number of packets, and whether nothing was left. The
// caller holds mu.
func (r *receiver) receive(l *udpLink) (n int, drained bool) {
	if l.closed.Load() {
		return 0, true
	}
	r.pkts = r.pkts[:0]
	for i := range recvCalls {
		b := r.buf[i*recvBytes : (i+1)*recvBytes]
		k, seg, e := r.recvmsg(l, b)
		if e != 0 {
			// Anything but EAGAIN is about an earlier packet; reading on clears it.
			drained = e == unix.EAGAIN
			break
		}
		r.split(l, b[:k], seg)
		if k < recvMore {
			break
		}
	}
	if len(r.pkts) > 0 {
		l.handler.Input(l, r.pkts)
	}
	return len(r.pkts), drained
}

// recvmsg receives into b: n bytes, in packets of seg bytes, the last shorter.
func (r *receiver) recvmsg(l *udpLink, b []byte) (n, seg int, e syscall.Errno) {
	r.iov.Base = &b[0]
	r.iov.SetLen(len(b))
	r.msg.Namelen = unix.SizeofSockaddrInet6
	r.msg.SetControllen(len(r.ctl))
	r.msg.Flags = 0
	k, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(l.fd), uintptr(unsafe.Pointer(&r.msg)), 0)
	if e != 0 {
		return 0, 0, e
	}
	n, seg = int(k), int(k)
	for c := r.ctl[:r.msg.Controllen]; len(c) >= unix.SizeofCmsghdr; {
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
	if r.msg.Flags&unix.MSG_TRUNC != 0 || seg <= 0 {
		l.rxMalformed.Add(1)
		return 0, 1, 0
	}
	return n, seg, 0
}

// split checks the packets of a train and adds the good ones to pkts.
func (r *receiver) split(l *udpLink, b []byte, seg int) {
	var good, bad, odd int
	src, srcPort := r.source(l)
	r.addrs.Src, r.addrs.SrcPort = src, srcPort
	for i := 0; len(b) > 0; i++ {
		r.addrs.ID = uint16(i) // of a train that a link like this one sent
		k := min(seg, len(b))
		p := b[:k:k]
		b = b[k:]
		if len(r.pkts) == cap(r.pkts) {
			r.pkts = append(r.pkts, Rx{})[:len(r.pkts)]
		}
		rx := &r.pkts[:len(r.pkts)+1][len(r.pkts)]
		*rx = Rx{Src: src, SrcPort: srcPort}
		switch {
		case !r.addrs.CheckUnknownID(p):
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

// source is where the last message came from.
func (r *receiver) source(l *udpLink) (netip.Addr, uint16) {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&r.sa.Port))[:])
	if r.sa.Family == unix.AF_INET {
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&r.sa)).Addr), port
	}
	a := netip.AddrFrom16(r.sa.Addr)
	if a.IsLinkLocalUnicast() {
		a = a.WithZone(l.addr.Zone())
	}
	return a, port
}
