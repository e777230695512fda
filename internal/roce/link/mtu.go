package link

import (
	"net"
	"net/netip"
)

// headerRoom is what a device keeps of an interface's MTU for headers, as the
// kernel's Soft-RoCE does, so that both arrive at the same path MTU.
const headerRoom = 80

// pathMTU is the largest IB path MTU for packets on an interface of the given MTU.
func pathMTU(mtu int) int {
	for m := 4096; m > 256; m /= 2 {
		if m <= mtu-headerRoom {
			return m
		}
	}
	return 256
}

// interfaceMTU is the path MTU of the interface that has addr; 1024, which fits
// Ethernet, when it cannot be found.
func interfaceMTU(addr netip.Addr) int {
	ifs, err := net.Interfaces()
	if err != nil {
		return 1024
	}
	for i := range ifs {
		addrs, err := ifs[i].Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			// A loopback interface has every address of its prefix.
			ip := net.IP(addr.WithZone("").AsSlice())
			if n.IP.Equal(ip) || ifs[i].Flags&net.FlagLoopback != 0 && n.Contains(ip) {
				return pathMTU(ifs[i].MTU)
			}
		}
	}
	return 1024
}
