package suite_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

func init() {
	register("N01", "CM sync ep", cmSyncEP)
	register("N02", "CM async connect", cmAsync)
	register("N03", "CM reject", cmReject)
	register("N04", "CM external QP", cmExternalQP)
	register("N06", "CM read write", cmReadWrite)
}

func cmSyncEP(t *testing.T, e *env) {
	ctx := e.within(cmLimit)
	cfg := verbs.QPConfig{Cap: verbs.QPCap{MaxSendWR: 8, MaxRecvWR: 8, MaxSendSGE: 2, MaxRecvSGE: 2, MaxInlineData: 32}}
	ai, err := rdmacm.GetAddrInfo(ctx, e.ip4.String(), "0", &rdmacm.AddrInfo{Flags: rdmacm.RAIPassive, PortSpace: rdmacm.PSTCP})
	require.NoError(t, err)
	require.NotEmpty(t, ai)
	require.Equal(t, e.ip4, ai[0].Src.Addr())
	l, err := rdmacm.CreateEPOn(ctx, e.ctx, ai[0], nil, &cfg)
	require.NoError(t, err)
	e.closeAtEnd(l)
	require.NoError(t, l.Listen(4))
	port := strconv.Itoa(int(l.LocalAddr().Port()))

	ai, err = rdmacm.GetAddrInfo(ctx, e.ip4.String(), port, &rdmacm.AddrInfo{PortSpace: rdmacm.PSTCP})
	require.NoError(t, err)
	require.NotEmpty(t, ai)
	require.Equal(t, l.LocalAddr(), ai[0].Dst)
	c, err := rdmacm.CreateEPOn(ctx, e.ctx, ai[0], nil, &cfg)
	require.NoError(t, err)
	e.closeAtEnd(c)
	require.NotNil(t, c.QP())
	require.NoError(t, c.Connect(rdmacm.ConnParam{PrivateData: []byte("hello")}))
	s, ev, err := l.GetRequest(ctx)
	require.NoError(t, err)
	e.closeAtEnd(s)
	require.Equal(t, "hello", string(ev.PrivateData[:5]))
	require.NotNil(t, s.QP())

	sb, cb := e.mem(4096), e.mem(4096)
	sm, err := s.RegWrite(sb)
	require.NoError(t, err)
	e.closeAtEnd(sm)
	cm, err := c.RegMsgs(cb)
	require.NoError(t, err)
	e.closeAtEnd(cm)
	rb := e.mem(4096)
	rm, err := s.RegRead(rb)
	require.NoError(t, err)
	e.closeAtEnd(rm)

	require.NoError(t, s.PostRecv(1, sb[:100], sm))
	require.NoError(t, s.PostRecvV(2, sgl(sm.SGE(100, 10), sm.SGE(200, 10))))
	require.NoError(t, s.Accept(rdmacm.ConnParam{}))
	// The client completes the connection as it takes its event.
	_, err = c.Wait(ctx, rdmacm.EventEstablished)
	require.NoError(t, err)
	_, err = s.Wait(ctx, rdmacm.EventEstablished)
	require.NoError(t, err)

	done := func(id uint64, f func() (verbs.WC, error)) verbs.WC {
		t.Helper()
		w, err := f()
		require.NoError(t, err)
		require.NoError(t, verbs.WCErr(&w))
		require.Equal(t, id, w.WRID)
		return w
	}
	sent := func(id uint64) { t.Helper(); done(id, func() (verbs.WC, error) { return c.GetSendComp(ctx) }) }
	got := func(id uint64) verbs.WC {
		t.Helper()
		return done(id, func() (verbs.WC, error) { return s.GetRecvComp(ctx) })
	}
	fill(cb, 3)
	require.NoError(t, c.PostSend(11, cb[:100], cm, verbs.SendSignaled))
	sent(11)
	require.Equal(t, uint32(100), got(1).ByteLen)
	require.Equal(t, cb[:100], sb[:100])
	require.NoError(t, c.PostSendV(12, sgl(cm.SGE(0, 15), cm.SGE(50, 5)), verbs.SendSignaled))
	sent(12)
	got(2)
	require.Equal(t, append(append([]byte{}, cb[:15]...), cb[50:55]...), append(append([]byte{}, sb[100:110]...), sb[200:210]...))
	require.NoError(t, c.PostWrite(13, cb[:64], cm, verbs.SendSignaled, sm.Addr()+1000, sm.RKey()))
	sent(13)
	require.Equal(t, cb[:64], sb[1000:1064])
	require.NoError(t, c.PostWriteV(14, sgl(cm.SGE(64, 8), cm.SGE(0, 8)), verbs.SendSignaled, sm.Addr()+2000, sm.RKey()))
	sent(14)
	require.Equal(t, cb[64:72], sb[2000:2008])
	fill(rb, 9)
	require.NoError(t, c.PostRead(15, cb[3000:3050], cm, verbs.SendSignaled, rm.Addr(), rm.RKey()))
	sent(15)
	require.Equal(t, rb[:50], cb[3000:3050])
	require.NoError(t, c.PostReadV(16, sgl(cm.SGE(3100, 8), cm.SGE(3200, 8)), verbs.SendSignaled, rm.Addr(), rm.RKey()))
	sent(16)
	require.Equal(t, rb[8:16], cb[3200:3208])
	require.NoError(t, s.PostRecv(3, sb[:100], sm))
	require.NoError(t, c.PostSend(17, []byte("inline"), nil, verbs.SendSignaled|verbs.SendInline))
	sent(17)
	got(3)
	require.Equal(t, "inline", string(sb[:6]))

	require.ErrorIs(t, c.PostRecv(1, sb[:100], cm), syscall.EINVAL, "memory outside the region")
	require.ErrorIs(t, c.PostSend(1, cb[:1], nil, 0), syscall.EINVAL, "no region")

	// Waiting in the poller ends with the context, and with the queue pair.
	_, err = c.GetRecvComp(e.within(50 * time.Millisecond))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	closedErr := make(chan error, 1)
	go func() { _, err := c.GetRecvComp(ctx); closedErr <- err }()
	time.Sleep(20 * time.Millisecond)
	require.NoError(t, c.QP().Close())
	require.Error(t, <-closedErr)

	// Without anyone to ask, GetRequest ends with its context.
	_, _, err = l.GetRequest(e.within(50 * time.Millisecond))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	cmSRQ(t, e)
}

