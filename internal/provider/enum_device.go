package provider

// GIDType is the kind of a GID table entry.
//
// Source: enum ibv_gid_type.
type GIDType uint32

const (
	GIDTypeIB     GIDType = 0
	GIDTypeRoCEV1 GIDType = 1
	GIDTypeRoCEV2 GIDType = 2
)

var namesGIDType = []name{
	{0, "GID_TYPE_IB"},
	{1, "GID_TYPE_ROCE_V1"},
	{2, "GID_TYPE_ROCE_V2"},
}

// String gives the name without its IBV_ prefix.
func (v GIDType) String() string { return enumString(namesGIDType, uint64(v), "GIDType") }

// NodeType is the kind of node a device is.
//
// Source: enum ibv_node_type.
type NodeType int32

const (
	NodeUnknown     NodeType = -1
	NodeCA          NodeType = 1
	NodeSwitch      NodeType = 2
	NodeRouter      NodeType = 3
	NodeRNIC        NodeType = 4
	NodeUSNIC       NodeType = 5
	NodeUSNICUDP    NodeType = 6
	NodeUnspecified NodeType = 7
)

var namesNodeType = []name{
	{1, "NODE_CA"},
	{2, "NODE_SWITCH"},
	{3, "NODE_ROUTER"},
	{4, "NODE_RNIC"},
	{5, "NODE_USNIC"},
	{6, "NODE_USNIC_UDP"},
	{7, "NODE_UNSPECIFIED"},
}

// String gives the name without its IBV_ prefix.
func (v NodeType) String() string { return enumString(namesNodeType, uint64(v), "NodeType") }

// TransportType is the transport a device speaks.
//
// Source: enum ibv_transport_type.
type TransportType int32

const (
	TransportUnknown     TransportType = -1
	TransportIB          TransportType = 0
	TransportIwarp       TransportType = 1
	TransportUSNIC       TransportType = 2
	TransportUSNICUDP    TransportType = 3
	TransportUnspecified TransportType = 4
)

var namesTransportType = []name{
	{0, "TRANSPORT_IB"},
	{1, "TRANSPORT_IWARP"},
	{2, "TRANSPORT_USNIC"},
	{3, "TRANSPORT_USNIC_UDP"},
	{4, "TRANSPORT_UNSPECIFIED"},
}

// String gives the name without its IBV_ prefix.
func (v TransportType) String() string {
	return enumString(namesTransportType, uint64(v), "TransportType")
}

// DeviceCapFlags are the capability bits of DeviceAttr.DeviceCapFlags.
//
// Source: enum ibv_device_cap_flags.
type DeviceCapFlags uint32

const (
	DeviceResizeMaxWR         DeviceCapFlags = 1 << 0
	DeviceBadPKeyCntr         DeviceCapFlags = 1 << 1
	DeviceBadQKeyCntr         DeviceCapFlags = 1 << 2
	DeviceRawMulti            DeviceCapFlags = 1 << 3
	DeviceAutoPathMig         DeviceCapFlags = 1 << 4
	DeviceChangePhyPort       DeviceCapFlags = 1 << 5
	DeviceUDAVPortEnforce     DeviceCapFlags = 1 << 6
	DeviceCurrQPStateMod      DeviceCapFlags = 1 << 7
	DeviceShutdownPort        DeviceCapFlags = 1 << 8
	DeviceInitType            DeviceCapFlags = 1 << 9
	DevicePortActiveEvent     DeviceCapFlags = 1 << 10
	DeviceSysImageGuid        DeviceCapFlags = 1 << 11
	DeviceRCRNRNakGen         DeviceCapFlags = 1 << 12
	DeviceSRQResize           DeviceCapFlags = 1 << 13
	DeviceNNotifyCQ           DeviceCapFlags = 1 << 14
	DeviceMemWindow           DeviceCapFlags = 1 << 17
	DeviceUDIPCsum            DeviceCapFlags = 1 << 18
	DeviceXRC                 DeviceCapFlags = 1 << 20
	DeviceMemMgtExtensions    DeviceCapFlags = 1 << 21
	DeviceMemWindowType2A     DeviceCapFlags = 1 << 23
	DeviceMemWindowType2B     DeviceCapFlags = 1 << 24
	DeviceRCIPCsum            DeviceCapFlags = 1 << 25
	DeviceRawIPCsum           DeviceCapFlags = 1 << 26
	DeviceManagedFlowSteering DeviceCapFlags = 1 << 29
)

