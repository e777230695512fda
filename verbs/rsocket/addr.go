package rsocket

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/zrdma/zrdma/internal/ibv"
)

// sockaddr writes ap as the C socket address of its family. An IPv4 address
// goes to an IPv6 socket in its mapped form.
func sockaddr(ap netip.AddrPort, domain int) ([]byte, error) {
	a := ap.Addr()
	if a.Is4In6() && domain == AFInet {
		a = a.Unmap()
	}
	switch {
	case domain == AFInet && a.Is4():
		b := make([]byte, 16)
		binary.NativeEndian.PutUint16(b, ibv.AFInet)
		binary.BigEndian.PutUint16(b[2:], ap.Port())
		v := a.As4()
		copy(b[4:], v[:])
		return b, nil
	case domain == AFInet6 && a.IsValid():
		b := make([]byte, 28)
		binary.NativeEndian.PutUint16(b, ibv.AFInet6)
		binary.BigEndian.PutUint16(b[2:], ap.Port())
		v := a.As16()
		copy(b[8:], v[:])
		scope, err := scopeID(a.Zone())
		binary.NativeEndian.PutUint32(b[24:], scope)
		return b, err
	}
	return nil, syscall.EAFNOSUPPORT
}

func scopeID(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

// addrPort reads a C socket address; what is none gives the zero AddrPort.
func addrPort(b []byte) netip.AddrPort {
	if len(b) < 16 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch binary.NativeEndian.Uint16(b) {
	case ibv.AFInet:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case ibv.AFInet6:
		if len(b) < 28 {
			return netip.AddrPort{}
		}
		a := netip.AddrFrom16([16]byte(b[8:24]))
		if id := binary.NativeEndian.Uint32(b[24:]); id != 0 && a.IsLinkLocalUnicast() {
			a = a.WithZone(strconv.FormatUint(uint64(id), 10))
		}
		return netip.AddrPortFrom(a, port)
	}
	return netip.AddrPort{}
}

func domainOf(a netip.Addr) int {
	if a.Is4() || a.Is4In6() {
		return AFInet
	}
	return AFInet6
}
