//go:build linux && cgo

package ibv

// #include "zr_cm.h"
import "C"

import (
	"context"
	"sync"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/internal/netpoll"
	p "github.com/zrdma/zrdma/internal/provider"
)

// cmContexts are the device contexts that librdmacm opened and keeps until the
// process ends, each wrapped once.
var cmContexts struct {
	sync.Mutex
	m map[*C.struct_ibv_context]*ctx // guarded by the mutex
}

func borrow(c *C.struct_ibv_context) (*ctx, error) {
	cmContexts.Lock()
	defer cmContexts.Unlock()
	if x, ok := cmContexts.m[c]; ok {
		return x, nil
	}
	d := c.device
	x, err := newContext(c, p.DeviceInfo{
		Name:      C.GoString(C.ibv_get_device_name(d)),
		DevName:   C.GoString(&d.dev_name[0]),
		IBDevPath: C.GoString(&d.ibdev_path[0]),
		GUID:      p.GUID(p.BE64(uint64(C.ibv_get_device_guid(d)))),
		Index:     int(C.ibv_get_device_index(d)),
		NodeType:  p.NodeType(d.node_type),
		Transport: p.TransportType(d.transport_type),
	})
	if err != nil {
		return nil, err
	}
	x.borrowed = true
	if cmContexts.m == nil {
		cmContexts.m = map[*C.struct_ibv_context]*ctx{}
	}
	cmContexts.m[c] = x
	return x, nil
}

