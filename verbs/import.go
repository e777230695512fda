package verbs

import (
	"os"
	"syscall"

	"github.com/zrdma/zrdma/internal/ibv"
	"github.com/zrdma/zrdma/internal/provider"
)

// Objects can be shared by processes: one sends the duplicate of its command
// descriptor (CmdFile, over a unix socket) and the kernel handles of its
// objects; the other imports them. The owner keeps them open meanwhile.

// CmdFile duplicates the command descriptor of the device, to be sent to
// another process. The caller closes it. EOPNOTSUPP on a device without one.
func (c *Context) CmdFile() (*os.File, error) {
	const verb = "ibv_import_device"
	return createRare(&c.h, verb, c.p, func(i provider.Importer) (*os.File, error) {
		fd, err := dupCloexec(i.CmdFD())
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), c.Name()+" command"), nil
	})
}

// ImportDevice opens the device behind a command descriptor that another process
// made with CmdFile. fd stays the caller's. EINVAL when fd is not a character
// device, ENODEV when it is not a verbs device, and errors.ErrUnsupported when
// the driver cannot share, which is most of them.
//
// Verb: ibv_import_device(3).
func ImportDevice(fd int) (*Context, error) {
	const verb = "ibv_import_device"
	p, err := ibv.ImportDevice(fd)
	if err != nil {
		return nil, verbErr(verb, err)
	}
	c := newContext(p)
	if err := adopt(&c.h, "verbs.Context", verb, p); err != nil {
		return nil, err
	}
	watch(c, &c.h)
	return c, nil
}

func kernelHandle(p any) (uint32, bool) {
	k, ok := p.(provider.KernelHandler)
	if !ok {
		return 0, false
	}
	return k.KernelHandle(), true
}

// KernelHandle is the number that another process imports the domain by; false
// when the device has none.
func (d *PD) KernelHandle() (uint32, bool) { return kernelHandle(d.p) }

// KernelHandle is the number that another process imports the region by; false
// when the device has none.
func (m *MR) KernelHandle() (uint32, bool) { return kernelHandle(m.p) }

// KernelHandle is the number that another process imports the memory by; false
// when the device has none.
func (m *DM) KernelHandle() (uint32, bool) { return kernelHandle(m.p) }

// ImportPD takes over a domain of another process, on a context from
// ImportDevice. Its Close is ibv_unimport_pd: the owner's domain stays.
//
// Verb: ibv_import_pd(3), ibv_unimport_pd(3).
func (c *Context) ImportPD(handle uint32) (*PD, error) {
	const verb = "ibv_import_pd"
	p, err := createRare(&c.h, verb, c.p, func(i provider.Importer) (provider.PD, error) { return i.ImportPD(handle) })
	if err != nil {
		return nil, err
	}
	return newPD(c, p, verb)
}

// ImportMR takes over a region of another process, in an imported domain. Its
// keys are valid here, its memory is not mapped: Addr and Len are 0. Its Close
// is ibv_unimport_mr: the owner's region stays.
//
// Verb: ibv_import_mr(3), ibv_unimport_mr(3).
func (d *PD) ImportMR(handle uint32) (*MR, error) {
	const verb = "ibv_import_mr"
	p, err := createRare(&d.h, verb, d.p, func(i provider.MRImporter) (provider.MR, error) { return i.ImportMR(handle) })
	if err != nil {
		return nil, err
	}
	return (&MR{d: d}).init(p, verb)
}

// ImportDM takes over device memory of another process, on a context from
// ImportDevice. length is its size in bytes, which the import does not tell. Its
// Close is ibv_unimport_dm: the owner's memory stays.
//
// Verb: ibv_import_dm(3), ibv_unimport_dm(3).
func (c *Context) ImportDM(handle uint32, length uint64) (*DM, error) {
	const verb = "ibv_import_dm"
	if length == 0 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "the length of the memory is required"}
	}
	p, err := createRare(&c.h, verb, c.p, func(i provider.Importer) (provider.DM, error) { return i.ImportDM(handle) })
	if err != nil {
		return nil, err
	}
	return newDM(c, p, length, verb)
}
