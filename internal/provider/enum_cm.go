package provider

// CMEventType is the kind of a connection manager event.
//
// Source: enum rdma_cm_event_type.
type CMEventType uint32

const (
	CMEventAddrResolved     CMEventType = 0
	CMEventAddrError        CMEventType = 1
	CMEventRouteResolved    CMEventType = 2
	CMEventRouteError       CMEventType = 3
	CMEventConnectRequest   CMEventType = 4
	CMEventConnectResponse  CMEventType = 5
	CMEventConnectError     CMEventType = 6
	CMEventUnreachable      CMEventType = 7
	CMEventRejected         CMEventType = 8
	CMEventEstablished      CMEventType = 9
	CMEventDisconnected     CMEventType = 10
	CMEventDeviceRemoval    CMEventType = 11
	CMEventMulticastJoin    CMEventType = 12
	CMEventMulticastError   CMEventType = 13
	CMEventAddrChange       CMEventType = 14
	CMEventTimewaitExit     CMEventType = 15
	CMEventAddrinfoResolved CMEventType = 16 // rdma-core 60
	CMEventAddrinfoError    CMEventType = 17 // rdma-core 60
	CMEventUser             CMEventType = 18 // rdma-core 60
)

var namesCMEventType = []name{
	{0, "CM_EVENT_ADDR_RESOLVED"},
	{1, "CM_EVENT_ADDR_ERROR"},
	{2, "CM_EVENT_ROUTE_RESOLVED"},
	{3, "CM_EVENT_ROUTE_ERROR"},
	{4, "CM_EVENT_CONNECT_REQUEST"},
	{5, "CM_EVENT_CONNECT_RESPONSE"},
	{6, "CM_EVENT_CONNECT_ERROR"},
	{7, "CM_EVENT_UNREACHABLE"},
	{8, "CM_EVENT_REJECTED"},
	{9, "CM_EVENT_ESTABLISHED"},
	{10, "CM_EVENT_DISCONNECTED"},
	{11, "CM_EVENT_DEVICE_REMOVAL"},
	{12, "CM_EVENT_MULTICAST_JOIN"},
	{13, "CM_EVENT_MULTICAST_ERROR"},
	{14, "CM_EVENT_ADDR_CHANGE"},
	{15, "CM_EVENT_TIMEWAIT_EXIT"},
	{16, "CM_EVENT_ADDRINFO_RESOLVED"},
	{17, "CM_EVENT_ADDRINFO_ERROR"},
	{18, "CM_EVENT_USER"},
}

// String gives the name without its IBV_ prefix.
func (v CMEventType) String() string { return enumString(namesCMEventType, uint64(v), "CMEventType") }

// PortSpace is an rdma_cm port space.
//
// Source: enum rdma_port_space.
type PortSpace uint32

const (
	PSIPoIB PortSpace = 2
	PSTCP   PortSpace = 262
	PSUDP   PortSpace = 273
	PSIB    PortSpace = 319
)

var namesPortSpace = []name{
	{2, "PS_IPOIB"},
	{262, "PS_TCP"},
	{273, "PS_UDP"},
	{319, "PS_IB"},
}

// String gives the name without its IBV_ prefix.
func (v PortSpace) String() string { return enumString(namesPortSpace, uint64(v), "PortSpace") }