// Devices lists the devices of librdmacm.
func (cmgr) Devices() ([]p.Context, error) {
	var l **C.struct_ibv_context
	var n C.int
	if err := errno(C.zr_cm_devices(&l, &n)); err != nil {
		return nil, err
	}
	defer C.zr_cm_devices_free(l)
	var out []p.Context
	for _, c := range unsafe.Slice(l, int(n)) {
		x, err := borrow(c)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

func (x *cmID) Context() p.Context {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := x.context(); c != nil {
		return c
	}
	return nil
}

func (x *cmID) context() *ctx {
	if x.o.verbs == nil {
		return nil
	}
	c, err := borrow(x.o.verbs)
	if err != nil {
		return nil
	}
	return c
}

func (x *cmID) PD() p.PD {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.o.pd == nil {
		return nil
	}
	if x.pd == nil || x.pd.o != x.o.pd {
		x.pd = &pd{o: x.o.pd, x: x.context()}
	}
	return x.pd
}

func (x *cmID) CreateQP(in *p.QPInit) (p.QP, error) {
	var c C.struct_zr_qp_init
	c.cookie = C.uint64_t(in.Cookie)
	c._type = C.uint32_t(in.Type)
	c.cap = *(*C.struct_ibv_qp_cap)(unsafe.Pointer(&in.Cap))
	c.create_flags = C.uint32_t(in.CreateFlags)
	c.send_ops = C.uint64_t(in.SendOps)
	if in.SQSigAll {
		c.sq_sig_all = 1
	}
	if in.Ex {
		c.ex = 1
	}
	var d *C.struct_ibv_pd
	var s, r *C.struct_ibv_cq
	var sr *C.struct_ibv_srq
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
	} else if v, ok := in.SRQ.(*cmSRQ); ok {
		sr = v.o
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.o.verbs == nil || x.qp != nil {
		return nil, syscall.EINVAL
	}
	x.ch.mu.Lock()
	err := errno(C.zr_cm_create_qp(x.o, d, s, r, sr, &c))
	x.ch.mu.Unlock()
	if err != nil {
		return nil, err
	}
	q := &qp{o: x.o.qp}
	if cx := x.context(); cx != nil {
		q.rxe = cx.rxe
	}
	q.destroy = func() error { return x.destroyQP(q) }
	x.qp = q
	for i, ch := range []*C.struct_ibv_comp_channel{x.o.send_cq_channel, x.o.recv_cq_channel} {
		if ch == nil {
			continue
		}
		fd, err := netpoll.New(int(ch.fd), "rdma_cm completions")
		if err != nil {
			_ = x.dropQP()
			return nil, err
		}
		x.comp[i] = fd
	}
	in.Cap = *(*p.QPCap)(unsafe.Pointer(&c.cap))
	return q, nil
}

// destroyQP: rdma_destroy_qp, which is used where librdmacm has made the completion
// queues, has no answer, so what it would be refused for is found before.
func (x *cmID) destroyQP(q *qp) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if q.groups.Load() > 0 || x.joined > 0 {
		return syscall.EBUSY
	}
	return x.dropQP()
}

// dropQP is called with mu held. The waiters of GetComp are gone before their
// queues are. After an error the queue pair is there still.
func (x *cmID) dropQP() error {
	for i, fd := range x.comp {
		if fd != nil {
			fd.Close()
			x.comp[i] = nil
		}
	}
	x.ch.mu.Lock()
	err := errno(C.zr_cm_destroy_qp(x.o))
	x.ch.mu.Unlock()
	if err == nil {
		x.qp = nil
	}
	return err
}

func (x *cmID) InitQPAttr(state p.QPState) (a p.QPAttr, mask p.QPAttrMask, err error) {
	var c C.struct_ibv_qp_attr
	var m C.int
	c.qp_state = C.enum_ibv_qp_state(state)
	err = x.do(func() C.int { return C.zr_cm_init_qp_attr(x.o, &c, &m) })
	return *(*p.QPAttr)(unsafe.Pointer(&c)), p.QPAttrMask(m), err
}

// cmSRQ is the shared receive queue of an id.
type cmSRQ struct {
	srq
	x *cmID
}

func (s *cmSRQ) Close() error {
	s.x.mu.Lock()
	defer s.x.mu.Unlock()
	C.zr_cm_destroy_srq(s.x.o)
	return nil
}

func (x *cmID) CreateSRQ(in *p.SRQInit) (p.SRQ, error) {
	a := *(*C.struct_ibv_srq_attr)(unsafe.Pointer(&in.Attr))
	var d *C.struct_ibv_pd
	if v, ok := in.PD.(*pd); ok {
		d = v.o
	}
	var ex C.int
	if in.Ex {
		ex = 1
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.o.verbs == nil || x.o.srq != nil {
		return nil, syscall.EINVAL
	}
	if err := errno(C.zr_cm_create_srq(x.o, d, C.uint64_t(in.Cookie), &a, ex, C.uint32_t(in.Type))); err != nil {
		return nil, err
	}
	in.Attr = *(*p.SRQAttr)(unsafe.Pointer(&a))
	return &cmSRQ{srq{x.o.srq}, x}, nil
}

// cmMR is a region registered by a helper, and deregistered by one.
type cmMR struct{ *mr }

func (m cmMR) Close() error { return errno(C.zr_cm_dereg(m.o)) }

func (x *cmID) RegHelper(kind p.CMRegKind, addr, length uint64) (p.MR, error) {
	var o *C.struct_ibv_mr
	err := x.do(func() C.int { return C.zr_cm_reg(x.o, C.int(kind), C.uint64_t(addr), C.size_t(length), &o) })
	if err != nil {
		return nil, err
	}
	return cmMR{&mr{o: o}}, nil
}

func cPost(q *p.CMPost) C.struct_zr_cm_post {
	c := C.struct_zr_cm_post{
		id: C.uint64_t(q.ID), addr: C.uint64_t(q.Addr), length: C.uint64_t(q.Length),
		remote_addr: C.uint64_t(q.RemoteAddr), op: C.uint32_t(q.Op), flags: C.uint32_t(q.Flags),
		rkey: C.uint32_t(q.RKey), remote_qpn: C.uint32_t(q.RemoteQPN),
	}
	if q.MR != nil {
		c.mr = C.uint64_t(q.MR.Handle())
	}
	if q.AH != nil {
		c.ah = C.uint64_t(q.AH.Handle())
	}
	return c
}

func (x *cmID) PostHelper(q *p.CMPost) error {
	c := cPost(q)
	return x.do(func() C.int { return C.zr_cm_post(x.o, &c) })
}

func (x *cmID) PostHelperV(q *p.CMPost, sge []p.SGE) error {
	c := cPost(q)
	return x.do(func() C.int { return C.zr_cm_postv(x.o, &c, sgePtr(sge), C.int(len(sge))) })
}

func (x *cmID) GetComp(cx context.Context, recv bool, wc *p.WC) error {
	i, r := 0, C.int(0)
	if recv {
		i, r = 1, 1
	}
	x.mu.Lock()
	fd := x.comp[i]
	x.mu.Unlock()
	if fd == nil {
		return syscall.EINVAL
	}
	return cmWait(cx, fd, func() syscall.Errno {
		return syscall.Errno(C.zr_cm_get_comp(x.o, r, (*C.struct_ibv_wc)(unsafe.Pointer(wc))))
	})
}
