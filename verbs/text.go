package verbs

import "github.com/zrdma/zrdma/internal/ibv"

// WCStatusStr is libibverbs' text for a completion status; the name of the
// constant is Status.String(). Unknown values are safe.
//
// Verb: ibv_wc_status_str(3).
func WCStatusStr(s WCStatus) string {
	if s > WCTMRndvIncomplete {
		return s.String()
	}
	return ibv.WCStatusStr(s)
}

// EventTypeStr is libibverbs' text for an asynchronous event.
//
// Verb: ibv_event_type_str(3).
func EventTypeStr(t EventType) string {
	if t > EventWQFatal {
		return t.String()
	}
	return ibv.EventTypeStr(t)
}

// NodeTypeStr is libibverbs' text for a node type.
//
// Verb: ibv_node_type_str(3).
func NodeTypeStr(t NodeType) string {
	if t < NodeCA || t > NodeUnspecified {
		return t.String()
	}
	return ibv.NodeTypeStr(t)
}

// PortStateStr is libibverbs' text for a port state.
//
// Verb: ibv_port_state_str(3).
func PortStateStr(s PortState) string {
	if s > PortActiveDefer {
		return s.String()
	}
	return ibv.PortStateStr(s)
}

// RateToMult converts a rate to a multiple of 2.5 Gbit/s; -1 for an unknown rate.
//
// Verb: ibv_rate_to_mult(3).
func RateToMult(r Rate) int { return ibv.RateToMult(r) }

// MultToRate converts a multiple of 2.5 Gbit/s to a rate; RateMax when there is none.
//
// Verb: mult_to_ibv_rate(3).
func MultToRate(mult int) Rate { return ibv.MultToRate(mult) }

// RateToMbps converts a rate to Mbit/s; -1 for an unknown rate.
//
// Verb: ibv_rate_to_mbps(3).
func RateToMbps(r Rate) int { return ibv.RateToMbps(r) }

// MbpsToRate converts Mbit/s to a rate; RateMax when there is none.
//
// Verb: mbps_to_ibv_rate(3).
func MbpsToRate(mbps int) Rate { return ibv.MbpsToRate(mbps) }

// IsQPTSupported tests a queue pair type in a SupportedQPTs mask.
//
// Verb: ibv_is_qpt_supported(3).
func IsQPTSupported(mask uint32, t QPType) bool { return t < 32 && ibv.IsQPTSupported(mask, t) }

// FlowLabelToUDPSport is the RoCE v2 source port, 0xC000 to 0xFFFF, of a 20-bit
// flow label.
//
// Verb: ibv_flow_label_to_udp_sport(3).
func FlowLabelToUDPSport(flowLabel uint32) uint16 { return ibv.FlowLabelToUDPSport(flowLabel) }

// QueryRTValues reads the device's raw clock, in seconds and ticks as the device
// counts them.
//
// Verb: ibv_query_rt_values_ex(3).
func (c *Context) QueryRTValues() (sec, nsec uint64, err error) {
	if err := enter(&c.h, "ibv_query_rt_values_ex"); err != nil {
		return 0, 0, err
	}
	defer c.h.Exit()
	p, ok := c.p.(interface {
		QueryRTValues() (uint64, uint64, error)
	})
	if !ok {
		return 0, 0, verbErr("ibv_query_rt_values_ex", errUnsupported)
	}
	sec, nsec, err = p.QueryRTValues()
	return sec, nsec, verbErr("ibv_query_rt_values_ex", err)
}
