//go:build linux && cgo

package ibv

// #include "zr_rare.h"
import "C"

import (
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

type flow struct{ o *C.struct_ibv_flow }

func (q *qp) CreateFlow(attr []byte) (p.Flow, error) {
	// Aligned for the C structs, whatever the slice came from.
	buf := make([]uint64, len(attr)/8+1)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&buf[0])), len(attr)), attr)
	f := &flow{}
	if err := errno(C.zr_create_flow(q.o, unsafe.Pointer(&buf[0]), &f.o)); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *flow) Handle() uint64 { return handle(f.o) }
func (f *flow) Close() error   { return errno(C.zr_destroy_flow(f.o)) }

type flowAction struct{ o *C.struct_ibv_flow_action }

func cESP(a *p.ESPAttr) *C.struct_zr_esp { return (*C.struct_zr_esp)(unsafe.Pointer(a)) }

func cEncap(e []p.ESPEncap) *C.struct_zr_esp_encap {
	return (*C.struct_zr_esp_encap)(unsafe.Pointer(unsafe.SliceData(e)))
}

func (x *ctx) CreateFlowActionESP(a *p.ESPAttr, encap []p.ESPEncap) (p.FlowAction, error) {
	f := &flowAction{}
	if err := errno(C.zr_create_esp(x.c, cESP(a), cEncap(encap), C.int(len(encap)), &f.o)); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *flowAction) Handle() uint64 { return handle(f.o) }
func (f *flowAction) Close() error   { return errno(C.zr_destroy_flow_action(f.o)) }

func (f *flowAction) ModifyESP(a *p.ESPAttr, encap []p.ESPEncap) error {
	return errno(C.zr_modify_esp(f.o, cESP(a), cEncap(encap), C.int(len(encap))))
}

type counters struct{ o *C.struct_ibv_counters }

func (x *ctx) CreateCounters() (p.Counters, error) {
	c := &counters{}
	if err := errno(C.zr_create_counters(x.c, &c.o)); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *counters) Handle() uint64 { return handle(c.o) }
func (c *counters) Close() error   { return errno(C.zr_destroy_counters(c.o)) }

func (c *counters) Attach(what p.CounterDescription, index uint32, f p.Flow) error {
	var o *C.struct_ibv_flow
	if v, ok := f.(*flow); ok {
		o = v.o
	}
	return errno(C.zr_attach_counters(c.o, C.uint32_t(what), C.uint32_t(index), o))
}

func (c *counters) Read(v []uint64, flags p.ReadCountersFlags) error {
	return errno(C.zr_read_counters(c.o, (*C.uint64_t)(unsafe.SliceData(v)), C.uint32_t(len(v)), C.uint32_t(flags)))
}
