//go:build linux && cgo

package ibv

// #cgo noescape zr_rrecv
// #cgo nocallback zr_rrecv
// #cgo noescape zr_rsend
// #cgo nocallback zr_rsend
// #include "zr_rsocket.h"
import "C"

import (
	"runtime"
	"unsafe"
)

// The functions below cross the door one to one; s is an rsocket's number, which
// the caller keeps open during the call. None waits but RPoll and RSelect.

func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

// iov has the layout of struct iovec; the buffers are pinned during the call.
type iov struct{ base, len uint64 }

var _ = [1]struct{}{}[unsafe.Sizeof(iov{})-uintptr(C.sizeof_struct_iovec)]
var _ = [1]struct{}{}[unsafe.Sizeof(PollFD{})-uintptr(C.sizeof_struct_pollfd)]
var _ = [1]struct{}{}[unsafe.Sizeof(FDSet{})-uintptr(C.sizeof_fd_set)]

func withIOV(bufs [][]byte, f func(v unsafe.Pointer, n C.int) C.int) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	v := make([]iov, 0, len(bufs)+1)
	for _, b := range bufs {
		if len(b) > 0 {
			pin.Pin(unsafe.SliceData(b))
			v = append(v, iov{uint64(uintptr(ptr(b))), uint64(len(b))})
		}
	}
	if len(v) == 0 { // the library reads the first element unasked
		v = append(v, iov{})
	}
	return errno(f(unsafe.Pointer(&v[0]), C.int(len(v))))
}

// RSocket creates an rsocket.
func RSocket(domain, typ, proto int) (int, error) {
	var fd C.int
	err := errno(C.zr_rsocket(C.int(domain), C.int(typ), C.int(proto), &fd))
	return int(fd), err
}

func RBind(s int, addr []byte) error {
	return errno(C.zr_rbind(C.int(s), ptr(addr), C.uint32_t(len(addr))))
}

func RListen(s, backlog int) error { return errno(C.zr_rlisten(C.int(s), C.int(backlog))) }

func RAccept(s int, addr *[SockAddrLen]byte) (fd, n int, err error) {
	var f C.int
	l := C.uint32_t(len(addr))
	err = errno(C.zr_raccept(C.int(s), unsafe.Pointer(addr), &l, &f))
	return int(f), int(l), err
}

func RConnect(s int, addr []byte) error {
	return errno(C.zr_rconnect(C.int(s), ptr(addr), C.uint32_t(len(addr))))
}

// RShutdown and RClose do not wait for sends when channel is the socket's.
func RShutdown(s, how, channel int) error {
	return errno(C.zr_rshutdown(C.int(s), C.int(how), C.int(channel)))
}

func RClose(s, channel int) error { return errno(C.zr_rclose(C.int(s), C.int(channel))) }

// RChannel finds the completion channel of a connected socket, or -1.
func RChannel(s int) int { return int(C.zr_rs_channel(C.int(s))) }

// REventFD makes a descriptor that wakes RPoll.
func REventFD() (int, error) {
	var fd C.int
	err := errno(C.zr_rs_eventfd(&fd))
	return int(fd), err
}

func RRecv(s int, b []byte, flags int) (int, error) {
	var n C.int64_t
	err := errno(C.zr_rrecv(C.int(s), ptr(b), C.size_t(len(b)), C.int(flags), &n))
	return int(n), err
}

func RRecvFrom(s int, b []byte, flags int, addr *[SockAddrLen]byte) (int, int, error) {
	var n C.int64_t
	l := C.uint32_t(len(addr))
	err := errno(C.zr_rrecvfrom(C.int(s), ptr(b), C.size_t(len(b)), C.int(flags), unsafe.Pointer(addr), &l, &n))
	return int(n), int(l), err
}

func RRecvMsg(s int, bufs [][]byte, flags int) (int, error) {
	var n C.int64_t
	err := withIOV(bufs, func(v unsafe.Pointer, c C.int) C.int { return C.zr_rrecvmsg(C.int(s), v, c, C.int(flags), &n) })
	return int(n), err
}

func RSend(s int, b []byte, flags int) (int, error) {
	var n C.int64_t
	err := errno(C.zr_rsend(C.int(s), ptr(b), C.size_t(len(b)), C.int(flags), &n))
	return int(n), err
}

