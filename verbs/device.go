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

// Name is the device's name: mlx5_0, rxe0.
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

// Devices lists the RDMA devices of this machine. On a machine without the
// ib_uverbs module, or without libibverbs, the error says so and is
// errors.ErrUnsupported.
//
// Verb: ibv_get_device_list(3), ibv_free_device_list(3), ibv_static_providers(3).
func Devices() ([]*Device, error) {
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

// DeviceByName finds a device. When there is none of that name the error lists
// the names that exist.
func DeviceByName(name string) (*Device, error) {
	l, err := Devices()
	if err != nil {
		return nil, err
	}
	return pickDevice(l, name)
}

func pickDevice(l []*Device, name string) (*Device, error) {
	var names []string
	for _, d := range l {
		if d.Name() == name {
			return d, nil
		}
		names = append(names, d.Name())
	}
	have := "this machine has none"
	if len(names) > 0 {
		have = "this machine has " + strings.Join(names, ", ")
	}
	return nil, fmt.Errorf("verbs: no RDMA device %q: %s: %w", name, have, syscall.ENODEV)
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
// one that has an active port, and logs which.
func OpenDefault() (*Context, error) {
	if name := os.Getenv(EnvDevice); name != "" {
		return Open(name)
	}
	l, err := Devices()
	if err != nil {
		return nil, err
	}
	var why []string
	for _, d := range l {
		c, err := d.Open()
		if err != nil {
			why = append(why, d.Name()+": "+err.Error())
			continue
		}
		if port, err := c.ActivePort(); err == nil {
			slog.Info("verbs: using the first device with an active port", "device", d.Name(), "port", port)
			return c, nil
		} else {
			why = append(why, err.Error())
		}
		c.Close()
	}
	if len(why) == 0 {
		why = []string{"this machine has no RDMA device; for Soft-RoCE: modprobe rdma_rxe && rdma link add rxe0 type rxe netdev eth0"}
	}
	return nil, fmt.Errorf("verbs: no usable RDMA device: %s: %w", strings.Join(why, "; "), syscall.ENODEV)
}

// Open opens the device.
//
// Verb: ibv_open_device(3).
func (d *Device) Open() (*Context, error) {
	p, err := d.p.Open()
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
