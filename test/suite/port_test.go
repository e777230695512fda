package suite_test

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("D06", "query port", queryPort)
	register("D07", "query port bad", queryPortBad)
	register("D08", "pkey", pkey)
	register("D09", "gid", gidTable)
	register("D10", "gid_ex", gidEx)
	register("D11", "gid_ex bad flow", gidExBad)
	register("D12", "gid table", gidTableBounds)
	register("D13", "gid selection", gidSelection)
}

// ibMTU is the largest MTU of the specification that fits a netdev: the RoCE
// headers take 80 bytes.
func ibMTU(netdev int) verbs.MTU {
	m := verbs.MTU256
	for m < verbs.MTU4096 && 256<<m <= netdev-80 {
		m++
	}
	return m
}

func queryPort(t *testing.T, e *env) {
	a, err := e.ctx.QueryPort(e.port)
	require.NoError(t, err)
	require.Equal(t, verbs.PortActive, a.State)
	require.Positive(t, a.GIDTblLen)
	require.NotZero(t, a.PKeyTblLen)
	require.NotZero(t, a.MaxMsgSz)
	require.LessOrEqual(t, a.ActiveMTU, a.MaxMTU)
	if e.soft {
		require.Equal(t, verbs.LinkLayerEthernet, a.LinkLayer)
		require.EqualValues(t, 1<<31, a.MaxMsgSz)
		require.Equal(t, verbs.MTU4096, a.ActiveMTU, "loopback and memory take the largest packets")
	}
	if !e.isRXE {
		return
	}
	require.Equal(t, verbs.LinkLayerEthernet, a.LinkLayer)
	if kernelAtLeast(6, 12) {
		require.EqualValues(t, 1<<31, a.MaxMsgSz)
	} else {
		require.EqualValues(t, 8<<20, a.MaxMsgSz)
	}
	link := netdevOf(t, e.netdev)
	old := link.Attrs().MTU
	require.Equal(t, ibMTU(old), a.ActiveMTU, "netdev MTU %d", old)
	t.Cleanup(func() { require.NoError(t, netlink.LinkSetMTU(link, old)) })
	for _, mtu := range []int{1500, 2200, 1300, old} {
		require.NoError(t, netlink.LinkSetMTU(link, mtu))
		eventually(t, "active MTU follows the netdev's", func() bool {
			a, err := e.ctx.QueryPort(e.port)
			require.NoError(t, err)
			return a.ActiveMTU == ibMTU(mtu)
		})
	}
	require.Equal(t, verbs.MTU1024, ibMTU(1500))
	require.Equal(t, verbs.MTU4096, ibMTU(9000))
}

func queryPortBad(t *testing.T, e *env) {
	a, err := e.ctx.QueryDevice()
	require.NoError(t, err)
	for _, p := range []uint8{0, a.PhysPortCnt + 1, noPort} {
		_, err := e.ctx.QueryPort(p)
		require.ErrorIs(t, err, syscall.EINVAL, "port %d", p)
		require.ErrorContains(t, err, "ibv_query_port")
	}
}

func pkey(t *testing.T, e *env) {
	pa, err := e.ctx.QueryPort(e.port)
	require.NoError(t, err)
	k, err := e.ctx.QueryPKey(e.port, 0)
	require.NoError(t, err)
	require.EqualValues(t, 0xffff, k)
	for i := range int(pa.PKeyTblLen) {
		k, err := e.ctx.QueryPKey(e.port, i)
		require.NoError(t, err)
		if k == 0 {
			continue
		}
		got, err := e.ctx.PKeyIndex(e.port, k)
		require.NoError(t, err)
		require.Equal(t, i, got)
	}
	for _, i := range []int{-1, int(pa.PKeyTblLen), 1 << 20, 1 << 32} {
		_, err := e.ctx.QueryPKey(e.port, i)
		require.Error(t, err, "index %d", i)
	}
	_, err = e.ctx.QueryPKey(noPort, 0)
	require.Error(t, err)
	_, err = e.ctx.PKeyIndex(e.port, 0x1234)
	require.Error(t, err, "a key that is not in the table")
}

func (e *env) table() []verbs.GIDEntry {
	e.t.Helper()
	pa, err := e.ctx.QueryPort(e.port)
	require.NoError(e.t, err)
	l, err := e.ctx.QueryGIDTable(int(pa.GIDTblLen), 0)
	require.NoError(e.t, err)
	require.NotEmpty(e.t, l)
	return l
}

