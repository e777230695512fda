package provider

// MTU is a path MTU in the encoding of the InfiniBand specification; Bytes gives octets.
//
// Source: enum ibv_mtu.
type MTU uint32

const (
	MTU256  MTU = 1
	MTU512  MTU = 2
	MTU1024 MTU = 3
	MTU2048 MTU = 4
	MTU4096 MTU = 5
)

var namesMTU = []name{
	{1, "MTU_256"},
	{2, "MTU_512"},
	{3, "MTU_1024"},
	{4, "MTU_2048"},
	{5, "MTU_4096"},
}

// String gives the name without its IBV_ prefix.
func (v MTU) String() string { return enumString(namesMTU, uint64(v), "MTU") }

// PortState is the logical state of a port.
//
// Source: enum ibv_port_state.
type PortState uint32

const (
	PortNop         PortState = 0
	PortDown        PortState = 1
	PortInit        PortState = 2
	PortArmed       PortState = 3
	PortActive      PortState = 4
	PortActiveDefer PortState = 5
)

var namesPortState = []name{
	{0, "PORT_NOP"},
	{1, "PORT_DOWN"},
	{2, "PORT_INIT"},
	{3, "PORT_ARMED"},
	{4, "PORT_ACTIVE"},
	{5, "PORT_ACTIVE_DEFER"},
}

// String gives the name without its IBV_ prefix.
func (v PortState) String() string { return enumString(namesPortState, uint64(v), "PortState") }

// LinkLayer is the link layer below a port.
//
// Source: IBV_LINK_LAYER_*.
type LinkLayer uint8

const (
	LinkLayerUnspecified LinkLayer = 0
	LinkLayerInfiniband  LinkLayer = 1
	LinkLayerEthernet    LinkLayer = 2
)

var namesLinkLayer = []name{
	{0, "LINK_LAYER_UNSPECIFIED"},
	{1, "LINK_LAYER_INFINIBAND"},
	{2, "LINK_LAYER_ETHERNET"},
}

// String gives the name without its IBV_ prefix.
func (v LinkLayer) String() string { return enumString(namesLinkLayer, uint64(v), "LinkLayer") }

// PortCapFlags are the bits of PortAttr.PortCapFlags.
//
// Source: enum ibv_port_cap_flags.
type PortCapFlags uint32

const (
	PortSM                   PortCapFlags = 1 << 1
	PortNoticeSup            PortCapFlags = 1 << 2
	PortTrapSup              PortCapFlags = 1 << 3
	PortOptIPDSup            PortCapFlags = 1 << 4
	PortAutoMigrSup          PortCapFlags = 1 << 5
	PortSLMapSup             PortCapFlags = 1 << 6
	PortMKeyNVRAM            PortCapFlags = 1 << 7
	PortPKeyNVRAM            PortCapFlags = 1 << 8
	PortLEDInfoSup           PortCapFlags = 1 << 9
	PortSysImageGuidSup      PortCapFlags = 1 << 11
	PortPKeySwExtPortTrapSup PortCapFlags = 1 << 12
	PortExtendedSpeedsSup    PortCapFlags = 1 << 14
	PortCapMask2Sup          PortCapFlags = 1 << 15
	PortCMSup                PortCapFlags = 1 << 16
	PortSNMPTunnelSup        PortCapFlags = 1 << 17
	PortReinitSup            PortCapFlags = 1 << 18
	PortDeviceMgmtSup        PortCapFlags = 1 << 19
	PortVendorClassSup       PortCapFlags = 1 << 20
	PortDRNoticeSup          PortCapFlags = 1 << 21
	PortCapMaskNoticeSup     PortCapFlags = 1 << 22
	PortBootMgmtSup          PortCapFlags = 1 << 23
	PortLinkLatencySup       PortCapFlags = 1 << 24
	PortClientRegSup         PortCapFlags = 1 << 25
	PortIPBasedGids          PortCapFlags = 1 << 26
)

