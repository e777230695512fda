package dpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
)

// Discover looks at this machine, or at what cfg puts in its place. A file that is
// missing leaves claims unknown; one that is unreadable or garbage, a source that
// fails and statements that contradict each other are warnings of the inventory.
// An error means that there was nothing to look at, or that ctx is done.
func Discover(ctx context.Context, cfg Config) (*Inventory, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("dpu: root: %w", err)
	}
	defer root.Close()
	s := &scan{
		cfg: cfg, inv: &Inventory{Arch: cfg.Arch, Cards: []Card{}, RDMA: []RDMADevice{}, Loose: []Function{}},
		devlink: map[string]*DevlinkDevice{}, netdevs: map[string]*netdev{}, rdmaOf: map[string]string{},
	}
	s.t = tree{root: root, warn: s.warn}
	for _, step := range []func(context.Context) error{
		s.readDevlink, s.readNetdevs, s.readRDMA, s.readMachine, s.readFunctions, s.readCards, s.probe,
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	s.side()
	return s.inv, nil
}

// scan is one run of Discover.
type scan struct {
	cfg     Config
	t       tree
	inv     *Inventory
	devlink map[string]*DevlinkDevice // by device name
	netdevs map[string]*netdev        // by name
	rdmaOf  map[string]string         // PCI address or PCI/aux to RDMA device
	funcs   []Function
	remote  []remotePort
}

type netdev struct {
	name, pci, aux  string
	mac, port, swID string
	smartNIC        bool // has the folder of an ECPF
	representor     bool
}

// remotePort is a function of another controller, on the card of pci.
type remotePort struct {
	pci string
	f   Function
}

func (s *scan) warn(format string, args ...any) {
	if m := fmt.Sprintf(format, args...); len(s.inv.Warnings) < 100 {
		s.inv.Warnings = append(s.inv.Warnings, m)
	}
}

// note makes a claim, and a warning when it contradicts the one that is there.
func note[T comparable](s *scan, c *Claim[T], what string, v T, src Source, where, says string) {
	old := c.Value
	if !c.claim(v, Evidence{src, where, says}) {
		s.warn("%s: %v says %v at %s, but %v", what, src, v, where, contradiction(old, c.Evidence[0]))
	}
}

func contradiction[T any](v T, e Evidence) string {
	return fmt.Sprintf("%s says %v at %s", e.Source, v, e.Where)
}

func (s *scan) readDevlink(ctx context.Context) error {
	list, err := s.cfg.Devlink(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, errNoLive) {
			s.warn("%v", err)
		}
	}
	for i := range list {
		d := &list[i]
		s.devlink[d.Device] = d
		for _, p := range d.Ports {
			p.Bus, p.Device = d.Bus, d.Device
			s.inv.DevlinkPorts = append(s.inv.DevlinkPorts, p)
		}
	}
	return nil
}

const classNet = "sys/class/net"

func (s *scan) readNetdevs(context.Context) error {
	for _, name := range s.t.list(classNet) {
		dir := s.t.target(path.Join(classNet, name))
		n := &netdev{name: name}
		n.pci, n.aux = owner(path.Dir(dir))
		if !s.t.exists(dir) {
			continue // it has gone meanwhile
		}
		if n.mac = s.t.text(path.Join(dir, "address")); n.mac == "00:00:00:00:00:00" {
			n.mac = ""
		}
		if n.pci != "" { // others answer "not supported" anyway
			n.port = s.t.text(path.Join(dir, "phys_port_name"))
			n.swID = s.t.text(path.Join(dir, "phys_switch_id"))
			n.smartNIC = s.t.exists(path.Join(dir, "smart_nic"))
		}
		s.netdevs[name] = n
	}
	return nil
}

func (s *scan) readMachine(context.Context) error {
	if s.cfg.DMI != nil {
		d, err := s.cfg.DMI()
		if err != nil {
			s.warn("dpu: DMI: %v", err)
		}
		s.inv.DMI = d
		return nil
	}
	const dir = "sys/class/dmi/id"
	d := &s.inv.DMI
	d.Vendor, d.Product = s.t.text(dir+"/sys_vendor"), s.t.text(dir+"/product_name")
	d.Board = s.t.text(dir + "/board_name")
	// Readable by root only: that another user cannot is no news.
	if b, err := s.t.root.ReadFile(dir + "/product_serial"); err == nil {
		d.Serial = printable([]byte(strings.TrimSpace(string(b))))
	}
	return nil
}

// side decides where this program runs.
func (s *scan) side() {
	say := func(v Side, src Source, where, says string) { note(s, &s.inv.Side, "side", v, src, where, says) }
	d := s.inv.DMI
	if s.cfg.Arch == "arm64" {
		switch {
		case strings.Contains(strings.ToLower(d.Board), "bluefield"):
			say(OnSoC, FromDMI, "board_name", fmt.Sprintf("%q on arm64", d.Board))
		case strings.Contains(d.Product, "IPU Adapter E2100"):
			say(OnSoC, FromDMI, "product_name", fmt.Sprintf("%q on arm64", d.Product))
		}
	}
	maybeX86 := false
	for i := range s.inv.Cards {
		for j := range s.inv.Cards[i].Functions {
			f := &s.inv.Cards[i].Functions[j]
			fam := families[f.ID]
			maybeX86 = maybeX86 || fam.x86
			if f.Kind.Known() && f.Kind.Value == ECPF {
				e := f.Kind.Evidence[0]
				say(OnSoC, e.Source, e.Where, e.Says)
			}
			if fam.soc && s.cfg.Arch == "arm64" {
				say(OnSoC, FromPCIID, f.PCI, f.ID+" is seen by the card's own cores only")
			}
		}
	}
	if s.cfg.Arch == "amd64" && !maybeX86 && !s.inv.Side.Known() {
		say(OnHost, FromProgram, "architecture", "amd64: no card found here has cores of that kind")
	}
}

func (s *scan) probe(ctx context.Context) error {
	if s.cfg.NoProbe {
		return nil
	}
	for i := range s.inv.RDMA {
		d := &s.inv.RDMA[i]
		c, err := s.cfg.Probe(ctx, d.Name)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.warn("%s was not probed: %v", d.Name, err)
			continue
		}
		d.Caps = c
	}
	return nil
}
