package verbs

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// PD is a protection domain: queue pairs reach only memory of their own domain.
type PD struct {
	h handle.Handle
	c *Context
	p provider.PD

	borrowed bool // the connection manager's: Close leaves it allocated
}

// AllocPD allocates a protection domain.
//
// Verb: ibv_alloc_pd(3).
func (c *Context) AllocPD() (*PD, error) {
	p, err := create(&c.h, "ibv_alloc_pd", c.p.AllocPD)
	if err != nil {
		return nil, err
	}
	return newPD(c, p, "ibv_alloc_pd")
}

func newPD(c *Context, p provider.PD, verb string, parents ...*handle.Handle) (*PD, error) {
	d := &PD{c: c, p: p}
	if err := d.h.Init("verbs.PD", append(parents, &c.h)...); err != nil {
		p.Close()
		return nil, verbErr(verb, err)
	}
	watch(d, &d.h)
	return d, nil
}

// create calls a provider's constructor with the parent's gate held.
func create[T any](h *handle.Handle, verb string, f func() (T, error)) (T, error) {
	var zero T
	if err := enter(h, verb); err != nil {
		return zero, err
	}
	defer h.Exit()
	o, err := f()
	if err != nil {
		return zero, verbErr(verb, err)
	}
	return o, nil
}

// Context is the device the domain belongs to.
func (d *PD) Context() *Context { return d.c }

// Close frees the domain: ErrInUse while regions, windows, address handles or
// queue pairs of it are open.
//
// Verb: ibv_dealloc_pd(3).
func (d *PD) Close() error {
	return verbErr("ibv_dealloc_pd", d.h.Close(func() error {
		if d.borrowed {
			return nil
		}
		return d.p.Close()
	}))
}

// MR is a registered memory region. While it is open its memory is pinned and
// reachable, so the garbage collector neither moves nor frees it.
type MR struct {
	h      handle.Handle
	d      *PD
	p      provider.MR
	buf    []byte // keeps Go memory reachable; nil for memory given by address
	pin    runtime.Pinner
	addr   uint64
	length uint64
	iova   uint64
}

// RegMR registers b: mapped or C memory, or a Go slice on the heap, which is
// pinned until Close. Work requests address it by its virtual address.
//
// It fails with EINVAL when access gives a remote peer the right to write
// without AccessLocalWrite, and with ENOMEM when RLIMIT_MEMLOCK is too small.
//
// Verb: ibv_reg_mr(3), ibv_reg_mr_iova2(3).
func (d *PD) RegMR(b []byte, access AccessFlags) (*MR, error) {
	return d.reg("ibv_reg_mr", b, 0, 0, 0, false, access)
}

// RegMRIOVA is RegMR with the address that work requests use chosen by the
// caller: byte i of b is at iova+i.
//
// Verb: ibv_reg_mr_iova(3), ibv_reg_mr_iova2(3).
func (d *PD) RegMRIOVA(b []byte, iova uint64, access AccessFlags) (*MR, error) {
	return d.reg("ibv_reg_mr_iova", b, 0, 0, iova, true, access)
}

// RegMRAddr is RegMR for memory that is no Go slice, given by address. The
// caller keeps it mapped until Close.
//
// Verb: ibv_reg_mr(3).
func (d *PD) RegMRAddr(addr, length uint64, access AccessFlags) (*MR, error) {
	return d.reg("ibv_reg_mr", nil, addr, length, 0, false, access)
}

func (d *PD) reg(verb string, b []byte, addr, length, iova uint64, useIOVA bool, access AccessFlags) (*MR, error) {
	if b == nil && addr == 0 && access&AccessOnDemand == 0 || b != nil && len(b) == 0 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "the memory to register is empty"}
	}
	if access&(AccessRemoteWrite|AccessRemoteAtomic) != 0 && access&AccessLocalWrite == 0 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "remote write or atomic access needs AccessLocalWrite too"}
	}
	if err := enter(&d.h, verb); err != nil {
		return nil, err
	}
	defer d.h.Exit()
	m := &MR{d: d, buf: b, addr: addr, length: length}
	if b != nil {
		m.pin.Pin(unsafe.SliceData(b))
		m.addr, m.length = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), uint64(len(b))
	}
	m.iova = m.addr
	if useIOVA {
		m.iova = iova
	}
	p, err := d.p.RegMR(m.addr, m.length, iova, useIOVA, access)
	if err != nil {
		m.pin.Unpin()
		return nil, regHint(verb, err, m.length)
	}
	return m.init(p, verb)
}

func (m *MR) init(p provider.MR, verb string, parents ...*handle.Handle) (*MR, error) {
	m.p = p
	if err := m.h.Init("verbs.MR", append(parents, &m.d.h)...); err != nil {
		p.Close()
		m.pin.Unpin()
		return nil, verbErr(verb, err)
	}
	watch(m, &m.h)
	return m, nil
}

// regHint explains the locked-memory limit, the usual cause of ENOMEM.
func regHint(verb string, err error, length uint64) error {
	if !errors.Is(err, syscall.ENOMEM) {
		return verbErr(verb, err)
	}
	limit, ok := memlockLimit()
	if !ok {
		return hinted(verb, err, fmt.Sprintf("registering %d bytes", length))
	}
	return hinted(verb, err, fmt.Sprintf("registering %d bytes: the locked-memory limit is %d bytes; raise it with `ulimit -l` or LimitMEMLOCK=", length, limit))
}

