//go:build linux && cgo

package ibv

// #include "zr_cm.h"
import "C"

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/internal/netpoll"
	p "github.com/zrdma/zrdma/internal/provider"
)

// CM is the connection manager of librdmacm.
func CM() (p.CM, error) {
	if err := Loaded(true); err != nil {
		return nil, err
	}
	return cmgr{}, nil
}

// CMEventStr is librdmacm's own text for an event.
func CMEventStr(t p.CMEventType) string { return C.GoString(C.zr_cm_event_str(C.int(t))) }

// CMSetErrno passes an errno through the -1-and-errno convention of librdmacm.
func CMSetErrno(e syscall.Errno) error { return errno(C.zr_cm_seterrno(C.int(e))) }

type cmgr struct{}

// cmChannel is an event channel. mu is held around taking an event together
// with librdmacm's work on it (it moves queue pairs to their next state there),
// and around destroying what such an event could be about.
type cmChannel struct {
	o  *C.struct_rdma_event_channel
	fd *netpoll.FD
	mu sync.Mutex
}

func (cmgr) CreateChannel() (p.CMChannel, error) {
	ch := &cmChannel{}
	if err := errno(C.zr_cm_channel(&ch.o)); err != nil {
		return nil, err
	}
	var err error
	if ch.fd, err = netpoll.New(int(ch.o.fd), "rdma_cm events"); err != nil {
		C.zr_cm_channel_free(ch.o)
		return nil, err
	}
	return ch, nil
}

func (ch *cmChannel) try(fresh func() uint64, ev *p.CMEvent) syscall.Errno {
	var e C.struct_zr_cm_event
	var req *C.struct_rdma_cm_id
	cookie := fresh()
	ch.mu.Lock()
	n := syscall.Errno(C.zr_cm_get_event(ch.o, C.uint64_t(cookie), &e, &req))
	ch.mu.Unlock()
	if n != 0 {
		return n
	}
	*ev = goEvent(&e)
	if req != nil {
		ev.New, ev.NewCookie = &cmID{o: req, ch: ch}, cookie
	}
	return 0
}

func goEvent(e *C.struct_zr_cm_event) p.CMEvent {
	c := &e.conn
	return p.CMEvent{
		Type: p.CMEventType(e._type), Status: int32(e.status),
		Cookie: uint64(e.cookie), Group: uint64(e.group), Arg: uint64(e.arg),
		Conn: p.CMConnParam{
			Private:            C.GoBytes(unsafe.Pointer(&c.priv[0]), C.int(c.priv_len)),
			ResponderResources: uint8(c.resp_res), InitiatorDepth: uint8(c.init_depth),
			FlowControl: c.flow != 0, RetryCount: uint8(c.retry), RNRRetryCount: uint8(c.rnr_retry),
			SRQ: c.srq != 0, QPN: uint32(c.qpn),
		},
		UD: p.CMUDParam{AH: *(*p.AHAttr)(unsafe.Pointer(&e.ah)), QPN: uint32(e.ud_qpn), QKey: uint32(e.ud_qkey)},
	}
}

// cmWait goes on after the EAGAIN that netpoll gives when the deadline of an
// earlier waiter fired late.
func cmWait(ctx context.Context, fd *netpoll.FD, try func() syscall.Errno) error {
	for {
		if err := fd.Wait(ctx, try); err != syscall.EAGAIN {
			return err
		}
	}
}

func (ch *cmChannel) Get(ctx context.Context, fresh func() uint64) (ev p.CMEvent, err error) {
	err = cmWait(ctx, ch.fd, func() syscall.Errno { return ch.try(fresh, &ev) })
	return ev, err
}

func (ch *cmChannel) TryGet(fresh func() uint64) (ev p.CMEvent, err error) {
	if n := ch.try(fresh, &ev); n != 0 {
		return ev, n
	}
	return ev, nil
}

func (ch *cmChannel) Interrupt() { ch.fd.Interrupt() }

func (ch *cmChannel) Close() error {
	err := ch.fd.Close()
	C.zr_cm_channel_free(ch.o)
	return err
}

// cmID is an id. mu serialises its calls into librdmacm, whose id fields have no
// lock of their own. Lock order: mu, then the channel's.
type cmID struct {
	o    *C.struct_rdma_cm_id
	mu   sync.Mutex
	ch   *cmChannel // guarded by mu
	qp   *qp        // guarded by mu: what CreateQP made
	comp [2]*netpoll.FD
	pd   *pd

	joined int  // guarded by mu: groups whose leaving would need qp
	ep     bool // made by rdma_create_ep: ch stands for its own channel
}