var namesPortCapFlags = []name{
	{2, "PORT_SM"},
	{4, "PORT_NOTICE_SUP"},
	{8, "PORT_TRAP_SUP"},
	{16, "PORT_OPT_IPD_SUP"},
	{32, "PORT_AUTO_MIGR_SUP"},
	{64, "PORT_SL_MAP_SUP"},
	{128, "PORT_MKEY_NVRAM"},
	{256, "PORT_PKEY_NVRAM"},
	{512, "PORT_LED_INFO_SUP"},
	{2048, "PORT_SYS_IMAGE_GUID_SUP"},
	{4096, "PORT_PKEY_SW_EXT_PORT_TRAP_SUP"},
	{16384, "PORT_EXTENDED_SPEEDS_SUP"},
	{32768, "PORT_CAP_MASK2_SUP"},
	{65536, "PORT_CM_SUP"},
	{131072, "PORT_SNMP_TUNNEL_SUP"},
	{262144, "PORT_REINIT_SUP"},
	{524288, "PORT_DEVICE_MGMT_SUP"},
	{1048576, "PORT_VENDOR_CLASS_SUP"},
	{2097152, "PORT_DR_NOTICE_SUP"},
	{4194304, "PORT_CAP_MASK_NOTICE_SUP"},
	{8388608, "PORT_BOOT_MGMT_SUP"},
	{16777216, "PORT_LINK_LATENCY_SUP"},
	{33554432, "PORT_CLIENT_REG_SUP"},
	{67108864, "PORT_IP_BASED_GIDS"},
}

// String gives the name without its IBV_ prefix.
func (v PortCapFlags) String() string {
	return flagString(namesPortCapFlags, uint64(v), "PortCapFlags")
}

// PortCapFlags2 are the bits of PortAttr.PortCapFlags2.
//
// Source: enum ibv_port_cap_flags2.
type PortCapFlags2 uint16

const (
	PortSetNodeDescSup          PortCapFlags2 = 1 << 0
	PortInfoExtSup              PortCapFlags2 = 1 << 1
	PortVirtSup                 PortCapFlags2 = 1 << 2
	PortSwitchPortStateTableSup PortCapFlags2 = 1 << 3
	PortLinkWidth2XSup          PortCapFlags2 = 1 << 4
	PortLinkSpeedHDRSup         PortCapFlags2 = 1 << 5
	PortLinkSpeedNDRSup         PortCapFlags2 = 1 << 10
)

var namesPortCapFlags2 = []name{
	{1, "PORT_SET_NODE_DESC_SUP"},
	{2, "PORT_INFO_EXT_SUP"},
	{4, "PORT_VIRT_SUP"},
	{8, "PORT_SWITCH_PORT_STATE_TABLE_SUP"},
	{16, "PORT_LINK_WIDTH_2X_SUP"},
	{32, "PORT_LINK_SPEED_HDR_SUP"},
	{1024, "PORT_LINK_SPEED_NDR_SUP"},
}

// String gives the name without its IBV_ prefix.
func (v PortCapFlags2) String() string {
	return flagString(namesPortCapFlags2, uint64(v), "PortCapFlags2")
}

// EventType is the kind of an asynchronous event.
//
// Source: enum ibv_event_type.
type EventType uint32

const (
	EventCQErr            EventType = 0
	EventQPFatal          EventType = 1
	EventQPReqErr         EventType = 2
	EventQPAccessErr      EventType = 3
	EventCommEst          EventType = 4
	EventSQDrained        EventType = 5
	EventPathMig          EventType = 6
	EventPathMigErr       EventType = 7
	EventDeviceFatal      EventType = 8
	EventPortActive       EventType = 9
	EventPortErr          EventType = 10
	EventLIDChange        EventType = 11
	EventPKeyChange       EventType = 12
	EventSMChange         EventType = 13
	EventSRQErr           EventType = 14
	EventSRQLimitReached  EventType = 15
	EventQPLastWQEReached EventType = 16
	EventClientReregister EventType = 17
	EventGIDChange        EventType = 18
	EventWQFatal          EventType = 19
)

