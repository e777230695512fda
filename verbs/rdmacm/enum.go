package rdmacm

import "github.com/zrdma/zrdma/internal/provider"

// EventType is the kind of a connection manager event.
//
// Source: enum rdma_cm_event_type.
type EventType = provider.CMEventType

// Values of EventType.
const (
	EventAddrResolved     = provider.CMEventAddrResolved
	EventAddrError        = provider.CMEventAddrError
	EventRouteResolved    = provider.CMEventRouteResolved
	EventRouteError       = provider.CMEventRouteError
	EventConnectRequest   = provider.CMEventConnectRequest
	EventConnectResponse  = provider.CMEventConnectResponse
	EventConnectError     = provider.CMEventConnectError
	EventUnreachable      = provider.CMEventUnreachable
	EventRejected         = provider.CMEventRejected
	EventEstablished      = provider.CMEventEstablished
	EventDisconnected     = provider.CMEventDisconnected
	EventDeviceRemoval    = provider.CMEventDeviceRemoval
	EventMulticastJoin    = provider.CMEventMulticastJoin
	EventMulticastError   = provider.CMEventMulticastError
	EventAddrChange       = provider.CMEventAddrChange
	EventTimewaitExit     = provider.CMEventTimewaitExit
	EventAddrinfoResolved = provider.CMEventAddrinfoResolved
	EventAddrinfoError    = provider.CMEventAddrinfoError
	EventUser             = provider.CMEventUser
)

// PortSpace is an rdma_cm port space.
//
// Source: enum rdma_port_space.
type PortSpace = provider.PortSpace

// Values of PortSpace.
const (
	PSIPoIB = provider.PSIPoIB
	PSTCP   = provider.PSTCP
	PSUDP   = provider.PSUDP
	PSIB    = provider.PSIB
)
