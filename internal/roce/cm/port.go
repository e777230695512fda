package cm

import (
	"net/netip"

	"github.com/zrdma/zrdma/internal/provider"
)

// Port is what the manager needs of a device: QP 1 and the device itself. SendMAD
// is called without the manager's locks and may call HandleMAD before it returns;
// the others, and QP.Modify, must not call the manager.
type Port interface {
	// Context is the manager's own, never closed by it.
	Context() provider.Context
	// Addrs are the device's addresses, by GID index.
	Addrs() []netip.Addr
	// SendMAD sends a UD SEND_ONLY to QP 1 (Q_Key 0x80010000) of dst from src;
	// mad is 256 bytes and the callee's.
	SendMAD(src, dst netip.Addr, mad []byte) error
}

// Seeder is a Port whose manager is to choose the same ids and packet numbers in
// every run.
type Seeder interface{ Seed() uint64 }

// Router is a Port that knows which of its addresses leads to dst. ENETUNREACH,
// EHOSTUNREACH or ENODEV when none does. Without it the manager takes the address
// that has most of its first bits in common with dst.
type Router interface {
	Route(dst netip.Addr) (src netip.Addr, err error)
}
