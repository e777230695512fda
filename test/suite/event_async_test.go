package suite_test

import (
	"context"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("E07", "async port events", portEvents)
	register("E08", "SRQ limit event", srqLimit)
	register("E09", "SQ drained", sqDrained)
	register("E10", "last WQE reached", lastWQE)
	register("E11", "async fd cancel", asyncCancel)
	register("E12", "device removal", deviceRemoval)
}

// spareRXE makes a second rxe device on a netdev of its own, so that the device
// under test stays as it is. It needs root.
func spareRXE(t *testing.T) (dev string, link netlink.Link) {
	t.Helper()
	const netdev, name = "zrdma-spare", "rxe_spare"
	_ = exec.Command("modprobe", "dummy").Run()
	require.NoError(t, netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: netdev}}))
	link = netdevOf(t, netdev)
	t.Cleanup(func() { require.NoError(t, netlink.LinkDel(link)) })
	a, err := netlink.ParseAddr("10.79.99.1/24")
	require.NoError(t, err)
	require.NoError(t, netlink.AddrAdd(link, a))
	require.NoError(t, netlink.LinkSetUp(link))
	require.NoError(t, netlink.RdmaLinkAdd(name, "rxe", netdev))
	t.Cleanup(func() {
		if _, err := verbs.DeviceByName(name); err == nil {
			require.NoError(t, netlink.RdmaLinkDel(name))
		}
	})
	eventually(t, "the spare device", func() bool {
		c, err := verbs.Open(name)
		if err != nil {
			return false
		}
		_, err = c.ActivePort()
		require.NoError(t, c.Close())
		return err == nil
	})
	return name, link
}

func portEvents(t *testing.T, e *env) {
	dev, link := e.dev, netlink.Link(nil)
	if e.isRXE {
		dev, link = spareRXE(t)
	} else {
		link = netdevOf(t, e.netdev)
		t.Cleanup(func() { _ = netlink.LinkSetUp(link) })
	}
	c, err := verbs.Open(dev)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	for range 3 {
		require.NoError(t, netlink.LinkSetDown(link))
		ev := e.event(c)
		require.Equal(t, verbs.EventPortErr, ev.Type)
		require.EqualValues(t, 1, ev.Port)
		require.Nil(t, ev.QP)
		pa, err := c.QueryPort(1)
		require.NoError(t, err)
		require.NotEqual(t, verbs.PortActive, pa.State)
		_, err = c.ActivePort()
		require.ErrorIs(t, err, syscall.ENETDOWN)
		require.ErrorContains(t, err, "port 1 is "+pa.State.String())
		require.ErrorContains(t, err, "ip link set")

		require.NoError(t, netlink.LinkSetUp(link))
		ev = e.event(c)
		require.Equal(t, verbs.EventPortActive, ev.Type)
		require.EqualValues(t, 1, ev.Port)
		port, err := c.ActivePort()
		require.NoError(t, err)
		require.EqualValues(t, 1, port)
	}
}

func srqLimit(t *testing.T, e *env) {
	srq, err := e.pd.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: 32, MaxSGE: 1}})
	require.NoError(t, err)
	e.closeAtEnd(srq)
	b := e.qp(verbs.QPConfig{SRQ: srq})
	a := e.qp(verbs.QPConfig{})
	e.connect(a, b, link{})
	m := e.mr(4096, allAccess)
	for i := range uint64(10) {
		e.recv(srq, verbs.RecvWR{ID: i, SGList: sgl(m.SGE(0, 64))})
	}
	require.NoError(t, srq.Modify(verbs.SRQAttr{Limit: 7}, verbs.SRQAttrLimit))
	got, err := srq.Query()
	require.NoError(t, err)
	require.EqualValues(t, 7, got.Limit)
	send := func(n int) {
		for range n {
			e.send(a, verbs.SendWR{ID: 1, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(m.SGE(64, 8))})
			e.ok(a.SendCQ(), 1, verbs.WCSuccess)
			require.Equal(t, verbs.WCSuccess, e.poll(b.RecvCQ(), 1)[0].Status)
		}
	}
	send(2)
	e.noEvent(e.ctx) // 8 are left
	send(3)
	ev := e.event(e.ctx)
	require.Equal(t, verbs.EventSRQLimitReached, ev.Type)
	require.Same(t, srq, ev.SRQ)
	require.Nil(t, ev.QP)
	send(2)
	e.noEvent(e.ctx) // it fires once; Modify arms it again
	require.NoError(t, srq.Modify(verbs.SRQAttr{Limit: 3}, verbs.SRQAttrLimit))
	send(2)
	require.Same(t, srq, e.event(e.ctx).SRQ)
}

