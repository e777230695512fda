//go:build linux && cgo

package ibv

// #include "zr.h"
import "C"

import (
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

// Go and C must agree on the layout of what crosses: an index out of range here
// is a disagreement, found by the compiler.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(p.WR{})-C.sizeof_struct_zr_wr]
	_ = [1]struct{}{}[unsafe.Sizeof(p.RecvWR{})-C.sizeof_struct_zr_recv_wr]
	_ = [1]struct{}{}[unsafe.Sizeof(p.SGE{})-C.sizeof_struct_ibv_sge]
	_ = [1]struct{}{}[unsafe.Sizeof(p.WC{})-C.sizeof_struct_ibv_wc]
	_ = [1]struct{}{}[unsafe.Sizeof(p.WCEx{})-C.sizeof_struct_zr_wc_ex]
	_ = [1]struct{}{}[unsafe.Sizeof(p.DeviceAttr{})-C.sizeof_struct_ibv_device_attr]
	_ = [1]struct{}{}[unsafe.Sizeof(p.DeviceAttrEx{})-C.sizeof_struct_ibv_device_attr_ex]
	_ = [1]struct{}{}[unsafe.Sizeof(p.PortAttr{})-C.sizeof_struct_ibv_port_attr]
	_ = [1]struct{}{}[unsafe.Sizeof(p.GIDEntry{})-C.sizeof_struct_ibv_gid_entry]
	_ = [1]struct{}{}[unsafe.Sizeof(p.AHAttr{})-C.sizeof_struct_ibv_ah_attr]
	_ = [1]struct{}{}[unsafe.Sizeof(p.QPAttr{})-C.sizeof_struct_ibv_qp_attr]
	_ = [1]struct{}{}[unsafe.Sizeof(p.QPCap{})-C.sizeof_struct_ibv_qp_cap]
	_ = [1]struct{}{}[unsafe.Sizeof(p.SRQAttr{})-C.sizeof_struct_ibv_srq_attr]
	_ = [1]struct{}{}[unsafe.Sizeof(p.ECE{})-C.sizeof_struct_ibv_ece]

	_ = [1]struct{}{}[unsafe.Offsetof(p.WR{}.Opcode)-unsafe.Offsetof(C.struct_zr_wr{}.opcode)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.WR{}.SGEOff)-unsafe.Offsetof(C.struct_zr_wr{}.sge_off)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.WR{}.FlushType)-unsafe.Offsetof(C.struct_zr_wr{}.flush_type)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.WC{}.QPN)-unsafe.Offsetof(C.struct_ibv_wc{}.qp_num)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.WC{}.DLIDPathBits)-unsafe.Offsetof(C.struct_ibv_wc{}.dlid_path_bits)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.WCEx{}.CVLAN)-unsafe.Offsetof(C.struct_zr_wc_ex{}.cvlan)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.DeviceAttr{}.PhysPortCnt)-unsafe.Offsetof(C.struct_ibv_device_attr{}.phys_port_cnt)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.DeviceAttr{}.AtomicCap)-unsafe.Offsetof(C.struct_ibv_device_attr{}.atomic_cap)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.DeviceAttrEx{}.RSS)-unsafe.Offsetof(C.struct_ibv_device_attr_ex{}.rss_caps)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.DeviceAttrEx{}.TM)-unsafe.Offsetof(C.struct_ibv_device_attr_ex{}.tm_caps)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.DeviceAttrEx{}.MaxDMSize)-unsafe.Offsetof(C.struct_ibv_device_attr_ex{}.max_dm_size)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.DeviceAttrEx{}.PhysPortCntEx)-unsafe.Offsetof(C.struct_ibv_device_attr_ex{}.phys_port_cnt_ex)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.PortAttr{}.PortCapFlags2)-unsafe.Offsetof(C.struct_ibv_port_attr{}.port_cap_flags2)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.PortAttr{}.LinkLayer)-unsafe.Offsetof(C.struct_ibv_port_attr{}.link_layer)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.QPAttr{}.AltAH)-unsafe.Offsetof(C.struct_ibv_qp_attr{}.alt_ah_attr)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.QPAttr{}.RNRRetry)-unsafe.Offsetof(C.struct_ibv_qp_attr{}.rnr_retry)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.QPAttr{}.RateLimit)-unsafe.Offsetof(C.struct_ibv_qp_attr{}.rate_limit)]
	_ = [1]struct{}{}[unsafe.Offsetof(p.AHAttr{}.PortNum)-unsafe.Offsetof(C.struct_ibv_ah_attr{}.port_num)]
)