var namesEventType = []name{
	{0, "EVENT_CQ_ERR"},
	{1, "EVENT_QP_FATAL"},
	{2, "EVENT_QP_REQ_ERR"},
	{3, "EVENT_QP_ACCESS_ERR"},
	{4, "EVENT_COMM_EST"},
	{5, "EVENT_SQ_DRAINED"},
	{6, "EVENT_PATH_MIG"},
	{7, "EVENT_PATH_MIG_ERR"},
	{8, "EVENT_DEVICE_FATAL"},
	{9, "EVENT_PORT_ACTIVE"},
	{10, "EVENT_PORT_ERR"},
	{11, "EVENT_LID_CHANGE"},
	{12, "EVENT_PKEY_CHANGE"},
	{13, "EVENT_SM_CHANGE"},
	{14, "EVENT_SRQ_ERR"},
	{15, "EVENT_SRQ_LIMIT_REACHED"},
	{16, "EVENT_QP_LAST_WQE_REACHED"},
	{17, "EVENT_CLIENT_REREGISTER"},
	{18, "EVENT_GID_CHANGE"},
	{19, "EVENT_WQ_FATAL"},
}

// String gives the name without its IBV_ prefix.
func (v EventType) String() string { return enumString(namesEventType, uint64(v), "EventType") }

// Rate is a static rate in the encoding of the InfiniBand specification.
//
// Source: enum ibv_rate.
type Rate uint32

const (
	RateMax      Rate = 0
	Rate2_5Gbps  Rate = 2
	Rate5Gbps    Rate = 5
	Rate10Gbps   Rate = 3
	Rate20Gbps   Rate = 6
	Rate30Gbps   Rate = 4
	Rate40Gbps   Rate = 7
	Rate60Gbps   Rate = 8
	Rate80Gbps   Rate = 9
	Rate120Gbps  Rate = 10
	Rate14Gbps   Rate = 11
	Rate56Gbps   Rate = 12
	Rate112Gbps  Rate = 13
	Rate168Gbps  Rate = 14
	Rate25Gbps   Rate = 15
	Rate100Gbps  Rate = 16
	Rate200Gbps  Rate = 17
	Rate300Gbps  Rate = 18
	Rate28Gbps   Rate = 19
	Rate50Gbps   Rate = 20
	Rate400Gbps  Rate = 21
	Rate600Gbps  Rate = 22
	Rate800Gbps  Rate = 23
	Rate1200Gbps Rate = 24
)

var namesRate = []name{
	{0, "RATE_MAX"},
	{2, "RATE_2_5_GBPS"},
	{5, "RATE_5_GBPS"},
	{3, "RATE_10_GBPS"},
	{6, "RATE_20_GBPS"},
	{4, "RATE_30_GBPS"},
	{7, "RATE_40_GBPS"},
	{8, "RATE_60_GBPS"},
	{9, "RATE_80_GBPS"},
	{10, "RATE_120_GBPS"},
	{11, "RATE_14_GBPS"},
	{12, "RATE_56_GBPS"},
	{13, "RATE_112_GBPS"},
	{14, "RATE_168_GBPS"},
	{15, "RATE_25_GBPS"},
	{16, "RATE_100_GBPS"},
	{17, "RATE_200_GBPS"},
	{18, "RATE_300_GBPS"},
	{19, "RATE_28_GBPS"},
	{20, "RATE_50_GBPS"},
	{21, "RATE_400_GBPS"},
	{22, "RATE_600_GBPS"},
	{23, "RATE_800_GBPS"},
	{24, "RATE_1200_GBPS"},
}

// String gives the name without its IBV_ prefix.
func (v Rate) String() string { return enumString(namesRate, uint64(v), "Rate") }
