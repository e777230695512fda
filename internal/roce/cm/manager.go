package cm

import (
	"net/netip"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// Manager is the connection manager of one device.
type Manager struct {
	port Port
}

var _ provider.CM = (*Manager)(nil)

// New makes the manager of a device.
func New(p Port) *Manager { return &Manager{port: p} }

// HandleMAD takes a management datagram that arrived at QP 1. The device calls
// it without its locks held; mad is used only during the call.
func (m *Manager) HandleMAD(src, dst netip.Addr, mad []byte) {}

// HandleQPEvent tells of an event of a queue pair: EventCommEst moves a
// connection on whose RTU was lost; others are ignored.
func (m *Manager) HandleQPEvent(qpn uint32, t provider.EventType) {}

// DeviceRemoved ends every connection with a removal event; ids stay usable
// until they are closed.
func (m *Manager) DeviceRemoved() {}

// Close stops every timer and fails later calls with ENODEV. Ids get no event.
func (m *Manager) Close() {}

// CreateChannel makes an event channel.
func (m *Manager) CreateChannel() (provider.CMChannel, error) { return nil, syscall.EOPNOTSUPP }

// CreateID makes an id whose events arrive on ch under cookie.
func (m *Manager) CreateID(ch provider.CMChannel, cookie uint64, ps provider.PortSpace) (provider.CMID, error) {
	return nil, syscall.EOPNOTSUPP
}