var namesDeviceCapFlags = []name{
	{1, "DEVICE_RESIZE_MAX_WR"},
	{2, "DEVICE_BAD_PKEY_CNTR"},
	{4, "DEVICE_BAD_QKEY_CNTR"},
	{8, "DEVICE_RAW_MULTI"},
	{16, "DEVICE_AUTO_PATH_MIG"},
	{32, "DEVICE_CHANGE_PHY_PORT"},
	{64, "DEVICE_UD_AV_PORT_ENFORCE"},
	{128, "DEVICE_CURR_QP_STATE_MOD"},
	{256, "DEVICE_SHUTDOWN_PORT"},
	{512, "DEVICE_INIT_TYPE"},
	{1024, "DEVICE_PORT_ACTIVE_EVENT"},
	{2048, "DEVICE_SYS_IMAGE_GUID"},
	{4096, "DEVICE_RC_RNR_NAK_GEN"},
	{8192, "DEVICE_SRQ_RESIZE"},
	{16384, "DEVICE_N_NOTIFY_CQ"},
	{131072, "DEVICE_MEM_WINDOW"},
	{262144, "DEVICE_UD_IP_CSUM"},
	{1048576, "DEVICE_XRC"},
	{2097152, "DEVICE_MEM_MGT_EXTENSIONS"},
	{8388608, "DEVICE_MEM_WINDOW_TYPE_2A"},
	{16777216, "DEVICE_MEM_WINDOW_TYPE_2B"},
	{33554432, "DEVICE_RC_IP_CSUM"},
	{67108864, "DEVICE_RAW_IP_CSUM"},
	{536870912, "DEVICE_MANAGED_FLOW_STEERING"},
}

// String gives the name without its IBV_ prefix.
func (v DeviceCapFlags) String() string {
	return flagString(namesDeviceCapFlags, uint64(v), "DeviceCapFlags")
}

// ForkStatus says whether fork protection is on.
//
// Source: enum ibv_fork_status.
type ForkStatus uint32

const (
	ForkDisabled ForkStatus = 0
	ForkEnabled  ForkStatus = 1
	ForkUnneeded ForkStatus = 2
)

var namesForkStatus = []name{
	{0, "FORK_DISABLED"},
	{1, "FORK_ENABLED"},
	{2, "FORK_UNNEEDED"},
}

// String gives the name without its IBV_ prefix.
func (v ForkStatus) String() string { return enumString(namesForkStatus, uint64(v), "ForkStatus") }

// AtomicCap is the scope in which a device's atomics are atomic.
//
// Source: enum ibv_atomic_cap.
type AtomicCap uint32

const (
	AtomicNone AtomicCap = 0
	AtomicHCA  AtomicCap = 1
	AtomicGlob AtomicCap = 2
)

var namesAtomicCap = []name{
	{0, "ATOMIC_NONE"},
	{1, "ATOMIC_HCA"},
	{2, "ATOMIC_GLOB"},
}

// String gives the name without its IBV_ prefix.
func (v AtomicCap) String() string { return enumString(namesAtomicCap, uint64(v), "AtomicCap") }

// ODPTransportCaps are the operations that on-demand paging covers on one transport.
//
// Source: enum ibv_odp_transport_cap_bits.
type ODPTransportCaps uint32

const (
	ODPSupportSend    ODPTransportCaps = 1 << 0
	ODPSupportRecv    ODPTransportCaps = 1 << 1
	ODPSupportWrite   ODPTransportCaps = 1 << 2
	ODPSupportRead    ODPTransportCaps = 1 << 3
	ODPSupportAtomic  ODPTransportCaps = 1 << 4
	ODPSupportSRQRecv ODPTransportCaps = 1 << 5
)

var namesODPTransportCaps = []name{
	{1, "ODP_SUPPORT_SEND"},
	{2, "ODP_SUPPORT_RECV"},
	{4, "ODP_SUPPORT_WRITE"},
	{8, "ODP_SUPPORT_READ"},
	{16, "ODP_SUPPORT_ATOMIC"},
	{32, "ODP_SUPPORT_SRQ_RECV"},
}

// String gives the name without its IBV_ prefix.
func (v ODPTransportCaps) String() string {
	return flagString(namesODPTransportCaps, uint64(v), "ODPTransportCaps")
}

// ODPGeneralCaps are the on-demand paging capabilities of a device.
//
// Source: enum ibv_odp_general_caps.
type ODPGeneralCaps uint64

const (
	ODPSupport         ODPGeneralCaps = 1 << 0
	ODPSupportImplicit ODPGeneralCaps = 1 << 1
)

var namesODPGeneralCaps = []name{
	{1, "ODP_SUPPORT"},
	{2, "ODP_SUPPORT_IMPLICIT"},
}

// String gives the name without its IBV_ prefix.
func (v ODPGeneralCaps) String() string {
	return flagString(namesODPGeneralCaps, uint64(v), "ODPGeneralCaps")
}

