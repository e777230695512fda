//go:build linux && cgo

package ibv

// #include "zr_rare.h"
// enum { zr_off_eth = offsetof(struct ibv_flow_spec_eth, val), zr_off_tcp = offsetof(struct ibv_flow_spec_tcp_udp, val) };
// enum { zr_off_ip4 = offsetof(struct ibv_flow_spec_ipv4, val), zr_off_ip4x = offsetof(struct ibv_flow_spec_ipv4_ext, val) };
// enum { zr_off_ip6 = offsetof(struct ibv_flow_spec_ipv6, val), zr_off_esp = offsetof(struct ibv_flow_spec_esp, val) };
// enum { zr_off_tun = offsetof(struct ibv_flow_spec_tunnel, val), zr_off_gre = offsetof(struct ibv_flow_spec_gre, val) };
// enum { zr_off_mpls = offsetof(struct ibv_flow_spec_mpls, val), zr_off_tag = offsetof(struct ibv_flow_spec_action_tag, tag_id) };
// enum { zr_off_handle = offsetof(struct ibv_flow_spec_action_handle, action) };
// enum { zr_off_count = offsetof(struct ibv_flow_spec_counter_action, counters) };
// enum { zr_mask_eth = offsetof(struct ibv_flow_spec_eth, mask), zr_mask_ip6 = offsetof(struct ibv_flow_spec_ipv6, mask) };
// enum { zr_mask_tcp = offsetof(struct ibv_flow_spec_tcp_udp, mask), zr_mask_ip4x = offsetof(struct ibv_flow_spec_ipv4_ext, mask) };
// enum { zr_rule_size = offsetof(struct ibv_flow_attr, size), zr_rule_prio = offsetof(struct ibv_flow_attr, priority) };
// enum { zr_rule_num = offsetof(struct ibv_flow_attr, num_of_specs), zr_rule_flags = offsetof(struct ibv_flow_attr, flags) };
import "C"

