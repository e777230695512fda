package verbs

import "github.com/zrdma/zrdma/internal/provider"

// The vocabulary of the field: the enumerations of <infiniband/verbs.h>, named
// as there without the IBV_ prefix. The values are the C values.

// MTU is a path MTU in the encoding of the InfiniBand specification; Bytes gives octets.
//
// Source: enum ibv_mtu.
type MTU = provider.MTU

// Values of MTU.
const (
	MTU256  = provider.MTU256
	MTU512  = provider.MTU512
	MTU1024 = provider.MTU1024
	MTU2048 = provider.MTU2048
	MTU4096 = provider.MTU4096
)

// PortState is the logical state of a port.
//
// Source: enum ibv_port_state.
type PortState = provider.PortState

// Values of PortState.
const (
	PortNop         = provider.PortNop
	PortDown        = provider.PortDown
	PortInit        = provider.PortInit
	PortArmed       = provider.PortArmed
	PortActive      = provider.PortActive
	PortActiveDefer = provider.PortActiveDefer
)

// LinkLayer is the link layer below a port.
//
// Source: IBV_LINK_LAYER_*.
type LinkLayer = provider.LinkLayer

// Values of LinkLayer.
const (
	LinkLayerUnspecified = provider.LinkLayerUnspecified
	LinkLayerInfiniband  = provider.LinkLayerInfiniband
	LinkLayerEthernet    = provider.LinkLayerEthernet
)

// PortCapFlags are the bits of PortAttr.PortCapFlags.
//
// Source: enum ibv_port_cap_flags.
type PortCapFlags = provider.PortCapFlags

// Values of PortCapFlags.
const (
	PortSM                   = provider.PortSM
	PortNoticeSup            = provider.PortNoticeSup
	PortTrapSup              = provider.PortTrapSup
	PortOptIPDSup            = provider.PortOptIPDSup
	PortAutoMigrSup          = provider.PortAutoMigrSup
	PortSLMapSup             = provider.PortSLMapSup
	PortMKeyNVRAM            = provider.PortMKeyNVRAM
	PortPKeyNVRAM            = provider.PortPKeyNVRAM
	PortLEDInfoSup           = provider.PortLEDInfoSup
	PortSysImageGuidSup      = provider.PortSysImageGuidSup
	PortPKeySwExtPortTrapSup = provider.PortPKeySwExtPortTrapSup
	PortExtendedSpeedsSup    = provider.PortExtendedSpeedsSup
	PortCapMask2Sup          = provider.PortCapMask2Sup
	PortCMSup                = provider.PortCMSup
	PortSNMPTunnelSup        = provider.PortSNMPTunnelSup
	PortReinitSup            = provider.PortReinitSup
	PortDeviceMgmtSup        = provider.PortDeviceMgmtSup
	PortVendorClassSup       = provider.PortVendorClassSup
	PortDRNoticeSup          = provider.PortDRNoticeSup
	PortCapMaskNoticeSup     = provider.PortCapMaskNoticeSup
	PortBootMgmtSup          = provider.PortBootMgmtSup
	PortLinkLatencySup       = provider.PortLinkLatencySup
	PortClientRegSup         = provider.PortClientRegSup
	PortIPBasedGids          = provider.PortIPBasedGids
)

// PortCapFlags2 are the bits of PortAttr.PortCapFlags2.
//
// Source: enum ibv_port_cap_flags2.
type PortCapFlags2 = provider.PortCapFlags2

// Values of PortCapFlags2.
const (
	PortSetNodeDescSup          = provider.PortSetNodeDescSup
	PortInfoExtSup              = provider.PortInfoExtSup
	PortVirtSup                 = provider.PortVirtSup
	PortSwitchPortStateTableSup = provider.PortSwitchPortStateTableSup
	PortLinkWidth2XSup          = provider.PortLinkWidth2XSup
	PortLinkSpeedHDRSup         = provider.PortLinkSpeedHDRSup
	PortLinkSpeedNDRSup         = provider.PortLinkSpeedNDRSup
)

// EventType is the kind of an asynchronous event.
//
// Source: enum ibv_event_type.
type EventType = provider.EventType

// Values of EventType.
const (
	EventCQErr            = provider.EventCQErr
	EventQPFatal          = provider.EventQPFatal
	EventQPReqErr         = provider.EventQPReqErr
	EventQPAccessErr      = provider.EventQPAccessErr
	EventCommEst          = provider.EventCommEst
	EventSQDrained        = provider.EventSQDrained
	EventPathMig          = provider.EventPathMig
	EventPathMigErr       = provider.EventPathMigErr
	EventDeviceFatal      = provider.EventDeviceFatal
	EventPortActive       = provider.EventPortActive
	EventPortErr          = provider.EventPortErr
	EventLIDChange        = provider.EventLIDChange
	EventPKeyChange       = provider.EventPKeyChange
	EventSMChange         = provider.EventSMChange
	EventSRQErr           = provider.EventSRQErr
	EventSRQLimitReached  = provider.EventSRQLimitReached
	EventQPLastWQEReached = provider.EventQPLastWQEReached
	EventClientReregister = provider.EventClientReregister
	EventGIDChange        = provider.EventGIDChange
	EventWQFatal          = provider.EventWQFatal
)

// Rate is a static rate in the encoding of the InfiniBand specification.
//
// Source: enum ibv_rate.
type Rate = provider.Rate

// Values of Rate.
const (
	RateMax      = provider.RateMax
	Rate2_5Gbps  = provider.Rate2_5Gbps
	Rate5Gbps    = provider.Rate5Gbps
	Rate10Gbps   = provider.Rate10Gbps
	Rate20Gbps   = provider.Rate20Gbps
	Rate30Gbps   = provider.Rate30Gbps
	Rate40Gbps   = provider.Rate40Gbps
	Rate60Gbps   = provider.Rate60Gbps
	Rate80Gbps   = provider.Rate80Gbps
	Rate120Gbps  = provider.Rate120Gbps
	Rate14Gbps   = provider.Rate14Gbps
	Rate56Gbps   = provider.Rate56Gbps
	Rate112Gbps  = provider.Rate112Gbps
	Rate168Gbps  = provider.Rate168Gbps
	Rate25Gbps   = provider.Rate25Gbps
	Rate100Gbps  = provider.Rate100Gbps
	Rate200Gbps  = provider.Rate200Gbps
	Rate300Gbps  = provider.Rate300Gbps
	Rate28Gbps   = provider.Rate28Gbps
	Rate50Gbps   = provider.Rate50Gbps
	Rate400Gbps  = provider.Rate400Gbps
	Rate600Gbps  = provider.Rate600Gbps
	Rate800Gbps  = provider.Rate800Gbps
	Rate1200Gbps = provider.Rate1200Gbps
)
