package verbs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/zrdma/zrdma/internal/ibv"
	"github.com/zrdma/zrdma/internal/provider"
)

// Device is an RDMA device that can be opened.
type Device struct{ p provider.Device }

// Name is the device's name: mlx5_0, rxe0, soft:127.0.0.1.
//
// Verb: ibv_get_device_name(3).
func (d *Device) Name() string { return d.p.Info().Name }

// GUID is the node GUID.
//
// Verb: ibv_get_device_guid(3).
func (d *Device) GUID() GUID { return d.p.Info().GUID }

// Index is the kernel's stable index, or -1 when it is unknown.
//
// Verb: ibv_get_device_index(3).
func (d *Device) Index() int { return d.p.Info().Index }

// NodeType is the kind of node.
func (d *Device) NodeType() NodeType { return d.p.Info().NodeType }

// Transport is the transport the device speaks.
func (d *Device) Transport() TransportType { return d.p.Info().Transport }

// SysfsPath is the device's folder in sysfs, empty when it has none.
func (d *Device) SysfsPath() string { return d.p.Info().IBDevPath }

// CharDevice is the name of its uverbs character device, empty when it has none.
func (d *Device) CharDevice() string { return d.p.Info().DevName }

// String is the name.
func (d *Device) String() string { return d.Name() }

// Devices lists the RDMA devices of this machine: the kernel's, then the software
// device soft:127.0.0.1, which is always there. Software devices on other
// addresses are opened by name.
//
// Verb: ibv_get_device_list(3), ibv_free_device_list(3), ibv_static_providers(3).
func Devices() ([]*Device, error) {
	l, err := KernelDevices()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	d, err := softByName(softDefaultName)
	return append(l, d), err
}

// KernelDevices lists the kernel's RDMA devices. On a machine without the
// ib_uverbs module, or without libibverbs, the error says so and is
// errors.ErrUnsupported.
//
// Verb: ibv_get_device_list(3), ibv_free_device_list(3), ibv_static_providers(3).
func KernelDevices() ([]*Device, error) {
	l, err := ibv.Devices()
	if err != nil {
		hint := ""
		if errors.Is(err, syscall.ENOSYS) && ibv.Loaded(false) == nil {
			hint = "the kernel's RDMA core is not loaded: modprobe ib_uverbs, and the driver of the device, for instance rdma_rxe"
		}
		return nil, hinted("ibv_get_device_list", err, hint)
	}
	out := make([]*Device, len(l))
	for i, p := range l {
		out[i] = &Device{p}
	}
	return out, nil
}

// DeviceByName finds a device: a kernel device by its name, a software device as
// soft:ADDR[,ADDR...]. When there is no kernel device of that name the error
// lists the devices that exist, or says why there are none.
func DeviceByName(name string) (*Device, error) {
	if isSoft(name) {
		return softByName(name)
	}
	l, err := KernelDevices()
	if err != nil {
		return nil, noSuchDevice(name, err)
	}
	return pickDevice(l, name)
}

// noSuchDevice keeps the reason why this machine has no kernel devices.
func noSuchDevice(name string, why error) error {
	if !errors.Is(why, errors.ErrUnsupported) {
		return why
	}
	return fmt.Errorf("verbs: no RDMA device %q: this machine has only %s: %w: %w", name, softDefaultName, why, syscall.ENODEV)
}

func pickDevice(l []*Device, name string) (*Device, error) {
	var names []string
	for _, d := range l {
		if d.Name() == name {
			return d, nil
		}
		names = append(names, d.Name())
	}
	have := strings.Join(append(names, softDefaultName), ", ")
	return nil, fmt.Errorf("verbs: no RDMA device %q: this machine has %s: %w", name, have, syscall.ENODEV)
}

// Open opens the named device.
//
// Verb: ibv_open_device(3).
func Open(name string) (*Context, error) {
	d, err := DeviceByName(name)
	if err != nil {
		return nil, err
	}
	return d.Open()
}

