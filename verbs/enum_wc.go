package verbs

import "github.com/zrdma/zrdma/internal/provider"

// The vocabulary of the field: the enumerations of <infiniband/verbs.h>, named
// as there without the IBV_ prefix. The values are the C values.

// WCStatus is the status of a work completion.
//
// Source: enum ibv_wc_status.
type WCStatus = provider.WCStatus

// Values of WCStatus.
const (
	WCSuccess          = provider.WCSuccess
	WCLocLenErr        = provider.WCLocLenErr
	WCLocQPOpErr       = provider.WCLocQPOpErr
	WCLocEECOpErr      = provider.WCLocEECOpErr
	WCLocProtErr       = provider.WCLocProtErr
	WCWRFlushErr       = provider.WCWRFlushErr
	WCMWBindErr        = provider.WCMWBindErr
	WCBadRespErr       = provider.WCBadRespErr
	WCLocAccessErr     = provider.WCLocAccessErr
	WCRemInvReqErr     = provider.WCRemInvReqErr
	WCRemAccessErr     = provider.WCRemAccessErr
	WCRemOpErr         = provider.WCRemOpErr
	WCRetryExcErr      = provider.WCRetryExcErr
	WCRNRRetryExcErr   = provider.WCRNRRetryExcErr
	WCLocRDDViolErr    = provider.WCLocRDDViolErr
	WCRemInvRdReqErr   = provider.WCRemInvRdReqErr
	WCRemAbortErr      = provider.WCRemAbortErr
	WCInvEECNErr       = provider.WCInvEECNErr
	WCInvEECStateErr   = provider.WCInvEECStateErr
	WCFatalErr         = provider.WCFatalErr
	WCRespTimeoutErr   = provider.WCRespTimeoutErr
	WCGeneralErr       = provider.WCGeneralErr
	WCTMErr            = provider.WCTMErr
	WCTMRndvIncomplete = provider.WCTMRndvIncomplete
)

// WCOpcode is the operation that a work completion reports.
//
// Source: enum ibv_wc_opcode.
type WCOpcode = provider.WCOpcode

// Values of WCOpcode.
const (
	WCSend            = provider.WCSend
	WCRDMAWrite       = provider.WCRDMAWrite
	WCRDMARead        = provider.WCRDMARead
	WCCompSwap        = provider.WCCompSwap
	WCFetchAdd        = provider.WCFetchAdd
	WCBindMW          = provider.WCBindMW
	WCLocalInv        = provider.WCLocalInv
	WCTSO             = provider.WCTSO
	WCAtomicWrite     = provider.WCAtomicWrite
	WCRecv            = provider.WCRecv
	WCRecvRDMAWithImm = provider.WCRecvRDMAWithImm
	WCTMAdd           = provider.WCTMAdd
	WCTMDel           = provider.WCTMDel
	WCTMSync          = provider.WCTMSync
	WCTMRecv          = provider.WCTMRecv
	WCTMNoTag         = provider.WCTMNoTag
	WCDriver1         = provider.WCDriver1
	WCDriver2         = provider.WCDriver2
	WCDriver3         = provider.WCDriver3
	WCFlush           = provider.WCFlush
)

// WCExFlags select the fields an extended completion carries.
//
// Source: enum ibv_create_cq_wc_flags.
type WCExFlags = provider.WCExFlags

// Values of WCExFlags.
const (
	WCExWithByteLen                      = provider.WCExWithByteLen
	WCExWithImm                          = provider.WCExWithImm
	WCExWithQPNum                        = provider.WCExWithQPNum
	WCExWithSrcQP                        = provider.WCExWithSrcQP
	WCExWithSLID                         = provider.WCExWithSLID
	WCExWithSL                           = provider.WCExWithSL
	WCExWithDLIDPathBits                 = provider.WCExWithDLIDPathBits
	WCExWithCompletionTimestamp          = provider.WCExWithCompletionTimestamp
	WCExWithCVLAN                        = provider.WCExWithCVLAN
	WCExWithFlowTag                      = provider.WCExWithFlowTag
	WCExWithTMInfo                       = provider.WCExWithTMInfo
	WCExWithCompletionTimestampWallclock = provider.WCExWithCompletionTimestampWallclock
)

// WCFlags say which optional fields of a completion are valid.
//
// Source: enum ibv_wc_flags.
type WCFlags = provider.WCFlags

// Values of WCFlags.
const (
	WCGRH         = provider.WCGRH
	WCWithImm     = provider.WCWithImm
	WCIPCsumOk    = provider.WCIPCsumOk
	WCWithInv     = provider.WCWithInv
	WCTMSyncReq   = provider.WCTMSyncReq
	WCTMMatch     = provider.WCTMMatch
	WCTMDataValid = provider.WCTMDataValid
)
