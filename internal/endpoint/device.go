package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/zrdma/zrdma/verbs"
)

// Config of an end. The zero value but for GIDIndex is the default.
type Config struct {
	Device   string                           // "": what verbs.OpenDefault takes
	Context  *verbs.Context                   // a device that the caller has open, instead of Device; it stays the caller's
	Port     int                              // 0: the first active one
	GIDIndex int                              // negative: the address of the TCP connection, else one of its family
	Warn     func(format string, args ...any) // nil: nobody is told
}

// Device is an open device with the port to use. Several sessions may share it.
type Device struct {
	cfg  Config
	ctx  *verbs.Context
	own  bool // ctx is ours to close
	port uint8
	attr verbs.PortAttr
}

// Open opens the device and looks whether the port works.
func Open(cfg Config) (*Device, error) {
	if cfg.Warn == nil {
		cfg.Warn = func(string, ...any) {}
	}
	ctx, own, err := cfg.Context, false, error(nil)
	if ctx == nil {
		own = true
		if ctx, err = openNamed(cfg.Device); err != nil {
			return nil, Step("device", err)
		}
	}
	d := &Device{cfg: cfg, ctx: ctx, own: own, port: uint8(cfg.Port)}
	if err := d.findPort(); err != nil {
		d.Close()
		return nil, Step("port", err)
	}
	return d, nil
}

func openNamed(name string) (*verbs.Context, error) {
	if name == "" {
		return verbs.OpenDefault()
	}
	return verbs.Open(name)
}

func (d *Device) findPort() (err error) {
	if d.cfg.Port == 0 {
		if d.port, err = d.ctx.ActivePort(); err != nil {
			return err
		}
	}
	a, err := d.ctx.QueryDevice()
	if err != nil {
		return err
	}
	if d.cfg.Port < 0 || d.cfg.Port > int(a.PhysPortCnt) {
		return fmt.Errorf("%s has no port %d: it has %d, counted from 1", d.ctx.Name(), d.cfg.Port, a.PhysPortCnt)
	}
	if d.attr, err = d.ctx.QueryPort(d.port); err != nil {
		return err
	}
	if d.attr.State != verbs.PortActive {
		return fmt.Errorf("port %d of %s is %v; bring its netdev up (ip link set DEV up) and check the cable: %w", d.port, d.ctx.Name(), d.attr.State, syscall.ENETDOWN)
	}
	return nil
}

// Name is the device's, with the port.
func (d *Device) Name() string { return fmt.Sprintf("%s port %d", d.ctx.Name(), d.port) }

// Soft says whether it is the software device.
func (d *Device) Soft() bool { return d.ctx.IsSoft() }

// Context is the open device.
func (d *Device) Context() *verbs.Context { return d.ctx }

// Port is the port in use, counted from 1.
func (d *Device) Port() uint8 { return d.port }

// Attr are the port's attributes when the device was opened.
func (d *Device) Attr() verbs.PortAttr { return d.attr }

// Warn tells the user.
func (d *Device) Warn(format string, args ...any) { d.cfg.Warn(format, args...) }

// Close closes the device, after its sessions.
func (d *Device) Close() error {
	if !d.own {
		return nil
	}
	return Step("device", d.ctx.Close())
}

// CheckSize refuses a message that the port cannot carry, or that is longer than
// limit.
func (d *Device) CheckSize(n, limit int) error {
	if n < 1 || n > limit {
		return fmt.Errorf("messages have 1 to %d bytes, not %d", limit, n)
	}
	if m := d.attr.MaxMsgSz; m != 0 && uint64(n) > uint64(m) {
		return fmt.Errorf("%s takes messages of at most %d bytes, not %d", d.Name(), m, n)
	}
	return nil
}

// SelectGID finds our GID. local is our address on the TCP connection, or
// invalid; peer is the other side's GID when it is known: RoCE needs both of one
// kind.
func (d *Device) SelectGID(local netip.Addr, peer verbs.GID) (verbs.GIDEntry, error) {
	if d.cfg.GIDIndex >= 0 {
		e, err := d.ctx.QueryGIDEx(uint32(d.port), uint32(d.cfg.GIDIndex), 0)
		if err == nil && e.GID.IsZero() {
			err = errors.New("it is empty")
		}
		if err != nil {
			return e, fmt.Errorf("index %d: %w; `zrdma devices` lists them", d.cfg.GIDIndex, err)
		}
		return e, nil
	}
	if d.attr.LinkLayer == verbs.LinkLayerInfiniband {
		return d.ctx.QueryGIDEx(uint32(d.port), 0, 0)
	}
	like := local
	if !peer.IsZero() {
		like = peer.Addr()
	}
	if local.IsValid() && kindOf(local) == kindOf(like) {
		if e, err := d.ctx.SelectGID(d.port, local); err == nil {
			return e, nil
		}
	}
	if like.IsValid() {
		a, err := d.ctx.QueryDevice()
		if err != nil {
			return verbs.GIDEntry{}, err
		}
		table, err := d.ctx.QueryGIDTable(max(1, int(d.attr.GIDTblLen)*int(a.PhysPortCnt)), 0)
		if err != nil {
			return verbs.GIDEntry{}, err
		}
		if e, ok := firstOfKind(table, d.port, like); ok {
			return e, nil
		}
		if !peer.IsZero() {
			return verbs.GIDEntry{}, fmt.Errorf("%s has no GID to reach %v from: give its netdev an address of that family, or choose another --gid-index on both sides", d.Name(), like)
		}
	}
	return d.ctx.SelectGID(d.port, netip.Addr{})
}

type gidKind int

const (
	ipv4 gidKind = iota
	ipv6
	linkLocal
)

// kindOf counts an address of this machine alone as what its family uses.
func kindOf(a netip.Addr) gidKind {
	switch a = a.Unmap(); {
	case a.Is4():
		return ipv4
	case a.IsLinkLocalUnicast():
		return linkLocal
	}
	return ipv6
}

// firstOfKind prefers RoCE v2.
func firstOfKind(table []verbs.GIDEntry, port uint8, like netip.Addr) (verbs.GIDEntry, bool) {
	var best verbs.GIDEntry
	found := false
	for _, e := range table {
		if e.Port != uint32(port) || e.GID.IsZero() || kindOf(e.GID.Addr()) != kindOf(like) {
			continue
		}
		if !found || e.Type == verbs.GIDTypeRoCEV2 && best.Type != verbs.GIDTypeRoCEV2 {
			best, found = e, true
		}
	}
	return best, found
}
