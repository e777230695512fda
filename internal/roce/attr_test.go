package roce

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
)

// attrLink is a link that only has an address and a size.
type attrLink struct {
	link.Link
	addr netip.Addr
	mtu  int
}

func (l attrLink) Addr() netip.Addr { return l.addr }
func (l attrLink) MTU() int         { return l.mtu }

func withLinks(virtual bool, l ...attrLink) *devCtx {
	c := objects(virtual)
	for _, x := range l {
		c.n.links = append(c.n.links, x)
	}
	return c
}

func TestPortAttr(t *testing.T) {
	lo, six := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fd00::5")
	c := withLinks(false, attrLink{addr: lo, mtu: 4096}, attrLink{addr: six, mtu: 1024})
	var a provider.PortAttr
	for _, p := range []uint8{0, 2, 255} {
		require.Equal(t, syscall.EINVAL, c.QueryPort(p, &a))
	}
	c.n.stat.BadQKey, c.n.stat.BadPKey = 7, 8
	require.NoError(t, c.QueryPort(1, &a))
	require.Equal(t, provider.PortActive, a.State)
	require.Equal(t, provider.LinkLayerEthernet, a.LinkLayer)
	require.Equal(t, provider.MTU1024, a.ActiveMTU, "the smallest of the links")
	require.Equal(t, provider.MTU4096, a.MaxMTU)
	require.EqualValues(t, 2, a.GIDTblLen)
	require.EqualValues(t, 1, a.PKeyTblLen)
	require.EqualValues(t, 7, a.QKeyViolCntr)
	require.EqualValues(t, 8, a.BadPKeyCntr)
	for bytes, want := range map[int]provider.MTU{256: 1, 511: 1, 512: 2, 1024: 3, 2048: 4, 4096: 5, 9000: 5} {
		require.Equal(t, want, mtuCode(bytes), "%d", bytes)
	}

	k, err := c.QueryPKey(1, 0)
	require.NoError(t, err)
	require.EqualValues(t, 0xffff, k)
	i, err := c.PKeyIndex(1, 0xffff)
	require.NoError(t, err)
	require.Zero(t, i)
	for _, bad := range []func() error{
		func() error { _, err := c.QueryPKey(1, 1); return err },
		func() error { _, err := c.QueryPKey(1, -1); return err },
		func() error { _, err := c.QueryPKey(2, 0); return err },
		func() error { _, err := c.PKeyIndex(1, 0x7fff); return err },
		func() error { _, err := c.PKeyIndex(0, 0xffff); return err },
	} {
		require.Equal(t, syscall.EINVAL, bad())
	}
}

func TestGIDs(t *testing.T) {
	lo, six := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fd00::5")
	c := withLinks(false, attrLink{addr: lo, mtu: 4096}, attrLink{addr: six, mtu: 4096})
	l, err := c.QueryGIDTable(2, 0)
	require.NoError(t, err)
	require.Len(t, l, 2)
	for i, a := range []netip.Addr{lo, six} {
		require.Equal(t, a, l[i].GID.Addr())
		require.EqualValues(t, i, l[i].Index)
		require.Equal(t, provider.GIDTypeRoCEV2, l[i].Type)
		g, err := c.QueryGID(1, i)
		require.NoError(t, err)
		require.Equal(t, l[i].GID, g)
		e, err := c.QueryGIDEx(1, uint32(i), 0)
		require.NoError(t, err)
		require.Equal(t, l[i], e)
	}
	ifs, err := net.Interfaces()
	require.NoError(t, err)
	for _, x := range ifs {
		if x.Flags&net.FlagLoopback != 0 {
			require.EqualValues(t, x.Index, l[0].Ifindex)
		}
	}
	require.Zero(t, l[1].Ifindex, "nobody has this address")
	require.NotZero(t, c.n.ifindex(netip.MustParseAddr("127.9.9.9")), "all of 127.0.0.0/8 is the loopback's")
	require.Zero(t, withLinks(true, attrLink{addr: lo, mtu: 4096}).n.ifindex(lo), "a made-up network has no interfaces")

	for _, bad := range []func() error{
		func() error { _, err := c.QueryGIDTable(1, 0); return err },
		func() error { _, err := c.QueryGIDTable(-1, 0); return err },
		func() error { _, err := c.QueryGIDTable(2, 1); return err },
		func() error { _, err := c.QueryGID(1, 2); return err },
		func() error { _, err := c.QueryGID(1, -1); return err },
		func() error { _, err := c.QueryGID(0, 0); return err },
		func() error { _, err := c.QueryGIDEx(1, 1<<32-1, 0); return err },
		func() error { _, err := c.QueryGIDEx(1<<8|1, 0, 0); return err },
		func() error { _, err := c.QueryGIDEx(1, 0, 1); return err },
	} {
		require.Equal(t, syscall.EINVAL, bad())
	}
}

func TestDeviceAttr(t *testing.T) {
	lo := netip.MustParseAddr("127.0.0.1")
	c, d := withLinks(false, attrLink{addr: lo, mtu: 4096}), withLinks(false, attrLink{addr: lo.Next(), mtu: 4096})
	var a, b provider.DeviceAttr
	require.NoError(t, c.QueryDevice(&a))
	require.NoError(t, d.QueryDevice(&b))
	require.NotEqual(t, a.NodeGUID, b.NodeGUID)
	require.Equal(t, New(Config{}).Info().GUID, a.NodeGUID, "the same before and after it is opened")
	require.NotEmpty(t, a.FWVer())
	require.Zero(t, a.VendorID)
	require.Positive(t, a.MaxMR)
	require.EqualValues(t, 1, a.PhysPortCnt)
	require.NotZero(t, a.DeviceCapFlags&provider.DeviceMemWindowType2B)
	var x provider.DeviceAttrEx
	require.NoError(t, c.QueryDeviceEx(&x))
	require.Equal(t, a, x.Orig)
	require.Zero(t, x.ODP)
}