import (
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

// The layouts of the rare structs, as in layout.go: both differences below are
// zero, or this does not compile.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(p.OpsWR{})-C.sizeof_struct_zr_ops_wr]
	_ = [1]struct{}{}[unsafe.Sizeof(p.ESPAttr{})-C.sizeof_struct_zr_esp]
	_ = [1]struct{}{}[unsafe.Sizeof(p.ESPEncap{})-C.sizeof_struct_zr_esp_encap]
	_ = [1]struct{}{}[unsafe.Offsetof(p.OpsWR{}.TagHandle)-unsafe.Offsetof(C.struct_zr_ops_wr{}.handle)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.ESPAttr{}.Key)-unsafe.Offsetof(C.struct_zr_esp{}.key)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.ESPAttr{}.HasKeymat)-unsafe.Offsetof(C.struct_zr_esp{}.has_keymat)]

	_ = [1]struct{}{}[p.FlowAttrSize-C.sizeof_struct_ibv_flow_attr]
	_ = [1]struct{}{}[p.FlowSizeEth-C.sizeof_struct_ibv_flow_spec_eth]
	_ = [1]struct{}{}[p.FlowSizeIPv4-C.sizeof_struct_ibv_flow_spec_ipv4]
	_ = [1]struct{}{}[p.FlowSizeIPv4Ext-C.sizeof_struct_ibv_flow_spec_ipv4_ext]
	_ = [1]struct{}{}[p.FlowSizeIPv6-C.sizeof_struct_ibv_flow_spec_ipv6]
	_ = [1]struct{}{}[p.FlowSizeESP-C.sizeof_struct_ibv_flow_spec_esp]
	_ = [1]struct{}{}[p.FlowSizeTCPUDP-C.sizeof_struct_ibv_flow_spec_tcp_udp]
	_ = [1]struct{}{}[p.FlowSizeTunnel-C.sizeof_struct_ibv_flow_spec_tunnel]
	_ = [1]struct{}{}[p.FlowSizeGRE-C.sizeof_struct_ibv_flow_spec_gre]
	_ = [1]struct{}{}[p.FlowSizeMPLS-C.sizeof_struct_ibv_flow_spec_mpls]
	_ = [1]struct{}{}[p.FlowSizeTag-C.sizeof_struct_ibv_flow_spec_action_tag]
	_ = [1]struct{}{}[p.FlowSizeDrop-C.sizeof_struct_ibv_flow_spec_action_drop]
	_ = [1]struct{}{}[p.FlowSizeHandle-C.sizeof_struct_ibv_flow_spec_action_handle]
	_ = [1]struct{}{}[p.FlowSizeHandle-C.sizeof_struct_ibv_flow_spec_counter_action]

	_ = [1]struct{}{}[p.FlowOff16-C.zr_off_eth]
	_ = [1]struct{}{}[p.FlowOff16-C.zr_off_tcp]
	_ = [1]struct{}{}[p.FlowOff32-C.zr_off_ip4]
	_ = [1]struct{}{}[p.FlowOff32-C.zr_off_ip4x]
	_ = [1]struct{}{}[p.FlowOff32-C.zr_off_ip6]
	_ = [1]struct{}{}[p.FlowOff32-C.zr_off_esp]
	_ = [1]struct{}{}[p.FlowOff32-C.zr_off_tun]
	_ = [1]struct{}{}[p.FlowOff32-C.zr_off_gre]
	_ = [1]struct{}{}[p.FlowOff32-C.zr_off_mpls]
	_ = [1]struct{}{}[p.FlowOff32-C.zr_off_tag]
	_ = [1]struct{}{}[p.FlowOff32-C.zr_off_handle]
	_ = [1]struct{}{}[p.FlowOff32-C.zr_off_count]
	_ = [1]struct{}{}[p.FlowOff16+16-C.zr_mask_eth]
	_ = [1]struct{}{}[p.FlowOff16+4-C.zr_mask_tcp]
	_ = [1]struct{}{}[p.FlowOff32+12-C.zr_mask_ip4x]
	_ = [1]struct{}{}[p.FlowOff32+40-C.zr_mask_ip6]
	_ = [1]struct{}{}[8-C.zr_rule_size]
	_ = [1]struct{}{}[10-C.zr_rule_prio]
	_ = [1]struct{}{}[12-C.zr_rule_num]
	_ = [1]struct{}{}[16-C.zr_rule_flags]
)

// The enumerations of provider/rare_enum.go, against the headers.
var (
	_ = [1]struct{}{}[p.AdviseMRPrefetchWrite-C.IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_WRITE]
	_ = [1]struct{}{}[p.AdviseMRPrefetchNoFault-C.IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT]
	_ = [1]struct{}{}[p.AdviseMRFlagFlush-C.IB_UVERBS_ADVISE_MR_FLAG_FLUSH]
	_ = [1]struct{}{}[p.ReregMRErrInput-C.IBV_REREG_MR_ERR_INPUT]
	_ = [1]struct{}{}[p.ReregMRErrDontForkNew-C.IBV_REREG_MR_ERR_DONT_FORK_NEW]
	_ = [1]struct{}{}[p.ReregMRErrDoForkOld-C.IBV_REREG_MR_ERR_DO_FORK_OLD]
	_ = [1]struct{}{}[p.ReregMRErrCmd-C.IBV_REREG_MR_ERR_CMD]
	_ = [1]struct{}{}[p.ReregMRErrCmdAndDoForkNew-C.IBV_REREG_MR_ERR_CMD_AND_DO_FORK_NEW]
	_ = [1]struct{}{}[p.ESPFullOffload-C.IB_UVERBS_FLOW_ACTION_ESP_FLAGS_FULL_OFFLOAD]
	_ = [1]struct{}{}[p.ESPTransport-C.IB_UVERBS_FLOW_ACTION_ESP_FLAGS_TRANSPORT]
	_ = [1]struct{}{}[p.ESPEncrypt-C.IB_UVERBS_FLOW_ACTION_ESP_FLAGS_ENCRYPT]
	_ = [1]struct{}{}[p.ESPESNNewWindow-C.IB_UVERBS_FLOW_ACTION_ESP_FLAGS_ESN_NEW_WINDOW]
)
