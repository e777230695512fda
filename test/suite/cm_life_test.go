package suite_test

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

func init() {
	register("N09", "CM timeouts", cmTimeouts)
	register("N10", "CM migrate", cmMigrate)
	register("N11", "CM options", cmOptions)
	register("N12", "CM disconnect", cmDisconnect)
}

// The kernel repeats a request 15 times, 4 to 7 s apart, before it gives up.
func cmTimeouts(t *testing.T, e *env) {
	unreachable := make(chan error, 1)
	if e.soft { // its patience is the kernel's
		unreachable <- e.unreachable()
	} else {
		hole := netip.AddrPortFrom(e.blackHole(), 7)
		go func() {
			_, err := e.dial(e.within(200*time.Second), hole, rdmacm.DialConfig{})
			unreachable <- err
		}()
	}
	var ce *rdmacm.ConnectError
	_, err := e.dial(e.within(cmLimit), netip.AddrPortFrom(e.nobody(), 7), rdmacm.DialConfig{AddrTimeout: time.Second})
	require.ErrorAs(t, err, &ce)
	require.Equal(t, rdmacm.StepAddress, ce.Step)
	require.Equal(t, rdmacm.EventAddrError, ce.Event)
	if e.soft { // which asks no neighbour: it is told that no route leads there
		require.Equal(t, syscall.ENODEV, ce.Cause)
	} else {
		require.Contains(t, []error{syscall.ETIMEDOUT, syscall.EHOSTUNREACH}, ce.Cause)
		require.ErrorContains(t, err, "no host answers")
	}

	_, err = e.dial(e.within(cmLimit), netip.MustParseAddrPort("127.0.0.1:0"), rdmacm.DialConfig{})
	require.Error(t, err)

	err = <-unreachable
	require.ErrorAs(t, err, &ce)
	require.Equal(t, rdmacm.StepConnect, ce.Step)
	require.Equal(t, rdmacm.EventUnreachable, ce.Event)
	require.ErrorIs(t, err, syscall.ETIMEDOUT)
}

func cmMigrate(t *testing.T, e *env) {
	l := e.cmListen(rdmacm.PSTCP, e.ip4)
	one, two := e.cmChannel(), e.cmChannel()
	c := e.cmID(one, rdmacm.PSTCP)
	require.NoError(t, c.ResolveAddr(netip.AddrPort{}, l.LocalAddr(), 2*time.Second))
	e.cmEvent(one, rdmacm.EventAddrResolved)
	require.NoError(t, c.MigrateID(two))
	require.Same(t, two, c.Channel())
	require.ErrorIs(t, two.Close(), verbs.ErrInUse)
	require.NoError(t, c.ResolveRoute(2*time.Second))
	e.cmEvent(two, rdmacm.EventRouteResolved)
	cr := e.cmRes(c)
	cq := e.cmQP(c, cr)
	require.NoError(t, c.Connect(rdmacm.ConnParam{}))
	req := e.cmEvent(l.Channel(), rdmacm.EventConnectRequest)
	require.NoError(t, req.ID.MigrateID(one))
	sr := e.cmRes(req.ID)
	sq := e.cmQP(req.ID, sr)
	require.NoError(t, req.ID.Accept(rdmacm.ConnParam{}))
	// The answer, once it is there, waits on the old channel and moves along.
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, c.MigrateID(one))
	seen := map[*rdmacm.ID]bool{}
	for range 2 {
		seen[e.cmEvent(one, rdmacm.EventEstablished).ID] = true
	}
	require.True(t, seen[c] && seen[req.ID], "both IDs' events on the channel they share")
	_, err := two.TryGet()
	require.ErrorIs(t, err, syscall.EAGAIN)
	e.exchange(cq, cr.mr, sq, sr.mr, 1)
	require.ErrorIs(t, c.MigrateID(nil), syscall.EINVAL)

	// Back and forth while events come: none is lost and nothing hangs.
	require.NoError(t, c.MigrateID(two))
	got := make(chan error, 1)
	go func() {
		_, err := two.Get(e.within(cmLimit))
		got <- err
	}()
	require.NoError(t, c.Disconnect())
	require.Same(t, req.ID, e.cmEvent(one, rdmacm.EventDisconnected).ID)
	require.NoError(t, req.ID.Disconnect())
	require.NoError(t, <-got)
}

