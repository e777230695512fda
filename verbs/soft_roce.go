package verbs

import (
	"net/netip"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce"
)

func newSoft(name string, addrs []netip.Addr) provider.Device {
	return roce.New(roce.Config{Name: name, Addrs: addrs})
}
