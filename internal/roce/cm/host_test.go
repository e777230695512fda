package cm

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
)

// base is nil: what host does not define is not called.
type base = provider.Context

// host is a fake device with its manager.
type host struct {
	base
	t       testing.TB
	net     *network
	addrs   []netip.Addr
	m       *Manager
	mtu     provider.MTU
	noMcast bool

	mu      sync.Mutex
	qps     map[uint32]*fakeQP // guarded by mu
	nextQPN uint32
	objects atomic.Int32 // open
}

// network takes MADs from host to host. The zero value delivers at once, on the
// goroutine of the sender.
type network struct {
	mu    sync.Mutex
	hosts map[netip.Addr]*host
	log   []attrID
	// via decides on a message: nil delivers it. It calls deliver as often as it likes.
	via func(src, dst netip.Addr, b mad, deliver func())
	err error // of every send
}

func newNetwork() *network { return &network{hosts: map[netip.Addr]*host{}} }

func (n *network) host(t testing.TB, addrs ...string) *host {
	h := &host{t: t, net: n, qps: map[uint32]*fakeQP{}, nextQPN: 16, mtu: provider.MTU1024}
	for _, a := range addrs {
		ip := netip.MustParseAddr(a)
		h.addrs = append(h.addrs, ip)
		n.hosts[ip.WithZone("")] = h
	}
	h.m = New(h)
	t.Cleanup(func() {
		h.m.Close()
		require.Zero(t, h.objects.Load(), "objects of the device are open")
	})
	return h
}

func (n *network) set(via func(src, dst netip.Addr, b mad, deliver func())) {
	n.mu.Lock()
	n.via = via
	n.mu.Unlock()
}

func (n *network) sent() []attrID {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.log
	n.log = nil
	return l
}

// lose drops the next message of a kind.
func (n *network) lose(kinds ...attrID) {
	n.set(func(_, _ netip.Addr, b mad, deliver func()) {
		h, _ := parseHeader(&b)
		n.mu.Lock()
		i := slices.Index(kinds, h.attr)
		if i >= 0 {
			kinds = slices.Delete(kinds, i, i+1)
		}
		n.mu.Unlock()
		if i < 0 {
			deliver()
		}
	})
}

func (h *host) Context() provider.Context { return h }
func (h *host) Addrs() []netip.Addr       { return h.addrs }

func (h *host) SendMAD(src, dst netip.Addr, b []byte) error {
	n := h.net
	require.Len(h.t, b, madSize)
	require.Contains(h.t, h.addrs, src)
	m := mad(b)
	x, ok := parseHeader(&m)
	require.True(h.t, ok)
	n.mu.Lock()
	n.log = append(n.log, x.attr)
	to, via, err := n.hosts[dst.WithZone("")], n.via, n.err
	n.mu.Unlock()
	if err != nil {
		return err
	}
	if to == nil {
		return nil
	}
	deliver := func() { to.m.HandleMAD(src.WithZone(""), dst.WithZone(""), m[:]) }
	if via == nil {
		deliver()
	} else {
		via(src, dst, m, deliver)
	}
	return nil
}

func (h *host) Info() provider.DeviceInfo { return provider.DeviceInfo{GUID: 7} }

func (h *host) QueryDevice(a *provider.DeviceAttr) error {
	a.MaxQPRdAtom, a.MaxQPInitRdAtom, a.LocalCAAckDelay = 16, 16, 15
	return nil
}

func (h *host) QueryPort(_ uint8, a *provider.PortAttr) error {
	a.ActiveMTU = h.mtu
	return nil
}

type fakePD struct {
	provider.PD
	h *host
}

func (h *host) AllocPD() (provider.PD, error) {
	h.objects.Add(1)
	return &fakePD{h: h}, nil
}

func (p *fakePD) Close() error { p.h.objects.Add(-1); return nil }

// fakeQP checks what the manager does to it.
type fakeQP struct {
	provider.QP
	h    *host
	qpn  uint32
	in   provider.QPInit
	mu   sync.Mutex
	attr provider.QPAttr // guarded by mu
	open bool            // guarded by mu
	fail provider.QPState
	mc   []provider.GID
}

func (h *host) CreateQP(in *provider.QPInit) (provider.QP, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nextQPN++
	q := &fakeQP{h: h, qpn: h.nextQPN, in: *in, open: true, fail: provider.QPSUnknown}
	h.qps[q.qpn] = q
	h.objects.Add(1)
	return q, nil
}

func (q *fakeQP) QPN() uint32 { return q.qpn }