// cmSRQ checks the shared receive queue of an ID.
func cmSRQ(t *testing.T, e *env) {
	l := e.cmListen(rdmacm.PSTCP, e.ip4)
	c := e.cmResolve(rdmacm.PSTCP, l.LocalAddr())
	r := e.cmRes(c)
	cq := e.cmQP(c, r)
	require.NoError(t, c.Connect(rdmacm.ConnParam{}))
	req := e.cmEvent(l.Channel(), rdmacm.EventConnectRequest)
	srq, err := req.ID.CreateSRQEx(nil, verbs.SRQAttr{MaxWR: 8}, verbs.SRQTBasic)
	require.NoError(t, err)
	require.NoError(t, srq.Close())
	srq, err = req.ID.CreateSRQ(nil, verbs.SRQAttr{MaxWR: 8})
	require.NoError(t, err)
	e.closeAtEnd(srq)
	q, err := req.ID.CreateQP(nil, verbs.QPConfig{Cap: verbs.QPCap{MaxSendWR: 4, MaxRecvWR: 4, MaxSendSGE: 1, MaxRecvSGE: 1}})
	require.NoError(t, err)
	e.closeAtEnd(q)
	require.Equal(t, srq, q.SRQ())
	require.ErrorIs(t, srq.Close(), verbs.ErrInUse)
	require.ErrorIs(t, req.ID.Close(), verbs.ErrInUse)
	m, err := req.ID.RegMsgs(e.mem(256))
	require.NoError(t, err)
	e.closeAtEnd(m)
	require.NoError(t, req.ID.PostRecv(5, m.Bytes(), m))
	require.NoError(t, req.ID.Accept(rdmacm.ConnParam{SRQ: true}))
	e.cmEvent(c.Channel(), rdmacm.EventEstablished)
	e.cmEvent(l.Channel(), rdmacm.EventEstablished)
	fill(r.mr.Bytes()[:100], 5)
	e.send(cq, verbs.SendWR{ID: 6, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(r.mr.SGE(0, 100))})
	e.ok(r.cq, 6, verbs.WCSuccess)
	w, err := req.ID.GetRecvComp(e.within(cmLimit))
	require.NoError(t, err)
	require.Equal(t, uint64(5), w.WRID)
	require.Equal(t, r.mr.Bytes()[:100], m.Bytes()[:100])
}

