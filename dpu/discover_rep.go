package dpu

import (
	"fmt"
	"path"
	"strings"
)

// port is a port of a function's switch, from devlink or from a netdev's name.
type port struct {
	kind       Kind
	pf, number int // -1: unknown
	controller int // -1: unknown
	remote     bool
	netdev     string
	hwAddr     string
	src        Source
	where      string
}

// representors finds the ports of function i's switch and ties them to the
// functions behind them: of this side, or of another controller.
func (s *scan) representors(i int) {
	f := &s.funcs[i]
	ecpf := f.Kind.Known() && f.Kind.Value == ECPF
	for _, p := range s.ports(f.PCI, ecpf) {
		if p.pf >= 0 && !p.remote {
			note(s, &f.PFNumber, f.PCI+": PF number", p.pf, p.src, p.where, "its switch has a port of this PF")
		}
		if p.remote {
			s.addRemote(f, p)
			continue
		}
		for j := range s.funcs {
			g := &s.funcs[j]
			if !s.behind(g, f, p) {
				continue
			}
			if p.netdev != "" {
				note(s, &g.Representor, g.Name()+": representor", p.netdev, p.src, p.where, p.netdev)
				if n := s.netdevs[p.netdev]; n != nil && n.swID != "" {
					note(s, &g.SwitchID, g.Name()+": switch", n.swID, FromSysfs, path.Join(classNet, p.netdev, "phys_switch_id"), n.swID)
				}
			}
			if p.controller >= 0 {
				note(s, &g.Controller, g.Name()+": controller", p.controller, p.src, p.where, "not external")
			}
			if p.pf >= 0 {
				note(s, &g.PFNumber, g.Name()+": PF number", p.pf, p.src, p.where, "of the port")
			}
			if f.Eswitch.Known() {
				g.Eswitch = f.Eswitch
			}
		}
	}
}

// behind says whether g is the function of port p of f's switch.
func (s *scan) behind(g, f *Function, p port) bool {
	if !g.Kind.Known() || g.Kind.Value != p.kind || !g.Number.Known() || g.Number.Value != p.number {
		return false
	}
	if p.kind == SF {
		return g.PCI == f.PCI
	}
	return p.kind == VF && s.physfn(g.PCI) == f.PCI
}

func (s *scan) physfn(pci string) string {
	return s.t.link(path.Join(s.t.target(path.Join(busPCI, pci)), "physfn"))
}

func (s *scan) addRemote(f *Function, p port) {
	r := Function{Remote: true}
	name := fmt.Sprintf("%s: port %s", f.PCI, p.where)
	note(s, &r.Kind, name, p.kind, p.src, p.where, "a port for a function of that kind")
	if p.controller >= 0 {
		note(s, &r.Controller, name, p.controller, p.src, p.where, "the port's controller")
	}
	if p.pf >= 0 {
		note(s, &r.PFNumber, name, p.pf, p.src, p.where, "of the port")
	}
	if p.number >= 0 {
		note(s, &r.Number, name, p.number, p.src, p.where, "of the port")
	}
	if p.netdev != "" {
		note(s, &r.Representor, name, p.netdev, p.src, p.where, p.netdev)
		if n := s.netdevs[p.netdev]; n != nil && n.swID != "" {
			note(s, &r.SwitchID, name, n.swID, FromSysfs, path.Join(classNet, p.netdev, "phys_switch_id"), n.swID)
		}
	}
	if p.hwAddr != "" && p.hwAddr != "00:00:00:00:00:00" {
		note(s, &r.MAC, name+": MAC", p.hwAddr, p.src, p.where, "address of the function behind the port")
	}
	if p.kind == PF {
		s.smartNICMAC(f, &r, name)
	}
	s.remote = append(s.remote, remotePort{f.PCI, r})
}

// smartNICMAC reads the address of the host's PF where NVIDIA's driver shows it.
func (s *scan) smartNICMAC(f, r *Function, name string) {
	if !f.Netdev.Known() {
		return
	}
	file := path.Join(s.t.target(path.Join(classNet, f.Netdev.Value)), "smart_nic/pf/config")
	for _, line := range strings.Split(s.t.text(file), "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "MAC" && isMAC(strings.TrimSpace(v)) {
			note(s, &r.MAC, name+": MAC", strings.ToLower(strings.TrimSpace(v)), FromSysfs, file, "address of the host's PF")
		}
	}
}

// ports lists the ports of a device's switch that stand for functions. Names count
// only where devlink says nothing.
func (s *scan) ports(pci string, ecpf bool) []port {
	var out []port
	kinds := map[string]Kind{"pcipf": PF, "pcivf": VF, "pcisf": SF}
	if d := s.devlink[pci]; d != nil {
		for i := range d.Ports {
			p := &d.Ports[i]
			k, ok := kinds[p.Flavour]
			if !ok {
				continue
			}
			q := port{kind: k, pf: -1, number: -1, controller: -1, remote: p.External, netdev: p.Netdev, hwAddr: p.HWAddr,
				src: FromDevlink, where: fmt.Sprintf("%s/%s/%d", d.Bus, d.Device, p.Index)}
			if p.Controller != nil {
				q.controller = int(*p.Controller)
			}
			if p.PF != nil {
				q.pf = int(*p.PF)
			}
			if k == VF && p.VF != nil {
				q.number = int(*p.VF)
			}
			if k == SF && p.SF != nil {
				q.number = int(*p.SF)
			}
			out = append(out, q)
		}
	}
	for _, name := range sortedKeys(s.netdevs) {
		n := s.netdevs[name]
		pn, ok := parsePortName(n.port)
		if n.pci != pci || n.aux != "" || !ok || pn.Physical || s.portOf(pci, name) != nil {
			continue
		}
		q := port{kind: PF, pf: pn.PF, number: -1, controller: -1, netdev: name, src: FromNetdevName, where: path.Join(classNet, name)}
		switch {
		case pn.VF >= 0:
			q.kind, q.number = VF, pn.VF
		case pn.SF >= 0:
			q.kind, q.number = SF, pn.SF
		}
		if pn.Controller > 0 {
			q.controller = pn.Controller
		}
		// A switch on the card's cores names its own subfunctions, and the host's
		// functions; one on a host has only its own.
		q.remote = pn.Controller > 0 || ecpf && q.kind != SF
		out = append(out, q)
	}
	return out
}
