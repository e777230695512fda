//go:build linux && cgo

package ibv

// #include "zr.h"
// static int zr_destroy_qp(struct ibv_qp *o) { return zr_ret(ibv_destroy_qp(o)); }
// static int zr_modify_qp(struct ibv_qp *o, struct ibv_qp_attr *a, int m) { errno = 0; return zr_ret(ibv_modify_qp(o, a, m)); }
// static int zr_mcast(struct ibv_qp *o, union ibv_gid *g, uint16_t lid, int on) { errno = 0; return zr_ret(on ? ibv_attach_mcast(o, g, lid) : ibv_detach_mcast(o, g, lid)); }
// static int zr_data_in_order(struct ibv_qp *o, int op, uint32_t f) { return ibv_query_qp_data_in_order(o, op, f); }
// static int zr_ece(struct ibv_qp *o, struct ibv_ece *e, int set) { errno = 0; return zr_ret(set ? ibv_set_ece(o, e) : ibv_query_ece(o, e)); }
// static int zr_modify_srq(struct ibv_srq *o, struct ibv_srq_attr *a, int m) { errno = 0; return zr_ret(ibv_modify_srq(o, a, m)); }
// static int zr_query_srq(struct ibv_srq *o, struct ibv_srq_attr *a) { errno = 0; return zr_ret(ibv_query_srq(o, a)); }
// static int zr_srq_num(struct ibv_srq *o, uint32_t *n) { errno = 0; return zr_ret(ibv_get_srq_num(o, n)); }
// static int zr_destroy_srq(struct ibv_srq *o) { return zr_ret(ibv_destroy_srq(o)); }
import "C"

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

type qp struct {
	o     *C.struct_ibv_qp
	rxe   bool
	inErr atomic.Bool // Modify moved it to ERR

	destroy func() error // the connection manager's, or nil
	groups  atomic.Int32 // multicast groups attached to
	flush   bool         // created with QPExWithFlush, so the builder has that operation
}

// cptr turns a Handle back into the C pointer it was made from.
func cptr[T any](h uint64) *T { return *(**T)(unsafe.Pointer(&h)) }

func (x *ctx) CreateQP(in *p.QPInit) (p.QP, error) {
	var c C.struct_zr_qp_init
	c.cookie = C.uint64_t(in.Cookie)
	c._type = C.uint32_t(in.Type)
	c.cap = *(*C.struct_ibv_qp_cap)(unsafe.Pointer(&in.Cap))
	c.create_flags = C.uint32_t(in.CreateFlags)
	c.source_qpn = C.uint32_t(in.SourceQPN)
	c.max_tso_header = C.uint16_t(in.MaxTSOHeader)
	c.send_ops = C.uint64_t(in.SendOps)
	c.hash_func = C.uint8_t(in.HashFunction)
	c.hash_fields = C.uint64_t(in.HashFields)
	if len(in.HashKey) > len(c.hash_key) {
		return nil, syscall.EINVAL
	}
	c.hash_key_len = C.uint8_t(len(in.HashKey))
	for i, b := range in.HashKey {
		c.hash_key[i] = C.uint8_t(b)
	}
	if in.SQSigAll {
		c.sq_sig_all = 1
	}
	if in.Ex {
		c.ex = 1
	}
	var d *C.struct_ibv_pd
	var s, r *C.struct_ibv_cq
	var sr *C.struct_ibv_srq
	var xr *C.struct_ibv_xrcd
	var tbl *C.struct_ibv_rwq_ind_table
	if v, ok := in.PD.(*pd); ok {
		d = v.o
	}
	if v, ok := in.SendCQ.(*cq); ok {
		s = v.o
	}
	if v, ok := in.RecvCQ.(*cq); ok {
		r = v.o
	}
	if v, ok := in.SRQ.(*srq); ok {
		sr = v.o
	}
	if v, ok := in.XRCD.(interface{ Handle() uint64 }); ok {
		xr = cptr[C.struct_ibv_xrcd](v.Handle())
	}
	if v, ok := in.IndTable.(interface{ Handle() uint64 }); ok {
		tbl = cptr[C.struct_ibv_rwq_ind_table](v.Handle())
	}
	if x.rxe && in.SendOps&p.QPExWithAtomicWrite != 0 && !x.atomicWrite() {
		// The library would take it and the kernel fail the request.
		return nil, syscall.EOPNOTSUPP
	}
	q := &qp{rxe: x.rxe, flush: in.SendOps&p.QPExWithFlush != 0}
	if err := errno(C.zr_create_qp(x.c, d, s, r, sr, xr, tbl, &c, &q.o)); err != nil {
		return nil, err
	}
	in.Cap = *(*p.QPCap)(unsafe.Pointer(&c.cap))
	return q, nil
}

