package dpu

import (
	"context"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strings"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func isMAC(s string) bool {
	m, err := net.ParseMAC(s)
	return err == nil && len(m) == 6
}

// slot is the PCI address without its function.
func slot(pci string) string {
	i := strings.LastIndexByte(pci, '.')
	return pci[:max(i, 0)]
}

// readCards groups functions: those of one slot, a virtual function with its
// physical one, and slots whose boards have one serial number.
func (s *scan) readCards(context.Context) error {
	groups := map[string]*Card{}
	var order []string
	for _, f := range s.funcs {
		key := slot(f.PCI)
		if p := s.physfn(f.PCI); isPCI(p) {
			key = slot(p)
		}
		if groups[key] == nil {
			groups[key] = &Card{}
			order = append(order, key)
		}
		groups[key].Functions = append(groups[key].Functions, f)
	}
	for _, key := range order {
		c := groups[key]
		for _, r := range s.remote {
			if slices.ContainsFunc(c.Functions, func(f Function) bool { return f.PCI == r.pci }) {
				c.Functions = append(c.Functions, r.f)
			}
		}
		s.identify(c)
		if o := s.sameBoard(c); o != nil {
			s.merge(o, c)
			continue
		}
		s.inv.Cards = append(s.inv.Cards, *c)
	}
	s.dmiOfBoard()
	return nil
}

// sameBoard finds the card that c is another slot of. One of another vendor or
// family has the serial number by chance.
func (s *scan) sameBoard(c *Card) *Card {
	if !c.Serial.Known() || !isSerial(c.Serial.Value) {
		return nil
	}
	for i := range s.inv.Cards {
		o := &s.inv.Cards[i]
		if o.Serial.Value == c.Serial.Value && o.Vendor.Value == c.Vendor.Value && o.Family.Value == c.Family.Value {
			return o
		}
	}
	return nil
}

func (s *scan) merge(o, c *Card) {
	o.Functions = append(o.Functions, c.Functions...)
	o.Serial.Evidence = append(o.Serial.Evidence, c.Serial.Evidence...)
	for _, f := range []struct{ to, from *Claim[string] }{
		{&o.Model, &c.Model}, {&o.PartNumber, &c.PartNumber}, {&o.PSID, &c.PSID}, {&o.Firmware, &c.Firmware}, {&o.SysImageGUID, &c.SysImageGUID},
	} {
		join(s, f.to, f.from, o.Serial.Value)
	}
	join(s, &o.Mode, &c.Mode, o.Serial.Value)
}

func join[T comparable](s *scan, to, from *Claim[T], serial string) {
	for _, e := range from.Evidence {
		note(s, to, "card "+serial, from.Value, e.Source, e.Where, e.Says)
	}
}

// identify makes the claims about a card from those of its functions.
func (s *scan) identify(c *Card) {
	name := "card at " + slot(c.Functions[0].PCI)
	str := func(to *Claim[string], what, v string, src Source, where, says string) {
		if v != "" {
			note(s, to, name+": "+what, v, src, where, says)
		}
	}
	for i := range c.Functions {
		f := &c.Functions[i]
		if f.ID == "" {
			continue // a subfunction, or a remote one
		}
		vendor, _, _ := strings.Cut(f.ID, ":")
		str(&c.Vendor, "vendor", vendors[vendor], FromPCIID, f.PCI, f.ID)
		fam := families[f.ID]
		vf := f.Kind.Known() && f.Kind.Value == VF
		if !vf || !c.Family.Known() && i == 0 {
			str(&c.Family, "family", fam.name, FromPCIID, f.PCI, f.ID)
		}
		if vf {
			continue
		}
		s.vpd(c, f, str)
		s.rdmaIdentity(c, f, str)
		s.devlinkIdentity(c, f, str)
		s.mode(c, f, name)
	}
}

type stringClaim func(to *Claim[string], what, v string, src Source, where, says string)

func (s *scan) vpd(c *Card, f *Function, str stringClaim) {
	var b []byte
	where := path.Join(busPCI, f.PCI, "vpd")
	if s.cfg.VPD != nil {
		var err error
		if b, err = s.cfg.VPD(f.PCI); err != nil {
			s.warn("%s: vital product data: %v", f.PCI, err)
		}
	} else {
		b = s.t.bytes(path.Join(s.t.target(path.Join(busPCI, f.PCI)), "vpd"))
	}
	if len(b) == 0 {
		return
	}
	v, err := ParseVPD(b)
	if err != nil {
		s.warn("%s: %v", where, err)
	}
	str(&c.Model, "model", v.Product, FromVPD, where, "identifier string")
	str(&c.PartNumber, "part number", v.Fields["PN"], FromVPD, where, "PN")
	if sn := v.Fields["SN"]; isSerial(sn) {
		str(&c.Serial, "serial", sn, FromVPD, where, "SN")
	}
}

