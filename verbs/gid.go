package verbs

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// GIDFromAddr is the RoCE v2 GID of an IP address; IPv4 is mapped into IPv6.
func GIDFromAddr(a netip.Addr) GID { return provider.GIDFromAddr(a) }

// SelectGID finds the GID of a port to use from a local address: the entry that
// is the address itself, RoCE v2 before v1. An invalid address asks for the
// default: an IPv4-mapped entry, else a global IPv6 one, else a link-local one,
// for entry 0 is often derived from the MAC and not a configured address. When
// none fits the error lists what the port has.
//
// Verb: ibv_query_gid_table(3).
func (c *Context) SelectGID(port uint8, local netip.Addr) (GIDEntry, error) {
	pa, err := c.QueryPort(port)
	if err != nil {
		return GIDEntry{}, err
	}
	a, err := c.QueryDevice()
	if err != nil {
		return GIDEntry{}, err
	}
	table, err := c.QueryGIDTable(max(1, int(pa.GIDTblLen)*int(a.PhysPortCnt)), 0)
	if err != nil {
		return GIDEntry{}, err
	}
	return selectGID(c.Name(), table, port, local)
}

func selectGID(dev string, table []GIDEntry, port uint8, local netip.Addr) (GIDEntry, error) {
	best, bestScore := GIDEntry{}, 0
	var have []string
	for _, e := range table {
		if e.Port != uint32(port) {
			continue
		}
		have = append(have, fmt.Sprintf("%d: %v (%v)", e.Index, e.GID.Addr(), e.Type))
		if s := gidScore(e, local); s > bestScore {
			best, bestScore = e, s
		}
	}
	if bestScore > 0 {
		return best, nil
	}
	list := "it has none; give its netdev an address"
	if len(have) > 0 {
		list = "it has " + strings.Join(have, ", ")
	}
	if !local.IsValid() {
		return GIDEntry{}, fmt.Errorf("verbs: %s port %d has no usable GID: %s: %w", dev, port, list, syscall.EADDRNOTAVAIL)
	}
	return GIDEntry{}, fmt.Errorf("verbs: %s port %d has no GID for %v: %s: %w", dev, port, local, list, syscall.EADDRNOTAVAIL)
}

// gidScore ranks an entry; 0 does not fit.
func gidScore(e GIDEntry, local netip.Addr) int {
	a := e.GID.Addr()
	s := 1
	switch e.Type {
	case GIDTypeRoCEV2:
		s += 8
	case GIDTypeIB:
		s += 4
	}
	if local.IsValid() {
		if a != local.WithZone("").Unmap() {
			return 0
		}
		return s
	}
	switch {
	case e.GID.IsZero() || a.IsUnspecified():
		return 0
	case a.Is4():
		s += 48
	case !a.IsLinkLocalUnicast():
		s += 32
	}
	return s
}
