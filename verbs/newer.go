package verbs

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/ibv"
	"github.com/zrdma/zrdma/internal/provider"
)

// What libibverbs got after rdma-core 44. Where the library of this machine is
// older, the error is an errors.ErrUnsupported that names the version needed.

// WROpcodeStr is libibverbs' text for an opcode, or the constant's name where
// the library (before rdma-core 49) has none. Unknown values are safe.
//
// Verb: ibv_wr_opcode_str(3).
func WROpcodeStr(op WROpcode) string {
	switch op {
	case WRRDMAWrite, WRRDMAWriteWithImm, WRSend, WRSendWithImm, WRRDMARead, WRAtomicCmpAndSwp, WRAtomicFetchAndAdd,
		WRLocalInv, WRBindMW, WRSendWithInv, WRTSO:
		return ibv.WROpcodeStr(op)
	}
	return op.String()
}

// QueryPortSpeed is the effective speed of a port in units of 100 Mbit/s, of all
// its lanes and of all ports bonded to it. rdma-core 62.
//
// Verb: ibv_query_port_speed(3).
func (c *Context) QueryPortSpeed(port uint32) (uint64, error) {
	n, err := createRare(&c.h, "ibv_query_port_speed", c.p, func(i provider.PortSpeeder) (uint64, error) { return i.QueryPortSpeed(port) })
	return n, since("62", err)
}

// TPHMemType is the kind of memory that a DMA handle is for.
//
// Source: enum ibv_tph_mem_type.
type TPHMemType = provider.TPHMemType

// Values of TPHMemType.
const (
	TPHMemVM = provider.TPHMemVM // volatile
	TPHMemPM = provider.TPHMemPM // persistent
)

// DMAHConfig are TLP processing hints; nil fields are left to the device.
//
// Source: struct ibv_dmah_init_attr.
type DMAHConfig struct {
	CPUID   *uint32 // the CPU whose cache the data should go to
	PH      *uint8  // processing hint, 2 bits
	MemType *TPHMemType
}

// DMAH is a DMA handle: hints for the PCIe transactions of a region.
type DMAH struct {
	h handle.Handle
	p provider.DMAH
}

// AllocDMAH makes a DMA handle, for MRExConfig.DMAH. rdma-core 59.
//
// Verb: ibv_alloc_dmah(3).
func (c *Context) AllocDMAH(cfg DMAHConfig) (*DMAH, error) {
	const verb = "ibv_alloc_dmah"
	var in provider.DMAHInit
	if cfg.CPUID != nil {
		in.Mask, in.CPUID = in.Mask|provider.DMAHMaskCPUID, *cfg.CPUID
	}
	if cfg.PH != nil {
		in.Mask, in.PH = in.Mask|provider.DMAHMaskPH, *cfg.PH
	}
	if cfg.MemType != nil {
		in.Mask, in.MemType = in.Mask|provider.DMAHMaskMemType, *cfg.MemType
	}
	p, err := createRare(&c.h, verb, c.p, func(i provider.DMAHAllocator) (provider.DMAH, error) { return i.AllocDMAH(&in) })
	if err != nil {
		return nil, since("59", err)
	}
	d := &DMAH{p: p}
	if err := adopt(&d.h, "verbs.DMAH", verb, p, &c.h); err != nil {
		return nil, err
	}
	watch(d, &d.h)
	return d, nil
}

// Close frees the handle: ErrInUse while a region uses it.
//
// Verb: ibv_dealloc_dmah(3).
func (d *DMAH) Close() error { return verbErr("ibv_dealloc_dmah", d.h.Close(d.p.Close)) }

// MRExConfig describes a region of memory (Bytes), of a dma-buf (FD) or of a Buf.
//
// Source: struct ibv_mr_init_attr.
type MRExConfig struct {
	Bytes    []byte
	Length   uint64      // of the part of the dma-buf
	Access   AccessFlags // the rights; 0: local read
	IOVA     *uint64     // the address that work requests use; nil: that of the memory
	FD       *int        // a dma-buf, open during the call
	FDOffset uint64      // bytes into the dma-buf
	DMAH     *DMAH       // nil: none
	Buf      *Buf        // the Buf that Bytes are of (rdma-core 64)
}

