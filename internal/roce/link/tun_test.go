//go:build linux

package link

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// tun is an interface whose other end is the test: it sees what the kernel puts
// on a wire, IP header and all.
type tun struct{ fd int }

// wired runs f in a network of its own that has a tun interface of MTU 1500. An
// interface that leaves checksums to hardware is what UDP_SEGMENT needs on older
// kernels (6.1, not 6.18); to others they refuse it.
func wired(t *testing.T, checksums bool, f func(t *testing.T, w tun)) {
	var skip error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread goes with its network
		if skip = unix.Unshare(unix.CLONE_NEWNET); skip != nil {
			return
		}
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if skip = err; err != nil {
			return
		}
		defer unix.Close(fd)
		var req [unix.IFNAMSIZ + 24]byte
		copy(req[:], "wire0")
		binary.NativeEndian.PutUint16(req[unix.IFNAMSIZ:], unix.IFF_TUN|unix.IFF_NO_PI)
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req)))
		if e != 0 {
			t.Errorf("TUNSETIFF: %v", e)
			return
		}
		if checksums {
			if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM); err != nil {
				t.Errorf("TUNSETOFFLOAD: %v", err)
			}
		}
		l, err := netlink.LinkByName("wire0")
		if err == nil {
			err = errors.Join(netlink.LinkSetMTU(l, 1500), netlink.LinkSetUp(l))
		}
		for _, a := range []string{"10.9.0.1/24", "fd00:9::1/64"} {
			x, _ := netlink.ParseAddr(a)
			x.Flags = unix.IFA_F_NODAD
			if err == nil {
				err = netlink.AddrAdd(l, x)
			}
		}
		if err != nil {
			t.Error(err)
			return
		}
		// The kernel takes its time until an IPv6 address is its own.
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			r, err := netlink.RouteGet(wirePairs[1][0].AsSlice())
			if err == nil && len(r) == 1 && r[0].Type == unix.RTN_LOCAL {
				break
			}
		}
		f(t, tun{fd})
	}()
	<-done
	if errors.Is(skip, unix.EPERM) || errors.Is(skip, unix.ENOENT) {
		t.Skip("needs root and /dev/net/tun: ", skip)
	}
	require.NoError(t, skip)
}

// read returns the next UDP packet to port 4791.
func (w tun) read(t *testing.T) (a wire.Addrs, b []byte) {
	buf := make([]byte, 1<<16)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		n, err := unix.Read(w.fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, 100)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		p := buf[:n]
		if p[0]>>4 == 4 {
			a.Src, a.Dst = netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
			a.ID, a.DF = binary.BigEndian.Uint16(p[4:]), p[6]&0x40 != 0
			p = p[int(p[0]&15)*4:]
		} else {
			if p[6] != unix.IPPROTO_UDP {
				continue // neighbour discovery
			}
			a.Src, a.Dst = netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
			p = p[40:]
		}
		a.SrcPort, a.DstPort = binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
		if a.DstPort == wire.Port {
			return a, p[8:]
		}
	}
	t.Fatal("no packet")
	return a, nil
}

// write puts a UDP packet on the wire, without a UDP checksum.
func (w tun) write(t *testing.T, a *wire.Addrs, b []byte) {
	udp := binary.BigEndian.AppendUint16(nil, a.SrcPort)
	udp = binary.BigEndian.AppendUint16(udp, a.DstPort)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(b)))
	udp = append(append(udp, 0, 0), b...)
	w.writeIP(t, a, unix.IPPROTO_UDP, udp)
}

func (w tun) writeIP(t *testing.T, a *wire.Addrs, proto byte, b []byte) {
	_, err := unix.Write(w.fd, ipPacket(a, proto, b))
	if err != nil {
		t.Fatal(err)
	}
}

func ipPacket(a *wire.Addrs, proto byte, b []byte) []byte {
	if a.Src.Is6() {
		h := make([]byte, 40, 40+len(b))
		h[0] = 0x60
		binary.BigEndian.PutUint16(h[4:], uint16(len(b)))
		h[6], h[7] = proto, 64
		copy(h[8:], a.Src.AsSlice())
		copy(h[24:], a.Dst.AsSlice())
		return append(h, b...)
	}
	h := make([]byte, 20, 20+len(b))
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(b)))
	binary.BigEndian.PutUint16(h[4:], a.ID)
	h[6], h[8], h[9] = 0x40, 64, proto
	copy(h[12:], a.Src.AsSlice())
	copy(h[16:], a.Dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, b...)
}

func checksum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i]) << 8
		if i+1 < len(b) {
			s += uint32(b[i+1])
		}
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