// atomicWrite reads the kernel's IB_DEVICE_ATOMIC_WRITE.
func (x *ctx) atomicWrite() bool {
	var a p.DeviceAttrEx
	return x.QueryDeviceEx(&a) == nil && a.DeviceCapFlagsEx>>40&1 != 0
}

func (q *qp) Handle() uint64 { return handle(q.o) }
func (q *qp) obj() C.zr_obj  { return C.zr_obj(uintptr(unsafe.Pointer(q.o))) }
func (q *qp) QPN() uint32    { return uint32(q.o.qp_num) }

func (q *qp) Close() error {
	if q.destroy != nil {
		return q.destroy()
	}
	return errno(C.zr_destroy_qp(q.o))
}

func (q *qp) Modify(a *p.QPAttr, mask p.QPAttrMask) error {
	var c C.struct_ibv_qp_attr
	*(*p.QPAttr)(unsafe.Pointer(&c)) = *a
	err := errno(C.zr_modify_qp(q.o, &c, C.int(mask)))
	if err == nil && mask&p.QPAttrState != 0 {
		q.inErr.Store(a.State == p.QPSErr)
	}
	return err
}

func (q *qp) Query(a *p.QPAttr, mask p.QPAttrMask) (in p.QPInit, err error) {
	var c C.struct_ibv_qp_attr
	var i C.struct_zr_qp_init
	err = errno(C.zr_query_qp(q.o, &c, C.int(mask), &i))
	*a = *(*p.QPAttr)(unsafe.Pointer(&c))
	in.Cap = *(*p.QPCap)(unsafe.Pointer(&i.cap))
	in.Type, in.SQSigAll = p.QPType(i._type), i.sq_sig_all != 0
	return in, err
}

func sgePtr(s []p.SGE) *C.struct_ibv_sge {
	return (*C.struct_ibv_sge)(unsafe.Pointer(unsafe.SliceData(s)))
}

func (q *qp) PostSend(wr []p.WR, sge []p.SGE) (int, error) {
	var done C.int
	n := C.zr_post_send(q.obj(), (*C.struct_zr_wr)(unsafe.Pointer(unsafe.SliceData(wr))), C.int(len(wr)), sgePtr(sge), &done)
	return int(done), errno(n)
}

func (q *qp) PostRecv(wr []p.RecvWR, sge []p.SGE) (int, error) {
	var done C.int
	n := C.zr_post_recv(q.obj(), (*C.struct_zr_recv_wr)(unsafe.Pointer(unsafe.SliceData(wr))), C.int(len(wr)), sgePtr(sge), &done)
	if q.rxe && q.inErr.Load() && !noWorkarounds {
		// rxe has no doorbell for receives: in ERR nothing would make it look at
		// the queue again and flush. Entering ERR once more does.
		c := C.struct_ibv_qp_attr{qp_state: C.IBV_QPS_ERR}
		C.zr_modify_qp(q.o, &c, C.IBV_QP_STATE)
	}
	return int(done), errno(n)
}

func (q *qp) WRPost(wr []p.WR, sge []p.SGE, dry bool) (int, error) {
	var bug, d, bad C.int
	for i := range wr {
		if wr[i].Opcode == p.WRFlush && !q.flush {
			return i, syscall.EOPNOTSUPP
		}
	}
	if q.rxe && rxeListFault() {
		bug = 1
		if !dry && uneven(wr, sge) {
			for i := range wr {
				if wr[i].Opcode == p.WRAtomicWrite || wr[i].Opcode == p.WRFlush {
					return i, syscall.EOPNOTSUPP // not with such a list: PostSend has no fields for it
				}
			}
			return q.PostSend(wr, sge)
		}
	}
	if dry {
		d = 1
	}
	n := C.zr_wr_post(q.o, (*C.struct_zr_wr)(unsafe.Pointer(unsafe.SliceData(wr))), C.int(len(wr)), sgePtr(sge), d, bug, &bad)
	return int(bad), errno(n)
}