func (cmgr) CreateID(ch p.CMChannel, cookie uint64, ps p.PortSpace) (p.CMID, error) {
	x := &cmID{ch: ch.(*cmChannel)}
	if err := errno(C.zr_cm_id(x.ch.o, C.uint64_t(cookie), C.int(ps), &x.o)); err != nil {
		return nil, err
	}
	return x, nil
}

func (x *cmID) do(f func() C.int) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return errno(f())
}

// quiet runs f while no event of the id is being taken.
func (x *cmID) quiet(f func() C.int) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ch.mu.Lock()
	defer x.ch.mu.Unlock()
	return errno(f())
}

func (x *cmID) PortSpace() p.PortSpace { return p.PortSpace(x.o.ps) }

func (x *cmID) Port() uint8 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return uint8(x.o.port_num)
}

func (x *cmID) addrs() (local, peer netip.AddrPort) {
	var l, r C.struct_zr_addr
	x.mu.Lock()
	C.zr_cm_addrs(x.o, &l, &r)
	x.mu.Unlock()
	return goAddr(&l), goAddr(&r)
}

func (x *cmID) LocalAddr() netip.AddrPort { a, _ := x.addrs(); return a }
func (x *cmID) PeerAddr() netip.AddrPort  { _, a := x.addrs(); return a }

func goAddr(a *C.struct_zr_addr) netip.AddrPort {
	b := (*[16]byte)(unsafe.Pointer(&a.ip))
	switch a.family {
	case syscall.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), uint16(a.port))
	case syscall.AF_INET6:
		ip := netip.AddrFrom16(*b)
		if a.scope != 0 {
			ip = ip.WithZone(zoneName(uint32(a.scope)))
		}
		return netip.AddrPortFrom(ip, uint16(a.port))
	}
	return netip.AddrPort{}
}

func zoneName(scope uint32) string {
	if ifi, err := net.InterfaceByIndex(int(scope)); err == nil {
		return ifi.Name
	}
	return strconv.Itoa(int(scope))
}

// cAddr converts an address; an invalid one becomes none. IPv4-mapped addresses
// become IPv4, which is what the kernel compares with.
func cAddr(a netip.AddrPort) (c C.struct_zr_addr, err error) {
	ip := a.Addr()
	if !ip.IsValid() {
		return c, nil
	}
	if z := ip.Zone(); z != "" {
		if ifi, err := net.InterfaceByName(z); err == nil {
			c.scope = C.uint32_t(ifi.Index)
		} else if n, err := strconv.ParseUint(z, 10, 32); err == nil {
			c.scope = C.uint32_t(n)
		} else {
			return c, syscall.ENODEV
		}
	}
	ip = ip.WithZone("").Unmap()
	c.port = C.uint16_t(a.Port())
	b := (*[16]byte)(unsafe.Pointer(&c.ip))
	if ip.Is4() {
		c.family = syscall.AF_INET
		v := ip.As4()
		copy(b[:], v[:])
	} else {
		c.family = syscall.AF_INET6
		*b = ip.As16()
	}
	return c, nil
}

func (x *cmID) withAddr(a netip.AddrPort, f func(C.struct_zr_addr) C.int) error {
	c, err := cAddr(a)
	if err != nil {
		return err
	}
	if c.family == 0 {
		return syscall.EINVAL
	}
	return x.do(func() C.int { return f(c) })
}

func (x *cmID) Bind(a netip.AddrPort) error {
	return x.withAddr(a, func(c C.struct_zr_addr) C.int { return C.zr_cm_bind(x.o, c) })
}

func (x *cmID) ResolveAddr(src, dst netip.AddrPort, timeoutMS int) error {
	s, err := cAddr(src)
	if err != nil {
		return err
	}
	return x.withAddr(dst, func(d C.struct_zr_addr) C.int { return C.zr_cm_resolve_addr(x.o, s, d, C.int(timeoutMS)) })
}

func (x *cmID) ResolveRoute(timeoutMS int) error {
	return x.do(func() C.int { return C.zr_cm_resolve_route(x.o, C.int(timeoutMS)) })
}

