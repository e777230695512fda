package provider

// WCStatus is the status of a work completion.
//
// Source: enum ibv_wc_status.
type WCStatus uint32

const (
	WCSuccess          WCStatus = 0
	WCLocLenErr        WCStatus = 1
	WCLocQPOpErr       WCStatus = 2
	WCLocEECOpErr      WCStatus = 3
	WCLocProtErr       WCStatus = 4
	WCWRFlushErr       WCStatus = 5
	WCMWBindErr        WCStatus = 6
	WCBadRespErr       WCStatus = 7
	WCLocAccessErr     WCStatus = 8
	WCRemInvReqErr     WCStatus = 9
	WCRemAccessErr     WCStatus = 10
	WCRemOpErr         WCStatus = 11
	WCRetryExcErr      WCStatus = 12
	WCRNRRetryExcErr   WCStatus = 13
	WCLocRDDViolErr    WCStatus = 14
	WCRemInvRdReqErr   WCStatus = 15
	WCRemAbortErr      WCStatus = 16
	WCInvEECNErr       WCStatus = 17
	WCInvEECStateErr   WCStatus = 18
	WCFatalErr         WCStatus = 19
	WCRespTimeoutErr   WCStatus = 20
	WCGeneralErr       WCStatus = 21
	WCTMErr            WCStatus = 22
	WCTMRndvIncomplete WCStatus = 23
)

var namesWCStatus = []name{
	{0, "WC_SUCCESS"},
	{1, "WC_LOC_LEN_ERR"},
	{2, "WC_LOC_QP_OP_ERR"},
	{3, "WC_LOC_EEC_OP_ERR"},
	{4, "WC_LOC_PROT_ERR"},
	{5, "WC_WR_FLUSH_ERR"},
	{6, "WC_MW_BIND_ERR"},
	{7, "WC_BAD_RESP_ERR"},
	{8, "WC_LOC_ACCESS_ERR"},
	{9, "WC_REM_INV_REQ_ERR"},
	{10, "WC_REM_ACCESS_ERR"},
	{11, "WC_REM_OP_ERR"},
	{12, "WC_RETRY_EXC_ERR"},
	{13, "WC_RNR_RETRY_EXC_ERR"},
	{14, "WC_LOC_RDD_VIOL_ERR"},
	{15, "WC_REM_INV_RD_REQ_ERR"},
	{16, "WC_REM_ABORT_ERR"},
	{17, "WC_INV_EECN_ERR"},
	{18, "WC_INV_EEC_STATE_ERR"},
	{19, "WC_FATAL_ERR"},
	{20, "WC_RESP_TIMEOUT_ERR"},
	{21, "WC_GENERAL_ERR"},
	{22, "WC_TM_ERR"},
	{23, "WC_TM_RNDV_INCOMPLETE"},
}

// String gives the name without its IBV_ prefix.
func (v WCStatus) String() string { return enumString(namesWCStatus, uint64(v), "WCStatus") }

// WCOpcode is the operation that a work completion reports.
//
// Source: enum ibv_wc_opcode.
type WCOpcode uint32

const (
	WCSend            WCOpcode = 0
	WCRDMAWrite       WCOpcode = 1
	WCRDMARead        WCOpcode = 2
	WCCompSwap        WCOpcode = 3
	WCFetchAdd        WCOpcode = 4
	WCBindMW          WCOpcode = 5
	WCLocalInv        WCOpcode = 6
	WCTSO             WCOpcode = 7
	WCAtomicWrite     WCOpcode = 9
	WCRecv            WCOpcode = 128
	WCRecvRDMAWithImm WCOpcode = 129
	WCTMAdd           WCOpcode = 130
	WCTMDel           WCOpcode = 131
	WCTMSync          WCOpcode = 132
	WCTMRecv          WCOpcode = 133
	WCTMNoTag         WCOpcode = 134
	WCDriver1         WCOpcode = 135
	WCDriver2         WCOpcode = 136
	WCDriver3         WCOpcode = 137
	WCFlush           WCOpcode = 8 // rdma-core 45
)

