package dpu

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

const busPCI = "sys/bus/pci/devices"

// readFunctions finds the PCI functions that matter, their subfunctions, and what
// stands behind their representors.
func (s *scan) readFunctions(context.Context) error {
	for _, addr := range s.t.list(busPCI) {
		if !isPCI(addr) {
			continue
		}
		dir := s.t.target(path.Join(busPCI, addr))
		id := s.hexID(dir+"/vendor") + ":" + s.hexID(dir+"/device")
		_, known := families[id]
		isNet := strings.HasPrefix(s.t.text(dir+"/class"), "0x02")
		rdma := slices.ContainsFunc(s.inv.RDMA, func(d RDMADevice) bool { p, _, _ := strings.Cut(d.Parent, "/"); return p == addr })
		if !known && !rdma && (!isNet || s.devlink[addr] == nil) {
			continue
		}
		f := Function{PCI: addr, ID: id}
		s.common(&f, dir)
		s.kind(&f, dir)
		s.funcs = append(s.funcs, f)
		s.subfunctions(f, dir)
	}
	for i := range s.funcs {
		if s.funcs[i].Aux == "" {
			s.representors(i)
		}
	}
	for _, d := range s.inv.RDMA {
		if pci, _, _ := strings.Cut(d.Parent, "/"); isPCI(pci) {
			continue
		}
		f := Function{}
		note(s, &f.RDMA, d.Name, d.Name, FromSysfs, classIB, "the device exists")
		if d.Software.Known() && d.Software.Value {
			f.Kind = Claim[Kind]{Software, d.Software.Evidence}
		}
		netdev := d.Parent
		if netdev == "" && len(d.Ports) > 0 {
			netdev = d.Ports[0].Netdev
		}
		if n := s.netdevs[netdev]; n != nil {
			note(s, &f.Netdev, d.Name+": netdev", netdev, FromSysfs, path.Join(classIB, d.Name), "parent or first GID")
			if n.mac != "" {
				note(s, &f.MAC, d.Name+": MAC", n.mac, FromSysfs, path.Join(classNet, netdev, "address"), n.mac)
			}
		}
		s.inv.Loose = append(s.inv.Loose, f)
	}
	return nil
}

// hexID is a PCI id without its 0x, "0000" when it is absent or garbage.
func (s *scan) hexID(p string) string {
	t := s.t.text(p)
	n, err := strconv.ParseUint(strings.TrimPrefix(t, "0x"), 16, 16)
	if err != nil {
		if t != "" {
			s.warn("%s: %q is no PCI id", p, clip(t))
		}
		return "0000"
	}
	return fmt.Sprintf("%04x", n)
}

// common fills what PCI functions and subfunctions have alike.
func (s *scan) common(f *Function, dir string) {
	name := f.Name()
	if d := s.t.link(dir + "/driver"); d != "" {
		note(s, &f.Driver, name+": driver", d, FromSysfs, dir+"/driver", d)
	}
	if n, ok := s.t.number(dir + "/numa_node"); ok && n >= 0 { // -1: the firmware did not say
		note(s, &f.NUMA, name+": NUMA node", n, FromSysfs, dir+"/numa_node", strconv.Itoa(n))
	}
	parent := f.PCI
	device := f.PCI
	if f.Aux != "" {
		parent, device = f.PCI+"/"+f.Aux, f.Aux
	}
	var rdma []string
	for _, d := range s.inv.RDMA {
		if d.Parent == parent {
			rdma = append(rdma, d.Name)
		}
	}
	if len(rdma) > 0 {
		note(s, &f.RDMA, name+": RDMA device", rdma[0], FromSysfs, path.Join(classIB, rdma[0]), "it hangs below "+device)
		if len(rdma) > 1 {
			s.warn("%s has %d RDMA devices: %s", name, len(rdma), strings.Join(rdma, ", "))
		}
	}
	if mapped := s.cfg.RDMAOf(device); len(mapped) > 0 && !slices.Contains(mapped, f.RDMA.Value) {
		note(s, &f.RDMA, name+": RDMA device", mapped[0], FromRdmamap, device, mapped[0])
	} else if len(mapped) > 0 {
		note(s, &f.RDMA, name+": RDMA device", f.RDMA.Value, FromRdmamap, device, f.RDMA.Value)
	}
	s.ownNetdev(f)
	if d := s.devlink[device]; d != nil && d.Eswitch != "" {
		note(s, &f.Eswitch, name+": eswitch", d.Eswitch, FromDevlink, d.Bus+"/"+d.Device, d.Eswitch)
	}
}

