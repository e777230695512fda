// Package provider is the seam between package verbs and the devices: what a
// device must do, as small interfaces over flat, pointer-free data.
//
// One provider exists, internal/ibv (libibverbs); a RoCEv2 device in Go is to be
// the second. Rules for every provider:
//
//   - a method returns the bare errno (syscall.Errno) of the verb; package verbs
//     adds the verb's name. What is not supported is EOPNOTSUPP, ENOSYS or 524;
//   - Post and Poll take a batch, never block and allocate nothing;
//   - package verbs has checked arguments that need no device, keeps parents
//     open while children live, and never calls an object after its Close
//     succeeded; Post and Poll may be called from several goroutines at once;
//   - a Cookie given at creation names the object in events;
//   - methods with a context block until it ends, without holding a thread.
//
// What only some devices have is an optional interface (in the files beside
// this one) that package verbs looks for by type assertion.
package provider

import (
	"context"
	"syscall"
)

// ENOTSUPP is the kernel-internal "not supported" that leaks from rdma_cm.
const ENOTSUPP = syscall.Errno(524)

// DeviceInfo is what is known of a device before it is opened.
type DeviceInfo struct {
	Name      string // mlx5_0, rxe0, soft:127.0.0.1
	DevName   string // uverbs0; empty for a device without one
	IBDevPath string // sysfs; empty for a device without one
	GUID      GUID   // node GUID
	Index     int    // kernel index, -1 when unknown
	NodeType  NodeType
	Transport TransportType
	Soft      bool // the software device
}

// Device can be opened.
type Device interface {
	Info() DeviceInfo
	Open() (Context, error)
}

// Context is an open device.
type Context interface {
	Info() DeviceInfo
	NumCompVectors() int
	QueryDevice(*DeviceAttr) error
	QueryDeviceEx(*DeviceAttrEx) error
	QueryPort(port uint8, a *PortAttr) error
	QueryGID(port uint8, index int) (GID, error)
	QueryGIDEx(port, index, flags uint32) (GIDEntry, error)
	QueryGIDTable(max int, flags uint32) ([]GIDEntry, error)
	QueryPKey(port uint8, index int) (uint16, error)
	PKeyIndex(port uint8, pkey uint16) (int, error)
	AllocPD() (PD, error)
	CreateCompChannel() (CompChannel, error)
	CreateCQ(*CQInit) (CQ, error)
	CreateQP(*QPInit) (QP, error)
	CreateSRQ(*SRQInit) (SRQ, error)
	InitAHFromWC(port uint8, wc *WC, grh *[40]byte) (AHAttr, error)
	ResolveEthL2(*AHAttr) (mac [6]byte, vid uint16, err error)

	// GetEvent blocks until an asynchronous event is there, ctx ends or
	// Interrupt was called (ECANCELED).
	GetEvent(ctx context.Context) (AsyncEvent, error)
	// Interrupt makes every GetEvent return, now and later.
	Interrupt()
	Close() error
}

// AsyncEvent is an event of a device, acknowledged already.
type AsyncEvent struct {
	Type   EventType
	Cookie uint64 // of the object, or 0
	Port   uint32 // of a port event, or 0
}

// PD is a protection domain.
type PD interface {
	Handle() uint64
	// RegMR registers len bytes at addr; the memory outlives the region.
	RegMR(addr uint64, length uint64, iova uint64, useIOVA bool, access AccessFlags) (MR, error)
	AllocMW(MWType) (MW, error)
	CreateAH(*AHAttr) (AH, error)
	CreateAHFromWC(wc *WC, grh *[40]byte, port uint8) (AH, error)
	Close() error
}

// MR is a memory region.
type MR interface {
	Handle() uint64
	LKey() LKey
	RKey() RKey
	Close() error
}

// MW is a memory window. The rkey of a type 2 window is the caller's to keep.
type MW interface {
	Handle() uint64
	RKey() RKey
	// SetRKey stores the key of a posted type 2 bind: rdma-core leaves that to the application.
	SetRKey(RKey)
	Close() error
}

