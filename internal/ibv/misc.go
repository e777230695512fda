//go:build linux && cgo

package ibv

// #include "zr.h"
// static int zr_fork_init(void) { errno = 0; return zr_ret(ibv_fork_init()); }
import "C"

import p "github.com/zrdma/zrdma/internal/provider"

// ForkInit makes registered memory safe across fork.
func ForkInit() error { return errno(C.zr_fork_init()) }

// IsForkInitialized says whether fork protection is on.
func IsForkInitialized() p.ForkStatus { return p.ForkStatus(C.ibv_is_fork_initialized()) }

// The texts and conversions of libibverbs itself. The library indexes tables
// with some of these numbers, so only numbers it knows may reach it.

func WCStatusStr(s p.WCStatus) string {
	return C.GoString(C.ibv_wc_status_str(C.enum_ibv_wc_status(s)))
}
func EventTypeStr(t p.EventType) string {
	return C.GoString(C.ibv_event_type_str(C.enum_ibv_event_type(t)))
}
func NodeTypeStr(t p.NodeType) string {
	return C.GoString(C.ibv_node_type_str(C.enum_ibv_node_type(t)))
}
func PortStateStr(s p.PortState) string {
	return C.GoString(C.ibv_port_state_str(C.enum_ibv_port_state(s)))
}

func RateToMult(r p.Rate) int    { return int(C.ibv_rate_to_mult(C.enum_ibv_rate(r))) }
func MultToRate(m int) p.Rate    { return p.Rate(C.mult_to_ibv_rate(C.int(m))) }
func RateToMbps(r p.Rate) int    { return int(C.ibv_rate_to_mbps(C.enum_ibv_rate(r))) }
func MbpsToRate(mbps int) p.Rate { return p.Rate(C.mbps_to_ibv_rate(C.int(mbps))) }

// FlowLabelToUDPSport is the RoCE v2 source port that a flow label selects.
func FlowLabelToUDPSport(fl uint32) uint16 {
	return uint16(C.ibv_flow_label_to_udp_sport(C.uint32_t(fl)))
}

// IncRKey is libibverbs' own, for the test that holds ours against it.
func IncRKey(k p.RKey) p.RKey { return p.RKey(C.ibv_inc_rkey(C.uint32_t(k))) }

// IsQPTSupported tests a type in a supported_qpts mask.
func IsQPTSupported(mask uint32, t p.QPType) bool {
	return C.zr_type_supported(C.uint32_t(mask), C.int(t)) != 0
}
