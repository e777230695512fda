package cm

import (
	"net/netip"

	"github.com/zrdma/zrdma/internal/provider"
)

// Port is what the manager needs of a device: QP 1 and the device itself. Its
// methods are called without the manager's lock and may call HandleMAD before
// they return.
type Port interface {
	// Context is the manager's own, never closed by it.
	Context() provider.Context
	// Addrs are the device's addresses, by GID index.
	Addrs() []netip.Addr
	// SendMAD sends a UD SEND_ONLY to QP 1 (Q_Key 0x80010000) of dst from src;
	// mad is 256 bytes and the callee's.
	SendMAD(src, dst netip.Addr, mad []byte) error
}
