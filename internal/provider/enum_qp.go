package provider

// SRQAttrMask says which fields of SRQAttr a modify uses.
//
// Source: enum ibv_srq_attr_mask.
type SRQAttrMask uint32

const (
	SRQAttrMaxWR SRQAttrMask = 1 << 0
	SRQAttrLimit SRQAttrMask = 1 << 1
)

var namesSRQAttrMask = []name{
	{1, "SRQ_MAX_WR"},
	{2, "SRQ_LIMIT"},
}

// String gives the name without its IBV_ prefix.
func (v SRQAttrMask) String() string { return flagString(namesSRQAttrMask, uint64(v), "SRQAttrMask") }

// SRQType is the type of a shared receive queue.
//
// Source: enum ibv_srq_type.
type SRQType uint32

const (
	SRQTBasic SRQType = 0
	SRQTXRC   SRQType = 1
	SRQTTM    SRQType = 2
)

var namesSRQType = []name{
	{0, "SRQT_BASIC"},
	{1, "SRQT_XRC"},
	{2, "SRQT_TM"},
}

// String gives the name without its IBV_ prefix.
func (v SRQType) String() string { return enumString(namesSRQType, uint64(v), "SRQType") }

// WQType is the type of a work queue.
//
// Source: enum ibv_wq_type.
type WQType uint32

const (
	WQTRQ WQType = 0
)

var namesWQType = []name{
	{0, "WQT_RQ"},
}

// String gives the name without its IBV_ prefix.
func (v WQType) String() string { return enumString(namesWQType, uint64(v), "WQType") }

// WQFlags are creation flags of a work queue.
//
// Source: enum ibv_wq_flags.
type WQFlags uint32

const (
	WQFlagsCVLANStripping     WQFlags = 1 << 0
	WQFlagsScatterFCS         WQFlags = 1 << 1
	WQFlagsDelayDrop          WQFlags = 1 << 2
	WQFlagsPCIWriteEndPadding WQFlags = 1 << 3
)

var namesWQFlags = []name{
	{1, "WQ_FLAGS_CVLAN_STRIPPING"},
	{2, "WQ_FLAGS_SCATTER_FCS"},
	{4, "WQ_FLAGS_DELAY_DROP"},
	{8, "WQ_FLAGS_PCI_WRITE_END_PADDING"},
}

// String gives the name without its IBV_ prefix.
func (v WQFlags) String() string { return flagString(namesWQFlags, uint64(v), "WQFlags") }

// WQState is the state of a work queue.
//
// Source: enum ibv_wq_state.
type WQState uint32

const (
	WQSReset   WQState = 0
	WQSRdy     WQState = 1
	WQSErr     WQState = 2
	WQSUnknown WQState = 3
)

var namesWQState = []name{
	{0, "WQS_RESET"},
	{1, "WQS_RDY"},
	{2, "WQS_ERR"},
	{3, "WQS_UNKNOWN"},
}

// String gives the name without its IBV_ prefix.
func (v WQState) String() string { return enumString(namesWQState, uint64(v), "WQState") }

// WQAttrMask says which fields of WQAttr a modify uses.
//
// Source: enum ibv_wq_attr_mask.
type WQAttrMask uint32

const (
	WQAttrState     WQAttrMask = 1 << 0
	WQAttrCurrState WQAttrMask = 1 << 1
	WQAttrFlags     WQAttrMask = 1 << 2
)

var namesWQAttrMask = []name{
	{1, "WQ_ATTR_STATE"},
	{2, "WQ_ATTR_CURR_STATE"},
	{4, "WQ_ATTR_FLAGS"},
}

// String gives the name without its IBV_ prefix.
func (v WQAttrMask) String() string { return flagString(namesWQAttrMask, uint64(v), "WQAttrMask") }

// QPType is the transport service of a queue pair.
//
// Source: enum ibv_qp_type.
type QPType uint32

const (
	QPTRC        QPType = 2
	QPTUC        QPType = 3
	QPTUD        QPType = 4
	QPTRawPacket QPType = 8
	QPTXRCSend   QPType = 9
	QPTXRCRecv   QPType = 10
	QPTDriver    QPType = 255
)

var namesQPType = []name{
	{2, "QPT_RC"},
	{3, "QPT_UC"},
	{4, "QPT_UD"},
	{8, "QPT_RAW_PACKET"},
	{9, "QPT_XRC_SEND"},
	{10, "QPT_XRC_RECV"},
	{255, "QPT_DRIVER"},
}

