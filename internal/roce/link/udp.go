package link

import (
	"net/netip"
	"syscall"
)

// UDPOptions of a UDP network. The zero value is the default.
type UDPOptions struct {
	RecvBuffer int  // bytes asked of the kernel for each socket; default 8 MiB
	SendBuffer int  // likewise; default 2 MiB
	NoOffload  bool // one packet for each system call: no UDP_SEGMENT, no UDP_GRO
}

// UDP is the host's network: one socket for each address, on port 4791.
func UDP(o UDPOptions) Network { return &udpNetwork{opts: o} }

type udpNetwork struct{ opts UDPOptions }

func (*udpNetwork) Virtual() bool { return false }

func (n *udpNetwork) Open(addr netip.Addr, h Handler) (Link, error) { return nil, syscall.EOPNOTSUPP }
