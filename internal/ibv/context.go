//go:build linux && cgo

package ibv

// #include "zr.h"
// static int zr_close(struct ibv_context *c) { return zr_ret(ibv_close_device(c)); }
// static int zr_query_device(struct ibv_context *c, struct ibv_device_attr *a) { return zr_ret(ibv_query_device(c, a)); }
// static int zr_query_gid(struct ibv_context *c, uint8_t p, int i, union ibv_gid *g) { errno = 0; return zr_ret(ibv_query_gid(c, p, i, g)); }
// static int zr_query_gid_ex(struct ibv_context *c, uint32_t p, uint32_t i, struct ibv_gid_entry *e, uint32_t f) { errno = 0; return zr_ret(ibv_query_gid_ex(c, p, i, e, f)); }
// static int zr_query_pkey(struct ibv_context *c, uint8_t p, int i, uint16_t *k) { __be16 b; errno = 0; int rc = zr_ret(ibv_query_pkey(c, p, i, &b)); if (!rc) *k = be16toh(b); return rc; }
// static int zr_pkey_index(struct ibv_context *c, uint8_t p, uint16_t k, int *i) { errno = 0; *i = ibv_get_pkey_index(c, p, htobe16(k)); return *i < 0 ? (errno ? errno : ENOENT) : 0; }
// static int zr_alloc_pd(struct ibv_context *c, struct ibv_pd **o) { errno = 0; *o = ibv_alloc_pd(c); return *o ? 0 : zr_errno(); }
// static int zr_create_channel(struct ibv_context *c, struct ibv_comp_channel **o) { errno = 0; *o = ibv_create_comp_channel(c); return *o ? 0 : zr_errno(); }
// static int zr_ah_from_wc(struct ibv_context *c, uint8_t p, struct ibv_wc *w, void *g, struct ibv_ah_attr *a) { errno = 0; memset(a, 0, sizeof *a); return zr_ret(ibv_init_ah_from_wc(c, p, w, g, a)); }
// static int zr_resolve_eth(struct ibv_context *c, struct ibv_ah_attr *a, uint8_t *mac, uint16_t *vid) { errno = 0; return zr_ret(ibv_resolve_eth_l2_from_gid(c, a, mac, vid)); }
import "C"

import (
	"context"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/internal/netpoll"
	p "github.com/zrdma/zrdma/internal/provider"
)

type ctx struct {
	c        *C.struct_ibv_context
	info     p.DeviceInfo
	rxe      bool // the rxe provider's faults apply: see rxe.go
	borrowed bool // librdmacm's: Close leaves it open
	events   *netpoll.FD
}

func newContext(c *C.struct_ibv_context, info p.DeviceInfo) (*ctx, error) {
	ev, err := netpoll.New(int(c.async_fd), info.Name+" async events")
	if err != nil {
		return nil, err
	}
	return &ctx{c: c, info: info, rxe: driver(info) == "rdma_rxe", events: ev}, nil
}

func (x *ctx) Info() p.DeviceInfo  { return x.info }
func (x *ctx) NumCompVectors() int { return int(x.c.num_comp_vectors) }

func fixGUIDs(a *p.DeviceAttr) {
	a.NodeGUID = p.GUID(p.BE64(uint64(a.NodeGUID)))
	a.SysImageGUID = p.GUID(p.BE64(uint64(a.SysImageGUID)))
}

func (x *ctx) QueryDevice(a *p.DeviceAttr) error {
	err := errno(C.zr_query_device(x.c, (*C.struct_ibv_device_attr)(unsafe.Pointer(a))))
	fixGUIDs(a)
	return err
}

func (x *ctx) QueryDeviceEx(a *p.DeviceAttrEx) error {
	err := errno(C.zr_query_device_ex(x.c, (*C.struct_ibv_device_attr_ex)(unsafe.Pointer(a))))
	fixGUIDs(&a.Orig)
	return err
}

func (x *ctx) QueryPort(port uint8, a *p.PortAttr) error {
	return errno(C.zr_query_port(x.c, C.uint8_t(port), (*C.struct_ibv_port_attr)(unsafe.Pointer(a))))
}

func (x *ctx) QueryGID(port uint8, index int) (g p.GID, err error) {
	var u C.union_ibv_gid
	err = errno(C.zr_query_gid(x.c, C.uint8_t(port), C.int(index), &u))
	copy(g[:], u[:])
	return g, err
}

