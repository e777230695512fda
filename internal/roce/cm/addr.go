package cm

import (
	"math/bits"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// plain is an address as it is on the wire: IPv4 unmapped, without a zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// own finds an address of the device, as the device has it.
func own(addrs []netip.Addr, a netip.Addr) (netip.Addr, bool) {
	for _, x := range addrs {
		if plain(x) == plain(a) {
			return x.Unmap(), true
		}
	}
	return a, false
}

func gidIndex(addrs []netip.Addr, a netip.Addr) uint8 {
	for i, x := range addrs {
		if plain(x) == a {
			return uint8(i)
		}
	}
	return 0
}

// sameZone reports whether zone, a name or a number, is that of a.
func sameZone(a netip.Addr, zone string) bool {
	if zone == "" || a.Zone() == zone {
		return true
	}
	ifi, err := net.InterfaceByName(a.Zone())
	return err == nil && strconv.Itoa(ifi.Index) == zone
}

// local gives the device's address for one that an application names. localhost
// stands for the address of a device that is on loopback.
func (m *Manager) local(a netip.Addr) (netip.Addr, error) {
	addrs := m.port.Addrs()
	if x, ok := own(addrs, a); ok {
		if !sameZone(x, a.Zone()) {
			return x, syscall.ENODEV
		}
		return x, nil
	}
	if p := plain(a); p == netip.IPv6Loopback() || p == netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		for _, x := range addrs {
			if x = x.Unmap(); x.IsLoopback() && x.Is4() == p.Is4() {
				return x, nil
			}
		}
	}
	return a, syscall.EADDRNOTAVAIL
}

// source chooses the device's address to reach dst from, and completes dst: an
// unspecified one is the device itself.
func (m *Manager) source(dst netip.Addr) (src, to netip.Addr, err error) {
	addrs := m.port.Addrs()
	dst = dst.Unmap()
	if x, ok := own(addrs, dst); ok {
		return x, x, nil
	}
	if r, ok := m.port.(Router); ok && !dst.IsUnspecified() {
		src, err = r.Route(dst)
		return src, dst, err
	}
	best := -1
	for _, x := range addrs {
		x = x.Unmap()
		if x.Is4() != dst.Is4() {
			continue
		}
		if dst.IsUnspecified() {
			return x, x, nil
		}
		if x.IsLoopback() != dst.IsLoopback() || x.IsLinkLocalUnicast() != dst.IsLinkLocalUnicast() || !sameZone(x, dst.Zone()) {
			continue
		}
		if n := commonBits(x, dst); n > best {
			src, best = x, n
		}
	}
	if best < 0 {
		return src, dst, syscall.ENODEV
	}
	if dst.IsLinkLocalUnicast() {
		dst = dst.WithZone(src.Zone())
	}
	return src, dst, nil
}

func commonBits(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return i*8 + bits.LeadingZeros8(d)
		}
	}
	return 128
}

// portKey is a port of a port space.
type portKey struct {
	ps   provider.PortSpace
	port uint16
}

// The range that ports are chosen from.
const (
	firstPort = 32768
	lastPort  = 60999
)

// service is the id that a port has in messages.
func service(ps provider.PortSpace, port uint16) uint64 { return uint64(ps)<<16 | uint64(port) }

// clash is what the kernel answers when x wants the address of y.
func clash(x, y *id, reuse bool) error {
	a, b := x.local.Addr(), y.local.Addr()
	switch {
	case reuse && y.reuse, x.afonly && y.afonly && a.Is4() != b.Is4():
		return nil
	case a.IsUnspecified() || b.IsUnspecified():
		return syscall.EADDRNOTAVAIL
	case plain(a) == plain(b):
		return syscall.EADDRINUSE
	}
	return nil
}

// claim gives x the port of its address, or a free one. It is called with mu held.
func (m *Manager) claim(x *id) error {
	port := x.local.Port()
	if port == 0 {
		n := lastPort - firstPort + 1
		at := m.mc.rnd.IntN(n)
		for i := 0; i < n && port == 0; i++ {
			if p := uint16(firstPort + (at+i)%n); len(m.ports[portKey{x.ps, p}]) == 0 {
				port = p
			}
		}
		if port == 0 {
			return syscall.EADDRNOTAVAIL
		}
	}
	k := portKey{x.ps, port}
	for _, y := range m.ports[k] {
		if err := clash(x, y, x.reuse); err != nil {
			return err
		}
	}
	x.local = netip.AddrPortFrom(x.local.Addr(), port)
	m.ports[k] = append(m.ports[k], x)
	x.claimed = true
	return nil
}

// release gives the port of x back. It is called with mu held.
func (m *Manager) release(x *id) {
	if !x.claimed {
		return
	}
	x.claimed = false
	k := portKey{x.ps, x.local.Port()}
	l := m.ports[k]
	for i, y := range l {
		if y == x {
			l = append(l[:i:i], l[i+1:]...)
			break
		}
	}
	if m.ports[k] = l; len(l) == 0 {
		delete(m.ports, k)
	}
}
