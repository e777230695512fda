package provider

// AdviseMRAdvice is what Advise tells the device about memory.
//
// Source: enum ibv_advise_mr_advice.
type AdviseMRAdvice uint32

const (
	AdviseMRPrefetch        AdviseMRAdvice = 0
	AdviseMRPrefetchWrite   AdviseMRAdvice = 1
	AdviseMRPrefetchNoFault AdviseMRAdvice = 2
)

var namesAdviseMRAdvice = []name{
	{0, "ADVISE_MR_ADVICE_PREFETCH"},
	{1, "ADVISE_MR_ADVICE_PREFETCH_WRITE"},
	{2, "ADVISE_MR_ADVICE_PREFETCH_NO_FAULT"},
}

// String gives the name without its IBV_ prefix.
func (v AdviseMRAdvice) String() string {
	return enumString(namesAdviseMRAdvice, uint64(v), "AdviseMRAdvice")
}

// AdviseMRFlags modify an advice.
//
// Source: enum ibv_advise_mr_flag.
type AdviseMRFlags uint32

// AdviseMRFlagFlush waits until the advice was carried out.
const AdviseMRFlagFlush AdviseMRFlags = 1 << 0

var namesAdviseMRFlags = []name{{1, "ADVISE_MR_FLAG_FLUSH"}}

// String gives the name without its IBV_ prefix.
func (v AdviseMRFlags) String() string {
	return flagString(namesAdviseMRFlags, uint64(v), "AdviseMRFlags")
}

// ReregMRErrCode is ibv_rereg_mr's answer beside the errno: what became of the region.
//
// Source: enum ibv_rereg_mr_err_code.
type ReregMRErrCode int32

const (
	ReregMRErrInput           ReregMRErrCode = -1 // the old registration is valid
	ReregMRErrDontForkNew     ReregMRErrCode = -2 // the old registration is valid
	ReregMRErrDoForkOld       ReregMRErrCode = -3 // the new registration is valid
	ReregMRErrCmd             ReregMRErrCode = -4 // neither may be used
	ReregMRErrCmdAndDoForkNew ReregMRErrCode = -5 // neither may be used
)

// String gives the name without its IBV_ prefix.
func (v ReregMRErrCode) String() string {
	switch v {
	case ReregMRErrInput:
		return "REREG_MR_ERR_INPUT"
	case ReregMRErrDontForkNew:
		return "REREG_MR_ERR_DONT_FORK_NEW"
	case ReregMRErrDoForkOld:
		return "REREG_MR_ERR_DO_FORK_OLD"
	case ReregMRErrCmd:
		return "REREG_MR_ERR_CMD"
	case ReregMRErrCmdAndDoForkNew:
		return "REREG_MR_ERR_CMD_AND_DO_FORK_NEW"
	}
	return enumString(nil, uint64(v), "ReregMRErrCode")
}

// ESPFlags say what an ESP action does. Zero: inline crypto, tunnel mode, decrypt.
//
// Source: enum ibv_flow_action_esp_flags.
type ESPFlags uint32

const (
	ESPFullOffload  ESPFlags = 1 << 0
	ESPTransport    ESPFlags = 1 << 1
	ESPEncrypt      ESPFlags = 1 << 2
	ESPESNNewWindow ESPFlags = 1 << 3
)

var namesESPFlags = []name{
	{1, "FLOW_ACTION_ESP_FLAGS_FULL_OFFLOAD"},
	{2, "FLOW_ACTION_ESP_FLAGS_TRANSPORT"},
	{4, "FLOW_ACTION_ESP_FLAGS_ENCRYPT"},
	{8, "FLOW_ACTION_ESP_FLAGS_ESN_NEW_WINDOW"},
}

// String gives the names without their IBV_ prefix.
func (v ESPFlags) String() string { return flagString(namesESPFlags, uint64(v), "ESPFlags") }

// DMAHMask says which fields of a DMA handle's attributes count.
//
// Source: enum ibv_dmah_init_attr_mask.
type DMAHMask uint32

const (
	DMAHMaskCPUID   DMAHMask = 1 << 0
	DMAHMaskPH      DMAHMask = 1 << 1
	DMAHMaskMemType DMAHMask = 1 << 2
)

// TPHMemType is the kind of memory that a DMA handle is for.
//
// Source: enum ibv_tph_mem_type.
type TPHMemType uint8

const (
	TPHMemVM TPHMemType = 0 // volatile
	TPHMemPM TPHMemType = 1 // persistent
)

// CompCntrType is what a completion counter adds up.
//
// Source: enum ibv_comp_cntr_type.
type CompCntrType uint32

const (
	CompCntrWRs   CompCntrType = 0 // work requests
	CompCntrBytes CompCntrType = 1
)

// CompCntrOps are the operations of a queue pair that a counter counts.
//
// Source: enum ibv_qp_attach_comp_cntr_op.
type CompCntrOps uint32

const (
	CompCntrSend            CompCntrOps = 1 << 0
	CompCntrRecv            CompCntrOps = 1 << 1
	CompCntrRDMARead        CompCntrOps = 1 << 2
	CompCntrRemoteRDMARead  CompCntrOps = 1 << 3
	CompCntrRDMAWrite       CompCntrOps = 1 << 4
	CompCntrRemoteRDMAWrite CompCntrOps = 1 << 5
)
