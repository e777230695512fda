package provider

// FlowFlags modify a steering rule.
//
// Source: enum ibv_flow_flags.
type FlowFlags uint32

const (
	FlowAttrFlagsDontTrap FlowFlags = 1 << 1
	FlowAttrFlagsEgress   FlowFlags = 1 << 2
)

var namesFlowFlags = []name{
	{2, "FLOW_ATTR_FLAGS_DONT_TRAP"},
	{4, "FLOW_ATTR_FLAGS_EGRESS"},
}

// String gives the name without its IBV_ prefix.
func (v FlowFlags) String() string { return flagString(namesFlowFlags, uint64(v), "FlowFlags") }

// FlowAttrType is the kind of a steering rule.
//
// Source: enum ibv_flow_attr_type.
type FlowAttrType uint32

const (
	FlowAttrNormal     FlowAttrType = 0
	FlowAttrAllDefault FlowAttrType = 1
	FlowAttrMcDefault  FlowAttrType = 2
	FlowAttrSniffer    FlowAttrType = 3
)

var namesFlowAttrType = []name{
	{0, "FLOW_ATTR_NORMAL"},
	{1, "FLOW_ATTR_ALL_DEFAULT"},
	{2, "FLOW_ATTR_MC_DEFAULT"},
	{3, "FLOW_ATTR_SNIFFER"},
}

// String gives the name without its IBV_ prefix.
func (v FlowAttrType) String() string {
	return enumString(namesFlowAttrType, uint64(v), "FlowAttrType")
}

// FlowSpecType is the kind of one match or action of a steering rule.
//
// Source: enum ibv_flow_spec_type.
type FlowSpecType uint32

const (
	FlowSpecETH          FlowSpecType = 32
	FlowSpecIPv4         FlowSpecType = 48
	FlowSpecIPv6         FlowSpecType = 49
	FlowSpecIPv4Ext      FlowSpecType = 50
	FlowSpecESP          FlowSpecType = 52
	FlowSpecTCP          FlowSpecType = 64
	FlowSpecUDP          FlowSpecType = 65
	FlowSpecVXLANTunnel  FlowSpecType = 80
	FlowSpecGRE          FlowSpecType = 81
	FlowSpecMPLS         FlowSpecType = 96
	FlowSpecInner        FlowSpecType = 256
	FlowSpecActionTag    FlowSpecType = 4096
	FlowSpecActionDrop   FlowSpecType = 4097
	FlowSpecActionHandle FlowSpecType = 4098
	FlowSpecActionCount  FlowSpecType = 4099
)

var namesFlowSpecType = []name{
	{32, "FLOW_SPEC_ETH"},
	{48, "FLOW_SPEC_IPV4"},
	{49, "FLOW_SPEC_IPV6"},
	{50, "FLOW_SPEC_IPV4_EXT"},
	{52, "FLOW_SPEC_ESP"},
	{64, "FLOW_SPEC_TCP"},
	{65, "FLOW_SPEC_UDP"},
	{80, "FLOW_SPEC_VXLAN_TUNNEL"},
	{81, "FLOW_SPEC_GRE"},
	{96, "FLOW_SPEC_MPLS"},
	{256, "FLOW_SPEC_INNER"},
	{4096, "FLOW_SPEC_ACTION_TAG"},
	{4097, "FLOW_SPEC_ACTION_DROP"},
	{4098, "FLOW_SPEC_ACTION_HANDLE"},
	{4099, "FLOW_SPEC_ACTION_COUNT"},
}

// String gives the name without its IBV_ prefix.
func (v FlowSpecType) String() string {
	return enumString(namesFlowSpecType, uint64(v), "FlowSpecType")
}

// CounterDescription is what a flow counter counts.
//
// Source: enum ibv_counter_description.
type CounterDescription uint32

const (
	CounterPackets CounterDescription = 0
	CounterBytes   CounterDescription = 1
)

var namesCounterDescription = []name{
	{0, "COUNTER_PACKETS"},
	{1, "COUNTER_BYTES"},
}

// String gives the name without its IBV_ prefix.
func (v CounterDescription) String() string {
	return enumString(namesCounterDescription, uint64(v), "CounterDescription")
}

// ReadCountersFlags modify a read of flow counters.
//
// Source: enum ibv_read_counters_flags.
type ReadCountersFlags uint32

const (
	ReadCountersPreferCached ReadCountersFlags = 1 << 0
)

var namesReadCountersFlags = []name{
	{1, "READ_COUNTERS_ATTR_PREFER_CACHED"},
}

// String gives the name without its IBV_ prefix.
func (v ReadCountersFlags) String() string {
	return flagString(namesReadCountersFlags, uint64(v), "ReadCountersFlags")
}
