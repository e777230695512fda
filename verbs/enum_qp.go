package verbs

import "github.com/zrdma/zrdma/internal/provider"

// The vocabulary of the field: the enumerations of <infiniband/verbs.h>, named
// as there without the IBV_ prefix. The values are the C values.

// SRQAttrMask says which fields of SRQAttr a modify uses.
//
// Source: enum ibv_srq_attr_mask.
type SRQAttrMask = provider.SRQAttrMask

// Values of SRQAttrMask.
const (
	SRQAttrMaxWR = provider.SRQAttrMaxWR
	SRQAttrLimit = provider.SRQAttrLimit
)

// SRQType is the type of a shared receive queue.
//
// Source: enum ibv_srq_type.
type SRQType = provider.SRQType

// Values of SRQType.
const (
	SRQTBasic = provider.SRQTBasic
	SRQTXRC   = provider.SRQTXRC
	SRQTTM    = provider.SRQTTM
)

// WQType is the type of a work queue.
//
// Source: enum ibv_wq_type.
type WQType = provider.WQType

// Values of WQType.
const (
	WQTRQ = provider.WQTRQ
)

// WQFlags are creation flags of a work queue.
//
// Source: enum ibv_wq_flags.
type WQFlags = provider.WQFlags

// Values of WQFlags.
const (
	WQFlagsCVLANStripping     = provider.WQFlagsCVLANStripping
	WQFlagsScatterFCS         = provider.WQFlagsScatterFCS
	WQFlagsDelayDrop          = provider.WQFlagsDelayDrop
	WQFlagsPCIWriteEndPadding = provider.WQFlagsPCIWriteEndPadding
)

// WQState is the state of a work queue.
//
// Source: enum ibv_wq_state.
type WQState = provider.WQState

// Values of WQState.
const (
	WQSReset   = provider.WQSReset
	WQSRdy     = provider.WQSRdy
	WQSErr     = provider.WQSErr
	WQSUnknown = provider.WQSUnknown
)

// WQAttrMask says which fields of WQAttr a modify uses.
//
// Source: enum ibv_wq_attr_mask.
type WQAttrMask = provider.WQAttrMask

// Values of WQAttrMask.
const (
	WQAttrState     = provider.WQAttrState
	WQAttrCurrState = provider.WQAttrCurrState
	WQAttrFlags     = provider.WQAttrFlags
)

// QPType is the transport service of a queue pair.
//
// Source: enum ibv_qp_type.
type QPType = provider.QPType

// Values of QPType.
const (
	QPTRC        = provider.QPTRC
	QPTUC        = provider.QPTUC
	QPTUD        = provider.QPTUD
	QPTRawPacket = provider.QPTRawPacket
	QPTXRCSend   = provider.QPTXRCSend
	QPTXRCRecv   = provider.QPTXRCRecv
	QPTDriver    = provider.QPTDriver
)

// QPCreateFlags are creation flags of a queue pair.
//
// Source: enum ibv_qp_create_flags.
type QPCreateFlags = provider.QPCreateFlags

// Values of QPCreateFlags.
const (
	QPCreateBlockSelfMcastLB   = provider.QPCreateBlockSelfMcastLB
	QPCreateScatterFCS         = provider.QPCreateScatterFCS
	QPCreateCVLANStripping     = provider.QPCreateCVLANStripping
	QPCreateSourceQPN          = provider.QPCreateSourceQPN
	QPCreatePCIWriteEndPadding = provider.QPCreatePCIWriteEndPadding
)

// SendOpsFlags declare the operations a queue pair will post through the work request builder.
//
// Source: enum ibv_qp_create_send_ops_flags.
type SendOpsFlags = provider.SendOpsFlags

// Values of SendOpsFlags.
const (
	QPExWithRDMAWrite         = provider.QPExWithRDMAWrite
	QPExWithRDMAWriteWithImm  = provider.QPExWithRDMAWriteWithImm
	QPExWithSend              = provider.QPExWithSend
	QPExWithSendWithImm       = provider.QPExWithSendWithImm
	QPExWithRDMARead          = provider.QPExWithRDMARead
	QPExWithAtomicCmpAndSwp   = provider.QPExWithAtomicCmpAndSwp
	QPExWithAtomicFetchAndAdd = provider.QPExWithAtomicFetchAndAdd
	QPExWithLocalInv          = provider.QPExWithLocalInv
	QPExWithBindMW            = provider.QPExWithBindMW
	QPExWithSendWithInv       = provider.QPExWithSendWithInv
	QPExWithTSO               = provider.QPExWithTSO
	QPExWithAtomicWrite       = provider.QPExWithAtomicWrite
	QPExWithFlush             = provider.QPExWithFlush
)

// QPAttrMask says which fields of QPAttr a modify or query uses.
//
// Source: enum ibv_qp_attr_mask.
type QPAttrMask = provider.QPAttrMask

// Values of QPAttrMask.
const (
	QPAttrState            = provider.QPAttrState
	QPAttrCurState         = provider.QPAttrCurState
	QPAttrEnSQDAsyncNotify = provider.QPAttrEnSQDAsyncNotify
	QPAttrAccessFlags      = provider.QPAttrAccessFlags
	QPAttrPKeyIndex        = provider.QPAttrPKeyIndex
	QPAttrPort             = provider.QPAttrPort
	QPAttrQKey             = provider.QPAttrQKey
	QPAttrAV               = provider.QPAttrAV
	QPAttrPathMTU          = provider.QPAttrPathMTU
	QPAttrTimeout          = provider.QPAttrTimeout
	QPAttrRetryCnt         = provider.QPAttrRetryCnt
	QPAttrRNRRetry         = provider.QPAttrRNRRetry
	QPAttrRQPSN            = provider.QPAttrRQPSN
	QPAttrMaxQPRdAtomic    = provider.QPAttrMaxQPRdAtomic
	QPAttrAltPath          = provider.QPAttrAltPath
	QPAttrMinRNRTimer      = provider.QPAttrMinRNRTimer
	QPAttrSQPSN            = provider.QPAttrSQPSN
	QPAttrMaxDestRdAtomic  = provider.QPAttrMaxDestRdAtomic
	QPAttrPathMigState     = provider.QPAttrPathMigState
	QPAttrCap              = provider.QPAttrCap
	QPAttrDestQPN          = provider.QPAttrDestQPN
	QPAttrRateLimit        = provider.QPAttrRateLimit
)

// QPState is the state of a queue pair.
//
// Source: enum ibv_qp_state.
type QPState = provider.QPState

// Values of QPState.
const (
	QPSReset   = provider.QPSReset
	QPSInit    = provider.QPSInit
	QPSRTR     = provider.QPSRTR
	QPSRTS     = provider.QPSRTS
	QPSSQD     = provider.QPSSQD
	QPSSQE     = provider.QPSSQE
	QPSErr     = provider.QPSErr
	QPSUnknown = provider.QPSUnknown
)

// MigState is the path migration state of a queue pair.
//
// Source: enum ibv_mig_state.
type MigState = provider.MigState

// Values of MigState.
const (
	MigMigrated = provider.MigMigrated
	MigRearm    = provider.MigRearm
	MigArmed    = provider.MigArmed
)

// CQCreateFlags are creation flags of an extended completion queue.
//
// Source: enum ibv_create_cq_attr_flags.
type CQCreateFlags = provider.CQCreateFlags

// Values of CQCreateFlags.
const (
	CQCreateSingleThreaded = provider.CQCreateSingleThreaded
	CQCreateIgnoreOverrun  = provider.CQCreateIgnoreOverrun
)