// PD is the domain the region belongs to.
func (m *MR) PD() *PD { return m.d }

// LKey authorises local access. It is 0 after Close.
func (m *MR) LKey() LKey { return m.p.LKey() }

// RKey authorises remote access, where the region was registered for it.
func (m *MR) RKey() RKey { return m.p.RKey() }

// Addr is the address of the first byte as work requests use it: the virtual
// address, or the iova the region was registered with.
func (m *MR) Addr() uint64 { return m.iova }

// Len is the length in bytes.
func (m *MR) Len() uint64 { return m.length }

// Bytes is the registered slice, nil when the region was registered by address.
func (m *MR) Bytes() []byte { return m.buf }

// SGE describes n bytes at offset off of the region. It panics when they are
// not inside, as slicing does, and when an element cannot hold n: 4 GiB and more.
func (m *MR) SGE(off, n int) SGE {
	if off < 0 || n < 0 || uint64(n) > math.MaxUint32 || uint64(off)+uint64(n) > m.length {
		panic(fmt.Sprintf("verbs: SGE [%d:+%d] outside a region of %d bytes", off, n, m.length))
	}
	return SGE{Addr: m.iova + uint64(off), Length: uint32(n), LKey: m.LKey()}
}

// Close deregisters the region: EINVAL while a memory window is bound to it.
// After Close the device has stopped touching the memory.
//
// Verb: ibv_dereg_mr(3).
func (m *MR) Close() error {
	return verbErr("ibv_dereg_mr", m.h.Close(func() error {
		if err := m.p.Close(); err != nil {
			return err
		}
		m.pin.Unpin()
		m.p = deadMR{}
		return nil
	}))
}

// deadMR stands in for a closed region, whose keys mean nothing.
type deadMR struct{}

func (deadMR) Handle() uint64      { return 0 }
func (deadMR) LKey() provider.LKey { return 0 }
func (deadMR) RKey() provider.RKey { return 0 }
func (deadMR) Close() error        { return nil }

// MW is a memory window: a key that exposes part of a region for as long as it
// is bound.
type MW struct {
	h handle.Handle
	d *PD
	p provider.MW
	t MWType
}

// AllocMW allocates a memory window. A type 1 window is bound by QP.BindMW, a
// type 2 window by posting WRBindMW.
//
// Verb: ibv_alloc_mw(3).
func (d *PD) AllocMW(t MWType) (*MW, error) {
	p, err := create(&d.h, "ibv_alloc_mw", func() (provider.MW, error) { return d.p.AllocMW(t) })
	if err != nil {
		return nil, err
	}
	w := &MW{d: d, p: p, t: t}
	if err := w.h.Init("verbs.MW", &d.h); err != nil {
		p.Close()
		return nil, verbErr("ibv_alloc_mw", err)
	}
	watch(w, &w.h)
	return w, nil
}

// Type is the type of the window.
func (w *MW) Type() MWType { return w.t }

// RKey is the key of the last bind; 0 once the window is closed.
func (w *MW) RKey() RKey {
	if w.h.Enter() != nil {
		return 0
	}
	defer w.h.Exit()
	return w.p.RKey()
}

// SetRKey stores the key of a type 2 bind, once it was posted: libibverbs leaves
// that to the application, and the next bind fails without it.
func (w *MW) SetRKey(k RKey) {
	if w.h.Enter() == nil {
		w.p.SetRKey(k)
		w.h.Exit()
	}
}

// Close frees the window; a bound one is unbound by it.
//
// Verb: ibv_dealloc_mw(3).
func (w *MW) Close() error { return verbErr("ibv_dealloc_mw", w.h.Close(w.p.Close)) }

// IncRKey gives the key for the next bind of a type 2 window: its low byte is
// the consumer's and wraps.
//
// Verb: ibv_inc_rkey(3).
func IncRKey(k RKey) RKey { return k&^0xff | RKey(uint8(k)+1) }

// AH is an address handle: where a UD message goes.
type AH struct {
	h handle.Handle
	p provider.AH
}

func newAH(d *PD, p provider.AH, verb string) (*AH, error) {
	a := &AH{p: p}
	if err := a.h.Init("verbs.AH", &d.h); err != nil {
		p.Close()
		return nil, verbErr(verb, err)
	}
	watch(a, &a.h)
	return a, nil
}

// CreateAH makes an address handle. On RoCE attr.IsGlobal and attr.GRH are required.
//
// Verb: ibv_create_ah(3).
func (d *PD) CreateAH(attr AHAttr) (*AH, error) {
	p, err := create(&d.h, "ibv_create_ah", func() (provider.AH, error) { return d.p.CreateAH(&attr) })
	if err != nil {
		return nil, err
	}
	return newAH(d, p, "ibv_create_ah")
}

// CreateAHFromWC makes the address handle to answer a UD message: wc is its
// completion, grh the first 40 bytes of the receive buffer.
//
// Verb: ibv_create_ah_from_wc(3).
func (d *PD) CreateAHFromWC(wc *WC, grh *[40]byte, port uint8) (*AH, error) {
	p, err := create(&d.h, "ibv_create_ah_from_wc", func() (provider.AH, error) { return d.p.CreateAHFromWC(wc, grh, port) })
	if err != nil {
		return nil, err
	}
	return newAH(d, p, "ibv_create_ah_from_wc")
}

// Close frees the address handle.
//
// Verb: ibv_destroy_ah(3).
func (a *AH) Close() error { return verbErr("ibv_destroy_ah", a.h.Close(a.p.Close)) }
