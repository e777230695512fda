package provider

// Optional interfaces: what only some devices have. Package verbs looks for
// them by type assertion; an object without one does not support it.

// A KernelHandler is a PD, MR or DM whose kernel handle another process can import.
type KernelHandler interface{ KernelHandle() uint32 }

// TD is a thread domain.
type TD interface {
	Handle() uint64
	Close() error
}

// A TDAllocator is a Context with thread domains.
type TDAllocator interface{ AllocTD() (TD, error) }

// A ParentDomainAllocator is a PD that parent domains can be made from; td may be nil.
type ParentDomainAllocator interface{ AllocParentDomain(td TD) (PD, error) }

// An Importer is a Context that shares objects with other processes.
type Importer interface {
	// CmdFD is the descriptor to duplicate for another process.
	CmdFD() int
	ImportPD(handle uint32) (PD, error)
	ImportDM(handle uint32) (DM, error)
}

// A MRImporter is a PD that takes over regions of other processes.
type MRImporter interface {
	ImportMR(handle uint32) (MR, error)
}

// A RareRegistrar is a PD with the rare kinds of regions.
type RareRegistrar interface {
	RegDmabufMR(offset, length, iova uint64, fd int, access AccessFlags) (MR, error)
	AllocNullMR() (MR, error)
	AdviseMR(advice AdviseMRAdvice, flags AdviseMRFlags, sge []SGE) error
	RegDMMR(dm DM, offset, length uint64, access AccessFlags) (MR, error)
}

// A Reregistrar is a MR that can be changed in place. The number is a
// ReregMRErrCode, 0 for success.
type Reregistrar interface {
	Rereg(flags ReregMRFlags, pd PD, addr, length uint64, access AccessFlags) (int, error)
}

// DM is memory of the device.
type DM interface {
	Handle() uint64
	CopyTo(off uint64, src []byte) error
	CopyFrom(off uint64, dst []byte) error
	Close() error
}

// A DMAllocator is a Context with memory of its own; alignment is 1<<logAlign bytes.
type DMAllocator interface {
	AllocDM(length uint64, logAlign uint32) (DM, error)
}

// XRCD is an extended connection domain.
type XRCD interface {
	Handle() uint64
	Close() error
}

// OpenQPInit names a shared queue pair.
type OpenQPInit struct {
	Cookie uint64
	QPN    uint32
	XRCD   XRCD
	Type   QPType
}

// A XRCDOpener is a Context with XRC. fd is -1 for a domain without a file.
type XRCDOpener interface {
	OpenXRCD(fd, oflags int) (XRCD, error)
	OpenQP(*OpenQPInit) (QP, error)
}

// WQInit asks for a work queue; MaxWR and MaxSGE are updated to what was given.
type WQInit struct {
	Cookie        uint64
	Type          WQType
	MaxWR, MaxSGE uint32
	Flags         WQFlags
	PD            PD
	CQ            CQ
}

// WQAttr is what a modify of a work queue sets; a mask says which fields count.
//
// Source: struct ibv_wq_attr.
type WQAttr struct {
	State, CurrState WQState
	Flags            WQFlags // the new values of the flags in FlagsMask
	FlagsMask        WQFlags
}

// WQ is a receive work queue.
type WQ interface {
	Handle() uint64
	Num() uint32
	PostRecv(wr []RecvWR, sge []SGE) (int, error)
	Modify(a *WQAttr, mask WQAttrMask) error
	Close() error
}

// RWQIndTable is a table of work queues.
type RWQIndTable interface {
	Handle() uint64
	Close() error
}

// A WQCreator is a Context with work queues. The length of a table is 1<<log.
type WQCreator interface {
	CreateWQ(*WQInit) (WQ, error)
	CreateRWQIndTable(wqs []WQ, log uint32) (RWQIndTable, error)
}

// Flow is a steering rule.
type Flow interface {
	Handle() uint64
	Close() error
}

// A FlowCreator is a QP that packets can be steered to. attr is a struct
// ibv_flow_attr and what follows it, as AppendFlow encodes it.
type FlowCreator interface {
	CreateFlow(attr []byte) (Flow, error)
}

// FlowAction is an action of a steering rule.
type FlowAction interface {
	Handle() uint64
	ModifyESP(*ESPAttr, []ESPEncap) error
	Close() error
}

// A FlowActionCreator is a Context that can encrypt or decrypt what it steers.
type FlowActionCreator interface {
	CreateFlowActionESP(*ESPAttr, []ESPEncap) (FlowAction, error)
}

// Counters count what steering rules match.
type Counters interface {
	Handle() uint64
	// Attach makes the counter at index count; flow may be nil.
	Attach(what CounterDescription, index uint32, flow Flow) error
	Read(v []uint64, flags ReadCountersFlags) error
	Close() error
}

// A CountersCreator is a Context with flow counters.
type CountersCreator interface{ CreateCounters() (Counters, error) }

// OpsWR is a tag-matching list operation. Layout: struct zr_ops_wr.
type OpsWR struct {
	ID, RecvID, Tag, Mask uint64
	Opcode                OpsWROpcode
	Flags                 OpsFlags
	UnexpectedCnt         uint32
	TagHandle             uint32 // in: what to delete; out: what was added
	SGEOff, NumSGE        uint32
}

// An OpsPoster is a SRQ that matches tags. It stores handles in wr.
type OpsPoster interface {
	PostOps(wr []OpsWR, sge []SGE) (int, error)
}
