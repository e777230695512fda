package cm

import (
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/provider"
)

type idState uint8

const (
	idIdle idState = iota
	idBound
	idAddr    // address resolved
	idRoute   // route resolved
	idConnect // asked for a connection
	idListen
	idRequest // made of a connection request
)

// id is a communication identifier. mu makes its calls one at a time; it is
// never held while messages are sent.
type id struct {
	m  *Manager
	ps provider.PortSpace

	mu     sync.Mutex
	qp     *ownedQP // guarded by mu
	groups []group  // guarded by mu

	// The rest is guarded by m.mu.
	cookie      uint64
	known       bool // its cookie is set
	closed      bool
	ch          *channel
	st          idState
	local, peer netip.AddrPort
	device      bool // bound to the device, not to a wildcard
	claimed     bool // in m.ports
	reuse       bool
	afonly      bool
	afonlySet   bool
	tos, ack    uint8
	ackSet      bool
	ece         provider.ECE
	conn        *conn     // may be stClosed
	lst         *listener // when idListen
	hasQP       bool

	reqResp, reqInit uint8 // what the request asked of us
	info             []provider.CMAddrInfo
}

var (
	_ provider.CMID        = (*id)(nil)
	_ provider.CMHelpers   = (*id)(nil)
	_ provider.CMECE       = (*id)(nil)
	_ provider.CMAsyncInfo = (*id)(nil)
)

// call runs f with the id to itself, then what f left to do.
func (x *id) call(f func(b *batch) error) error {
	var b batch
	x.mu.Lock()
	err := f(&b)
	x.mu.Unlock()
	_ = x.m.run(&b)
	return err
}

// change runs f with the manager's lock.
func (x *id) change(f func(now time.Time) error) error {
	return x.call(func(b *batch) (err error) {
		x.m.locked(b, func(now time.Time) {
			switch {
			case x.closed:
				err = errInval
			case x.m.gone || x.m.closed:
				err = syscall.ENODEV
			default:
				err = f(now)
			}
		})
		return err
	})
}

func get[T any](x *id, f func() T) T {
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	return f()
}

// Context is the device once the id is bound to it.
func (x *id) Context() provider.Context {
	if !get(x, func() bool { return x.device }) {
		return nil
	}
	return x.m.port.Context()
}

// Port is the device's port.
func (x *id) Port() uint8 {
	if get(x, func() bool { return x.device }) {
		return 1
	}
	return 0
}

// LocalAddr is the address the id is bound to.
func (x *id) LocalAddr() netip.AddrPort { return get(x, func() netip.AddrPort { return x.local }) }

// PeerAddr is the other side's address.
func (x *id) PeerAddr() netip.AddrPort { return get(x, func() netip.AddrPort { return x.peer }) }

// PortSpace is the port space.
func (x *id) PortSpace() provider.PortSpace { return x.ps }

// Bind gives the id a local address.
func (x *id) Bind(a netip.AddrPort) error {
	return x.change(func(time.Time) error { return x.bind(a) })
}

// bind is called with m.mu held.
func (x *id) bind(a netip.AddrPort) error {
	if x.st != idIdle || !a.Addr().IsValid() {
		return errInval
	}
	ip, device := a.Addr().Unmap(), false
	if !ip.IsUnspecified() {
		var err error
		if ip, err = x.m.local(ip); err != nil {
			return err
		}
		device = true
	}
	old := x.afonly
	if !x.afonlySet {
		x.afonly = ip.Is4()
	}
	x.local = netip.AddrPortFrom(ip, a.Port())
	if err := x.m.claim(x); err != nil {
		x.local, x.afonly = netip.AddrPort{}, old
		return err
	}
	x.st, x.device = idBound, device
	return nil
}

