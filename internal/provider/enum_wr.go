package provider

// WROpcode is the operation of a send work request.
//
// Source: enum ibv_wr_opcode.
type WROpcode uint32

const (
	WRRDMAWrite         WROpcode = 0
	WRRDMAWriteWithImm  WROpcode = 1
	WRSend              WROpcode = 2
	WRSendWithImm       WROpcode = 3
	WRRDMARead          WROpcode = 4
	WRAtomicCmpAndSwp   WROpcode = 5
	WRAtomicFetchAndAdd WROpcode = 6
	WRLocalInv          WROpcode = 7
	WRBindMW            WROpcode = 8
	WRSendWithInv       WROpcode = 9
	WRTSO               WROpcode = 10
	WRDriver1           WROpcode = 11
	WRAtomicWrite       WROpcode = 15
	WRFlush             WROpcode = 14 // rdma-core 45
)

var namesWROpcode = []name{
	{0, "WR_RDMA_WRITE"},
	{1, "WR_RDMA_WRITE_WITH_IMM"},
	{2, "WR_SEND"},
	{3, "WR_SEND_WITH_IMM"},
	{4, "WR_RDMA_READ"},
	{5, "WR_ATOMIC_CMP_AND_SWP"},
	{6, "WR_ATOMIC_FETCH_AND_ADD"},
	{7, "WR_LOCAL_INV"},
	{8, "WR_BIND_MW"},
	{9, "WR_SEND_WITH_INV"},
	{10, "WR_TSO"},
	{11, "WR_DRIVER1"},
	{15, "WR_ATOMIC_WRITE"},
	{14, "WR_FLUSH"},
}

// String gives the name without its IBV_ prefix.
func (v WROpcode) String() string { return enumString(namesWROpcode, uint64(v), "WROpcode") }

// SendFlags modify a send work request.
//
// Source: enum ibv_send_flags.
type SendFlags uint32

const (
	SendFence     SendFlags = 1 << 0
	SendSignaled  SendFlags = 1 << 1
	SendSolicited SendFlags = 1 << 2
	SendInline    SendFlags = 1 << 3
	SendIPCsum    SendFlags = 1 << 4
)

var namesSendFlags = []name{
	{1, "SEND_FENCE"},
	{2, "SEND_SIGNALED"},
	{4, "SEND_SOLICITED"},
	{8, "SEND_INLINE"},
	{16, "SEND_IP_CSUM"},
}

// String gives the name without its IBV_ prefix.
func (v SendFlags) String() string { return flagString(namesSendFlags, uint64(v), "SendFlags") }

// OpsWROpcode is a tag-matching list operation.
//
// Source: enum ibv_ops_wr_opcode.
type OpsWROpcode uint32

const (
	WRTagAdd  OpsWROpcode = 0
	WRTagDel  OpsWROpcode = 1
	WRTagSync OpsWROpcode = 2
)

var namesOpsWROpcode = []name{
	{0, "WR_TAG_ADD"},
	{1, "WR_TAG_DEL"},
	{2, "WR_TAG_SYNC"},
}

// String gives the name without its IBV_ prefix.
func (v OpsWROpcode) String() string { return enumString(namesOpsWROpcode, uint64(v), "OpsWROpcode") }

// OpsFlags modify a tag-matching list operation.
//
// Source: enum ibv_ops_flags.
type OpsFlags uint32

const (
	OpsSignaled OpsFlags = 1 << 0
	OpsTMSync   OpsFlags = 1 << 1
)

var namesOpsFlags = []name{
	{1, "OPS_SIGNALED"},
	{2, "OPS_TM_SYNC"},
}

// String gives the name without its IBV_ prefix.
func (v OpsFlags) String() string { return flagString(namesOpsFlags, uint64(v), "OpsFlags") }
