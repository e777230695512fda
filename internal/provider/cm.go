package provider

import (
	"context"
	"net/netip"
)

// CM is the connection manager of a provider. Channels, ids and contexts of one
// provider are only ever given back to the same one.
type CM interface {
	CreateChannel() (CMChannel, error)
	// CreateID makes an id whose events arrive on ch under cookie.
	CreateID(ch CMChannel, cookie uint64, ps PortSpace) (CMID, error)
}

// CMSource is a Context whose device has a connection manager of its own. The
// manager is the device's, the same for all its contexts, and works while one of
// them is open.
type CMSource interface {
	CM() CM
}

// CMChannel delivers the events of its ids.
type CMChannel interface {
	// Get waits for an event, without holding a thread. It is acknowledged
	// already. A connection request makes an id, whose cookie is asked of fresh.
	// ECANCELED after Interrupt.
	Get(ctx context.Context, fresh func() uint64) (CMEvent, error)
	// TryGet is Get without waiting: EAGAIN when there is no event.
	TryGet(fresh func() uint64) (CMEvent, error)
	Interrupt()
	// Close frees the channel; its ids are gone by then.
	Close() error
}

// CMEvent is an event of an id.
type CMEvent struct {
	Type      CMEventType
	Status    int32  // 0, minus an errno, or the reason of a rejection
	Cookie    uint64 // of the id; of the listening id with a connection request
	Group     uint64 // cookie of the multicast group the event is about
	Arg       uint64 // of CMEventUser
	New       CMID   // connection request: the id it made
	NewCookie uint64
	Conn      CMConnParam // connected port spaces; Private is a copy
	UD        CMUDParam   // datagram port spaces
}

// CMConnParam are the parameters of a connection, as in struct rdma_conn_param.
type CMConnParam struct {
	Private            []byte
	ResponderResources uint8
	InitiatorDepth     uint8
	FlowControl        bool
	RetryCount         uint8
	RNRRetryCount      uint8
	SRQ                bool
	QPN                uint32
}

// CMUDParam say where a datagram peer is, as in struct rdma_ud_param.
type CMUDParam struct {
	AH   AHAttr
	QPN  uint32
	QKey uint32
}

// CMID is a communication identifier. No method blocks.
type CMID interface {
	// Context is the device the id is bound to, the same value each time, or
	// nil. It is the manager's own and is never closed.
	Context() Context
	Port() uint8
	LocalAddr() netip.AddrPort
	PeerAddr() netip.AddrPort
	PortSpace() PortSpace

	Bind(netip.AddrPort) error
	// ResolveAddr starts it; an invalid src leaves the choice to the kernel.
	ResolveAddr(src, dst netip.AddrPort, timeoutMS int) error
	ResolveRoute(timeoutMS int) error
	// CreateQP makes a queue pair on the id's device; without queues in it the
	// id gets its own. A nil PD is the id's.
	CreateQP(*QPInit) (QP, error)
	InitQPAttr(state QPState) (QPAttr, QPAttrMask, error)
	Connect(*CMConnParam) error
	Accept(*CMConnParam) error
	Reject(private []byte) error
	Listen(backlog int) error
	Establish() error
	Disconnect() error
	Notify(EventType) error
	SetOption(level, name int, value []byte) error
	// JoinMulticast's events carry group; member is a join flag.
	JoinMulticast(addr netip.AddrPort, group uint64, flags uint32, ex bool) error
	LeaveMulticast(netip.AddrPort) error
	Migrate(CMChannel) error
	// Close destroys the id. It never waits for events: each was acknowledged.
	Close() error
}

// CMECE is a CMID that carries enhanced connection establishment options.
type CMECE interface {
	SetLocalECE(ECE) error
	RemoteECE() (ECE, error)
	RejectECE(private []byte) error
}

// CMAddrInfo is a result of the manager's resolver, or a hint for it, as in
// struct rdma_addrinfo.
type CMAddrInfo struct {
	Flags, Family      int32
	QPType             QPType
	PortSpace          PortSpace
	Src, Dst           netip.AddrPort
	SrcCanon, DstCanon string
	Route, Connect     []byte
}

// CMResolver is a CM with a resolver of its own. GetAddrInfo may block: it is
// called on a goroutine of its own.
type CMResolver interface {
	GetAddrInfo(node, service string, hints *CMAddrInfo) ([]CMAddrInfo, error)
}

// CMDevices is a CM that can list the devices it holds.
type CMDevices interface {
	Devices() ([]Context, error)
}

// CMEndpoints is a CM with passive endpoints: synchronous listeners that are
// asked for requests without blocking.
type CMEndpoints interface {
	CreatePassiveEP(cookie uint64, ai *CMAddrInfo, pd PD) (CMEndpoint, error)
}

// CMEndpoint is a passive endpoint.
type CMEndpoint interface {
	CMID
	// GetRequest waits for a connection request; its id moves to ch, for an id of
	// the endpoint's kind would block in every call.
	GetRequest(ctx context.Context, ch CMChannel, cookie uint64) (CMEvent, error)
	Interrupt()
}

// CMAsyncInfo is a CMID with the resolver of rdma-core 60.
type CMAsyncInfo interface {
	ResolveAddrInfo(node, service string, hints *CMAddrInfo) error
	QueryAddrInfo() ([]CMAddrInfo, error)
	WriteEvent(t CMEventType, status int32, arg uint64) error
}

// CMHelpers is a CMID with the helpers of rdma_verbs.h. ah, mr and what they
// return are the provider's objects.
type CMHelpers interface {
	// PD is the id's own domain; it lives as long as the id and is not closed.
	PD() PD
	CreateSRQ(*SRQInit) (SRQ, error)
	RegHelper(kind CMRegKind, addr, length uint64) (MR, error)
	PostHelper(*CMPost) error
	PostHelperV(p *CMPost, sge []SGE) error
	// GetComp waits for a completion of the queues that CreateQP made for the id.
	GetComp(ctx context.Context, recv bool, wc *WC) error
}

// CMRegKind selects rdma_reg_msgs, rdma_reg_read or rdma_reg_write.
type CMRegKind uint32

const (
	CMRegMsgs CMRegKind = iota
	CMRegRead
	CMRegWrite
)

// CMPostOp selects a posting helper.
type CMPostOp uint32

const (
	CMPostRecv CMPostOp = iota
	CMPostSend
	CMPostRead
	CMPostWrite
	CMPostUDSend
)

// CMPost is a work request of a posting helper.
type CMPost struct {
	Op           CMPostOp
	ID           uint64
	Addr, Length uint64
	MR           MR // may be nil for an inline send
	Flags        SendFlags
	RemoteAddr   uint64
	RKey         RKey
	AH           AH
	RemoteQPN    uint32
}