var wirePairs = [][2]netip.Addr{
	{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")},
	{netip.MustParseAddr("fd00:9::1"), netip.MustParseAddr("fd00:9::2")},
}

// The ICRC is right for the headers that the kernel really puts on, segments of
// one system call too.
func TestOnTheWire(t *testing.T) {
	t.Run("segments", func(t *testing.T) { onTheWire(t, true) })
	t.Run("perhaps none", func(t *testing.T) { onTheWire(t, false) })
}

func onTheWire(t *testing.T, segments bool) {
	wired(t, segments, func(t *testing.T, w tun) {
		for _, pair := range wirePairs {
			l := open(t, UDP(UDPOptions{}), pair[0], newSink())
			if l.MTU() != 1024 {
				t.Errorf("MTU is %d", l.MTU())
			}
			psn := uint32(0)
			for _, sizes := range [][]int{{64}, {1024, 1024, 1024, 1024, 100}, {8, 8, 8}, {0}} {
				for i, n := range sizes {
					p := wire.Packet{Opcode: wire.RCSendOnly, PSN: psn + uint32(i)}
					l.Send(pair[1], &p, [][]byte{make([]byte, n)}, n)
				}
				if err := l.Flush(); err != nil {
					t.Error(err)
				}
				for i := range sizes {
					a, b := w.read(t)
					var p wire.Packet
					if err := p.Decode(b); err != nil || p.PSN != psn || a.Src != pair[0] || a.Dst != pair[1] {
						t.Errorf("%v from %v to %v: %v, want PSN %d", &p, a.Src, a.Dst, err, psn)
					}
					if !a.Check(b) {
						t.Errorf("packet %d of %v: ICRC does not match identification %d, DF %v", i, sizes, a.ID, a.DF)
					}
					if segments && a.Src.Is4() && int(a.ID) != i {
						t.Errorf("packet %d of a batch has identification %d", i, a.ID)
					}
					psn++
				}
			}
			if s := l.Stats(); segments && s.TxCalls != 4 {
				t.Errorf("%d system calls", s.TxCalls)
			}
		}
	})
}

// Soft-RoCE counts the identification and sends no UDP checksum.
func TestFromTheWire(t *testing.T) {
	wired(t, true, func(t *testing.T, w tun) {
		for _, pair := range wirePairs {
			s := newSink()
			l := open(t, UDP(UDPOptions{}), pair[0], s)
			for i := range 20 {
				a := wire.Addrs{Src: pair[1], Dst: pair[0], SrcPort: 0xc123, DstPort: wire.Port, DF: true, ID: uint16(40000 + 7*i)}
				p := wire.Packet{Opcode: wire.RCSendOnly, PSN: uint32(i)}
				b := appendPacket(nil, 0, &a, &p, [][]byte{make([]byte, 33*i)}, 33*i)
				w.write(t, &a, b)
				b[len(b)-1] ^= 0x10
				w.write(t, &a, b)
			}
			if !arrived(s, 20) {
				t.Errorf("from %v: %d packets, %+v", pair[1], len(s.all()), l.Stats())
			}
			for i, g := range s.all() {
				if g.from != pair[1] || g.pkt.PSN != uint32(i) || len(g.pkt.Payload) != 33*i {
					t.Errorf("packet %d: %v from %v", i, &g.pkt, g.from)
				}
			}
			require.Eventually(t, func() bool { return l.Stats().RxBadICRC == 20 }, 10*time.Second, time.Millisecond)
		}
	})
}

func arrived(s *sink, n int) bool {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if len(s.all()) >= n {
			return true
		}
	}
	return false
}

// ICMP about our packets, true or forged, stops nothing.
func TestICMPStopsNothing(t *testing.T) {
	wired(t, true, func(t *testing.T, w tun) {
		src, dst := wirePairs[0][0], wirePairs[0][1]
		l := open(t, UDP(UDPOptions{}), src, newSink())
		send := func(n, times int) {
			for range times {
				p := wire.Packet{Opcode: wire.RCSendOnly}
				l.Send(dst, &p, [][]byte{make([]byte, n)}, n)
			}
			if err := l.Flush(); err != nil {
				t.Error(err)
			}
		}
		for _, code := range []byte{1, 3, 4} { // host, port, fragmentation needed
			send(1024, 1)
			a, b := w.read(t)
			udp := []byte{0x12, 0xb7, 0x12, 0xb7, 0, byte(len(b) + 8), 0, 0}
			icmp := append([]byte{3, code, 0, 0, 0, 0, 600 >> 8, 600 & 0xff}, ipPacket(&a, unix.IPPROTO_UDP, udp)...)
			binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
			back := wire.Addrs{Src: dst, Dst: src}
			w.writeIP(t, &back, unix.IPPROTO_ICMP, icmp)
		}
		// The path is 600 bytes now: long packets are dropped, short ones pass.
		before := l.Stats()
		send(1024, 3)
		if s := l.Stats(); s.TxDropped-before.TxDropped != 3 {
			t.Errorf("dropped %d of 3 long packets", s.TxDropped-before.TxDropped)
		}
		send(256, 3)
		for range 3 {
			if a, b := w.read(t); !a.Check(b) {
				t.Error("ICRC")
			}
		}
		if s := l.Stats(); s.TxCalls-before.TxCalls != 1 {
			t.Errorf("%d system calls for 3 short packets", s.TxCalls-before.TxCalls)
		}
	})
}
