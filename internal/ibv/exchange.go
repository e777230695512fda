//go:build linux && cgo

package ibv

// #cgo noescape zr_exchange
// #cgo nocallback zr_exchange
// #include "zr.h"
import "C"

import (
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

// Exchange posts and polls in one crossing; see provider.Exchanger.
func (q *qp) Exchange(s, r p.CQ, recv []p.RecvWR, recvSGE []p.SGE, send []p.WR, sendSGE []p.SGE, wc []p.WC, x *p.Exchange) error {
	var scq, rcq C.zr_obj
	if c, ok := s.(*cq); ok {
		scq = c.obj()
	}
	if c, ok := r.(*cq); ok && r != s {
		rcq = c.obj()
	}
	if scq == 0 {
		scq, rcq = rcq, 0
	}
	x.NumRecv, x.NumSend, x.NumWC = int32(len(recv)), int32(len(send)), int32(len(wc))
	if scq == 0 {
		x.NumWC = 0
	}
	return errno(C.zr_exchange(q.obj(), scq, rcq,
		(*C.struct_zr_recv_wr)(unsafe.Pointer(unsafe.SliceData(recv))), sgePtr(recvSGE),
		(*C.struct_zr_wr)(unsafe.Pointer(unsafe.SliceData(send))), sgePtr(sendSGE),
		(*C.struct_ibv_wc)(unsafe.Pointer(unsafe.SliceData(wc))), (*C.struct_zr_exchange)(unsafe.Pointer(x))))
}

var _ p.Exchanger = (*qp)(nil)

// p.Exchange and struct zr_exchange are the same bytes.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(p.Exchange{})-C.sizeof_struct_zr_exchange]
	_ = [1]struct{}{}[unsafe.Offsetof(p.Exchange{}.Failed)-unsafe.Offsetof(C.struct_zr_exchange{}.failed)]
)