// ResolveAddr finds the device's address that leads to dst.
func (x *id) ResolveAddr(src, dst netip.AddrPort, _ int) error {
	return x.change(func(time.Time) error {
		if x.st != idIdle && x.st != idBound || !dst.Addr().IsValid() {
			return errInval
		}
		if z := dst.Addr().Zone(); z != "" && !x.m.zone(z) {
			return syscall.ENODEV
		}
		if x.st == idIdle && src.Addr().IsValid() {
			if src.Addr().Unmap().Is4() != dst.Addr().Unmap().Is4() {
				return errInval
			}
			if err := x.bind(src); err != nil {
				return err
			}
		}
		if err := x.resolve(dst); err != nil {
			errno, ok := err.(syscall.Errno)
			if !ok {
				errno = syscall.EHOSTUNREACH
			}
			if errno == errInval || errno == syscall.EADDRNOTAVAIL {
				return errno
			}
			x.m.push(x, provider.CMEvent{Type: provider.CMEventAddrError, Status: -int32(errno)})
			return nil
		}
		x.m.push(x, provider.CMEvent{Type: provider.CMEventAddrResolved})
		return nil
	})
}

func (m *Manager) zone(z string) bool {
	for _, a := range m.port.Addrs() {
		if a.Zone() != "" && sameZone(a, z) {
			return true
		}
	}
	return false
}

func (x *id) resolve(dst netip.AddrPort) error {
	src, to, err := x.m.source(dst.Addr())
	if err != nil {
		return err
	}
	if x.st == idBound {
		switch at := x.local.Addr(); {
		case !at.IsUnspecified() && at.Is4() != to.Is4():
			return errInval
		case !at.IsUnspecified():
			src = at
			if dst.Addr().IsUnspecified() {
				to = at
			}
		}
		x.local = netip.AddrPortFrom(src, x.local.Port())
	} else {
		x.local, x.afonly = netip.AddrPortFrom(src, 0), src.Is4()
		if err := x.m.claim(x); err != nil {
			x.local = netip.AddrPort{}
			return err
		}
	}
	x.peer = netip.AddrPortFrom(to, dst.Port())
	x.device, x.st = true, idAddr
	return nil
}

// ResolveRoute finds nothing: on Ethernet the kernel's routes are the route.
func (x *id) ResolveRoute(int) error {
	return x.change(func(time.Time) error {
		if x.st != idAddr {
			return errInval
		}
		x.st = idRoute
		x.m.push(x, provider.CMEvent{Type: provider.CMEventRouteResolved})
		return nil
	})
}

// Listen offers connections to the id's address on its channel.
func (x *id) Listen(backlog int) error {
	return x.change(func(time.Time) error {
		if x.st == idIdle {
			if err := x.bind(netip.AddrPortFrom(netip.IPv4Unspecified(), 0)); err != nil {
				return err
			}
		}
		if x.st != idBound {
			return errInval
		}
		// A listener shares its address with nobody, whatever both agreed to.
		for _, y := range x.m.ports[portKey{x.ps, x.local.Port()}] {
			if y != x {
				if err := clash(x, y, false); err != nil {
					return err
				}
			}
		}
		if backlog <= 0 || backlog > maxBacklog {
			backlog = maxBacklog
		}
		ip := x.local.Addr()
		x.lst = &listener{owner: x, service: service(x.ps, x.local.Port()), addr: plain(ip), dual: ip.Is6() && !x.afonly, backlog: backlog}
		x.m.mc.listen(x.lst)
		x.st = idListen
		return nil
	})
}

// Migrate moves the id, with the events that wait for it, to another channel.
func (x *id) Migrate(c provider.CMChannel) error {
	to, ok := c.(*channel)
	if !ok || to.m != x.m {
		return errInval
	}
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	its := x.ch.split(x)
	x.ch = to
	for _, e := range its {
		to.put(e)
	}
	return nil
}

// Close destroys the id: a request is rejected by it, a connection ends.
func (x *id) Close() error {
	return x.call(func(b *batch) error {
		if x.qp != nil {
			return syscall.EBUSY
		}
		x.m.locked(b, func(now time.Time) { x.m.destroy(now, x) })
		return nil
	})
}

// destroy is called with mu held.
func (m *Manager) destroy(now time.Time, x *id) {
	if x.closed {
		return
	}
	x.closed = true
	delete(m.ids, x)
	if x.lst != nil {
		m.mc.unlisten(x.lst)
	}
	for _, e := range x.ch.split(x) {
		if e.made != nil {
			m.destroy(now, e.made)
		}
	}
	m.release(x)
	if x.conn != nil {
		m.mc.destroy(now, x.conn)
	}
}
