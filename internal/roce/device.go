package roce

import (
	"net/netip"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
)

// Limits of the device. A queue's memory is allocated when it is made, so they
// also bound what one call can take.
const (
	maxQP       = 1 << 16
	maxQPWR     = 1 << 14
	maxSGE      = 32
	maxInline   = 512 // bytes
	maxRdAtomic = 128 // as requester and as responder
	maxAH       = 1 << 16
	maxMcastGrp = 8192
	maxMcastQP  = 56      // queue pairs of one group
	maxMsg      = 1 << 31 // bytes
	defaultPKey = 0xffff  // the only one
	gsiQPN      = 1       // QP 1: management datagrams
	gsiQKey     = 1<<31 | 1<<16
	mcastQPN    = 0xffffff // destination of what is sent to a group
	devicePort  = 1        // the only port
)

// Config describes a software device.
type Config struct {
	Name  string       // "soft:" and the first address when empty
	Addrs []netip.Addr // one GID each, in order; 127.0.0.1 when empty
	Net   link.Network // nil: UDP
}

// Device is a software device that can be opened.
type Device struct {
	cfg Config
}

// New describes a device; nothing is opened.
func New(cfg Config) *Device {
	if len(cfg.Addrs) == 0 {
		cfg.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	if cfg.Name == "" {
		cfg.Name = "soft:" + cfg.Addrs[0].String()
	}
	return &Device{cfg: cfg}
}

// Info describes the device.
func (d *Device) Info() provider.DeviceInfo {
	return provider.DeviceInfo{
		Name: d.cfg.Name, GUID: guidOf(d.cfg.Addrs[0]), Index: -1,
		NodeType: provider.NodeCA, Transport: provider.TransportIB, Soft: true,
	}
}

// guidOf makes a node GUID of an address; the local bit says that nobody assigned it.
func guidOf(a netip.Addr) provider.GUID {
	h := uint64(14695981039346656037)
	b := a.As16()
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return provider.GUID(h | 1<<57)
}
