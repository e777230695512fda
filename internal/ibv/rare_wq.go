//go:build linux && cgo

package ibv

// #include "zr_rare.h"
import "C"

import (
	"syscall"
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

type wq struct{ o *C.struct_ibv_wq }

func (x *ctx) CreateWQ(in *p.WQInit) (p.WQ, error) {
	c := C.struct_zr_wq_init{
		cookie: C.uint64_t(in.Cookie), _type: C.uint32_t(in.Type), max_wr: C.uint32_t(in.MaxWR),
		max_sge: C.uint32_t(in.MaxSGE), create_flags: C.uint32_t(in.Flags),
	}
	w := &wq{}
	if err := errno(C.zr_create_wq(x.c, cPD(in.PD), cCQ(in.CQ), &c, &w.o)); err != nil {
		return nil, err
	}
	in.MaxWR, in.MaxSGE = uint32(c.max_wr), uint32(c.max_sge)
	return w, nil
}

func (w *wq) Handle() uint64 { return handle(w.o) }
func (w *wq) Num() uint32    { return uint32(w.o.wq_num) }
func (w *wq) Close() error   { return errno(C.zr_destroy_wq(w.o)) }

func (w *wq) Modify(a *p.WQAttr, mask p.WQAttrMask) error {
	return errno(C.zr_modify_wq(w.o, C.uint32_t(mask), C.uint32_t(a.State), C.uint32_t(a.CurrState), C.uint32_t(a.Flags), C.uint32_t(a.FlagsMask)))
}

func (w *wq) PostRecv(wr []p.RecvWR, sge []p.SGE) (int, error) {
	var done C.int
	n := C.zr_post_wq_recv(w.o, (*C.struct_zr_recv_wr)(unsafe.Pointer(unsafe.SliceData(wr))), C.int(len(wr)), sgePtr(sge), &done)
	return int(done), errno(n)
}

type indTable struct{ o *C.struct_ibv_rwq_ind_table }

func (x *ctx) CreateRWQIndTable(wqs []p.WQ, log uint32) (p.RWQIndTable, error) {
	if log > 16 || len(wqs) != 1<<log {
		return nil, syscall.EINVAL
	}
	h := make([]uint64, len(wqs))
	for i, w := range wqs {
		h[i] = w.Handle()
	}
	t := &indTable{}
	if err := errno(C.zr_create_rwq_ind_table(x.c, (*C.uint64_t)(&h[0]), C.uint32_t(log), &t.o)); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *indTable) Handle() uint64 { return handle(t.o) }
func (t *indTable) Close() error   { return errno(C.zr_destroy_rwq_ind_table(t.o)) }