var wants = map[provider.QPState]provider.QPAttrMask{
	provider.QPSInit: provider.QPAttrPKeyIndex | provider.QPAttrPort,
	provider.QPSRTR: provider.QPAttrAV | provider.QPAttrPathMTU | provider.QPAttrDestQPN | provider.QPAttrRQPSN |
		provider.QPAttrMaxDestRdAtomic | provider.QPAttrMinRNRTimer,
	provider.QPSRTS: provider.QPAttrSQPSN | provider.QPAttrTimeout | provider.QPAttrRetryCnt | provider.QPAttrRNRRetry |
		provider.QPAttrMaxQPRdAtomic,
}

func (q *fakeQP) Modify(a *provider.QPAttr, mask provider.QPAttrMask) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	require.True(q.h.t, q.open, "the queue pair is closed")
	require.NotZero(q.h.t, mask&provider.QPAttrState)
	if a.State == q.fail {
		return syscall.ENOMEM
	}
	if q.in.Type != provider.QPTUD {
		require.Equal(q.h.t, wants[a.State], mask&wants[a.State])
	}
	s := q.attr.State
	if a.State != provider.QPSErr && a.State != s && a.State != s+1 {
		return syscall.EINVAL
	}
	switch a.State {
	case provider.QPSRTR:
		q.attr = *a
	case provider.QPSRTS:
		q.attr.SQPSN, q.attr.Timeout, q.attr.RetryCnt, q.attr.RNRRetry, q.attr.MaxRdAtomic = a.SQPSN, a.Timeout, a.RetryCnt, a.RNRRetry, a.MaxRdAtomic
	}
	q.attr.State = a.State
	return nil
}

func (q *fakeQP) get() provider.QPAttr {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.attr
}

func (q *fakeQP) AttachMcast(g provider.GID, _ uint16) error {
	if q.h.noMcast {
		return syscall.EOPNOTSUPP
	}
	q.mc = append(q.mc, g)
	return nil
}

func (q *fakeQP) DetachMcast(g provider.GID, _ uint16) error {
	q.mc = slices.DeleteFunc(q.mc, func(x provider.GID) bool { return x == g })
	return nil
}

func (q *fakeQP) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = false
	q.h.mu.Lock()
	delete(q.h.qps, q.qpn)
	q.h.mu.Unlock()
	q.h.objects.Add(-1)
	return nil
}

type fakeCQ struct {
	provider.CQ
	h  *host
	ch *fakeComp
	wc chan provider.WC
}

type fakeComp struct {
	h    *host
	ev   chan struct{}
	stop chan struct{}
}

func (h *host) CreateCompChannel() (provider.CompChannel, error) {
	h.objects.Add(1)
	return &fakeComp{h, make(chan struct{}, 100), make(chan struct{})}, nil
}

