package suite_test

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

func init() {
	register("N05", "CM UDP", cmUDP)
	register("N07", "CM multicast IPv4", cmMulticast4)
	register("N08", "CM multicast IPv6", cmMulticast6)
}

func cmUDP(t *testing.T, e *env) {
	l := e.cmListen(rdmacm.PSUDP, e.ip4)
	c := e.cmResolve(rdmacm.PSUDP, l.LocalAddr())
	cr := e.cmRes(c)
	cq := e.cmQP(c, cr)
	require.Equal(t, verbs.QPTUD, cq.Type())
	ask, answer := make([]byte, 180), make([]byte, 136)
	fill(ask, 1)
	fill(answer, 2)
	require.ErrorIs(t, c.Connect(rdmacm.ConnParam{PrivateData: make([]byte, 181)}), syscall.EINVAL)
	require.NoError(t, c.Connect(rdmacm.ConnParam{PrivateData: ask}))
	req := e.cmEvent(l.Channel(), rdmacm.EventConnectRequest)
	require.Equal(t, ask, req.PrivateData)
	s := req.ID
	sr := e.cmRes(s)
	sq := e.cmQP(s, sr)
	require.NoError(t, s.Accept(rdmacm.ConnParam{PrivateData: answer}))
	est := e.cmEvent(c.Channel(), rdmacm.EventEstablished)
	require.Equal(t, answer, est.PrivateData)
	require.Equal(t, sq.QPN(), est.QPN)
	require.NotZero(t, est.QKey)
	require.True(t, est.AH.IsGlobal)
	ah, err := cr.pd.CreateAH(est.AH)
	require.NoError(t, err)
	e.closeAtEnd(ah)

	e.recv(sq, verbs.RecvWR{ID: 1, SGList: sgl(sr.mr.SGE(0, 1024))}, verbs.RecvWR{ID: 2, SGList: sgl(sr.mr.SGE(1024, 1024))})
	fill(cr.mr.Bytes()[:300], 6)
	e.send(cq, verbs.SendWR{ID: 3, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(cr.mr.SGE(0, 300)), AH: ah, RemoteQPN: est.QPN, RemoteQKey: est.QKey})
	e.ok(cr.cq, 3, verbs.WCSuccess)
	w := e.ok(sr.cq, 1, verbs.WCSuccess)
	require.Equal(t, uint32(340), w.ByteLen)
	require.Equal(t, cq.QPN(), w.SrcQP)
	require.Equal(t, cr.mr.Bytes()[:300], sr.mr.Bytes()[40:340])
	require.NoError(t, c.PostUDSend(4, cr.mr.Bytes()[:64], cr.mr, verbs.SendSignaled, ah, est.QPN))
	e.ok(cr.cq, 4, verbs.WCSuccess)
	require.Equal(t, uint32(104), e.ok(sr.cq, 2, verbs.WCSuccess).ByteLen)
}

// member makes a datagram ID on the device, with a queue pair in group.
func (e *env) member(group netip.AddrPort, sendOnly bool) (*rdmacm.ID, *cmRes, *verbs.QP, *rdmacm.Event) {
	e.t.Helper()
	x := e.cmID(e.cmChannel(), rdmacm.PSUDP)
	require.NoError(e.t, x.BindAddr(netip.AddrPortFrom(e.ip4, 0)))
	r := e.cmRes(x)
	q := e.cmQP(x, r)
	if sendOnly {
		require.NoError(e.t, x.JoinMulticastEx(group, rdmacm.JoinSendOnlyFullMember))
	} else {
		require.NoError(e.t, x.JoinMulticast(group))
	}
	return x, r, q, e.cmEvent(x.Channel(), rdmacm.EventMulticastJoin)
}

func cmMulticast4(t *testing.T, e *env) {
	group := netip.AddrPortFrom(netip.MustParseAddr("239.12.13.14"), 0)
	x, xr, xq, xe := e.member(group, false)
	y, yr, yq, ye := e.member(group, false)
	require.Equal(t, group, xe.Group)
	require.Equal(t, group, ye.Group)
	require.Equal(t, uint32(0xffffff), xe.QPN)
	require.NotZero(t, xe.QKey)
	ah, err := xr.pd.CreateAH(xe.AH)
	require.NoError(t, err)
	e.closeAtEnd(ah)
	e.recv(yq, verbs.RecvWR{ID: 1, SGList: sgl(yr.mr.SGE(0, 1024))}, verbs.RecvWR{ID: 2, SGList: sgl(yr.mr.SGE(1024, 1024))})
	send := func(id uint64) {
		t.Helper()
		e.send(xq, verbs.SendWR{ID: id, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(xr.mr.SGE(0, 200)), AH: ah, RemoteQPN: xe.QPN, RemoteQKey: xe.QKey})
		e.ok(xr.cq, id, verbs.WCSuccess)
	}
	fill(xr.mr.Bytes()[:200], 7)
	send(3)
	w := e.ok(yr.cq, 1, verbs.WCSuccess)
	require.Equal(t, uint32(240), w.ByteLen)
	require.Equal(t, xr.mr.Bytes()[:200], yr.mr.Bytes()[40:240])

	require.ErrorIs(t, yq.Close(), syscall.EBUSY, "it is in the group")
	require.ErrorIs(t, y.LeaveMulticast(netip.AddrPortFrom(e.ip4, 0)), syscall.EADDRNOTAVAIL)
	require.NoError(t, y.LeaveMulticast(group))
	send(4)
	require.Empty(t, e.pollFor(yr.cq, 1, 300*time.Millisecond), "received after leaving")
	require.NoError(t, x.LeaveMulticast(group))
	require.ErrorIs(t, x.JoinMulticast(netip.AddrPortFrom(e.ip4, 0)), syscall.EINVAL)

	// Send-only membership needs a subnet manager on InfiniBand; RoCE takes it or says no.
	z := e.cmID(e.cmChannel(), rdmacm.PSUDP)
	require.NoError(t, z.BindAddr(netip.AddrPortFrom(e.ip4, 0)))
	if err := z.JoinMulticastEx(group, rdmacm.JoinSendOnlyFullMember); err == nil {
		ev, err := z.Channel().Get(e.within(cmLimit))
		require.NoError(t, err)
		require.Contains(t, []rdmacm.EventType{rdmacm.EventMulticastJoin, rdmacm.EventMulticastError}, ev.Type)
		require.NoError(t, z.LeaveMulticast(group))
	}
}

func cmMulticast6(t *testing.T, e *env) {
	group := netip.AddrPortFrom(netip.MustParseAddr("ff0e::db8:1"), 0)
	x := e.cmID(e.cmChannel(), rdmacm.PSUDP)
	require.True(t, e.ip6.IsValid())
	require.NoError(t, x.BindAddr(netip.AddrPortFrom(e.ip6, 0)))
	e.cmQP(x, e.cmRes(x))
	err := x.JoinMulticast(group)
	require.Error(t, err)
	require.True(t, errors.Is(err, errors.ErrUnsupported), "%v", err)
	require.ErrorIs(t, err, syscall.Errno(524))
	require.ErrorContains(t, err, "524")
}