func RSendTo(s int, b []byte, flags int, addr []byte) (int, error) {
	var n C.int64_t
	err := errno(C.zr_rsendto(C.int(s), ptr(b), C.size_t(len(b)), C.int(flags), ptr(addr), C.uint32_t(len(addr)), &n))
	return int(n), err
}

func RSendMsg(s int, bufs [][]byte, flags int) (int, error) {
	var n C.int64_t
	err := withIOV(bufs, func(v unsafe.Pointer, c C.int) C.int { return C.zr_rsendmsg(C.int(s), v, c, C.int(flags), &n) })
	return int(n), err
}

func RRead(s int, b []byte) (int, error) {
	var n C.int64_t
	err := errno(C.zr_rread(C.int(s), ptr(b), C.size_t(len(b)), &n))
	return int(n), err
}

func RReadV(s int, bufs [][]byte) (int, error) {
	var n C.int64_t
	err := withIOV(bufs, func(v unsafe.Pointer, c C.int) C.int { return C.zr_rreadv(C.int(s), v, c, &n) })
	return int(n), err
}

func RWrite(s int, b []byte) (int, error) {
	var n C.int64_t
	err := errno(C.zr_rwrite(C.int(s), ptr(b), C.size_t(len(b)), &n))
	return int(n), err
}

func RWriteV(s int, bufs [][]byte) (int, error) {
	var n C.int64_t
	err := withIOV(bufs, func(v unsafe.Pointer, c C.int) C.int { return C.zr_rwritev(C.int(s), v, c, &n) })
	return int(n), err
}

// RPoll holds its thread until a descriptor is ready or the time is over; -1 is endless.
func RPoll(fds []PollFD, timeoutMS int) (int, error) {
	var n C.int
	err := errno(C.zr_rpoll((*C.struct_pollfd)(unsafe.Pointer(unsafe.SliceData(fds))), C.uint64_t(len(fds)), C.int(timeoutMS), &n))
	return int(n), err
}

// RSelect is RPoll over sets of descriptors; none of the sets is nil.
func RSelect(nfds int, r, w, e *FDSet, timeoutMS int) (int, error) {
	var n C.int
	set := func(s *FDSet) *C.fd_set { return (*C.fd_set)(unsafe.Pointer(s)) }
	err := errno(C.zr_rselect(C.int(nfds), set(r), set(w), set(e), C.int(timeoutMS), &n))
	return int(n), err
}

func RGetPeerName(s int, addr *[SockAddrLen]byte) (int, error) {
	l := C.uint32_t(len(addr))
	err := errno(C.zr_rgetpeername(C.int(s), unsafe.Pointer(addr), &l))
	return int(l), err
}

func RGetSockName(s int, addr *[SockAddrLen]byte) (int, error) {
	l := C.uint32_t(len(addr))
	err := errno(C.zr_rgetsockname(C.int(s), unsafe.Pointer(addr), &l))
	return int(l), err
}

func RSetSockOpt(s, level, name int, v []byte) error {
	return errno(C.zr_rsetsockopt(C.int(s), C.int(level), C.int(name), ptr(v), C.uint32_t(len(v))))
}

func RGetSockOpt(s, level, name int, v []byte) (int, error) {
	l := C.uint32_t(len(v))
	err := errno(C.zr_rgetsockopt(C.int(s), C.int(level), C.int(name), ptr(v), &l))
	return int(l), err
}

func RFcntl(s, cmd, arg int) (int, error) {
	var out C.int
	err := errno(C.zr_rfcntl(C.int(s), C.int(cmd), C.long(arg), &out))
	return int(out), err
}

// RIOMap registers b, which the caller keeps pinned until RIOUnmap.
func RIOMap(s int, b []byte, prot, flags int, off int64) (int64, error) {
	var o C.int64_t
	err := errno(C.zr_riomap(C.int(s), ptr(b), C.size_t(len(b)), C.int(prot), C.int(flags), C.int64_t(off), &o))
	return int64(o), err
}

func RIOUnmap(s int, b []byte) error {
	return errno(C.zr_riounmap(C.int(s), ptr(b), C.size_t(len(b))))
}

func RIOWrite(s int, b []byte, off int64, flags int) (int, error) {
	var n C.int64_t
	err := errno(C.zr_riowrite(C.int(s), ptr(b), C.size_t(len(b)), C.int64_t(off), C.int(flags), &n))
	return int(n), err
}
