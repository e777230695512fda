//go:build linux && cgo

package ibv

// #include "zr_rare.h"
import "C"

import (
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

// WROpcodeStr is libibverbs' text for an opcode; where the library has none, the
// constant's name.
func WROpcodeStr(op p.WROpcode) string {
	if s := C.zr_wr_opcode_str(C.int(op)); s != nil {
		return C.GoString(s)
	}
	return op.String()
}

func (x *ctx) QueryPortSpeed(port uint32) (uint64, error) {
	var v C.uint64_t
	err := errno(C.zr_query_port_speed(x.c, C.uint32_t(port), &v))
	return uint64(v), err
}

func (d *pd) RegMREx(in *p.MRExInit) (p.MR, error) {
	var h, b unsafe.Pointer
	if v, ok := in.DMAH.(*dmah); ok {
		h = v.o
	}
	if v, ok := in.Buf.(*buf); ok {
		b = v.o
	}
	m := &mr{}
	n := C.zr_reg_mr_ex(d.o, C.uint64_t(in.Mask), C.size_t(in.Length), C.int(in.Access), C.uint64_t(in.IOVA),
		C.uint64_t(in.Addr), C.int(in.FD), C.uint64_t(in.FDOffset), h, b, &m.o)
	if err := errno(n); err != nil {
		return nil, err
	}
	return m, nil
}

type dmah struct{ o unsafe.Pointer }

func (x *ctx) AllocDMAH(in *p.DMAHInit) (p.DMAH, error) {
	h := &dmah{}
	n := C.zr_alloc_dmah(x.c, C.uint32_t(in.Mask), C.uint32_t(in.CPUID), C.uint8_t(in.PH), C.uint8_t(in.MemType), &h.o)
	if err := errno(n); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *dmah) Handle() uint64 { return uint64(uintptr(h.o)) }
func (h *dmah) Close() error   { return errno(C.zr_dealloc_dmah(h.o)) }

func (d *dm) ExportDmabuf() (int, error) {
	var fd C.int
	err := errno(C.zr_dm_export(d.o, &fd))
	return int(fd), err
}

type buf struct {
	o    unsafe.Pointer
	addr uint64
}

func (d *pd) AllocBuf(size uint64) (p.Buf, error) {
	b := &buf{}
	var a C.uint64_t
	if err := errno(C.zr_alloc_buf(d.o, C.size_t(size), &a, &b.o)); err != nil {
		return nil, err
	}
	b.addr = uint64(a)
	return b, nil
}

func (b *buf) Handle() uint64 { return uint64(uintptr(b.o)) }
func (b *buf) Addr() uint64   { return b.addr }
func (b *buf) Close() error   { return errno(C.zr_free_buf(b.o)) }

func (b *buf) ExportDmabuf() (int, error) {
	var fd C.int
	err := errno(C.zr_export_buf(b.o, &fd))
	return int(fd), err
}

func (d *pd) RegBufMR(b p.Buf, addr, length uint64, access p.AccessFlags) (p.MR, error) {
	m := &mr{}
	var o unsafe.Pointer
	if v, ok := b.(*buf); ok {
		o = v.o
	}
	if err := errno(C.zr_reg_buf_mr(d.o, o, C.uint64_t(addr), C.size_t(length), C.int(access), &m.o)); err != nil {
		return nil, err
	}
	return m, nil
}

func (x *ctx) QueryCompCntrCaps() (p.CompCntrCaps, error) {
	var most C.uint64_t
	var n, ops C.uint32_t
	err := errno(C.zr_comp_cntr_caps(x.c, &most, &n, &ops))
	return p.CompCntrCaps{MaxValue: uint64(most), MaxCounters: uint32(n), QPAttachOps: p.CompCntrOps(ops)}, err
}

type compCntr struct{ o unsafe.Pointer }

func (x *ctx) CreateCompCntr(t p.CompCntrType) (p.CompCntr, error) {
	c := &compCntr{}
	if err := errno(C.zr_create_comp_cntr(x.c, C.uint32_t(t), &c.o)); err != nil {
		return nil, err
	}
	return c, nil
}

func cbool(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

func (c *compCntr) Handle() uint64 { return uint64(uintptr(c.o)) }
func (c *compCntr) Close() error   { return errno(C.zr_destroy_comp_cntr(c.o)) }

func (c *compCntr) Set(failed bool, v uint64) error {
	return errno(C.zr_comp_cntr_set(c.o, cbool(failed), C.uint64_t(v)))
}

func (c *compCntr) Inc(failed bool, v uint64) error {
	return errno(C.zr_comp_cntr_inc(c.o, cbool(failed), C.uint64_t(v)))
}

func (c *compCntr) Read(failed bool) (uint64, error) {
	var v C.uint64_t
	err := errno(C.zr_comp_cntr_read(c.o, cbool(failed), &v))
	return uint64(v), err
}

func (q *qp) AttachCompCntr(c p.CompCntr, ops p.CompCntrOps) error {
	var o unsafe.Pointer
	if v, ok := c.(*compCntr); ok {
		o = v.o
	}
	return errno(C.zr_attach_comp_cntr(q.o, o, C.uint32_t(ops)))
}
