//go:build linux && cgo

package ibv

// #include "zr_rare.h"
// static void *zr_hollow(struct ibv_context *c) { void **o = calloc(64, sizeof *o); if (o) o[0] = c; return o; }
// static void *zr_hollow_flow(struct ibv_context *c) { struct ibv_flow *o = calloc(8, sizeof *o); if (o) o->context = c; return o; }
import "C"

import (
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

// Hollow are objects of the kinds that a device without them never makes: C
// structs that are zero but for their context. Tests call on them what only such
// an object has, to see that the call arrives and is refused.
type Hollow struct {
	TD         p.TD
	DM         p.DM
	XRCD       p.XRCD
	WQ         p.WQ
	IndTable   p.RWQIndTable
	Flow       p.Flow
	FlowAction p.FlowAction
	Counters   p.Counters
	DMAH       p.DMAH
	CompCntr   p.CompCntr

	ImportedPD p.PD
	ImportedMR p.MR
	ImportedDM p.DM
}

// NewHollow makes hollow objects on a device whose driver has none of their
// operations; elsewhere it would crash, so it is nil for any other driver than
// rxe. They are few and never freed.
func NewHollow(c p.Context) *Hollow {
	x, ok := c.(*ctx)
	if !ok || !x.rxe {
		return nil
	}
	o := func() unsafe.Pointer { return C.zr_hollow(x.c) }
	return &Hollow{
		TD:         &td{(*C.struct_ibv_td)(o())},
		DM:         &dm{o: (*C.struct_ibv_dm)(o())},
		XRCD:       &xrcd{(*C.struct_ibv_xrcd)(o())},
		WQ:         &wq{(*C.struct_ibv_wq)(o())},
		IndTable:   &indTable{(*C.struct_ibv_rwq_ind_table)(o())},
		Flow:       &flow{(*C.struct_ibv_flow)(C.zr_hollow_flow(x.c))},
		FlowAction: &flowAction{(*C.struct_ibv_flow_action)(o())},
		Counters:   &counters{(*C.struct_ibv_counters)(o())},
		DMAH:       &dmah{o()},
		CompCntr:   &compCntr{o()},
		ImportedPD: &pd{o: (*C.struct_ibv_pd)(o()), x: x, imported: true},
		ImportedMR: &mr{o: (*C.struct_ibv_mr)(o()), imported: true},
		ImportedDM: &dm{o: (*C.struct_ibv_dm)(o()), imported: true},
	}
}
