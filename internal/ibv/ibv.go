//go:build linux && cgo

// Package ibv is the provider on libibverbs and librdmacm, and the only package
// with import "C". The libraries are loaded at run time: a program built with
// it starts on a machine that has neither.
package ibv

/*
#cgo CFLAGS: -O2 -Wall
#cgo LDFLAGS: -ldl
#cgo noescape zr_post_send
#cgo nocallback zr_post_send
#cgo noescape zr_post_recv
#cgo nocallback zr_post_recv
#cgo noescape zr_post_srq_recv
#cgo nocallback zr_post_srq_recv
#cgo noescape zr_poll_cq
#cgo nocallback zr_poll_cq
#cgo noescape zr_poll_spin
#cgo nocallback zr_poll_spin
#cgo noescape zr_poll_cq_ex
#cgo nocallback zr_poll_cq_ex
#cgo noescape zr_wr_post
#cgo nocallback zr_wr_post
#cgo noescape zr_get_cq_event
#cgo nocallback zr_get_cq_event
#include "zr.h"
static struct ibv_device **zr_device_list(int *n) { errno = 0; return ibv_get_device_list(n); }
*/
import "C"

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	p "github.com/zrdma/zrdma/internal/provider"
)

func errno(n C.int) error {
	if n == 0 {
		return nil
	}
	return syscall.Errno(n)
}

// Loaded reports why libibverbs.so.1 or librdmacm.so.1 cannot be used.
func Loaded(rdmacm bool) error {
	which := C.int(C.ZR_LIB_VERBS)
	pkg := "libibverbs1 ibverbs-providers"
	if rdmacm {
		which, pkg = C.ZR_LIB_RDMACM, "librdmacm1"
	}
	if e := C.zr_lib_error(which); e != nil {
		return fmt.Errorf("%s (install it: apt-get install %s): %w", C.GoString(e), pkg, syscall.ENOSYS)
	}
	return nil
}

type device struct{ info p.DeviceInfo }

// Devices lists the kernel's devices. ENOSYS says that ib_uverbs is not loaded.
func Devices() ([]p.Device, error) {
	if err := Loaded(false); err != nil {
		return nil, err
	}
	C.zr_static_providers()
	var n C.int
	l, err := C.zr_device_list(&n)
	if l == nil {
		if err == nil {
			err = syscall.ENOSYS
		}
		return nil, err
	}
	defer C.ibv_free_device_list(l)
	var out []p.Device
	for _, d := range unsafe.Slice(l, int(n)) {
		out = append(out, &device{p.DeviceInfo{
			Name:      C.GoString(C.ibv_get_device_name(d)),
			DevName:   C.GoString(&d.dev_name[0]),
			IBDevPath: C.GoString(&d.ibdev_path[0]),
			GUID:      p.GUID(p.BE64(uint64(C.ibv_get_device_guid(d)))),
			Index:     int(C.ibv_get_device_index(d)),
			NodeType:  p.NodeType(d.node_type),
			Transport: p.TransportType(d.transport_type),
		}})
	}
	return out, nil
}

func (d *device) Info() p.DeviceInfo { return d.info }

func (d *device) Open() (p.Context, error) {
	name := C.CString(d.info.Name)
	defer C.free(unsafe.Pointer(name))
	var c *C.struct_ibv_context
	if err := errno(C.zr_open(name, &c)); err != nil {
		return nil, err
	}
	ctx, err := newContext(c, d.info)
	if err != nil {
		C.ibv_close_device(c)
		return nil, err
	}
	return ctx, nil
}

// Driver names the kernel driver of a device ("rdma_rxe", "mlx5_core"), or "".
func driver(info p.DeviceInfo) string {
	if t, err := os.Readlink(filepath.Join(info.IBDevPath, "device/driver")); err == nil {
		return filepath.Base(t)
	}
	if strings.HasPrefix(info.Name, "rxe") {
		return "rdma_rxe"
	}
	// rxe has no parent device; its hardware revision file does not tell either,
	// but its parent attribute names the netdev.
	if _, err := os.Stat(filepath.Join(info.IBDevPath, "parent")); err == nil {
		return "rdma_rxe"
	}
	return ""
}