func (q *qp) BindMW(w p.MW, m p.MR, id uint64, flags p.SendFlags, addr, length uint64, access p.AccessFlags) error {
	var cm *C.struct_ibv_mr
	if v, ok := m.(*mr); ok {
		cm = v.o
	}
	return errno(C.zr_bind_mw(q.o, w.(*mw).o, cm, C.uint64_t(id), C.uint32_t(flags), C.uint64_t(addr), C.uint64_t(length), C.uint32_t(access)))
}

func (q *qp) mcast(g p.GID, lid uint16, on C.int) error {
	var u C.union_ibv_gid
	copy(u[:], g[:])
	return errno(C.zr_mcast(q.o, &u, C.uint16_t(lid), on))
}

func (q *qp) AttachMcast(g p.GID, lid uint16) error {
	err := q.mcast(g, lid, 1)
	if err == nil {
		q.groups.Add(1)
	}
	return err
}

func (q *qp) DetachMcast(g p.GID, lid uint16) error {
	err := q.mcast(g, lid, 0)
	if err == nil {
		q.groups.Add(-1)
	}
	return err
}

func (q *qp) ModifyRateLimit(kbps, maxBurst uint32, typicalPkt uint16) error {
	return errno(C.zr_modify_rate_limit(q.o, C.uint32_t(kbps), C.uint32_t(maxBurst), C.uint16_t(typicalPkt)))
}

func (q *qp) DataInOrder(op p.WROpcode, flags uint32) (bool, error) {
	n := C.zr_data_in_order(q.o, C.int(op), C.uint32_t(flags))
	if n != 0 && n != 1 {
		return false, syscall.Errno(n)
	}
	return n == 1, nil
}

func (q *qp) QueryECE() (e p.ECE, err error) {
	err = errno(C.zr_ece(q.o, (*C.struct_ibv_ece)(unsafe.Pointer(&e)), 0))
	return e, err
}

func (q *qp) SetECE(e p.ECE) error {
	return errno(C.zr_ece(q.o, (*C.struct_ibv_ece)(unsafe.Pointer(&e)), 1))
}

type srq struct{ o *C.struct_ibv_srq }

func (x *ctx) CreateSRQ(in *p.SRQInit) (p.SRQ, error) {
	a := *(*C.struct_ibv_srq_attr)(unsafe.Pointer(&in.Attr))
	var d *C.struct_ibv_pd
	if v, ok := in.PD.(*pd); ok {
		d = v.o
	}
	s := &srq{}
	var n C.int
	if !in.Ex {
		n = C.zr_create_srq(d, C.uint64_t(in.Cookie), &a, &s.o)
	} else {
		var xr *C.struct_ibv_xrcd
		var c *C.struct_ibv_cq
		if v, ok := in.XRCD.(interface{ Handle() uint64 }); ok {
			xr = cptr[C.struct_ibv_xrcd](v.Handle())
		}
		if v, ok := in.CQ.(*cq); ok {
			c = v.o
		}
		n = C.zr_create_srq_ex(x.c, d, xr, c, C.uint64_t(in.Cookie), &a, C.uint32_t(in.Type),
			C.uint32_t(in.MaxNumTags), C.uint32_t(in.MaxOps), &s.o)
	}
	if err := errno(n); err != nil {
		return nil, err
	}
	in.Attr = *(*p.SRQAttr)(unsafe.Pointer(&a))
	return s, nil
}

func (s *srq) Handle() uint64 { return handle(s.o) }
func (s *srq) Close() error   { return errno(C.zr_destroy_srq(s.o)) }

func (s *srq) PostRecv(wr []p.RecvWR, sge []p.SGE) (int, error) {
	var done C.int
	n := C.zr_post_srq_recv(s.o, (*C.struct_zr_recv_wr)(unsafe.Pointer(unsafe.SliceData(wr))), C.int(len(wr)), sgePtr(sge), &done)
	return int(done), errno(n)
}

func (s *srq) Modify(a *p.SRQAttr, mask p.SRQAttrMask) error {
	c := *(*C.struct_ibv_srq_attr)(unsafe.Pointer(a))
	return errno(C.zr_modify_srq(s.o, &c, C.int(mask)))
}

func (s *srq) Query(a *p.SRQAttr) error {
	return errno(C.zr_query_srq(s.o, (*C.struct_ibv_srq_attr)(unsafe.Pointer(a))))
}

func (s *srq) Num() (uint32, error) {
	var n C.uint32_t
	err := errno(C.zr_srq_num(s.o, &n))
	return uint32(n), err
}
