package verbs

import "github.com/zrdma/zrdma/internal/provider"

// The vocabulary of the field: the enumerations of <infiniband/verbs.h>, named
// as there without the IBV_ prefix. The values are the C values.

// GIDType is the kind of a GID table entry.
//
// Source: enum ibv_gid_type.
type GIDType = provider.GIDType

// Values of GIDType.
const (
	GIDTypeIB     = provider.GIDTypeIB
	GIDTypeRoCEV1 = provider.GIDTypeRoCEV1
	GIDTypeRoCEV2 = provider.GIDTypeRoCEV2
)

// NodeType is the kind of node a device is.
//
// Source: enum ibv_node_type.
type NodeType = provider.NodeType

// Values of NodeType.
const (
	NodeUnknown     = provider.NodeUnknown
	NodeCA          = provider.NodeCA
	NodeSwitch      = provider.NodeSwitch
	NodeRouter      = provider.NodeRouter
	NodeRNIC        = provider.NodeRNIC
	NodeUSNIC       = provider.NodeUSNIC
	NodeUSNICUDP    = provider.NodeUSNICUDP
	NodeUnspecified = provider.NodeUnspecified
)

// TransportType is the transport a device speaks.
//
// Source: enum ibv_transport_type.
type TransportType = provider.TransportType

// Values of TransportType.
const (
	TransportUnknown     = provider.TransportUnknown
	TransportIB          = provider.TransportIB
	TransportIwarp       = provider.TransportIwarp
	TransportUSNIC       = provider.TransportUSNIC
	TransportUSNICUDP    = provider.TransportUSNICUDP
	TransportUnspecified = provider.TransportUnspecified
)

// DeviceCapFlags are the capability bits of DeviceAttr.DeviceCapFlags.
//
// Source: enum ibv_device_cap_flags.
type DeviceCapFlags = provider.DeviceCapFlags

// Values of DeviceCapFlags.
const (
	DeviceResizeMaxWR         = provider.DeviceResizeMaxWR
	DeviceBadPKeyCntr         = provider.DeviceBadPKeyCntr
	DeviceBadQKeyCntr         = provider.DeviceBadQKeyCntr
	DeviceRawMulti            = provider.DeviceRawMulti
	DeviceAutoPathMig         = provider.DeviceAutoPathMig
	DeviceChangePhyPort       = provider.DeviceChangePhyPort
	DeviceUDAVPortEnforce     = provider.DeviceUDAVPortEnforce
	DeviceCurrQPStateMod      = provider.DeviceCurrQPStateMod
	DeviceShutdownPort        = provider.DeviceShutdownPort
	DeviceInitType            = provider.DeviceInitType
	DevicePortActiveEvent     = provider.DevicePortActiveEvent
	DeviceSysImageGuid        = provider.DeviceSysImageGuid
	DeviceRCRNRNakGen         = provider.DeviceRCRNRNakGen
	DeviceSRQResize           = provider.DeviceSRQResize
	DeviceNNotifyCQ           = provider.DeviceNNotifyCQ
	DeviceMemWindow           = provider.DeviceMemWindow
	DeviceUDIPCsum            = provider.DeviceUDIPCsum
	DeviceXRC                 = provider.DeviceXRC
	DeviceMemMgtExtensions    = provider.DeviceMemMgtExtensions
	DeviceMemWindowType2A     = provider.DeviceMemWindowType2A
	DeviceMemWindowType2B     = provider.DeviceMemWindowType2B
	DeviceRCIPCsum            = provider.DeviceRCIPCsum
	DeviceRawIPCsum           = provider.DeviceRawIPCsum
	DeviceManagedFlowSteering = provider.DeviceManagedFlowSteering
)

// ForkStatus says whether fork protection is on.
//
// Source: enum ibv_fork_status.
type ForkStatus = provider.ForkStatus

// Values of ForkStatus.
const (
	ForkDisabled = provider.ForkDisabled
	ForkEnabled  = provider.ForkEnabled
	ForkUnneeded = provider.ForkUnneeded
)

