package verbs

import (
	"fmt"
	"os"
	"syscall"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// DM is memory of the device itself: no mapping, copies go through the device.
type DM struct {
	h      handle.Handle
	c      *Context
	p      provider.DM
	length uint64
}

func newDM(c *Context, p provider.DM, length uint64, verb string) (*DM, error) {
	m := &DM{c: c, p: p, length: length}
	if err := adopt(&m.h, "verbs.DM", verb, p, &c.h); err != nil {
		return nil, err
	}
	watch(m, &m.h)
	return m, nil
}

// AllocDM allocates length bytes of device memory, at most
// DeviceAttrEx.MaxDMSize, at a multiple of 1<<logAlign (0: no matter).
//
// Verb: ibv_alloc_dm(3).
func (c *Context) AllocDM(length uint64, logAlign uint32) (*DM, error) {
	const verb = "ibv_alloc_dm"
	if length == 0 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "device memory of no bytes"}
	}
	p, err := createRare(&c.h, verb, c.p, func(i provider.DMAllocator) (provider.DM, error) { return i.AllocDM(length, logAlign) })
	if err != nil {
		return nil, err
	}
	return newDM(c, p, length, verb)
}

// Len is the size in bytes.
func (m *DM) Len() uint64 { return m.length }

func (m *DM) copy(verb string, off uint64, b []byte, f func(uint64, []byte) error) error {
	if off > m.length || uint64(len(b)) > m.length-off {
		return &Error{Verb: verb, Cause: syscall.EINVAL, Hint: fmt.Sprintf("%d bytes at %d are outside of %d bytes of device memory", len(b), off, m.length)}
	}
	if err := enter(&m.h, verb); err != nil {
		return err
	}
	defer m.h.Exit()
	if len(b) == 0 {
		return nil
	}
	return verbErr(verb, f(off, b))
}

// CopyTo copies b to the device memory, from byte off on. EINVAL outside of it;
// a device may demand multiples of 4 bytes.
//
// Verb: ibv_memcpy_to_dm(3).
func (m *DM) CopyTo(off uint64, b []byte) error {
	return m.copy("ibv_memcpy_to_dm", off, b, m.p.CopyTo)
}

// CopyFrom fills b from the device memory, from byte off on. EINVAL outside of
// it; a device may demand multiples of 4 bytes.
//
// Verb: ibv_memcpy_from_dm(3).
func (m *DM) CopyFrom(off uint64, b []byte) error {
	return m.copy("ibv_memcpy_from_dm", off, b, m.p.CopyFrom)
}

// Close frees the device memory: ErrInUse while a region of it is open.
//
// Verb: ibv_free_dm(3).
func (m *DM) Close() error { return verbErr("ibv_free_dm", m.h.Close(m.p.Close)) }

// RegDMMR registers length bytes of device memory at byte off of it. Work
// requests address them from 0 on: AccessZeroBased is implied.
//
// Verb: ibv_reg_dm_mr(3).
func (d *PD) RegDMMR(m *DM, off, length uint64, access AccessFlags) (*MR, error) {
	const verb = "ibv_reg_dm_mr"
	if m == nil || off > m.length || length == 0 || length > m.length-off {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "the range is empty or outside of the device memory"}
	}
	if err := enter(&m.h, verb); err != nil {
		return nil, err
	}
	defer m.h.Exit()
	p, err := createRare(&d.h, verb, d.p, func(i provider.RareRegistrar) (provider.MR, error) {
		return i.RegDMMR(m.p, off, length, access|AccessZeroBased)
	})
	if err != nil {
		return nil, err
	}
	return (&MR{d: d, length: length}).init(p, verb, &m.h)
}

// ExportDmabuf gives a dma-buf of the memory, for other devices. The caller
// closes it. rdma-core 62.
//
// Verb: ibv_dm_export_dmabuf_fd(3).
func (m *DM) ExportDmabuf() (*os.File, error) {
	return exportDmabuf(&m.h, "ibv_dm_export_dmabuf_fd", "62", m.p)
}

func exportDmabuf(h *handle.Handle, verb, version string, p any) (*os.File, error) {
	f, err := createRare(h, verb, p, func(i provider.DmabufExporter) (*os.File, error) {
		fd, err := i.ExportDmabuf()
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), "dma-buf"), nil
	})
	return f, since(version, err)
}
