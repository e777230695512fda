package verbs

import (
	"net/netip"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// newSoft makes a software device; the address is bound when it is opened.
func newSoft(name string, addrs []netip.Addr) provider.Device {
	return pendingDevice{provider.DeviceInfo{Name: name, Index: -1, NodeType: NodeCA, Transport: TransportIB, Soft: true}}
}

// pendingDevice stands for the software device until package roce has it.
type pendingDevice struct{ info provider.DeviceInfo }

func (d pendingDevice) Info() provider.DeviceInfo     { return d.info }
func (pendingDevice) Open() (provider.Context, error) { return nil, syscall.EOPNOTSUPP }
