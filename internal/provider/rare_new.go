package provider

// Optional interfaces for what libibverbs got after rdma-core 44. ENOSYS says
// that the library of this machine does not have it.

// A PortSpeeder is a Context that knows the effective speed of a port, in 100 Mbit/s.
type PortSpeeder interface {
	QueryPortSpeed(port uint32) (uint64, error)
}

// MRExInit asks for a region; Mask says which fields beside Length and Access count.
type MRExInit struct {
	Length, IOVA, Addr, FDOffset uint64
	Access                       AccessFlags
	Mask                         MRInitMask
	FD                           int
	DMAH                         DMAH
	Buf                          Buf
}

// MRInitMask says which fields of MRExInit count.
//
// Source: enum ibv_mr_init_attr_mask.
type MRInitMask uint64

const (
	RegMRMaskIOVA     MRInitMask = 1 << 0
	RegMRMaskAddr     MRInitMask = 1 << 1
	RegMRMaskFD       MRInitMask = 1 << 2
	RegMRMaskFDOffset MRInitMask = 1 << 3
	RegMRMaskDMAH     MRInitMask = 1 << 4
	RegMRMaskBuf      MRInitMask = 1 << 5
)

// A MRExRegistrar is a PD with the unified registration.
type MRExRegistrar interface{ RegMREx(*MRExInit) (MR, error) }

// DMAHInit asks for a DMA handle.
//
// Source: struct ibv_dmah_init_attr.
type DMAHInit struct {
	Mask    DMAHMask
	CPUID   uint32
	PH      uint8
	MemType TPHMemType
}

// DMAH is a DMA handle: hints for the PCIe transactions of a region.
type DMAH interface {
	Handle() uint64
	Close() error
}

// A DMAHAllocator is a Context with DMA handles.
type DMAHAllocator interface{ AllocDMAH(*DMAHInit) (DMAH, error) }

// A DmabufExporter is a DM or Buf that other devices can reach; the descriptor is the caller's.
type DmabufExporter interface{ ExportDmabuf() (int, error) }

// Buf is memory that the provider chose.
type Buf interface {
	Handle() uint64
	Addr() uint64
	DmabufExporter
	Close() error
}

// A BufAllocator is a PD that chooses memory.
type BufAllocator interface {
	AllocBuf(size uint64) (Buf, error)
	RegBufMR(b Buf, addr, length uint64, access AccessFlags) (MR, error)
}

// CompCntrCaps bound completion counters.
//
// Source: struct ibv_comp_cntr_caps.
type CompCntrCaps struct {
	MaxValue    uint64
	MaxCounters uint32
	QPAttachOps CompCntrOps // what a counter of a queue pair can count
}

// CompCntr counts completions without a queue; err selects the count of failures.
type CompCntr interface {
	Handle() uint64
	Set(err bool, v uint64) error
	Inc(err bool, v uint64) error
	Read(err bool) (uint64, error)
	Close() error
}

// A CompCntrCreator is a Context with completion counters.
type CompCntrCreator interface {
	QueryCompCntrCaps() (CompCntrCaps, error)
	CreateCompCntr(CompCntrType) (CompCntr, error)
}

// A CompCntrAttacher is a QP that completion counters can count.
type CompCntrAttacher interface {
	AttachCompCntr(c CompCntr, ops CompCntrOps) error
}
