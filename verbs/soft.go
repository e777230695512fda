package verbs

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// softPrefix begins the name of a software device: soft:ADDR[,ADDR...].
const softPrefix = "soft:"

var softDefault = netip.AddrFrom4([4]byte{127, 0, 0, 1})

const softDefaultName = softPrefix + "127.0.0.1"

// SoftConfig describes a software device. The zero value is soft:127.0.0.1.
type SoftConfig struct {
	// Addrs are the addresses of this machine that the device has, each a GID, in
	// this order; none: 127.0.0.1. An address that is not loopback puts the device
	// on the network: docs/soft.md says what that means.
	Addrs []netip.Addr
}

func (c SoftConfig) withDefaults() (SoftConfig, error) {
	if len(c.Addrs) == 0 {
		return SoftConfig{Addrs: []netip.Addr{softDefault}}, nil
	}
	out := SoftConfig{Addrs: make([]netip.Addr, 0, len(c.Addrs))}
	for _, a := range c.Addrs {
		a = a.Unmap()
		why := ""
		switch {
		case !a.IsValid():
			why = "it is not an address"
		case a.IsUnspecified():
			why = "name the addresses themselves, as in soft:192.0.2.1: a device has no address that stands for all"
		case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			why = "it is not the address of one host"
		case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "":
			why = "a link-local address needs its zone, as in fe80::1%eth0"
		case slices.Contains(out.Addrs, a):
			why = "it is there twice"
		}
		if why != "" {
			return out, softErr(a.String(), why)
		}
		out.Addrs = append(out.Addrs, a)
	}
	return out, nil
}

func softErr(what, why string) error {
	return fmt.Errorf("verbs: no software device on %q: %s: %w", what, why, syscall.EINVAL)
}

// name is the device's, in the form that softConfig reads.
func (c SoftConfig) name() string {
	l := make([]string, len(c.Addrs))
	for i, a := range c.Addrs {
		l[i] = a.String()
	}
	return softPrefix + strings.Join(l, ",")
}

// isSoft says whether a name means a software device, be it a valid one or not.
func isSoft(name string) bool { return name == "soft" || strings.HasPrefix(name, softPrefix) }

func softConfig(name string) (SoftConfig, error) {
	list, ok := strings.CutPrefix(name, softPrefix)
	if !ok || list == "" {
		return SoftConfig{}, softErr(name, "its address is missing, as in soft:127.0.0.1 or soft:127.0.0.1,::1")
	}
	var c SoftConfig
	for _, s := range strings.Split(list, ",") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return c, softErr(name, fmt.Sprintf("%q is no IP address (names are soft:ADDR[,ADDR...], without a port)", s))
		}
		c.Addrs = append(c.Addrs, a)
	}
	return c.withDefaults()
}

// softDevices are those of this process, by name: all opens of one share it.
var softDevices struct {
	sync.Mutex
	m map[string]*Device // guarded by the mutex; never shrinks
}

func softDevice(c SoftConfig) *Device {
	name := c.name()
	softDevices.Lock()
	defer softDevices.Unlock()
	d := softDevices.m[name]
	if d == nil {
		if softDevices.m == nil {
			softDevices.m = map[string]*Device{}
		}
		d = &Device{p: newSoft(name, c.Addrs)}
		softDevices.m[name] = d
	}
	return d
}

func softByName(name string) (*Device, error) {
	c, err := softConfig(name)
	if err != nil {
		return nil, err
	}
	return softDevice(c), nil
}

// OpenSoft opens the software device of c: a RoCEv2 device in this process, which
// needs no privilege, no kernel module and no hardware. It has UDP port 4791 of
// its addresses while it is open. Those who open the same addresses in one
// process share the device; another process needs others, for instance 127.0.0.2.
//
// Verb: ibv_open_device(3).
func OpenSoft(c SoftConfig) (*Context, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	return softDevice(c).Open()
}

// openFreeSoft opens the software device on the first address of loopback that no
// other process has: of a client nobody needs to know it.
func openFreeSoft() (*Context, error) {
	first, err := OpenSoft(SoftConfig{})
	for i := byte(2); errors.Is(err, syscall.EADDRINUSE) && i < 64; i++ {
		c, e := OpenSoft(SoftConfig{Addrs: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, i})}})
		if e == nil {
			return c, nil
		}
		if !errors.Is(e, syscall.EADDRINUSE) {
			break
		}
	}
	return first, err
}

// softOpenErr explains why a software device does not open.
func softOpenErr(name string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "two devices of one process cannot share an address either: open the one that there is; another process names another address, as in soft:127.0.0.2"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "`ip addr` lists the addresses of this machine"
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		hint = "a firewall or sandbox forbids UDP port 4791 of " + name
	}
	return hinted("ibv_open_device", err, hint)
}

// The connection manager has a context of its own on each software device that
// was asked for without one, open until the process ends.
var softCMs struct {
	sync.Mutex
	m map[string]provider.CM // guarded by the mutex, by name
}

func softCM(name string) (provider.CM, error) {
	c, err := SoftConfig{}.withDefaults()
	if name != "" {
		c, err = softConfig(name)
	}
	if err != nil {
		return nil, err
	}
	name = c.name()
	softCMs.Lock()
	defer softCMs.Unlock()
	if m := softCMs.m[name]; m != nil {
		return m, nil
	}
	p, err := softDevice(c).p.Open()
	if err != nil {
		return nil, softOpenErr(name, err)
	}
	s, ok := p.(provider.CMSource)
	if !ok {
		return nil, errors.Join(syscall.EOPNOTSUPP, p.Close())
	}
	if softCMs.m == nil {
		softCMs.m = map[string]provider.CM{}
	}
	softCMs.m[name] = s.CM()
	return softCMs.m[name], nil
}

func init() {
	bridge.IsSoft, bridge.SoftCM = isSoft, softCM
	bridge.Device = func(p provider.Device) any { return &Device{p: p} }
	bridge.Handle = func(ctx any) *handle.Handle { return &ctx.(*Context).h }
}