func cmAsync(t *testing.T, e *env) {
	l := e.cmListen(rdmacm.PSTCP, e.ip4)
	c := e.cmResolve(rdmacm.PSTCP, l.LocalAddr())
	require.Equal(t, l.LocalAddr(), c.PeerAddr())
	require.Equal(t, e.ip4, c.LocalAddr().Addr())
	require.Equal(t, e.port, c.PortNum())
	cr := e.cmRes(c)
	cq := e.cmQP(c, cr)

	ask, answer := make([]byte, 56), make([]byte, 196)
	fill(ask, 1)
	fill(answer, 2)
	require.ErrorIs(t, c.Connect(rdmacm.ConnParam{PrivateData: make([]byte, 57)}), syscall.EINVAL)
	require.NoError(t, c.Connect(rdmacm.ConnParam{PrivateData: ask, ResponderResources: 3, InitiatorDepth: 2}))
	req := e.cmEvent(l.Channel(), rdmacm.EventConnectRequest)
	require.Same(t, l, req.Listener)
	require.Equal(t, ask, req.PrivateData)
	require.Equal(t, cq.QPN(), req.QPN)
	require.Equal(t, uint8(6), req.RetryCount, "7 would never end on rxe")
	require.Equal(t, uint8(7), req.RNRRetryCount)
	// Each side sees the other's wishes from its own end.
	require.Equal(t, uint8(2), req.ResponderResources)
	require.Equal(t, uint8(3), req.InitiatorDepth)
	s := req.ID
	require.Equal(t, c.LocalAddr(), s.PeerAddr())
	sr := e.cmRes(s)
	require.Same(t, c.Context(), s.Context(), "one context for a device")
	sq := e.cmQP(s, sr)
	require.ErrorIs(t, s.Accept(rdmacm.ConnParam{PrivateData: make([]byte, 197)}), syscall.EINVAL)
	require.NoError(t, s.Accept(rdmacm.ConnParam{PrivateData: answer}))
	est := e.cmEvent(c.Channel(), rdmacm.EventEstablished)
	require.Same(t, c, est.ID)
	require.Equal(t, answer, est.PrivateData)
	require.Same(t, s, e.cmEvent(l.Channel(), rdmacm.EventEstablished).ID)
	for _, q := range []*verbs.QP{cq, sq} {
		st, err := q.State()
		require.NoError(t, err)
		require.Equal(t, verbs.QPSRTS, st)
	}
	e.exchange(cq, cr.mr, sq, sr.mr, 1)
	e.exchange(sq, sr.mr, cq, cr.mr, 2)

	_, err := c.Channel().TryGet()
	require.ErrorIs(t, err, syscall.EAGAIN)
	require.ErrorIs(t, c.Close(), verbs.ErrInUse, "its queue pair is open")
	require.ErrorIs(t, c.Channel().Close(), verbs.ErrInUse, "an ID is on it")
	if e.soft {
		require.Same(t, e.ctx, c.Context(), "the device that the channel was made on")
	} else {
		require.NoError(t, c.Context().Close(), "the manager's context stays open")
	}
	_, err = c.Context().QueryDevice()
	require.NoError(t, err)
	require.Equal(t, "RDMA_CM_EVENT_ESTABLISHED", rdmacm.EventStr(rdmacm.EventEstablished))
	require.ErrorIs(t, rdmacm.SetErrno(syscall.EBUSY), syscall.EBUSY)
	require.NoError(t, rdmacm.SetErrno(0))
	for _, err := range []error{
		c.ResolveAddrInfo("localhost", "1", nil),
		c.WriteEvent(rdmacm.EventUser, 0, 1),
		func() error { _, err := c.QueryAddrInfo(); return err }(),
	} {
		if errors.Is(err, errors.ErrUnsupported) {
			require.ErrorContains(t, err, "rdma-core 60")
		}
	}
	// Get and Close at once.
	ch, err := rdmacm.CreateEventChannelOn(e.ctx)
	require.NoError(t, err)
	got := make(chan error, 1)
	go func() { _, err := ch.Get(e.within(cmLimit)); got <- err }()
	time.Sleep(10 * time.Millisecond)
	require.NoError(t, ch.Close())
	require.ErrorIs(t, <-got, rdmacm.ErrClosed)
}

