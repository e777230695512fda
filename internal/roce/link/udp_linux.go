package link

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// udpLink is an address's socket. Order of locks: none is taken under another.
type udpLink struct {
	counters
	addr    netip.Addr
	zone    uint32 // scope of a link-local address
	mtu     int
	fd      int
	handler Handler
	ready   *readiness
	shift   *shift
	closed  atomic.Bool
	wg      sync.WaitGroup // the reader, and whoever waits for room to send

	rx receiver
	tx sender
}

func openUDP(addr netip.Addr, h Handler, o UDPOptions) (*udpLink, error) {
	l := &udpLink{addr: addr, handler: h, mtu: interfaceMTU(addr), shift: newShift()}
	if z := addr.Zone(); z != "" {
		i, err := net.InterfaceByName(z)
		if err != nil {
			return nil, err
		}
		l.zone = uint32(i.Index)
	}
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	l.fd = fd
	gro, err := l.configure(o)
	if err == nil {
		l.ready, err = newReadiness(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	l.tx.init(l, o)
	l.rx.init(l, gro)
	l.wg.Add(1)
	go l.read()
	return l, nil
}

// configure sets the socket's options and binds it; gro tells whether the kernel
// joins packets.
func (l *udpLink) configure(o UDPOptions) (gro bool, err error) {
	set := func(level, opt, v int) {
		if err == nil {
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(l.fd, level, opt, v))
		}
	}
	// Without fragments: the identification is then 0, and does not count on.
	var sa unix.Sockaddr
	if l.addr.Is4() {
		set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		sa = &unix.SockaddrInet4{Port: port, Addr: l.addr.As4()}
	} else {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		// The kernel's Soft-RoCE sends no UDP checksum; the ICRC is in its place.
		set(unix.SOL_UDP, unix.UDP_NO_CHECK6_RX, 1)
		sa = &unix.SockaddrInet6{Port: port, Addr: l.addr.As16(), ZoneId: l.zone}
	}
	if err != nil {
		return false, err
	}
	// The rest is welcome, not needed. The forced sizes are root's.
	for _, b := range []struct{ force, opt, n int }{
		{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, o.RecvBuffer}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, o.SendBuffer},
	} {
		if unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, b.force, b.n) != nil {
			_ = unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, b.opt, b.n)
		}
	}
	_ = unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	gro = !o.NoOffload && unix.SetsockoptInt(l.fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil
	return gro, os.NewSyscallError("bind", unix.Bind(l.fd, sa))
}

func (l *udpLink) Addr() netip.Addr { return l.addr }
func (l *udpLink) MTU() int         { return l.mtu }
func (l *udpLink) Stats() Stats     { return l.stats() }

// RecvBuffer is how many bytes of the kernel's memory packets can fill that wait.
func (l *udpLink) RecvBuffer() int {
	n, _ := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return n
}

func (l *udpLink) Idle() { l.shift.idle() }

// Poll implements Link.
func (l *udpLink) Poll() int {
	l.shift.polls.Add(1)
	if !l.rx.mu.TryLock() {
		return 0
	}
	defer l.rx.mu.Unlock()
	n, _ := l.rx.receive(l)
	return n
}

// read is the link's own goroutine.
func (l *udpLink) read() {
	defer l.wg.Done()
	for {
		idles := l.shift.idles.Load()
		l.rx.mu.Lock()
		_, drained := l.rx.receive(l)
		l.rx.mu.Unlock()
		switch {
		case l.closed.Load():
			return
		case !drained || l.linger() || l.shift.doze(idles):
		case l.ready.wait() != nil:
			return
		}
	}
}

// lingerLooks is how often linger looks: about as long as a sender takes for a
// train. To sleep and be woken for each costs both ends more.
const lingerLooks = 24

// linger stays for the next train of a stream a little; it tells whether one came.
func (l *udpLink) linger() bool {
	r := &l.rx
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.long {
		return false
	}
	for range lingerLooks {
		if n, drained := r.receive(l); n > 0 || !drained {
			return true
		}
	}
	r.long = false
	return false
}

// Close implements Link.
func (l *udpLink) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	l.shift.rouse()
	l.ready.close()
	l.wg.Wait()
	// Nobody uses the descriptor behind these: both look at closed first.
	l.rx.mu.Lock()
	defer l.rx.mu.Unlock()
	l.tx.mu.Lock()
	defer l.tx.mu.Unlock()
	return os.NewSyscallError("close", unix.Close(l.fd))
}

// readiness parks a goroutine in the network poller until a descriptor has
// something to read. The descriptor is in an epoll set of its own, armed for one
// event at a time, and that set is in the poller: packets that somebody else takes
// wake nobody.
type readiness struct {
	file   *os.File
	conn   syscall.RawConn
	epfd   int
	fd     int
	event  unix.EpollEvent
	events [1]unix.EpollEvent
	armed  bool // by the wait under way
	err    error
	take   func(uintptr) bool
}

func newReadiness(fd int) (*readiness, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	r := &readiness{epfd: ep, fd: fd, event: unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(fd)}}
	err = unix.SetNonblock(ep, true) // what os.NewFile goes by
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &r.event)
	}
	if err != nil {
		unix.Close(ep)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	r.file = os.NewFile(uintptr(ep), "roce")
	r.conn, err = r.file.SyscallConn()
	if err != nil {
		r.file.Close()
		return nil, err
	}
	r.take = r.step
	return r, nil
}

// step tells whether the wait is over. The first time it arms: the poller has
// forgotten former events by then, and will not overlook this one.
func (r *readiness) step(uintptr) bool {
	if !r.armed {
		r.armed = true
		r.err = unix.EpollCtl(r.epfd, unix.EPOLL_CTL_MOD, r.fd, &r.event)
		return r.err != nil
	}
	n, err := unix.EpollWait(r.epfd, r.events[:], 0)
	return n > 0 || err != nil && err != unix.EINTR
}

// wait returns when there is something to read, or an error after close. One
// goroutine at a time.
func (r *readiness) wait() error {
	r.armed = false
	if err := r.conn.Read(r.take); err != nil {
		return err
	}
	return r.err
}

func (r *readiness) close() { r.file.Close() }
