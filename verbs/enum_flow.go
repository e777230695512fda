package verbs

import "github.com/zrdma/zrdma/internal/provider"

// The vocabulary of the field: the enumerations of <infiniband/verbs.h>, named
// as there without the IBV_ prefix. The values are the C values.

// FlowFlags modify a steering rule.
//
// Source: enum ibv_flow_flags.
type FlowFlags = provider.FlowFlags

// Values of FlowFlags.
const (
	FlowAttrFlagsDontTrap = provider.FlowAttrFlagsDontTrap
	FlowAttrFlagsEgress   = provider.FlowAttrFlagsEgress
)

// FlowAttrType is the kind of a steering rule.
//
// Source: enum ibv_flow_attr_type.
type FlowAttrType = provider.FlowAttrType

// Values of FlowAttrType.
const (
	FlowAttrNormal     = provider.FlowAttrNormal
	FlowAttrAllDefault = provider.FlowAttrAllDefault
	FlowAttrMcDefault  = provider.FlowAttrMcDefault
	FlowAttrSniffer    = provider.FlowAttrSniffer
)

// FlowSpecType is the kind of one match or action of a steering rule.
//
// Source: enum ibv_flow_spec_type.
type FlowSpecType = provider.FlowSpecType

// Values of FlowSpecType.
const (
	FlowSpecETH          = provider.FlowSpecETH
	FlowSpecIPv4         = provider.FlowSpecIPv4
	FlowSpecIPv6         = provider.FlowSpecIPv6
	FlowSpecIPv4Ext      = provider.FlowSpecIPv4Ext
	FlowSpecESP          = provider.FlowSpecESP
	FlowSpecTCP          = provider.FlowSpecTCP
	FlowSpecUDP          = provider.FlowSpecUDP
	FlowSpecVXLANTunnel  = provider.FlowSpecVXLANTunnel
	FlowSpecGRE          = provider.FlowSpecGRE
	FlowSpecMPLS         = provider.FlowSpecMPLS
	FlowSpecInner        = provider.FlowSpecInner
	FlowSpecActionTag    = provider.FlowSpecActionTag
	FlowSpecActionDrop   = provider.FlowSpecActionDrop
	FlowSpecActionHandle = provider.FlowSpecActionHandle
	FlowSpecActionCount  = provider.FlowSpecActionCount
)

// CounterDescription is what a flow counter counts.
//
// Source: enum ibv_counter_description.
type CounterDescription = provider.CounterDescription

// Values of CounterDescription.
const (
	CounterPackets = provider.CounterPackets
	CounterBytes   = provider.CounterBytes
)

// ReadCountersFlags modify a read of flow counters.
//
// Source: enum ibv_read_counters_flags.
type ReadCountersFlags = provider.ReadCountersFlags

// Values of ReadCountersFlags.
const (
	ReadCountersPreferCached = provider.ReadCountersPreferCached
)