func cmOptions(t *testing.T, e *env) {
	any4 := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), port) }
	any6 := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv6Unspecified(), port) }
	ch := e.cmChannel()
	id := func() *rdmacm.ID { return e.cmID(ch, rdmacm.PSTCP) }

	a, b := id(), id()
	require.NoError(t, a.BindAddr(netip.AddrPortFrom(e.ip4, 0)))
	require.ErrorIs(t, b.BindAddr(a.LocalAddr()), syscall.EADDRINUSE)
	a, b = id(), id()
	require.NoError(t, a.SetReuseAddr(true))
	require.NoError(t, b.SetReuseAddr(true))
	require.NoError(t, a.BindAddr(netip.AddrPortFrom(e.ip4, 0)))
	require.NoError(t, b.BindAddr(a.LocalAddr()))

	for _, only := range []bool{false, true} {
		six, four := id(), id()
		require.NoError(t, six.SetAFOnly(only))
		require.NoError(t, six.BindAddr(any6(0)))
		require.NoError(t, six.Listen(1))
		err := four.BindAddr(any4(six.LocalAddr().Port()))
		if only {
			require.NoError(t, err)
			require.NoError(t, four.Listen(1))
		} else {
			// The kernel's errno where one of the two is a wildcard.
			require.ErrorIs(t, err, syscall.EADDRNOTAVAIL, "an IPv6 listener takes IPv4 too")
		}
	}

	l := e.listen(e.ip4, rdmacm.ListenConfig{})
	s, c := e.connPair(l, l.Addr(), rdmacm.DialConfig{TOS: 0x60, AckTimeout: 19})
	q, err := c.QP.Query(verbs.QPAttrTimeout | verbs.QPAttrAV)
	require.NoError(t, err)
	require.Equal(t, uint8(19), q.Timeout)
	require.Equal(t, uint8(0x60), q.AH.GRH.TrafficClass)
	_ = s
	require.ErrorIs(t, id().SetOption(rdmacm.OptionID, 99, []byte{1}), syscall.ENOSYS)
	require.ErrorIs(t, id().SetOption(rdmacm.OptionID, rdmacm.OptionIDTOS, nil), syscall.EINVAL)
}

func cmDisconnect(t *testing.T, e *env) {
	l := e.cmListen(rdmacm.PSTCP, e.ip4)
	c := e.cmResolve(rdmacm.PSTCP, l.LocalAddr())
	cr := e.cmRes(c)
	cq := e.cmQP(c, cr)
	require.NoError(t, c.Connect(rdmacm.ConnParam{}))
	s := e.cmEvent(l.Channel(), rdmacm.EventConnectRequest).ID
	sr := e.cmRes(s)
	sq := e.cmQP(s, sr)
	e.recv(sq, verbs.RecvWR{ID: 1, SGList: sgl(sr.mr.SGE(0, 64))}, verbs.RecvWR{ID: 2, SGList: sgl(sr.mr.SGE(0, 64))})
	e.recv(cq, verbs.RecvWR{ID: 3, SGList: sgl(cr.mr.SGE(0, 64))})
	require.NoError(t, s.Accept(rdmacm.ConnParam{}))
	e.cmEvent(c.Channel(), rdmacm.EventEstablished)
	e.cmEvent(l.Channel(), rdmacm.EventEstablished)

	require.NoError(t, c.Disconnect())
	require.Same(t, s, e.cmEvent(l.Channel(), rdmacm.EventDisconnected).ID)
	e.ok(cr.cq, 3, verbs.WCWRFlushErr)
	// The manager answers the peer when its application disconnects as well.
	require.NoError(t, s.Disconnect())
	e.cmEvent(c.Channel(), rdmacm.EventDisconnected)
	e.ok(sr.cq, 1, verbs.WCWRFlushErr)
	e.ok(sr.cq, 2, verbs.WCWRFlushErr)
	// One posted afterwards is flushed as well.
	e.recv(sq, verbs.RecvWR{ID: 4, SGList: sgl(sr.mr.SGE(0, 64))})
	e.ok(sr.cq, 4, verbs.WCWRFlushErr)
	e.cmEvent(c.Channel(), rdmacm.EventTimewaitExit)
	e.cmEvent(l.Channel(), rdmacm.EventTimewaitExit)

	// A connection hears of its end.
	ln := e.listen(e.ip4, rdmacm.ListenConfig{})
	sc, cc := e.connPair(ln, ln.Addr(), rdmacm.DialConfig{})
	require.ErrorIs(t, cc.WaitDisconnected(e.within(50*time.Millisecond)), context.DeadlineExceeded)
	require.NoError(t, sc.Close())
	require.NoError(t, cc.WaitDisconnected(e.within(cmLimit)))
}