func cmReject(t *testing.T, e *env) {
	l := e.cmListen(rdmacm.PSTCP, e.ip4)
	private := bytes.Repeat([]byte{0xab}, 148)
	for _, ece := range []bool{false, true} {
		c := e.cmResolve(rdmacm.PSTCP, l.LocalAddr())
		e.cmQP(c, e.cmRes(c))
		require.NoError(t, c.Connect(rdmacm.ConnParam{}))
		req := e.cmEvent(l.Channel(), rdmacm.EventConnectRequest)
		require.ErrorIs(t, req.ID.Reject(make([]byte, 149)), syscall.EINVAL)
		want := rdmacm.RejectConsumer
		if ece {
			want = rdmacm.RejectVendorOption
			_, err := req.ID.RemoteECE()
			require.NoError(t, err)
			require.NoError(t, req.ID.RejectECE(private))
		} else {
			require.NoError(t, req.ID.Reject(private))
		}
		rej := e.cmEvent(c.Channel(), rdmacm.EventRejected)
		require.Equal(t, private, rej.PrivateData)
		require.Equal(t, want, rdmacm.RejectReason(rej.Status))
		var ce *rdmacm.ConnectError
		require.ErrorAs(t, rej.Err(), &ce)
		require.Equal(t, want, ce.Reason)
		require.ErrorIs(t, ce, syscall.ECONNREFUSED)
	}
	// Nobody listens.
	free := e.cmID(e.cmChannel(), rdmacm.PSTCP)
	require.NoError(t, free.BindAddr(netip.AddrPortFrom(e.ip4, 0)))
	_, err := e.dial(e.within(cmLimit), free.LocalAddr(), rdmacm.DialConfig{})
	var ce *rdmacm.ConnectError
	require.ErrorAs(t, err, &ce)
	require.Equal(t, rdmacm.RejectInvalidServiceID, ce.Reason)
	require.ErrorContains(t, err, "nobody listens")
	// An application that refuses, through the listener.
	ln := e.listen(e.ip4, rdmacm.ListenConfig{
		Request: func(*rdmacm.Event) error { return &rdmacm.RejectError{PrivateData: []byte("busy")} },
		OnError: func(netip.AddrPort, error) {},
	})
	go func() { _, _ = ln.Accept(e.within(cmLimit)) }()
	_, err = e.dial(e.within(cmLimit), ln.Addr(), rdmacm.DialConfig{})
	require.ErrorAs(t, err, &ce)
	require.Equal(t, rdmacm.RejectConsumer, ce.Reason)
	require.Equal(t, "busy", string(ce.PrivateData[:4]))
}

