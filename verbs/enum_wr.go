package verbs

import "github.com/zrdma/zrdma/internal/provider"

// The vocabulary of the field: the enumerations of <infiniband/verbs.h>, named
// as there without the IBV_ prefix. The values are the C values.

// WROpcode is the operation of a send work request.
//
// Source: enum ibv_wr_opcode.
type WROpcode = provider.WROpcode

// Values of WROpcode.
const (
	WRRDMAWrite         = provider.WRRDMAWrite
	WRRDMAWriteWithImm  = provider.WRRDMAWriteWithImm
	WRSend              = provider.WRSend
	WRSendWithImm       = provider.WRSendWithImm
	WRRDMARead          = provider.WRRDMARead
	WRAtomicCmpAndSwp   = provider.WRAtomicCmpAndSwp
	WRAtomicFetchAndAdd = provider.WRAtomicFetchAndAdd
	WRLocalInv          = provider.WRLocalInv
	WRBindMW            = provider.WRBindMW
	WRSendWithInv       = provider.WRSendWithInv
	WRTSO               = provider.WRTSO
	WRDriver1           = provider.WRDriver1
	WRAtomicWrite       = provider.WRAtomicWrite
	WRFlush             = provider.WRFlush
)

// SendFlags modify a send work request.
//
// Source: enum ibv_send_flags.
type SendFlags = provider.SendFlags

// Values of SendFlags.
const (
	SendFence     = provider.SendFence
	SendSignaled  = provider.SendSignaled
	SendSolicited = provider.SendSolicited
	SendInline    = provider.SendInline
	SendIPCsum    = provider.SendIPCsum
)

// OpsWROpcode is a tag-matching list operation.
//
// Source: enum ibv_ops_wr_opcode.
type OpsWROpcode = provider.OpsWROpcode

// Values of OpsWROpcode.
const (
	WRTagAdd  = provider.WRTagAdd
	WRTagDel  = provider.WRTagDel
	WRTagSync = provider.WRTagSync
)

// OpsFlags modify a tag-matching list operation.
//
// Source: enum ibv_ops_flags.
type OpsFlags = provider.OpsFlags

// Values of OpsFlags.
const (
	OpsSignaled = provider.OpsSignaled
	OpsTMSync   = provider.OpsTMSync
)