// AtomicCap is the scope in which a device's atomics are atomic.
//
// Source: enum ibv_atomic_cap.
type AtomicCap = provider.AtomicCap

// Values of AtomicCap.
const (
	AtomicNone = provider.AtomicNone
	AtomicHCA  = provider.AtomicHCA
	AtomicGlob = provider.AtomicGlob
)

// ODPTransportCaps are the operations that on-demand paging covers on one transport.
//
// Source: enum ibv_odp_transport_cap_bits.
type ODPTransportCaps = provider.ODPTransportCaps

// Values of ODPTransportCaps.
const (
	ODPSupportSend    = provider.ODPSupportSend
	ODPSupportRecv    = provider.ODPSupportRecv
	ODPSupportWrite   = provider.ODPSupportWrite
	ODPSupportRead    = provider.ODPSupportRead
	ODPSupportAtomic  = provider.ODPSupportAtomic
	ODPSupportSRQRecv = provider.ODPSupportSRQRecv
)

// ODPGeneralCaps are the on-demand paging capabilities of a device.
//
// Source: enum ibv_odp_general_caps.
type ODPGeneralCaps = provider.ODPGeneralCaps

// Values of ODPGeneralCaps.
const (
	ODPSupport         = provider.ODPSupport
	ODPSupportImplicit = provider.ODPSupportImplicit
)

// RXHashFunction selects the RSS hash.
//
// Source: enum ibv_rx_hash_function_flags.
type RXHashFunction = provider.RXHashFunction

// Values of RXHashFunction.
const (
	RXHashFuncToeplitz = provider.RXHashFuncToeplitz
)

// RXHashFields are the packet fields that enter the RSS hash.
//
// Source: enum ibv_rx_hash_fields.
type RXHashFields = provider.RXHashFields

// Values of RXHashFields.
const (
	RXHashSrcIPv4    = provider.RXHashSrcIPv4
	RXHashDstIPv4    = provider.RXHashDstIPv4
	RXHashSrcIPv6    = provider.RXHashSrcIPv6
	RXHashDstIPv6    = provider.RXHashDstIPv6
	RXHashSrcPortTCP = provider.RXHashSrcPortTCP
	RXHashDstPortTCP = provider.RXHashDstPortTCP
	RXHashSrcPortUDP = provider.RXHashSrcPortUDP
	RXHashDstPortUDP = provider.RXHashDstPortUDP
	RXHashIpsecSPI   = provider.RXHashIpsecSPI
	RXHashInner      = provider.RXHashInner
)

// RawPacketCaps are capabilities of raw packet queue pairs.
//
// Source: enum ibv_raw_packet_caps.
type RawPacketCaps = provider.RawPacketCaps

// Values of RawPacketCaps.
const (
	RawPacketCapCVLANStripping = provider.RawPacketCapCVLANStripping
	RawPacketCapScatterFCS     = provider.RawPacketCapScatterFCS
	RawPacketCapIPCsum         = provider.RawPacketCapIPCsum
	RawPacketCapDelayDrop      = provider.RawPacketCapDelayDrop
)

// TMCapFlags are tag-matching capabilities.
//
// Source: enum ibv_tm_cap_flags.
type TMCapFlags = provider.TMCapFlags

// Values of TMCapFlags.
const (
	TMCapRC = provider.TMCapRC
)

// PCIAtomicOpSize are operand sizes of PCIe atomics.
//
// Source: enum ibv_pci_atomic_op_size.
type PCIAtomicOpSize = provider.PCIAtomicOpSize

// Values of PCIAtomicOpSize.
const (
	PCIAtomicOperation4ByteSizeSup  = provider.PCIAtomicOperation4ByteSizeSup
	PCIAtomicOperation8ByteSizeSup  = provider.PCIAtomicOperation8ByteSizeSup
	PCIAtomicOperation16ByteSizeSup = provider.PCIAtomicOperation16ByteSizeSup
)