// RXHashFunction selects the RSS hash.
//
// Source: enum ibv_rx_hash_function_flags.
type RXHashFunction uint8

const (
	RXHashFuncToeplitz RXHashFunction = 1 << 0
)

var namesRXHashFunction = []name{
	{1, "RX_HASH_FUNC_TOEPLITZ"},
}

// String gives the name without its IBV_ prefix.
func (v RXHashFunction) String() string {
	return flagString(namesRXHashFunction, uint64(v), "RXHashFunction")
}

// RXHashFields are the packet fields that enter the RSS hash.
//
// Source: enum ibv_rx_hash_fields.
type RXHashFields uint64

const (
	RXHashSrcIPv4    RXHashFields = 1 << 0
	RXHashDstIPv4    RXHashFields = 1 << 1
	RXHashSrcIPv6    RXHashFields = 1 << 2
	RXHashDstIPv6    RXHashFields = 1 << 3
	RXHashSrcPortTCP RXHashFields = 1 << 4
	RXHashDstPortTCP RXHashFields = 1 << 5
	RXHashSrcPortUDP RXHashFields = 1 << 6
	RXHashDstPortUDP RXHashFields = 1 << 7
	RXHashIpsecSPI   RXHashFields = 1 << 8
	RXHashInner      RXHashFields = 1 << 31
)

var namesRXHashFields = []name{
	{1, "RX_HASH_SRC_IPV4"},
	{2, "RX_HASH_DST_IPV4"},
	{4, "RX_HASH_SRC_IPV6"},
	{8, "RX_HASH_DST_IPV6"},
	{16, "RX_HASH_SRC_PORT_TCP"},
	{32, "RX_HASH_DST_PORT_TCP"},
	{64, "RX_HASH_SRC_PORT_UDP"},
	{128, "RX_HASH_DST_PORT_UDP"},
	{256, "RX_HASH_IPSEC_SPI"},
	{2147483648, "RX_HASH_INNER"},
}

// String gives the name without its IBV_ prefix.
func (v RXHashFields) String() string {
	return flagString(namesRXHashFields, uint64(v), "RXHashFields")
}

// RawPacketCaps are capabilities of raw packet queue pairs.
//
// Source: enum ibv_raw_packet_caps.
type RawPacketCaps uint32

const (
	RawPacketCapCVLANStripping RawPacketCaps = 1 << 0
	RawPacketCapScatterFCS     RawPacketCaps = 1 << 1
	RawPacketCapIPCsum         RawPacketCaps = 1 << 2
	RawPacketCapDelayDrop      RawPacketCaps = 1 << 3
)

var namesRawPacketCaps = []name{
	{1, "RAW_PACKET_CAP_CVLAN_STRIPPING"},
	{2, "RAW_PACKET_CAP_SCATTER_FCS"},
	{4, "RAW_PACKET_CAP_IP_CSUM"},
	{8, "RAW_PACKET_CAP_DELAY_DROP"},
}

// String gives the name without its IBV_ prefix.
func (v RawPacketCaps) String() string {
	return flagString(namesRawPacketCaps, uint64(v), "RawPacketCaps")
}

// TMCapFlags are tag-matching capabilities.
//
// Source: enum ibv_tm_cap_flags.
type TMCapFlags uint32

const (
	TMCapRC TMCapFlags = 1 << 0
)

var namesTMCapFlags = []name{
	{1, "TM_CAP_RC"},
}

// String gives the name without its IBV_ prefix.
func (v TMCapFlags) String() string { return flagString(namesTMCapFlags, uint64(v), "TMCapFlags") }

// PCIAtomicOpSize are operand sizes of PCIe atomics.
//
// Source: enum ibv_pci_atomic_op_size.
type PCIAtomicOpSize uint16

const (
	PCIAtomicOperation4ByteSizeSup  PCIAtomicOpSize = 1 << 0
	PCIAtomicOperation8ByteSizeSup  PCIAtomicOpSize = 1 << 1
	PCIAtomicOperation16ByteSizeSup PCIAtomicOpSize = 1 << 2
)

var namesPCIAtomicOpSize = []name{
	{1, "PCI_ATOMIC_OPERATION_4_BYTE_SIZE_SUP"},
	{2, "PCI_ATOMIC_OPERATION_8_BYTE_SIZE_SUP"},
	{4, "PCI_ATOMIC_OPERATION_16_BYTE_SIZE_SUP"},
}

// String gives the name without its IBV_ prefix.
func (v PCIAtomicOpSize) String() string {
	return flagString(namesPCIAtomicOpSize, uint64(v), "PCIAtomicOpSize")
}
