//go:build linux && cgo

package ibv

// #include "zr.h"
// static int zr_dealloc_pd(struct ibv_pd *o) { return zr_ret(ibv_dealloc_pd(o)); }
// static int zr_dereg_mr(struct ibv_mr *o) { return zr_ret(ibv_dereg_mr(o)); }
// static int zr_dealloc_mw(struct ibv_mw *o) { return zr_ret(ibv_dealloc_mw(o)); }
// static int zr_destroy_ah(struct ibv_ah *o) { return zr_ret(ibv_destroy_ah(o)); }
// static int zr_create_ah(struct ibv_pd *d, struct ibv_ah_attr *a, struct ibv_ah **o) { errno = 0; *o = ibv_create_ah(d, a); return *o ? 0 : zr_errno(); }
// static int zr_create_ah_from_wc(struct ibv_pd *d, struct ibv_wc *w, void *g, uint8_t p, struct ibv_ah **o) { errno = 0; *o = ibv_create_ah_from_wc(d, w, g, p); return *o ? 0 : zr_errno(); }
import "C"

import (
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

func handle[T any](o *T) uint64 { return uint64(uintptr(unsafe.Pointer(o))) }

type pd struct {
	o        *C.struct_ibv_pd
	x        *ctx
	imported bool // another process owns it
}

func (d *pd) Handle() uint64 { return handle(d.o) }

func (d *pd) Close() error {
	if d.imported {
		unimportPD(d)
		return nil
	}
	return errno(C.zr_dealloc_pd(d.o))
}

func (d *pd) RegMR(addr, length, iova uint64, useIOVA bool, access p.AccessFlags) (p.MR, error) {
	var o *C.struct_ibv_mr
	var n C.int
	if useIOVA {
		n = C.zr_reg_mr_iova(d.o, C.uint64_t(addr), C.size_t(length), C.uint64_t(iova), C.uint32_t(access), &o)
	} else {
		n = C.zr_reg_mr(d.o, C.uint64_t(addr), C.size_t(length), C.uint32_t(access), &o)
	}
	if err := errno(n); err != nil {
		return nil, err
	}
	return &mr{o: o}, nil
}

func (d *pd) AllocMW(t p.MWType) (p.MW, error) {
	var o *C.struct_ibv_mw
	if err := errno(C.zr_alloc_mw(d.o, C.int(t), &o)); err != nil {
		return nil, err
	}
	return &mw{o}, nil
}

func (d *pd) CreateAH(a *p.AHAttr) (p.AH, error) {
	var o *C.struct_ibv_ah
	c := cAH(a)
	if err := errno(C.zr_create_ah(d.o, &c, &o)); err != nil {
		return nil, err
	}
	return &ah{o}, nil
}

func (d *pd) CreateAHFromWC(wc *p.WC, grh *[40]byte, port uint8) (p.AH, error) {
	var o *C.struct_ibv_ah
	w, g := *wc, alignedGRH(grh)
	n := C.zr_create_ah_from_wc(d.o, (*C.struct_ibv_wc)(unsafe.Pointer(&w)), unsafe.Pointer(&g[0]), C.uint8_t(port), &o)
	if err := errno(n); err != nil {
		return nil, err
	}
	return &ah{o}, nil
}

type mr struct {
	o        *C.struct_ibv_mr
	imported bool // another process owns it
}

func (m *mr) Handle() uint64 { return handle(m.o) }
func (m *mr) LKey() p.LKey   { return p.LKey(m.o.lkey) }
func (m *mr) RKey() p.RKey   { return p.RKey(m.o.rkey) }

func (m *mr) Close() error {
	if m.imported {
		unimportMR(m)
		return nil
	}
	return errno(C.zr_dereg_mr(m.o))
}

// Rereg changes the registration in place; code is ibv_rereg_mr's own answer.
func (m *mr) Rereg(flags p.ReregMRFlags, npd p.PD, addr, length uint64, access p.AccessFlags) (int, error) {
	var d *C.struct_ibv_pd
	if x, ok := npd.(*pd); ok {
		d = x.o
	}
	var code C.int
	n := C.zr_rereg_mr(m.o, C.int(flags), d, C.uint64_t(addr), C.size_t(length), C.int(access), &code)
	return int(code), errno(n)
}

type mw struct{ o *C.struct_ibv_mw }

func (w *mw) Handle() uint64   { return handle(w.o) }
func (w *mw) RKey() p.RKey     { return p.RKey(w.o.rkey) }
func (w *mw) SetRKey(k p.RKey) { w.o.rkey = C.uint32_t(k) }
func (w *mw) Close() error     { return errno(C.zr_dealloc_mw(w.o)) }

type ah struct{ o *C.struct_ibv_ah }

func (a *ah) Handle() uint64 { return handle(a.o) }
func (a *ah) Close() error   { return errno(C.zr_destroy_ah(a.o)) }