func gidTable(t *testing.T, e *env) {
	for _, x := range e.table() {
		g, err := e.ctx.QueryGID(uint8(x.Port), int(x.Index))
		require.NoError(t, err)
		require.Equal(t, x.GID, g)
		require.False(t, g.IsZero())
		require.Equal(t, x.GID, verbs.GIDFromAddr(x.GID.Addr()))
	}
	for _, i := range []int{-1, 1 << 20, 1 << 32} {
		_, err := e.ctx.QueryGID(e.port, i)
		require.Error(t, err, "index %d", i)
	}
}

func gidEx(t *testing.T, e *env) {
	for _, x := range e.table() {
		y, err := e.ctx.QueryGIDEx(x.Port, x.Index, 0)
		require.NoError(t, err)
		require.Equal(t, x, y)
		if e.isRXE || e.soft {
			require.Equal(t, verbs.GIDTypeRoCEV2, y.Type)
		}
		if e.isRXE {
			ifi, err := net.InterfaceByName(e.netdev)
			require.NoError(t, err)
			require.EqualValues(t, ifi.Index, y.Ifindex)
		}
	}
}

func gidExBad(t *testing.T, e *env) {
	pa, err := e.ctx.QueryPort(e.port)
	require.NoError(t, err)
	for name, q := range map[string][3]uint32{
		"port 0":          {0, 0, 0},
		"port too big":    {uint32(e.port) + 100, 0, 0},
		"index too big":   {uint32(e.port), uint32(pa.GIDTblLen), 0},
		"index wraps":     {uint32(e.port), 1<<32 - 1, 0},
		"unknown flag":    {uint32(e.port), 0, 1},
		"all flags":       {uint32(e.port), 0, 1<<32 - 1},
		"all of it wrong": {1<<32 - 1, 1<<32 - 1, 1<<32 - 1},
	} {
		_, err := e.ctx.QueryGIDEx(q[0], q[1], q[2])
		require.Error(t, err, name)
		require.ErrorContains(t, err, "ibv_query_gid_ex")
	}
}

func gidTableBounds(t *testing.T, e *env) {
	all := e.table()
	require.Greater(t, len(all), 1, "this case needs two GIDs, for instance of IPv4 and of IPv6")
	exact, err := e.ctx.QueryGIDTable(len(all), 0)
	require.NoError(t, err)
	require.Equal(t, all, exact)
	_, err = e.ctx.QueryGIDTable(1<<62, 0)
	require.NoError(t, err)
	for _, n := range []int{len(all) - 1, 1, 0, -1} {
		_, err := e.ctx.QueryGIDTable(n, 0)
		require.ErrorIs(t, err, syscall.EINVAL, "%d slots for %d GIDs", n, len(all))
	}
	_, err = e.ctx.QueryGIDTable(len(all), 1)
	require.Error(t, err, "flags")
}

func gidSelection(t *testing.T, e *env) {
	require.True(t, e.ip4.IsValid(), "the netdev needs an IPv4 address")
	g, err := e.ctx.SelectGID(e.port, e.ip4)
	require.NoError(t, err)
	require.Equal(t, e.ip4, g.GID.Addr())
	if e.isRXE || e.soft {
		require.Equal(t, verbs.GIDTypeRoCEV2, g.Type)
	}
	d, err := e.ctx.SelectGID(e.port, noIP)
	require.NoError(t, err)
	require.True(t, d.GID.Addr().Is4(), "the default is an IPv4 GID, not entry 0 from the MAC")

	if e.soft { // whose addresses do not change
		e.softGIDs()
		return
	}
	ip6 := netip.MustParseAddr("fd00:7a72:646d::13")
	link := netdevOf(t, e.netdev)
	a, err := netlink.ParseAddr(ip6.String() + "/64")
	require.NoError(t, err)
	a.Flags = 0x02 // IFA_F_NODAD
	require.NoError(t, netlink.AddrAdd(link, a))
	eventually(t, "GID of the new address", func() bool {
		g, err = e.ctx.SelectGID(e.port, ip6)
		return err == nil
	})
	require.Equal(t, ip6, g.GID.Addr())
	require.NoError(t, netlink.AddrDel(link, a))
	eventually(t, "GID of the removed address to go", func() bool {
		_, err = e.ctx.SelectGID(e.port, ip6)
		return err != nil
	})
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	require.ErrorContains(t, err, ip6.String())
	require.ErrorContains(t, err, e.ip4.String(), "the error lists what the port has")

	ll := g
	for _, x := range e.table() {
		if x.GID.Addr().IsLinkLocalUnicast() {
			ll = x
		}
	}
	require.True(t, ll.GID.Addr().IsLinkLocalUnicast(), "rxe always has the link-local GID")
	g, err = e.ctx.SelectGID(e.port, ll.GID.Addr().WithZone(e.netdev))
	require.NoError(t, err, "a zone does not matter")
	require.Equal(t, ll.GID, g.GID)
}