// String gives the name without its IBV_ prefix.
func (v QPType) String() string { return enumString(namesQPType, uint64(v), "QPType") }

// QPCreateFlags are creation flags of a queue pair.
//
// Source: enum ibv_qp_create_flags.
type QPCreateFlags uint32

const (
	QPCreateBlockSelfMcastLB   QPCreateFlags = 1 << 1
	QPCreateScatterFCS         QPCreateFlags = 1 << 8
	QPCreateCVLANStripping     QPCreateFlags = 1 << 9
	QPCreateSourceQPN          QPCreateFlags = 1 << 10
	QPCreatePCIWriteEndPadding QPCreateFlags = 1 << 11
)

var namesQPCreateFlags = []name{
	{2, "QP_CREATE_BLOCK_SELF_MCAST_LB"},
	{256, "QP_CREATE_SCATTER_FCS"},
	{512, "QP_CREATE_CVLAN_STRIPPING"},
	{1024, "QP_CREATE_SOURCE_QPN"},
	{2048, "QP_CREATE_PCI_WRITE_END_PADDING"},
}

// String gives the name without its IBV_ prefix.
func (v QPCreateFlags) String() string {
	return flagString(namesQPCreateFlags, uint64(v), "QPCreateFlags")
}

// SendOpsFlags declare the operations a queue pair will post through the work request builder.
//
// Source: enum ibv_qp_create_send_ops_flags.
type SendOpsFlags uint64

const (
	QPExWithRDMAWrite         SendOpsFlags = 1 << 0
	QPExWithRDMAWriteWithImm  SendOpsFlags = 1 << 1
	QPExWithSend              SendOpsFlags = 1 << 2
	QPExWithSendWithImm       SendOpsFlags = 1 << 3
	QPExWithRDMARead          SendOpsFlags = 1 << 4
	QPExWithAtomicCmpAndSwp   SendOpsFlags = 1 << 5
	QPExWithAtomicFetchAndAdd SendOpsFlags = 1 << 6
	QPExWithLocalInv          SendOpsFlags = 1 << 7
	QPExWithBindMW            SendOpsFlags = 1 << 8
	QPExWithSendWithInv       SendOpsFlags = 1 << 9
	QPExWithTSO               SendOpsFlags = 1 << 10
	QPExWithAtomicWrite       SendOpsFlags = 1 << 12
	QPExWithFlush             SendOpsFlags = 1 << 11 // rdma-core 45
)

var namesSendOpsFlags = []name{
	{1, "QP_EX_WITH_RDMA_WRITE"},
	{2, "QP_EX_WITH_RDMA_WRITE_WITH_IMM"},
	{4, "QP_EX_WITH_SEND"},
	{8, "QP_EX_WITH_SEND_WITH_IMM"},
	{16, "QP_EX_WITH_RDMA_READ"},
	{32, "QP_EX_WITH_ATOMIC_CMP_AND_SWP"},
	{64, "QP_EX_WITH_ATOMIC_FETCH_AND_ADD"},
	{128, "QP_EX_WITH_LOCAL_INV"},
	{256, "QP_EX_WITH_BIND_MW"},
	{512, "QP_EX_WITH_SEND_WITH_INV"},
	{1024, "QP_EX_WITH_TSO"},
	{4096, "QP_EX_WITH_ATOMIC_WRITE"},
	{2048, "QP_EX_WITH_FLUSH"},
}

// String gives the name without its IBV_ prefix.
func (v SendOpsFlags) String() string {
	return flagString(namesSendOpsFlags, uint64(v), "SendOpsFlags")
}

// QPAttrMask says which fields of QPAttr a modify or query uses.
//
// Source: enum ibv_qp_attr_mask.
type QPAttrMask uint32