var namesWCOpcode = []name{
	{0, "WC_SEND"},
	{1, "WC_RDMA_WRITE"},
	{2, "WC_RDMA_READ"},
	{3, "WC_COMP_SWAP"},
	{4, "WC_FETCH_ADD"},
	{5, "WC_BIND_MW"},
	{6, "WC_LOCAL_INV"},
	{7, "WC_TSO"},
	{9, "WC_ATOMIC_WRITE"},
	{128, "WC_RECV"},
	{129, "WC_RECV_RDMA_WITH_IMM"},
	{130, "WC_TM_ADD"},
	{131, "WC_TM_DEL"},
	{132, "WC_TM_SYNC"},
	{133, "WC_TM_RECV"},
	{134, "WC_TM_NO_TAG"},
	{135, "WC_DRIVER1"},
	{136, "WC_DRIVER2"},
	{137, "WC_DRIVER3"},
	{8, "WC_FLUSH"},
}

// String gives the name without its IBV_ prefix.
func (v WCOpcode) String() string { return enumString(namesWCOpcode, uint64(v), "WCOpcode") }

// WCExFlags select the fields an extended completion carries.
//
// Source: enum ibv_create_cq_wc_flags.
type WCExFlags uint64

const (
	WCExWithByteLen                      WCExFlags = 1 << 0
	WCExWithImm                          WCExFlags = 1 << 1
	WCExWithQPNum                        WCExFlags = 1 << 2
	WCExWithSrcQP                        WCExFlags = 1 << 3
	WCExWithSLID                         WCExFlags = 1 << 4
	WCExWithSL                           WCExFlags = 1 << 5
	WCExWithDLIDPathBits                 WCExFlags = 1 << 6
	WCExWithCompletionTimestamp          WCExFlags = 1 << 7
	WCExWithCVLAN                        WCExFlags = 1 << 8
	WCExWithFlowTag                      WCExFlags = 1 << 9
	WCExWithTMInfo                       WCExFlags = 1 << 10
	WCExWithCompletionTimestampWallclock WCExFlags = 1 << 11
)

var namesWCExFlags = []name{
	{1, "WC_EX_WITH_BYTE_LEN"},
	{2, "WC_EX_WITH_IMM"},
	{4, "WC_EX_WITH_QP_NUM"},
	{8, "WC_EX_WITH_SRC_QP"},
	{16, "WC_EX_WITH_SLID"},
	{32, "WC_EX_WITH_SL"},
	{64, "WC_EX_WITH_DLID_PATH_BITS"},
	{128, "WC_EX_WITH_COMPLETION_TIMESTAMP"},
	{256, "WC_EX_WITH_CVLAN"},
	{512, "WC_EX_WITH_FLOW_TAG"},
	{1024, "WC_EX_WITH_TM_INFO"},
	{2048, "WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK"},
}

// String gives the name without its IBV_ prefix.
func (v WCExFlags) String() string { return flagString(namesWCExFlags, uint64(v), "WCExFlags") }

// WCFlags say which optional fields of a completion are valid.
//
// Source: enum ibv_wc_flags.
type WCFlags uint32

const (
	WCGRH         WCFlags = 1 << 0
	WCWithImm     WCFlags = 1 << 1
	WCIPCsumOk    WCFlags = 1 << 2
	WCWithInv     WCFlags = 1 << 3
	WCTMSyncReq   WCFlags = 1 << 4
	WCTMMatch     WCFlags = 1 << 5
	WCTMDataValid WCFlags = 1 << 6
)

var namesWCFlags = []name{
	{1, "WC_GRH"},
	{2, "WC_WITH_IMM"},
	{4, "WC_IP_CSUM_OK"},
	{8, "WC_WITH_INV"},
	{16, "WC_TM_SYNC_REQ"},
	{32, "WC_TM_MATCH"},
	{64, "WC_TM_DATA_VALID"},
}

// String gives the name without its IBV_ prefix.
func (v WCFlags) String() string { return flagString(namesWCFlags, uint64(v), "WCFlags") }