func (x *ctx) QueryGIDEx(port, index, flags uint32) (e p.GIDEntry, err error) {
	var c C.struct_ibv_gid_entry
	err = errno(C.zr_query_gid_ex(x.c, C.uint32_t(port), C.uint32_t(index), &c, C.uint32_t(flags)))
	return *(*p.GIDEntry)(unsafe.Pointer(&c)), err
}

func (x *ctx) QueryGIDTable(max int, flags uint32) ([]p.GIDEntry, error) {
	if max < 1 {
		return nil, syscall.EINVAL
	}
	max = min(max, 65535/32)         // the kernel's call counts the bytes in 16 bits
	out := make([]p.GIDEntry, max+1) // one more keeps the array at 8-byte alignment for any size
	var n C.size_t
	err := errno(C.zr_query_gid_table(x.c, (*C.struct_ibv_gid_entry)(unsafe.Pointer(&out[0])), C.size_t(max), C.uint32_t(flags), &n))
	if err != nil {
		return nil, err
	}
	return out[:n], nil
}

func (x *ctx) QueryPKey(port uint8, index int) (uint16, error) {
	var k C.uint16_t
	err := errno(C.zr_query_pkey(x.c, C.uint8_t(port), C.int(index), &k))
	return uint16(k), err
}

func (x *ctx) PKeyIndex(port uint8, pkey uint16) (int, error) {
	var i C.int
	err := errno(C.zr_pkey_index(x.c, C.uint8_t(port), C.uint16_t(pkey), &i))
	return int(i), err
}

// QueryRTValues reads the raw hardware clock, in ticks.
func (x *ctx) QueryRTValues() (uint64, uint64, error) {
	var s, ns C.uint64_t
	err := errno(C.zr_query_rt_values(x.c, &s, &ns))
	return uint64(s), uint64(ns), err
}

func (x *ctx) InitAHFromWC(port uint8, wc *p.WC, grh *[40]byte) (a p.AHAttr, err error) {
	var c C.struct_ibv_ah_attr
	w, g := *wc, alignedGRH(grh)
	err = errno(C.zr_ah_from_wc(x.c, C.uint8_t(port), (*C.struct_ibv_wc)(unsafe.Pointer(&w)), unsafe.Pointer(&g[0]), &c))
	return *(*p.AHAttr)(unsafe.Pointer(&c)), err
}

func alignedGRH(grh *[40]byte) *[5]uint64 {
	var g [5]uint64
	if grh != nil {
		copy((*[40]byte)(unsafe.Pointer(&g))[:], grh[:])
	}
	return &g
}

func (x *ctx) ResolveEthL2(a *p.AHAttr) (mac [6]byte, vid uint16, err error) {
	var v C.uint16_t
	b := cAH(a)
	err = errno(C.zr_resolve_eth(x.c, &b, (*C.uint8_t)(&mac[0]), &v))
	return mac, uint16(v), err
}

func cAH(a *p.AHAttr) C.struct_ibv_ah_attr {
	var c C.struct_ibv_ah_attr
	*(*p.AHAttr)(unsafe.Pointer(&c)) = *a
	return c
}

func (x *ctx) GetEvent(cx context.Context) (p.AsyncEvent, error) {
	var e C.struct_zr_async_event
	err := x.events.Wait(cx, func() syscall.Errno { return syscall.Errno(C.zr_get_async_event(x.c, &e)) })
	return p.AsyncEvent{Type: p.EventType(e._type), Cookie: uint64(e.cookie), Port: uint32(e.port)}, err
}

func (x *ctx) Interrupt() { x.events.Interrupt() }

func (x *ctx) Close() error {
	if !x.borrowed {
		if err := errno(C.zr_close(x.c)); err != nil {
			x.events.Resume()
			return err
		}
	}
	return x.events.Close()
}

func (x *ctx) AllocPD() (p.PD, error) {
	var o *C.struct_ibv_pd
	if err := errno(C.zr_alloc_pd(x.c, &o)); err != nil {
		return nil, err
	}
	return &pd{o: o, x: x}, nil
}

func (x *ctx) CreateCompChannel() (p.CompChannel, error) {
	var o *C.struct_ibv_comp_channel
	if err := errno(C.zr_create_channel(x.c, &o)); err != nil {
		return nil, err
	}
	fd, err := netpoll.New(int(o.fd), x.info.Name+" completion channel")
	if err != nil {
		C.ibv_destroy_comp_channel(o)
		return nil, err
	}
	return &channel{o, fd}, nil
}