func (s *scan) rdmaIdentity(c *Card, f *Function, str stringClaim) {
	for _, d := range s.inv.RDMA {
		if !f.RDMA.Known() || d.Name != f.RDMA.Value {
			continue
		}
		where := path.Join(classIB, d.Name)
		str(&c.Firmware, "firmware", d.Firmware, FromSysfs, where+"/fw_ver", d.Firmware)
		if strings.HasPrefix(f.ID, "15b3:") {
			str(&c.PSID, "PSID", d.BoardID, FromSysfs, where+"/board_id", d.BoardID)
		}
		if isGUID(d.SysImageGUID) {
			str(&c.SysImageGUID, "system image GUID", d.SysImageGUID, FromSysfs, where+"/sys_image_guid", d.SysImageGUID)
		}
	}
	little := s.cfg.Arch == "amd64" || s.cfg.Arch == "arm64"
	if g := guidOfSwitch(f.SwitchID.Value); strings.HasPrefix(f.ID, "15b3:") && little && isGUID(g) {
		str(&c.SysImageGUID, "system image GUID", g, FromSysfs, "phys_switch_id of "+f.PCI, f.SwitchID.Value+", its bytes reversed")
	}
}

func (s *scan) devlinkIdentity(c *Card, f *Function, str stringClaim) {
	d := s.devlink[f.PCI]
	if d == nil {
		return
	}
	where := d.Bus + "/" + d.Device
	str(&c.Firmware, "firmware", d.Info["fw.version"], FromDevlink, where, "fw.version")
	str(&c.PSID, "PSID", d.Info["fw.psid"], FromDevlink, where, "fw.psid")
	// Not serial_number: that is the function's on some drivers.
	if sn := d.Info["board.serial_number"]; isSerial(sn) {
		str(&c.Serial, "serial", sn, FromDevlink, where, "board.serial_number")
	}
}

func (s *scan) mode(c *Card, f *Function, name string) {
	if f.Kind.Known() && f.Kind.Value == ECPF {
		e := f.Kind.Evidence[0]
		note(s, &c.Mode, name+": mode", ModeDPU, e.Source, e.Where, e.Says)
	}
	if families[f.ID].nic {
		note(s, &c.Mode, name+": mode", ModeNIC, FromPCIID, f.ID, families[f.ID].name+" has no cores of its own")
	}
	text, ok := s.cfg.Mstconfig[f.PCI]
	if !ok {
		return
	}
	m, err := ParseMstconfig(text)
	if err != nil {
		s.warn("%s: %v", f.PCI, err)
		return
	}
	when := "of the next boot"
	if m.InForce {
		when = "in force"
	}
	if mode, why := m.Mode(); mode != "" {
		note(s, &c.Mode, name+": mode", mode, FromMstconfig, f.PCI, why+" ("+when+")")
	} else if families[f.ID].dpu {
		s.warn("%s: the mstconfig text does not add up to a mode", f.PCI)
	}
	if m.Description != "" && !c.Model.Known() {
		note(s, &c.Model, name+": model", m.Description, FromMstconfig, f.PCI, "Description")
	}
	if m.Name != "" && !c.PartNumber.Known() {
		note(s, &c.PartNumber, name+": part number", m.Name, FromMstconfig, f.PCI, "Name")
	}
}

// dmiOfBoard takes the serial number of the DMI for the card's, where the machine
// is the card: on the cores of a BlueField, which has one card, itself.
func (s *scan) dmiOfBoard() {
	d := s.inv.DMI
	if s.cfg.Arch != "arm64" || !strings.Contains(strings.ToLower(d.Board), "bluefield") {
		return
	}
	var own []*Card
	for i := range s.inv.Cards {
		if s.inv.Cards[i].IsDPUFamily() {
			own = append(own, &s.inv.Cards[i])
		}
	}
	if len(own) != 1 {
		return
	}
	if isSerial(d.Serial) {
		note(s, &own[0].Serial, "serial", d.Serial, FromDMI, "product_serial", fmt.Sprintf("board %q", d.Board))
	}
	if d.Product != "" && !own[0].Model.Known() {
		note(s, &own[0].Model, "model", d.Product, FromDMI, "product_name", fmt.Sprintf("board %q", d.Board))
	}
}