// external makes a queue pair that no ID knows.
func (e *env) external(r *cmRes) *verbs.QP {
	e.t.Helper()
	q, err := r.pd.CreateQP(r.qpConfig())
	require.NoError(e.t, err)
	e.closeAtEnd(q)
	return q
}

// steer moves q with the attributes that x has for it.
func (e *env) steer(x *rdmacm.ID, q *verbs.QP, states ...verbs.QPState) {
	e.t.Helper()
	for _, s := range states {
		a, mask, err := x.InitQPAttr(s)
		require.NoError(e.t, err, s)
		require.NotZero(e.t, mask&verbs.QPAttrState)
		require.NoError(e.t, q.Modify(a, mask), s)
	}
}

func cmExternalQP(t *testing.T, e *env) {
	l := e.cmListen(rdmacm.PSTCP, e.ip4)
	c := e.cmResolve(rdmacm.PSTCP, l.LocalAddr())
	cr := e.cmRes(c)
	cq := e.external(cr)
	require.NoError(t, c.Connect(rdmacm.ConnParam{QPN: cq.QPN()}))
	req := e.cmEvent(l.Channel(), rdmacm.EventConnectRequest)
	require.Equal(t, cq.QPN(), req.QPN)
	sr := e.cmRes(req.ID)
	sq := e.external(sr)
	e.steer(req.ID, sq, verbs.QPSInit, verbs.QPSRTR, verbs.QPSRTS)
	require.NoError(t, req.ID.Accept(rdmacm.ConnParam{QPN: sq.QPN()}))
	resp := e.cmEvent(c.Channel(), rdmacm.EventConnectResponse)
	require.Equal(t, sq.QPN(), resp.QPN)
	e.steer(c, cq, verbs.QPSInit, verbs.QPSRTR, verbs.QPSRTS)
	require.NoError(t, c.Establish())
	e.cmEvent(l.Channel(), rdmacm.EventEstablished)
	e.exchange(cq, cr.mr, sq, sr.mr, 4)
	e.exchange(sq, sr.mr, cq, cr.mr, 5)
	// A connection that is established already takes no report of it.
	require.ErrorIs(t, req.ID.Notify(verbs.EventCommEst), syscall.EISCONN)
}

func cmReadWrite(t *testing.T, e *env) {
	l := e.listen(e.ip4, rdmacm.ListenConfig{})
	s, c := e.connPair(l, l.Addr(), rdmacm.DialConfig{QP: verbs.QPConfig{SQSigAll: true}})
	sm, cm := e.connMR(s), e.connMR(c)
	fill(sm.Bytes(), 3)
	fill(cm.Bytes()[:512], 8)
	e.send(c.QP, verbs.SendWR{ID: 1, Opcode: verbs.WRRDMARead, SGList: sgl(cm.SGE(4096, 4096)), RemoteAddr: sm.Addr(), RKey: sm.RKey()})
	e.ok(c.SendCQ, 1, verbs.WCSuccess)
	require.Equal(t, sm.Bytes()[:4096], cm.Bytes()[4096:])
	e.send(c.QP, verbs.SendWR{ID: 2, Opcode: verbs.WRRDMAWrite, SGList: sgl(cm.SGE(0, 512)), RemoteAddr: sm.Addr() + 100, RKey: sm.RKey()})
	e.ok(c.SendCQ, 2, verbs.WCSuccess)
	require.Equal(t, cm.Bytes()[:512], sm.Bytes()[100:612])
	// An endless retry would be a hang when the peer dies.
	a, err := c.QP.Query(verbs.QPAttrRetryCnt | verbs.QPAttrRNRRetry)
	require.NoError(t, err)
	require.Equal(t, uint8(6), a.RetryCnt)
	require.Equal(t, uint8(7), a.RNRRetry)
	a, err = s.QP.Query(verbs.QPAttrRetryCnt)
	require.NoError(t, err)
	require.Equal(t, uint8(6), a.RetryCnt)
}
