//go:build linux && cgo

package ibv

// #include "zr_rare.h"
import "C"

import (
	"syscall"
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

// cPD, cCQ and the like turn a provider's object into its C pointer, nil for
// none or for one of another provider.

func cPD(x p.PD) *C.struct_ibv_pd {
	if v, ok := x.(*pd); ok {
		return v.o
	}
	return nil
}

func cCQ(x p.CQ) *C.struct_ibv_cq {
	if v, ok := x.(*cq); ok {
		return v.o
	}
	return nil
}

type td struct{ o *C.struct_ibv_td }

func (x *ctx) AllocTD() (p.TD, error) {
	t := &td{}
	if err := errno(C.zr_alloc_td(x.c, &t.o)); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *td) Handle() uint64 { return handle(t.o) }
func (t *td) Close() error   { return errno(C.zr_dealloc_td(t.o)) }

func (d *pd) AllocParentDomain(t p.TD) (p.PD, error) {
	var ct *C.struct_ibv_td
	if v, ok := t.(*td); ok {
		ct = v.o
	}
	n := &pd{x: d.x}
	if err := errno(C.zr_alloc_parent_domain(d.o, ct, &n.o)); err != nil {
		return nil, err
	}
	return n, nil
}

// ImportDevice opens the device behind a command descriptor of another process.
func ImportDevice(fd int) (p.Context, error) {
	if err := Loaded(false); err != nil {
		return nil, err
	}
	var c *C.struct_ibv_context
	if err := errno(C.zr_import_device(C.int(fd), &c)); err != nil {
		return nil, err
	}
	info := p.DeviceInfo{Name: C.GoString(C.ibv_get_device_name(c.device)), Index: -1}
	if l, err := Devices(); err == nil {
		for _, d := range l {
			if d.Info().Name == info.Name {
				info = d.Info()
			}
		}
	}
	x, err := newContext(c, info)
	if err != nil {
		C.ibv_close_device(c)
		return nil, err
	}
	return x, nil
}

func (x *ctx) CmdFD() int { return int(x.c.cmd_fd) }

func (x *ctx) ImportPD(handle uint32) (p.PD, error) {
	d := &pd{x: x, imported: true}
	if err := errno(C.zr_import_pd(x.c, C.uint32_t(handle), &d.o)); err != nil {
		return nil, err
	}
	return d, nil
}

func (x *ctx) ImportDM(handle uint32) (p.DM, error) {
	d := &dm{imported: true}
	if err := errno(C.zr_import_dm(x.c, C.uint32_t(handle), &d.o)); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *pd) ImportMR(handle uint32) (p.MR, error) {
	m := &mr{imported: true}
	if err := errno(C.zr_import_mr(d.o, C.uint32_t(handle), &m.o)); err != nil {
		return nil, err
	}
	return m, nil
}

func unimportPD(d *pd) { C.zr_unimport_pd(d.o) }
func unimportMR(m *mr) { C.zr_unimport_mr(m.o) }

func (d *pd) KernelHandle() uint32 { return uint32(d.o.handle) }
func (m *mr) KernelHandle() uint32 { return uint32(m.o.handle) }
func (d *dm) KernelHandle() uint32 { return uint32(d.o.handle) }

func (d *pd) RegDmabufMR(offset, length, iova uint64, fd int, access p.AccessFlags) (p.MR, error) {
	m := &mr{}
	n := C.zr_reg_dmabuf_mr(d.o, C.uint64_t(offset), C.size_t(length), C.uint64_t(iova), C.int(fd), C.int(access), &m.o)
	if err := errno(n); err != nil {
		return nil, err
	}
	return m, nil
}

func (d *pd) AllocNullMR() (p.MR, error) {
	m := &mr{}
	if err := errno(C.zr_alloc_null_mr(d.o, &m.o)); err != nil {
		return nil, err
	}
	return m, nil
}

func (d *pd) AdviseMR(advice p.AdviseMRAdvice, flags p.AdviseMRFlags, sge []p.SGE) error {
	return errno(C.zr_advise_mr(d.o, C.uint32_t(advice), C.uint32_t(flags), sgePtr(sge), C.uint32_t(len(sge))))
}

func (d *pd) RegDMMR(x p.DM, offset, length uint64, access p.AccessFlags) (p.MR, error) {
	v, ok := x.(*dm)
	if !ok {
		return nil, syscall.EINVAL
	}
	m := &mr{}
	n := C.zr_reg_dm_mr(d.o, v.o, C.uint64_t(offset), C.size_t(length), C.uint(access), &m.o)
	if err := errno(n); err != nil {
		return nil, err
	}
	return m, nil
}

type dm struct {
	o        *C.struct_ibv_dm
	imported bool // another process owns it
}

func (x *ctx) AllocDM(length uint64, logAlign uint32) (p.DM, error) {
	d := &dm{}
	if err := errno(C.zr_alloc_dm(x.c, C.size_t(length), C.uint32_t(logAlign), &d.o)); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *dm) Handle() uint64 { return handle(d.o) }

func (d *dm) Close() error {
	if d.imported {
		C.zr_unimport_dm(d.o)
		return nil
	}
	return errno(C.zr_free_dm(d.o))
}

func (d *dm) CopyTo(off uint64, src []byte) error {
	return errno(C.zr_memcpy_to_dm(d.o, C.uint64_t(off), unsafe.Pointer(unsafe.SliceData(src)), C.size_t(len(src))))
}

func (d *dm) CopyFrom(off uint64, dst []byte) error {
	return errno(C.zr_memcpy_from_dm(d.o, C.uint64_t(off), unsafe.Pointer(unsafe.SliceData(dst)), C.size_t(len(dst))))
}

type xrcd struct{ o *C.struct_ibv_xrcd }

func (x *ctx) OpenXRCD(fd, oflags int) (p.XRCD, error) {
	d := &xrcd{}
	if err := errno(C.zr_open_xrcd(x.c, C.int(fd), C.int(oflags), &d.o)); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *xrcd) Handle() uint64 { return handle(d.o) }
func (d *xrcd) Close() error   { return errno(C.zr_close_xrcd(d.o)) }

func (x *ctx) OpenQP(in *p.OpenQPInit) (p.QP, error) {
	d, ok := in.XRCD.(*xrcd)
	if !ok {
		return nil, syscall.EINVAL
	}
	q := &qp{rxe: x.rxe}
	n := C.zr_open_qp(x.c, d.o, C.uint32_t(in.QPN), C.uint32_t(in.Type), C.uint64_t(in.Cookie), &q.o)
	if err := errno(n); err != nil {
		return nil, err
	}
	return q, nil
}

func (s *srq) PostOps(wr []p.OpsWR, sge []p.SGE) (int, error) {
	var done C.int
	n := C.zr_post_srq_ops(s.o, (*C.struct_zr_ops_wr)(unsafe.Pointer(unsafe.SliceData(wr))), C.int(len(wr)), sgePtr(sge), &done)
	return int(done), errno(n)
}