func cConn(c *p.CMConnParam) (o C.struct_zr_cm_conn, err error) {
	if len(c.Private) > 255 {
		return o, syscall.EINVAL
	}
	for i, b := range c.Private {
		o.priv[i] = C.uint8_t(b)
	}
	o.priv_len = C.uint8_t(len(c.Private))
	o.resp_res, o.init_depth = C.uint8_t(c.ResponderResources), C.uint8_t(c.InitiatorDepth)
	o.retry, o.rnr_retry, o.qpn = C.uint8_t(c.RetryCount), C.uint8_t(c.RNRRetryCount), C.uint32_t(c.QPN)
	if c.FlowControl {
		o.flow = 1
	}
	if c.SRQ {
		o.srq = 1
	}
	return o, nil
}

func (x *cmID) Connect(c *p.CMConnParam) error {
	o, err := cConn(c)
	if err != nil {
		return err
	}
	return x.do(func() C.int { return C.zr_cm_connect(x.o, &o) })
}

func (x *cmID) Accept(c *p.CMConnParam) error {
	o, err := cConn(c)
	if err != nil {
		return err
	}
	return x.do(func() C.int { return C.zr_cm_accept(x.o, &o) })
}

func (x *cmID) reject(private []byte, ece C.int) error {
	if len(private) > 255 {
		return syscall.EINVAL
	}
	return x.do(func() C.int {
		return C.zr_cm_reject(x.o, (*C.uint8_t)(unsafe.SliceData(private)), C.uint8_t(len(private)), ece)
	})
}

func (x *cmID) Reject(private []byte) error    { return x.reject(private, 0) }
func (x *cmID) RejectECE(private []byte) error { return x.reject(private, 1) }

func (x *cmID) Listen(backlog int) error {
	return x.do(func() C.int { return C.zr_cm_listen(x.o, C.int(backlog)) })
}

func (x *cmID) Establish() error { return x.do(func() C.int { return C.zr_cm_establish(x.o) }) }

func (x *cmID) Disconnect() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.qp != nil {
		x.qp.inErr.Store(true) // librdmacm moves it there, whatever it returns
	}
	return errno(C.zr_cm_disconnect(x.o))
}

func (x *cmID) Notify(t p.EventType) error {
	return x.do(func() C.int { return C.zr_cm_notify(x.o, C.int(t)) })
}

func (x *cmID) SetOption(level, name int, value []byte) error {
	if len(value) == 0 {
		return syscall.EINVAL
	}
	return x.do(func() C.int {
		return C.zr_cm_option(x.o, C.int(level), C.int(name), unsafe.Pointer(&value[0]), C.size_t(len(value)))
	})
}

func (x *cmID) JoinMulticast(a netip.AddrPort, group uint64, flags uint32, ex bool) error {
	var e C.int
	if ex {
		e = 1
	}
	return x.withAddr(a, func(c C.struct_zr_addr) C.int {
		n := C.zr_cm_join(x.o, c, C.uint64_t(group), C.uint32_t(flags), e)
		if n == 0 {
			x.joined++
		}
		return n
	})
}

func (x *cmID) LeaveMulticast(a netip.AddrPort) error {
	c, err := cAddr(a)
	if err != nil {
		return err
	}
	return x.quiet(func() C.int {
		n := C.zr_cm_leave(x.o, c)
		if n == 0 {
			x.joined--
		}
		return n
	})
}

func (x *cmID) SetLocalECE(e p.ECE) error {
	return x.do(func() C.int { return C.zr_cm_ece(x.o, (*C.struct_ibv_ece)(unsafe.Pointer(&e)), 1) })
}

func (x *cmID) RemoteECE() (e p.ECE, err error) {
	err = x.do(func() C.int { return C.zr_cm_ece(x.o, (*C.struct_ibv_ece)(unsafe.Pointer(&e)), 0) })
	return e, err
}

// Migrate holds only the id's lock: an event of it that is being taken from the
// old channel is acknowledged there, which is what librdmacm waits for.
func (x *cmID) Migrate(c p.CMChannel) error {
	ch := c.(*cmChannel)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ep {
		return syscall.EINVAL
	}
	if err := errno(C.zr_cm_migrate(x.o, ch.o)); err != nil {
		return err
	}
	x.ch = ch
	return nil
}

func (x *cmID) Close() error {
	return x.quiet(func() C.int { return C.zr_cm_id_free(x.o) })
}
