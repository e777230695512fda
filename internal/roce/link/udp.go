package link

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// UDPOptions of a UDP network. The zero value is the default.
type UDPOptions struct {
	RecvBuffer int  // bytes asked of the kernel for each socket; default 8 MiB
	SendBuffer int  // likewise; default 2 MiB
	NoOffload  bool // one packet for each system call: no UDP_SEGMENT, no UDP_GRO
	// ICRC computes it between loopback addresses too. There nothing can change a
	// packet but who may write the memory of both ends, and the kernel computes no
	// checksum of TCP or UDP either; so it is left out (wire.Addrs.None).
	ICRC bool
}

// trusted tells that a packet needs no ICRC: it says that it has none, and did not
// leave this machine.
func trusted(src, dst netip.Addr, b []byte) bool {
	return wire.Bare(b) && src.IsLoopback() && dst.IsLoopback()
}

func (o UDPOptions) withDefaults() UDPOptions {
	if o.RecvBuffer == 0 {
		o.RecvBuffer = 8 << 20
	}
	if o.SendBuffer == 0 {
		o.SendBuffer = 2 << 20
	}
	return o
}

// UDP is the host's network: one socket for each address, on port 4791.
func UDP(o UDPOptions) Network { return &udpNetwork{opts: o.withDefaults()} }

type udpNetwork struct{ opts UDPOptions }

func (*udpNetwork) Virtual() bool { return false }

func (n *udpNetwork) Open(addr netip.Addr, h Handler) (Link, error) {
	addr = addr.Unmap()
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() {
		return nil, fmt.Errorf("roce: %v: a device needs one address of this machine: %w", addr, syscall.EADDRNOTAVAIL)
	}
	l, err := openUDP(addr, h, n.opts)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("roce: UDP port %d of %v is taken: by another process, or by the kernel's Soft-RoCE, "+
			"which takes it on every address; use another address, such as 127.0.0.2, or a network namespace: %w", wire.Port, addr, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("roce: %v is not an address of this machine: %w", addr, err)
	}
	return nil, fmt.Errorf("roce: UDP port %d of %v: %w", wire.Port, addr, err)
}