// AH is an address handle.
type AH interface {
	Handle() uint64
	Close() error
}

// CQInit asks for a completion queue. Ex is set when any field below it is used
// or the extended poll is wanted.
type CQInit struct {
	CQE     int
	Cookie  uint64
	Channel CompChannel // nil for none
	Vector  int
	Ex      bool
	WCFlags WCExFlags
	Flags   CQCreateFlags
	PD      PD // parent domain, or nil
}

// CQ is a completion queue.
type CQ interface {
	CQE() int
	Poll([]WC) (int, error)
	// PollSpin polls for at most ns nanoseconds.
	PollSpin(wc []WC, ns int64) (int, error)
	PollEx([]WCEx) (int, error)
	ReqNotify(solicitedOnly bool) error
	Resize(cqe int) error
	Modify(count, period uint16) error
	Close() error
}

// CompChannel delivers completion events.
type CompChannel interface {
	// Get blocks until an event is there and returns the cookie of its CQ.
	Get(ctx context.Context) (uint64, error)
	// TryGet is Get without waiting: EAGAIN when there is none.
	TryGet() (uint64, error)
	// Kick makes the Get under way, or else the next one, return EAGAIN.
	Kick()
	// Interrupt makes every Get return ECANCELED, now and later.
	Interrupt()
	Close() error
}

// QPInit asks for a queue pair. Ex selects the extended verb. Cap is updated
// to what was given.
type QPInit struct {
	Cookie         uint64
	Type           QPType
	SQSigAll       bool
	Cap            QPCap
	PD             PD
	SendCQ, RecvCQ CQ
	SRQ            SRQ
	Ex             bool
	XRCD           any // provider's XRCD, or nil
	IndTable       any // provider's RWQIndTable, or nil
	CreateFlags    QPCreateFlags
	MaxTSOHeader   uint16
	SourceQPN      uint32
	SendOps        SendOpsFlags
	HashFunction   RXHashFunction
	HashKey        []byte
	HashFields     RXHashFields
}

// QP is a queue pair.
type QP interface {
	Handle() uint64
	QPN() uint32
	Modify(a *QPAttr, mask QPAttrMask) error
	Query(a *QPAttr, mask QPAttrMask) (QPInit, error)
	// PostSend returns how many were posted.
	PostSend(wr []WR, sge []SGE) (int, error)
	PostRecv(wr []RecvWR, sge []SGE) (int, error)
	// WRPost posts all or none through the ibv_wr_* builder; dry builds and aborts.
	// The number is the index of the request at fault.
	WRPost(wr []WR, sge []SGE, dry bool) (int, error)
	BindMW(mw MW, mr MR, id uint64, flags SendFlags, addr, length uint64, access AccessFlags) error
	AttachMcast(g GID, lid uint16) error
	DetachMcast(g GID, lid uint16) error
	ModifyRateLimit(kbps, maxBurst uint32, typicalPkt uint16) error
	DataInOrder(op WROpcode, flags uint32) (bool, error)
	QueryECE() (ECE, error)
	SetECE(ECE) error
	Close() error
}

// SRQInit asks for a shared receive queue. Attr is updated to what was given.
type SRQInit struct {
	Cookie     uint64
	PD         PD
	Attr       SRQAttr
	Ex         bool
	Type       SRQType
	XRCD       any // provider's XRCD, or nil
	CQ         CQ
	MaxNumTags uint32
	MaxOps     uint32
}

// SRQ is a shared receive queue.
type SRQ interface {
	Handle() uint64
	PostRecv(wr []RecvWR, sge []SGE) (int, error)
	Modify(a *SRQAttr, mask SRQAttrMask) error
	Query(*SRQAttr) error
	// Num is the number of an XRC SRQ.
	Num() (uint32, error)
	Close() error
}
