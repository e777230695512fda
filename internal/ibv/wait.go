//go:build linux && cgo

package ibv

// #cgo noescape zr_wait_cq
// #cgo nocallback zr_wait_cq
// #include "zr.h"
import "C"

import (
	"syscall"
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

// WaitEvent is one bounded wait in one crossing; see provider.CQWaiter.
func (q *cq) WaitEvent(ch p.CompChannel, wc []p.WC, spinNS, napNS int64, w *p.WaitState) (int, error) {
	var o C.zr_obj
	if c, ok := ch.(*channel); ok {
		o = C.zr_obj(uintptr(unsafe.Pointer(c.o)))
	}
	if len(wc) == 0 {
		return 0, syscall.EINVAL
	}
	return polled(C.zr_wait_cq(q.obj(), o, C.int(len(wc)), (*C.struct_ibv_wc)(unsafe.Pointer(&wc[0])),
		C.int64_t(spinNS), C.int64_t(napNS), (*C.struct_zr_wait)(unsafe.Pointer(w))))
}

var _ p.CQWaiter = (*cq)(nil)

// p.WaitState and struct zr_wait are the same bytes.
var _ = [1]struct{}{}[unsafe.Sizeof(p.WaitState{})-unsafe.Sizeof(C.struct_zr_wait{})]