const (
	QPAttrState            QPAttrMask = 1 << 0
	QPAttrCurState         QPAttrMask = 1 << 1
	QPAttrEnSQDAsyncNotify QPAttrMask = 1 << 2
	QPAttrAccessFlags      QPAttrMask = 1 << 3
	QPAttrPKeyIndex        QPAttrMask = 1 << 4
	QPAttrPort             QPAttrMask = 1 << 5
	QPAttrQKey             QPAttrMask = 1 << 6
	QPAttrAV               QPAttrMask = 1 << 7
	QPAttrPathMTU          QPAttrMask = 1 << 8
	QPAttrTimeout          QPAttrMask = 1 << 9
	QPAttrRetryCnt         QPAttrMask = 1 << 10
	QPAttrRNRRetry         QPAttrMask = 1 << 11
	QPAttrRQPSN            QPAttrMask = 1 << 12
	QPAttrMaxQPRdAtomic    QPAttrMask = 1 << 13
	QPAttrAltPath          QPAttrMask = 1 << 14
	QPAttrMinRNRTimer      QPAttrMask = 1 << 15
	QPAttrSQPSN            QPAttrMask = 1 << 16
	QPAttrMaxDestRdAtomic  QPAttrMask = 1 << 17
	QPAttrPathMigState     QPAttrMask = 1 << 18
	QPAttrCap              QPAttrMask = 1 << 19
	QPAttrDestQPN          QPAttrMask = 1 << 20
	QPAttrRateLimit        QPAttrMask = 1 << 25
)

var namesQPAttrMask = []name{
	{1, "QP_STATE"},
	{2, "QP_CUR_STATE"},
	{4, "QP_EN_SQD_ASYNC_NOTIFY"},
	{8, "QP_ACCESS_FLAGS"},
	{16, "QP_PKEY_INDEX"},
	{32, "QP_PORT"},
	{64, "QP_QKEY"},
	{128, "QP_AV"},
	{256, "QP_PATH_MTU"},
	{512, "QP_TIMEOUT"},
	{1024, "QP_RETRY_CNT"},
	{2048, "QP_RNR_RETRY"},
	{4096, "QP_RQ_PSN"},
	{8192, "QP_MAX_QP_RD_ATOMIC"},
	{16384, "QP_ALT_PATH"},
	{32768, "QP_MIN_RNR_TIMER"},
	{65536, "QP_SQ_PSN"},
	{131072, "QP_MAX_DEST_RD_ATOMIC"},
	{262144, "QP_PATH_MIG_STATE"},
	{524288, "QP_CAP"},
	{1048576, "QP_DEST_QPN"},
	{33554432, "QP_RATE_LIMIT"},
}

// String gives the name without its IBV_ prefix.
func (v QPAttrMask) String() string { return flagString(namesQPAttrMask, uint64(v), "QPAttrMask") }

// QPState is the state of a queue pair.
//
// Source: enum ibv_qp_state.
type QPState uint32

const (
	QPSReset   QPState = 0
	QPSInit    QPState = 1
	QPSRTR     QPState = 2
	QPSRTS     QPState = 3
	QPSSQD     QPState = 4
	QPSSQE     QPState = 5
	QPSErr     QPState = 6
	QPSUnknown QPState = 7
)

var namesQPState = []name{
	{0, "QPS_RESET"},
	{1, "QPS_INIT"},
	{2, "QPS_RTR"},
	{3, "QPS_RTS"},
	{4, "QPS_SQD"},
	{5, "QPS_SQE"},
	{6, "QPS_ERR"},
	{7, "QPS_UNKNOWN"},
}

// String gives the name without its IBV_ prefix.
func (v QPState) String() string { return enumString(namesQPState, uint64(v), "QPState") }

// MigState is the path migration state of a queue pair.
//
// Source: enum ibv_mig_state.
type MigState uint32

const (
	MigMigrated MigState = 0
	MigRearm    MigState = 1
	MigArmed    MigState = 2
)

var namesMigState = []name{
	{0, "MIG_MIGRATED"},
	{1, "MIG_REARM"},
	{2, "MIG_ARMED"},
}

// String gives the name without its IBV_ prefix.
func (v MigState) String() string { return enumString(namesMigState, uint64(v), "MigState") }

// CQCreateFlags are creation flags of an extended completion queue.
//
// Source: enum ibv_create_cq_attr_flags.
type CQCreateFlags uint32

const (
	CQCreateSingleThreaded CQCreateFlags = 1 << 0
	CQCreateIgnoreOverrun  CQCreateFlags = 1 << 1
)

var namesCQCreateFlags = []name{
	{1, "CREATE_CQ_ATTR_SINGLE_THREADED"},
	{2, "CREATE_CQ_ATTR_IGNORE_OVERRUN"},
}

// String gives the name without its IBV_ prefix.
func (v CQCreateFlags) String() string {
	return flagString(namesCQCreateFlags, uint64(v), "CQCreateFlags")
}