// EnvDevice is the environment variable that overrides OpenDefault.
const EnvDevice = "ZRDMA_DEVICE"

// OpenDefault opens the device named by ZRDMA_DEVICE or, without it, the first
// kernel device that has an active port, or else the software device on
// 127.0.0.1, or on the next address of loopback when another process has that. It
// logs which, and why no kernel device.
func OpenDefault() (*Context, error) {
	if name := os.Getenv(EnvDevice); name != "" {
		return Open(name)
	}
	l, err := KernelDevices()
	c, port, why := firstActive(l)
	if c != nil {
		slog.Info("verbs: using the first device with an active port", "device", c.Name(), "port", port)
		return c, nil
	}
	if err != nil {
		why = err.Error()
	}
	if c, err = openFreeSoft(); err != nil {
		return nil, fmt.Errorf("verbs: no usable RDMA device: %s; and the software device: %w", why, err)
	}
	slog.Info("verbs: using the software device", "device", c.Name(), "why", why)
	return c, nil
}

// firstActive opens the first device with an active port, or says why none.
func firstActive(l []*Device) (_ *Context, port uint8, why string) {
	var all []string
	for _, d := range l {
		c, err := d.Open()
		if err != nil {
			all = append(all, d.Name()+": "+err.Error())
			continue
		}
		if port, err = c.ActivePort(); err == nil {
			return c, port, ""
		}
		all = append(all, err.Error())
		c.Close()
	}
	if len(all) == 0 {
		return nil, 0, "this machine has no kernel device"
	}
	return nil, 0, strings.Join(all, "; ")
}

// Open opens the device.
//
// Verb: ibv_open_device(3).
func (d *Device) Open() (*Context, error) {
	p, err := d.p.Open()
	if err != nil && d.p.Info().Soft {
		return nil, softOpenErr(d.Name(), err)
	}
	if err != nil {
		return nil, openErr(err, "/dev/infiniband/"+d.CharDevice(), canOpen)
	}
	c := newContext(p)
	if err := c.h.Init("verbs.Context"); err != nil {
		return nil, err
	}
	watch(c, &c.h)
	return c, nil
}

// openErr explains why a device does not open. libibverbs says ENOENT for any
// node that it cannot open, so probe asks for the reason.
func openErr(err error, node string, probe func(node string) error) error {
	if errors.Is(err, syscall.ENOENT) {
		if e := probe(node); errors.Is(e, syscall.EACCES) || errors.Is(e, syscall.EPERM) {
			err = syscall.EACCES
		}
	}
	hint := ""
	switch {
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		hint = "no access to " + node + ": become root, or give your group access with a udev rule"
	case errors.Is(err, syscall.ENOENT):
		hint = "there is no " + node + ": is udev running? In a container pass it with --device=/dev/infiniband"
	}
	return hinted("ibv_open_device", err, hint)
}

func canOpen(node string) error {
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return err
}

func newContext(p provider.Context) *Context {
	return &Context{p: p, objs: map[uint64]any{}}
}

// ForkInit makes registered memory safe across fork. Go's os/exec does not need
// it; call it before the first registration or not at all.
//
// Verb: ibv_fork_init(3).
func ForkInit() error { return verbErr("ibv_fork_init", ibv.ForkInit()) }

// IsForkInitialized says whether fork protection is on, or not needed because
// the kernel copies pinned pages on fork.
//
// Verb: ibv_is_fork_initialized(3).
func IsForkInitialized() ForkStatus { return ibv.IsForkInitialized() }

var cookies struct {
	sync.Mutex
	n uint64
}

// newCookie names an object in events. It is never used twice, so an event of a
// destroyed object cannot be taken for one of a new object.
func newCookie() uint64 {
	cookies.Lock()
	defer cookies.Unlock()
	cookies.n++
	return cookies.n
}
