package suite_test

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func localAddrs() []netip.Addr {
	var out []netip.Addr
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr())
		}
	}
	return out
}

// joinHost makes the host a member of the group, so that its own multicasts
// come back to it.
func (e *env) joinHost(ip netip.Addr) {
	if e.soft { // members on one device reach each other in it
		return
	}
	ifi, err := net.InterfaceByName(e.netdev)
	require.NoError(e.t, err)
	c, err := net.ListenMulticastUDP("udp", ifi, &net.UDPAddr{IP: ip.AsSlice(), Port: 12345})
	require.NoError(e.t, err)
	e.t.Cleanup(func() { c.Close() })
}

func init() {
	register("G01", "mcast attach detach", func(t *testing.T, e *env) {
		ip := netip.MustParseAddr("239.7.7.7")
		e.joinHost(ip)
		group := verbs.GIDFromAddr(ip)
		u := e.udPair(verbs.QPConfig{}, &e.gid)
		from := e.udPair(verbs.QPConfig{}, &e.gid)
		ah, err := e.pd.CreateAH(e.ahAttr(group, &e.gid))
		require.NoError(t, err)
		e.closeAtEnd(ah)
		fill(from.m.Bytes()[:64], 2)
		send := func() {
			w := from.to(u.a, 9, from.m.SGE(0, 64))
			w.AH, w.RemoteQPN = ah, 0xffffff
			e.send(from.a, w)
			e.ok(from.a.SendCQ(), 9, verbs.WCSuccess)
		}
		got := func(q *verbs.QP, id uint64, off int) {
			t.Helper()
			c := e.ok(q.RecvCQ(), id, verbs.WCSuccess)
			require.Equal(t, uint32(104), c.ByteLen)
			require.Equal(t, from.a.QPN(), c.SrcQP)
			require.Equal(t, from.m.Bytes()[:64], u.m.Bytes()[off+40:off+104])
		}
		require.NoError(t, u.a.AttachMcast(group, 0))
		require.NoError(t, u.b.AttachMcast(group, 0))
		e.recv(u.a, verbs.RecvWR{ID: 1, SGList: sgl(u.m.SGE(0, 1024))}, verbs.RecvWR{ID: 2, SGList: sgl(u.m.SGE(2048, 1024))})
		e.recv(u.b, verbs.RecvWR{ID: 3, SGList: sgl(u.m.SGE(4096, 1024))}, verbs.RecvWR{ID: 4, SGList: sgl(u.m.SGE(8192, 1024))})
		send()
		got(u.a, 1, 0)
		got(u.b, 3, 4096)
		require.NoError(t, u.b.DetachMcast(group, 0))
		send()
		got(u.a, 2, 2048)
		require.Empty(t, e.pollFor(u.b.RecvCQ(), 1, 50*time.Millisecond), "after detach")
		require.NoError(t, u.a.DetachMcast(group, 0))
		require.ErrorIs(t, u.a.DetachMcast(group, 0), syscall.EINVAL, "twice")
		rc := e.rc()
		require.ErrorIs(t, rc.a.AttachMcast(group, 0), syscall.EINVAL, "RC")
		require.ErrorIs(t, u.a.AttachMcast(e.gid.GID, 0), syscall.EINVAL, "no multicast GID")
	})
	register("G02", "destroy while attached", func(t *testing.T, e *env) {
		group := verbs.GIDFromAddr(netip.MustParseAddr("239.7.7.8"))
		u := e.udPair(verbs.QPConfig{}, &e.gid)
		require.NoError(t, u.a.AttachMcast(group, 0))
		require.ErrorIs(t, u.a.Close(), syscall.EBUSY)
		// It stays open and works.
		requireState(t, u.a, verbs.QPSRTS)
		e.recv(u.a, verbs.RecvWR{ID: 1, SGList: sgl(u.m.SGE(1024, 1024))})
		e.send(u.b, u.to(u.a, 2, u.m.SGE(0, 8)))
		e.ok(u.b.SendCQ(), 2, verbs.WCSuccess)
		e.ok(u.a.RecvCQ(), 1, verbs.WCSuccess)
		require.NoError(t, u.a.DetachMcast(group, 0))
		require.NoError(t, u.a.Close())
		require.NoError(t, u.a.Close())
	})
}