// RegMREx is the registration that knows every option. rdma-core 59.
//
// Verb: ibv_reg_mr_ex(3).
func (d *PD) RegMREx(cfg MRExConfig) (*MR, error) {
	const verb = "ibv_reg_mr_ex"
	if (cfg.FD == nil) == (len(cfg.Bytes) == 0) || cfg.FD != nil && cfg.Length == 0 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "either Bytes, or FD with Length"}
	}
	in := provider.MRExInit{Length: cfg.Length, Access: cfg.Access}
	m := &MR{d: d, buf: cfg.Bytes}
	var parents []*handle.Handle
	if cfg.FD != nil {
		in.FD, in.FDOffset = *cfg.FD, cfg.FDOffset
		in.Mask |= provider.RegMRMaskFD | provider.RegMRMaskFDOffset
	} else {
		m.pin.Pin(unsafe.SliceData(cfg.Bytes))
		m.addr = addr(cfg.Bytes)
		in.Addr, in.Length = m.addr, uint64(len(cfg.Bytes))
		in.Mask |= provider.RegMRMaskAddr
	}
	m.iova, m.length = m.addr, in.Length
	if cfg.IOVA != nil {
		m.iova, in.IOVA = *cfg.IOVA, *cfg.IOVA
		in.Mask |= provider.RegMRMaskIOVA
	}
	if cfg.DMAH != nil {
		in.DMAH = cfg.DMAH.p
		in.Mask |= provider.RegMRMaskDMAH
		parents = append(parents, &cfg.DMAH.h)
	}
	if cfg.Buf != nil {
		in.Buf = cfg.Buf.p
		in.Mask |= provider.RegMRMaskBuf
		parents = append(parents, &cfg.Buf.h)
	}
	return m.initRare(verb, "59", d, parents, func(i provider.MRExRegistrar) (provider.MR, error) { return i.RegMREx(&in) })
}

// initRare registers with the gates of all parents held, so that none is freed
// before the region is its child.
func (m *MR) initRare(verb, version string, d *PD, parents []*handle.Handle, f func(provider.MRExRegistrar) (provider.MR, error)) (*MR, error) {
	for _, h := range parents {
		if err := enter(h, verb); err != nil {
			m.pin.Unpin()
			return nil, err
		}
		defer h.Exit()
	}
	p, err := createRare(&d.h, verb, d.p, f)
	if err != nil {
		m.pin.Unpin()
		return nil, since(version, err)
	}
	return m.init(p, verb, parents...)
}

// Buf is memory that the provider chose for its device, for instance outside of
// the encrypted memory of a confidential virtual machine.
type Buf struct {
	h      handle.Handle
	p      provider.Buf
	length int
}

// AllocBuf allocates size bytes. rdma-core 64.
//
// Verb: ibv_alloc_buf(3).
func (d *PD) AllocBuf(size int) (*Buf, error) {
	const verb = "ibv_alloc_buf"
	if size <= 0 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "a buffer of no bytes"}
	}
	p, err := createRare(&d.h, verb, d.p, func(i provider.BufAllocator) (provider.Buf, error) { return i.AllocBuf(uint64(size)) })
	if err != nil {
		return nil, since("64", err)
	}
	b := &Buf{p: p, length: size}
	if err := adopt(&b.h, "verbs.Buf", verb, p, &d.h); err != nil {
		return nil, err
	}
	watch(b, &b.h)
	return b, nil
}

// Bytes is the memory. It must not be used after Close, which unmaps it.
func (b *Buf) Bytes() []byte {
	a := b.p.Addr()
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&a)), b.length)
}

// ExportDmabuf gives a dma-buf of the memory, for other devices. The caller
// closes it. In no release of rdma-core by 2026-08.
//
// Verb: ibv_export_buf_dmabuf_fd(3).
func (b *Buf) ExportDmabuf() (*os.File, error) {
	return exportDmabuf(&b.h, "ibv_export_buf_dmabuf_fd", "65 (not yet released in 2026-08)", b.p)
}

// Close frees the memory: ErrInUse while a region of it is open.
//
// Verb: ibv_free_buf(3).
func (b *Buf) Close() error { return verbErr("ibv_free_buf", b.h.Close(b.p.Close)) }

// RegBufMR registers n bytes of b from byte off on. rdma-core 64.
//
// Verb: ibv_reg_buf_mr(3).
func (d *PD) RegBufMR(b *Buf, off, n int, access AccessFlags) (*MR, error) {
	const verb = "ibv_reg_buf_mr"
	if b == nil || off < 0 || n <= 0 || off > b.length || n > b.length-off {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "the range is empty or outside of the buffer"}
	}
	if err := enter(&b.h, verb); err != nil {
		return nil, err
	}
	defer b.h.Exit()
	m := &MR{d: d, buf: b.Bytes()[off : off+n], length: uint64(n), addr: b.p.Addr() + uint64(off)}
	m.iova = m.addr
	p, err := createRare(&d.h, verb, d.p, func(i provider.BufAllocator) (provider.MR, error) {
		return i.RegBufMR(b.p, m.addr, m.length, access)
	})
	runtime.KeepAlive(b)
	if err != nil {
		return nil, since("64", err)
	}
	return m.init(p, verb, &b.h)
}