func sqDrained(t *testing.T, e *env) {
	p := e.rc()
	m := e.mr(1<<20, allAccess)
	for i := range uint64(8) {
		e.send(p.a, write(i, m.SGE(0, 64<<10), m.Addr()+512<<10, m.RKey()))
	}
	require.NoError(t, p.a.Modify(verbs.QPAttr{State: verbs.QPSSQD, EnSQDAsyncNotify: true}, verbs.QPAttrState|verbs.QPAttrEnSQDAsyncNotify))
	ev := e.event(e.ctx)
	require.Equal(t, verbs.EventSQDrained, ev.Type)
	require.Same(t, p.a, ev.QP)
	require.Nil(t, ev.CQ)
	// What had begun has completed; the rest waits until the queue runs again.
	require.NoError(t, p.a.Modify(verbs.QPAttr{State: verbs.QPSRTS}, verbs.QPAttrState))
	// rxe of 6.12 resumes at the next post only.
	e.send(p.a, write(8, m.SGE(0, 64), m.Addr()+512<<10, m.RKey()))
	for i, w := range e.poll(p.a.SendCQ(), 9) {
		require.Equal(t, verbs.WCSuccess, w.Status)
		require.EqualValues(t, i, w.WRID)
	}
}

func lastWQE(t *testing.T, e *env) {
	srq, err := e.pd.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: 16}})
	require.NoError(t, err)
	e.closeAtEnd(srq)
	b := e.qp(verbs.QPConfig{SRQ: srq})
	a := e.qp(verbs.QPConfig{})
	e.connect(a, b, link{})
	e.toErr(b)
	if e.isRXE && !kernelAtLeast(6, 12) {
		e.noEvent(e.ctx)
		return
	}
	ev := e.event(e.ctx)
	require.Equal(t, verbs.EventQPLastWQEReached, ev.Type)
	require.Same(t, b, ev.QP)
}

func asyncCancel(t *testing.T, e *env) {
	c, err := e.device().Open()
	require.NoError(t, err)
	done := make(chan error, 8)
	get := func(cx context.Context) {
		go func() {
			_, err := c.GetAsyncEvent(cx)
			done <- err
		}()
	}
	result := func() error {
		select {
		case err := <-done:
			return err
		case <-time.After(waitLimit):
			t.Fatal("GetAsyncEvent does not return")
			return nil
		}
	}
	cx, cancel := context.WithCancel(context.Background())
	get(cx)
	time.Sleep(20 * time.Millisecond)
	cancel()
	require.ErrorIs(t, result(), context.Canceled)
	get(cx)
	require.ErrorIs(t, result(), context.Canceled, "a context that ended before")
	cx, cancel = contextFor(50 * time.Millisecond)
	defer cancel()
	get(cx)
	require.ErrorIs(t, result(), errDeadline)

	for range 4 {
		get(context.Background())
	}
	time.Sleep(20 * time.Millisecond)
	pd, err := c.AllocPD()
	require.NoError(t, err)
	require.ErrorIs(t, c.Close(), verbs.ErrInUse)
	select {
	case err := <-done:
		t.Fatalf("a refused Close ended a waiter: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, pd.Close())
	inTime(t, "Close", c.Close)
	for range 4 {
		require.ErrorIs(t, result(), verbs.ErrClosed)
	}
}

func deviceRemoval(t *testing.T, e *env) {
	if !e.isRXE {
		t.Fatal("this case removes a device: there is no safe way to do that on hardware")
	}
	dev, _ := spareRXE(t)
	c, err := verbs.Open(dev)
	require.NoError(t, err)
	pd, err := c.AllocPD()
	require.NoError(t, err)
	ch, err := c.CreateCompChannel()
	require.NoError(t, err)
	q, err := c.CreateCQ(4, &verbs.CQConfig{Channel: ch})
	require.NoError(t, err)
	m, err := pd.RegMR(e.mem(4096), allAccess)
	require.NoError(t, err)
	qp, err := pd.CreateQP(verbs.QPConfig{SendCQ: q, Cap: verbs.QPCap{MaxSendWR: 1, MaxRecvWR: 1, MaxSendSGE: 1, MaxRecvSGE: 1}})
	require.NoError(t, err)

	removed := make(chan error, 1)
	go func() { removed <- netlink.RdmaLinkDel(dev) }()
	eventually(t, "the device to leave the list", func() bool {
		_, err := verbs.DeviceByName(dev)
		return err != nil
	})
	// A driver that can take the hardware from under its users says DEVICE_FATAL
	// and then EIO. rxe cannot: the removal waits until the last context closes,
	// and the open one works on.
	select {
	case err := <-removed:
		t.Fatalf("rxe took the device from an open context: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	e.noEvent(c)
	e.quiet(ch)
	m2, err := pd.RegMR(e.mem(4096), allAccess)
	require.NoError(t, err)
	require.NoError(t, m2.Close())
	_, err = verbs.Open(dev)
	require.ErrorIs(t, err, syscall.ENODEV)

	for _, o := range []closer{qp, q, ch, m, pd, c} {
		inTime(t, "Close", o.Close)
	}
	select {
	case err := <-removed:
		require.NoError(t, err)
	case <-time.After(waitLimit):
		t.Fatal("the removal hangs")
	}
}
