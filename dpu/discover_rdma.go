package dpu

import (
	"bytes"
	"context"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"
)

const classIB = "sys/class/infiniband"

func (s *scan) readRDMA(ctx context.Context) error {
	links := map[string]RDMALink{}
	list, err := s.cfg.RDMALinks(ctx)
	if err != nil && !errors.Is(err, errNoLive) {
		s.warn("%v", err)
	}
	for _, l := range list {
		links[l.Name] = l
	}
	for _, name := range s.t.list(classIB) {
		dir := s.t.target(path.Join(classIB, name))
		if !s.t.exists(dir) {
			continue
		}
		d := RDMADevice{
			Name: name, NodeGUID: s.t.text(dir + "/node_guid"), SysImageGUID: s.t.text(dir + "/sys_image_guid"),
			Firmware: s.t.text(dir + "/fw_ver"), BoardID: s.t.text(dir + "/board_id"), Ports: []Port{},
		}
		if l, ok := links[name]; ok {
			s.agree(&d.NodeGUID, l.NodeGUID, name, "node GUID")
			s.agree(&d.SysImageGUID, l.SysImageGUID, name, "system image GUID")
			s.agree(&d.Firmware, l.Firmware, name, "firmware")
		}
		pci, aux := owner(path.Dir(dir))
		switch {
		case pci != "" && aux != "":
			d.Parent = pci + "/" + aux
		case pci != "":
			d.Parent = pci
		default:
			d.Parent = s.t.text(dir + "/parent")
			if strings.Contains(dir, "/devices/virtual/") {
				note(s, &d.Software, name, true, FromSysfs, dir, "the device is on no bus")
			}
		}
		if pci != "" {
			note(s, &d.Software, name, false, FromSysfs, dir, "the device is on the PCI bus")
			s.rdmaOf[d.Parent] = name
		}
		for _, p := range s.t.list(dir + "/ports") {
			if n, err := strconv.Atoi(p); err == nil {
				d.Ports = append(d.Ports, s.port(path.Join(dir, "ports", p), n))
			}
		}
		s.inv.RDMA = append(s.inv.RDMA, d)
	}
	return nil
}

// agree fills what sysfs does not have from netlink; a difference is a warning.
func (s *scan) agree(have *string, other, name, what string) {
	switch {
	case other == "" || strings.Trim(other, "0:.") == "":
	case *have == "":
		*have = other
	case *have != other:
		s.warn("%s: %s is %q in sysfs and %q in RDMA netlink", name, what, *have, other)
	}
}

func (s *scan) port(dir string, n int) Port {
	p := Port{Number: n, LinkLayer: s.t.text(dir + "/link_layer"), Rate: s.t.text(dir + "/rate")}
	// "4: ACTIVE"
	_, p.State, _ = strings.Cut(s.t.text(dir+"/state"), ": ")
	p.GIDs = s.gids(dir)
	if len(p.GIDs) > 0 {
		p.Netdev = p.GIDs[0].Netdev
	}
	return p
}

// gids reads the table of a port. rxe's has 1024 slots, so the folder is looked up
// once, and type and netdev only for slots in use: the others answer EINVAL.
func (s *scan) gids(dir string) (out []GID) {
	names := s.t.list(dir + "/gids")
	if len(names) == 0 {
		return nil
	}
	sub, err := s.t.root.OpenRoot(dir + "/gids")
	if err != nil {
		if !isAbsent(err) {
			s.warn("%v", err)
		}
		return nil
	}
	defer sub.Close()
	for _, name := range names {
		i, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		b, err := sub.ReadFile(name)
		g := printable(bytes.TrimSpace(b))
		if err != nil || strings.Trim(g, "0:") == "" {
			continue
		}
		out = append(out, GID{
			Index: i, GID: g, Type: s.t.text(path.Join(dir, "gid_attrs/types", name)), Netdev: s.t.text(path.Join(dir, "gid_attrs/ndevs", name)),
		})
	}
	slices.SortFunc(out, func(a, b GID) int { return a.Index - b.Index })
	return out
}
