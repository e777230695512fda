//go:build linux && cgo

package ibv

// #include "zr.h"
// static int zr_destroy_cq(struct ibv_cq *o) { return zr_ret(ibv_destroy_cq(o)); }
// static int zr_resize_cq(struct ibv_cq *o, int n) { return zr_ret(ibv_resize_cq(o, n)); }
// static int zr_req_notify_cq(struct ibv_cq *o, int s) { errno = 0; return zr_ret(ibv_req_notify_cq(o, s)); }
// static int zr_destroy_channel(struct ibv_comp_channel *o) { return zr_ret(ibv_destroy_comp_channel(o)); }
import "C"

import (
	"context"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/internal/netpoll"
	p "github.com/zrdma/zrdma/internal/provider"
)

type channel struct {
	o  *C.struct_ibv_comp_channel
	fd *netpoll.FD
}

func (ch *channel) Get(cx context.Context) (uint64, error) {
	var cookie C.uint64_t
	err := ch.fd.Wait(cx, func() syscall.Errno { return syscall.Errno(C.zr_get_cq_event(ch.o, &cookie)) })
	return uint64(cookie), err
}

func (ch *channel) TryGet() (uint64, error) {
	var cookie C.uint64_t
	err := errno(C.zr_get_cq_event(ch.o, &cookie))
	return uint64(cookie), err
}

func (ch *channel) Kick()      { ch.fd.Kick() }
func (ch *channel) Interrupt() { ch.fd.Interrupt() }

func (ch *channel) Close() error {
	if err := errno(C.zr_destroy_channel(ch.o)); err != nil {
		ch.fd.Resume()
		return err
	}
	return ch.fd.Close()
}

type cq struct {
	o       *C.struct_ibv_cq
	ex      bool
	wcFlags C.uint64_t
	oneEach C.int // poll one completion per batch: see rxe.go
}

func (x *ctx) CreateCQ(in *p.CQInit) (p.CQ, error) {
	var ch *C.struct_ibv_comp_channel
	if c, ok := in.Channel.(*channel); ok {
		ch = c.o
	}
	q := &cq{ex: in.Ex, wcFlags: C.uint64_t(in.WCFlags)}
	var n C.int
	if !in.Ex {
		n = C.zr_create_cq(x.c, C.int(in.CQE), C.uint64_t(in.Cookie), ch, C.int(in.Vector), &q.o)
		return q, errno(n)
	}
	var mask C.uint32_t
	var d *C.struct_ibv_pd
	if in.Flags != 0 {
		mask |= C.IBV_CQ_INIT_ATTR_MASK_FLAGS
	}
	if in.PD != nil {
		mask |= C.IBV_CQ_INIT_ATTR_MASK_PD
		d = in.PD.(*pd).o
	}
	if x.rxe && rxeNextPollFault() {
		q.oneEach = 1
	}
	n = C.zr_create_cq_ex(x.c, C.uint32_t(in.CQE), C.uint64_t(in.Cookie), ch, C.uint32_t(in.Vector),
		q.wcFlags, mask, C.uint32_t(in.Flags), d, &q.o)
	return q, errno(n)
}

func (q *cq) CQE() int { return int(q.o.cqe) }

func (q *cq) obj() C.zr_obj { return C.zr_obj(uintptr(unsafe.Pointer(q.o))) }

func (q *cq) Poll(wc []p.WC) (int, error) {
	if len(wc) == 0 {
		return 0, nil
	}
	return polled(C.zr_poll_cq(q.obj(), C.int(len(wc)), (*C.struct_ibv_wc)(unsafe.Pointer(&wc[0]))))
}

func (q *cq) PollSpin(wc []p.WC, ns int64) (int, error) {
	if len(wc) == 0 {
		return 0, nil
	}
	return polled(C.zr_poll_spin(q.obj(), C.int(len(wc)), (*C.struct_ibv_wc)(unsafe.Pointer(&wc[0])), C.int64_t(ns)))
}

func (q *cq) PollEx(wc []p.WCEx) (int, error) {
	if !q.ex {
		return 0, syscall.EOPNOTSUPP
	}
	if len(wc) == 0 {
		return 0, nil
	}
	return polled(C.zr_poll_cq_ex(q.o, C.int(len(wc)), (*C.struct_zr_wc_ex)(unsafe.Pointer(&wc[0])), q.wcFlags, q.oneEach))
}

// polled reads the number of completions, or an error as a negative number.
func polled(n C.int) (int, error) {
	if n >= 0 {
		return int(n), nil
	}
	if n == -1 {
		return 0, syscall.EIO
	}
	return 0, syscall.Errno(-n)
}

func (q *cq) ReqNotify(solicitedOnly bool) error {
	var s C.int
	if solicitedOnly {
		s = 1
	}
	return errno(C.zr_req_notify_cq(q.o, s))
}

func (q *cq) Resize(cqe int) error { return errno(C.zr_resize_cq(q.o, C.int(cqe))) }

func (q *cq) Modify(count, period uint16) error {
	return errno(C.zr_modify_cq(q.o, C.uint16_t(count), C.uint16_t(period)))
}

func (q *cq) Close() error { return errno(C.zr_destroy_cq(q.o)) }