// ownNetdev finds the netdev that is the function's and not a representor.
func (s *scan) ownNetdev(f *Function) {
	var own []*netdev
	for _, name := range sortedKeys(s.netdevs) {
		n := s.netdevs[name]
		if n.pci != f.PCI || n.aux != f.Aux {
			continue
		}
		if p := s.portOf(f.PCI, name); p != nil {
			n.representor = strings.HasPrefix(p.Flavour, "pci")
		} else if pn, ok := parsePortName(n.port); ok {
			n.representor = !pn.Physical
		}
		if !n.representor {
			own = append(own, n)
		}
	}
	if len(own) > 1 {
		// The uplink of a switch names its port; others do not.
		up := slices.DeleteFunc(slices.Clone(own), func(n *netdev) bool { pn, _ := parsePortName(n.port); return !pn.Physical })
		if len(up) != 1 {
			s.warn("%s has %d netdevs of which none is its own for certain", f.Name(), len(own))
			return
		}
		own = up
	}
	if len(own) == 0 {
		return
	}
	n := own[0]
	where := path.Join(classNet, n.name)
	note(s, &f.Netdev, f.Name()+": netdev", n.name, FromSysfs, where, "it hangs below the function")
	if n.mac != "" {
		note(s, &f.MAC, f.Name()+": MAC", n.mac, FromSysfs, where+"/address", n.mac)
	}
	if n.swID != "" {
		note(s, &f.SwitchID, f.Name()+": switch", n.swID, FromSysfs, where+"/phys_switch_id", n.swID)
	}
}

// portOf is the devlink port of a netdev, nil when there is none.
func (s *scan) portOf(device, netdev string) *DevlinkPort {
	d := s.devlink[device]
	if d == nil || netdev == "" {
		return nil
	}
	for i := range d.Ports {
		if d.Ports[i].Netdev == netdev {
			return &d.Ports[i]
		}
	}
	return nil
}

func (s *scan) kind(f *Function, dir string) {
	say := func(k Kind, src Source, where, says string) { note(s, &f.Kind, f.PCI+": kind", k, src, where, says) }
	if d := s.devlink[f.PCI]; d != nil {
		for _, p := range d.Ports {
			if p.Flavour == "pcipf" {
				say(ECPF, FromDevlink, fmt.Sprintf("%s/%s/%d", d.Bus, d.Device, p.Index), "a port of flavour pcipf is on an ECPF only")
				break
			}
		}
	}
	for _, name := range sortedKeys(s.netdevs) {
		n := s.netdevs[name]
		if n.pci != f.PCI || n.aux != "" {
			continue
		}
		if n.smartNIC {
			say(ECPF, FromSysfs, path.Join(classNet, name, "smart_nic"), "the driver makes it on an ECPF only")
		}
		if pn, ok := parsePortName(n.port); ok && strings.HasPrefix(f.ID, "15b3:") && pn.PF >= 0 && pn.VF < 0 && pn.SF < 0 && s.devlink[f.PCI] == nil {
			say(ECPF, FromNetdevName, path.Join(classNet, name), n.port+": mlx5 has a representor of a PF on an ECPF only")
		}
	}
	if l := s.t.link(dir + "/physfn"); isPCI(l) {
		say(VF, FromSysfs, dir+"/physfn", "virtual function of "+l)
		parent := path.Join(path.Dir(dir), l)
		if t := s.t.target(path.Join(busPCI, l)); t != "" {
			parent = t
		}
		for _, e := range s.t.list(parent) {
			if n, err := strconv.Atoi(strings.TrimPrefix(e, "virtfn")); err == nil && strings.HasPrefix(e, "virtfn") && s.t.link(path.Join(parent, e)) == f.PCI {
				note(s, &f.Number, f.PCI+": number", n, FromSysfs, path.Join(parent, e), f.PCI)
			}
		}
	}
	switch {
	case f.Kind.Known():
	case families[f.ID].vf:
		say(VF, FromPCIID, f.ID, families[f.ID].name+" is the id of virtual functions")
	case s.t.exists(dir + "/sriov_totalvfs"):
		say(PF, FromSysfs, dir+"/sriov_totalvfs", "SR-IOV is a capability of physical functions")
	}
}

// subfunctions adds those of a PCI function.
func (s *scan) subfunctions(parent Function, dir string) {
	for _, e := range s.t.list(dir) {
		if !strings.Contains(e, ".sf.") {
			continue
		}
		f := Function{PCI: parent.PCI, Aux: e}
		sub := path.Join(dir, e)
		note(s, &f.Kind, f.Name()+": kind", SF, FromSysfs, sub, "an auxiliary device of a subfunction")
		if n, ok := s.t.number(sub + "/sfnum"); ok {
			note(s, &f.Number, f.Name()+": number", n, FromSysfs, sub+"/sfnum", strconv.Itoa(n))
		}
		f.NUMA = parent.NUMA
		s.common(&f, sub)
		s.funcs = append(s.funcs, f)
	}
}
