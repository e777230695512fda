//go:build linux && cgo

package ibv

// #include "zr_cm.h"
import "C"

import (
	"context"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/internal/netpoll"
	p "github.com/zrdma/zrdma/internal/provider"
)

func cInfo(h *p.CMAddrInfo) (c C.struct_zr_cm_info, err error) {
	if h == nil {
		return c, nil
	}
	c.flags, c.family = C.int(h.Flags), C.int(h.Family)
	c.qp_type, c.port_space = C.int(h.QPType), C.int(h.PortSpace)
	if c.src, err = cAddr(h.Src); err != nil {
		return c, err
	}
	c.dst, err = cAddr(h.Dst)
	return c, err
}

// cString gives NULL for the empty string.
func cString(s string) *C.char {
	if s == "" {
		return nil
	}
	return C.CString(s)
}

func (cmgr) GetAddrInfo(node, service string, hints *p.CMAddrInfo) ([]p.CMAddrInfo, error) {
	h, err := cInfo(hints)
	if err != nil {
		return nil, err
	}
	n, s := cString(node), cString(service)
	defer C.free(unsafe.Pointer(n))
	defer C.free(unsafe.Pointer(s))
	var out *C.struct_rdma_addrinfo
	var gai *C.char
	if err := errno(C.zr_cm_getaddrinfo(n, s, &h, &out, &gai)); err != nil {
		if gai != nil {
			return nil, fmt.Errorf("%s: %w", C.GoString(gai), err)
		}
		return nil, err
	}
	defer C.zr_cm_freeaddrinfo(out)
	return goInfo(out), nil
}

func goInfo(ai *C.struct_rdma_addrinfo) (out []p.CMAddrInfo) {
	str := func(s *C.char) string {
		if s == nil {
			return ""
		}
		return C.GoString(s)
	}
	for ; ai != nil; ai = ai.ai_next {
		var s, d C.struct_zr_addr
		C.zr_cm_from_sa(ai.ai_src_addr, &s)
		C.zr_cm_from_sa(ai.ai_dst_addr, &d)
		out = append(out, p.CMAddrInfo{
			Flags: int32(ai.ai_flags), Family: int32(ai.ai_family),
			QPType: p.QPType(ai.ai_qp_type), PortSpace: p.PortSpace(ai.ai_port_space),
			Src: goAddr(&s), Dst: goAddr(&d),
			SrcCanon: str(ai.ai_src_canonname), DstCanon: str(ai.ai_dst_canonname),
			Route:   C.GoBytes(ai.ai_route, C.int(ai.ai_route_len)),
			Connect: C.GoBytes(ai.ai_connect, C.int(ai.ai_connect_len)),
		})
	}
	return out
}

// endpoint is a passive endpoint. Its embedded channel only lends its lock and
// descriptor: the C channel is the endpoint's own and goes with it.
type endpoint struct{ *cmID }

func (cmgr) CreatePassiveEP(cookie uint64, ai *p.CMAddrInfo, d p.PD) (p.CMEndpoint, error) {
	in, err := cInfo(ai)
	if err != nil {
		return nil, err
	}
	var cpd *C.struct_ibv_pd
	if v, ok := d.(*pd); ok {
		cpd = v.o
	}
	x := &cmID{ch: &cmChannel{}, ep: true}
	if err := errno(C.zr_cm_create_ep(&in, cpd, C.uint64_t(cookie), &x.o)); err != nil {
		return nil, err
	}
	if x.ch.fd, err = netpoll.New(int(x.o.channel.fd), "rdma_cm endpoint"); err != nil {
		C.zr_cm_destroy_ep(x.o)
		return nil, err
	}
	x.ch.o = x.o.channel
	return endpoint{x}, nil
}

func (x endpoint) GetRequest(cx context.Context, c p.CMChannel, cookie uint64) (ev p.CMEvent, err error) {
	ch := c.(*cmChannel)
	err = cmWait(cx, x.ch.fd, func() syscall.Errno {
		var e C.struct_zr_cm_event
		var req *C.struct_rdma_cm_id
		x.ch.mu.Lock()
		n := syscall.Errno(C.zr_cm_get_request(x.o, ch.o, C.uint64_t(cookie), &e, &req))
		x.ch.mu.Unlock()
		if n != 0 {
			return n
		}
		ev = goEvent(&e)
		ev.New, ev.NewCookie = &cmID{o: req, ch: ch}, cookie
		return 0
	})
	return ev, err
}

func (x endpoint) Interrupt() { x.ch.fd.Interrupt() }

func (x endpoint) Close() error {
	err := x.ch.fd.Close()
	x.mu.Lock()
	defer x.mu.Unlock()
	C.zr_cm_destroy_ep(x.o)
	return err
}

func (x *cmID) ResolveAddrInfo(node, service string, hints *p.CMAddrInfo) error {
	h, err := cInfo(hints)
	if err != nil {
		return err
	}
	n, s := cString(node), cString(service)
	defer C.free(unsafe.Pointer(n))
	defer C.free(unsafe.Pointer(s))
	return x.do(func() C.int { return C.zr_cm_resolve_info(x.o, n, s, &h) })
}

func (x *cmID) QueryAddrInfo() ([]p.CMAddrInfo, error) {
	var out *C.struct_rdma_addrinfo
	if err := x.do(func() C.int { return C.zr_cm_query_info(x.o, &out) }); err != nil {
		return nil, err
	}
	defer C.zr_cm_freeaddrinfo(out)
	return goInfo(out), nil
}

func (x *cmID) WriteEvent(t p.CMEventType, status int32, arg uint64) error {
	return x.do(func() C.int { return C.zr_cm_write_event(x.o, C.int(t), C.int(status), C.uint64_t(arg)) })
}