func (c *fakeComp) Get(ctx context.Context) (uint64, error) {
	select {
	case <-c.ev:
		return 0, nil
	case <-c.stop:
		return 0, syscall.ECANCELED
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
func (c *fakeComp) TryGet() (uint64, error) { return 0, syscall.EAGAIN }
func (c *fakeComp) Kick()                   {}
func (c *fakeComp) Interrupt()              { close(c.stop) }
func (c *fakeComp) Close() error            { c.h.objects.Add(-1); return nil }

func (h *host) CreateCQ(in *provider.CQInit) (provider.CQ, error) {
	h.objects.Add(1)
	return &fakeCQ{h: h, ch: in.Channel.(*fakeComp), wc: make(chan provider.WC, 100)}, nil
}

func (c *fakeCQ) Poll(wc []provider.WC) (int, error) {
	select {
	case wc[0] = <-c.wc:
		return 1, nil
	default:
		return 0, nil
	}
}
func (c *fakeCQ) ReqNotify(bool) error { return nil }
func (c *fakeCQ) Close() error         { c.h.objects.Add(-1); return nil }

var cookies atomic.Uint64

func fresh() uint64 { return cookies.Add(1) }

// peer is an id with a channel of its own.
type peer struct {
	*id
	h      *host
	ch     *channel
	cookie uint64
	q      provider.QP
}

func (h *host) id(ps provider.PortSpace) *peer {
	h.t.Helper()
	ch, err := h.m.CreateChannel()
	require.NoError(h.t, err)
	p := &peer{h: h, ch: ch.(*channel), cookie: fresh()}
	x, err := h.m.CreateID(ch, p.cookie, ps)
	require.NoError(h.t, err)
	p.id = x.(*id)
	h.t.Cleanup(p.end)
	return p
}

func (p *peer) end() {
	if p.q != nil {
		require.NoError(p.h.t, p.q.Close())
		p.q = nil
	}
	require.NoError(p.h.t, p.id.Close())
}

// next is the next event, which must be of type want.
func (p *peer) next(want provider.CMEventType) provider.CMEvent {
	p.h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	ev, err := p.ch.Get(ctx, fresh)
	require.NoError(p.h.t, err, "waiting for %v", want)
	require.Equal(p.h.t, want.String(), ev.Type.String(), "status %d", ev.Status)
	require.Equal(p.h.t, p.cookie, ev.Cookie)
	return ev
}

func (p *peer) quiet() {
	p.h.t.Helper()
	synctest.Wait()
	ev, err := p.ch.TryGet(fresh)
	require.Equal(p.h.t, error(syscall.EAGAIN), err, "%v", ev.Type)
}

func (p *peer) makeQP() *fakeQP {
	p.h.t.Helper()
	in := provider.QPInit{Type: provider.QPTRC, Cap: provider.QPCap{MaxSendWR: 1, MaxRecvWR: 1}}
	if p.ps == provider.PSUDP {
		in.Type = provider.QPTUD
	}
	q, err := p.CreateQP(&in)
	require.NoError(p.h.t, err)
	p.q = q
	return q.(*ownedQP).QP.(*fakeQP)
}

// listen listens on the host's first address.
func (h *host) listen(ps provider.PortSpace) *peer {
	h.t.Helper()
	l := h.id(ps)
	require.NoError(h.t, l.Bind(netip.AddrPortFrom(h.addrs[0], 0)))
	require.NoError(h.t, l.Listen(8))
	return l
}

// resolve has a route to dst.
func (h *host) resolve(ps provider.PortSpace, dst netip.AddrPort) *peer {
	h.t.Helper()
	c := h.id(ps)
	require.NoError(h.t, c.ResolveAddr(netip.AddrPort{}, dst, 1000))
	c.next(provider.CMEventAddrResolved)
	require.NoError(h.t, c.ResolveRoute(1000))
	c.next(provider.CMEventRouteResolved)
	return c
}

// request takes a connection request.
func (p *peer) request() (*peer, provider.CMEvent) {
	p.h.t.Helper()
	ev := p.next(provider.CMEventConnectRequest)
	s := &peer{id: ev.New.(*id), h: p.h, ch: newChannel(p.h.m), cookie: ev.NewCookie}
	require.NoError(p.h.t, s.Migrate(s.ch))
	p.h.t.Cleanup(s.end)
	return s, ev
}

var params = provider.CMConnParam{ResponderResources: deviceLimit, InitiatorDepth: deviceLimit, RetryCount: 6, RNRRetryCount: 7}

// pair is two hosts with a connection between them.
type pair struct {
	net    *network
	a, b   *host
	l      *peer
	c, s   *peer
	cq, sq *fakeQP
}

func newPair(t testing.TB) *pair {
	n := newNetwork()
	p := &pair{net: n, a: n.host(t, "10.0.0.1", "fd00::1"), b: n.host(t, "10.0.0.2", "fd00::2")}
	p.l = p.b.listen(provider.PSTCP)
	return p
}

// ask sends the request.
func (p *pair) ask() *pair {
	p.c = p.a.resolve(provider.PSTCP, p.l.LocalAddr())
	p.cq = p.c.makeQP()
	require.NoError(p.a.t, p.c.Connect(&params))
	return p
}

// connect makes the connection.
func (p *pair) connect() *pair {
	p.ask()
	p.s, _ = p.l.request()
	p.sq = p.s.makeQP()
	require.NoError(p.a.t, p.s.Accept(&params))
	p.c.next(provider.CMEventEstablished)
	p.s.next(provider.CMEventEstablished)
	return p
}

// empty requires that nothing is left of any connection, after a time.
func (h *host) empty() {
	h.t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	mc := h.m.mc
	require.Empty(h.t, mc.conns)
	require.Empty(h.t, mc.byPeer)
	require.Empty(h.t, mc.byQPN)
	require.Empty(h.t, mc.waiting)
	require.Empty(h.t, mc.timers)
	require.Empty(h.t, mc.listeners)
	require.Zero(h.t, mc.parked.Len())
	require.Empty(h.t, h.m.ids)
	require.Empty(h.t, h.m.ports)
	require.True(h.t, h.m.timerAt.IsZero())
}
