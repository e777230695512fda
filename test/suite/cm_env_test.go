package suite_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

const cmLimit = 30 * time.Second

// within is a context that ends the test's wait.
func (e *env) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	e.t.Cleanup(cancel)
	return ctx
}

func (e *env) cmChannel() *rdmacm.EventChannel {
	e.t.Helper()
	ch, err := rdmacm.CreateEventChannelOn(e.ctx)
	require.NoError(e.t, err)
	e.closeAtEnd(ch)
	return ch
}

func (e *env) cmID(ch *rdmacm.EventChannel, ps rdmacm.PortSpace) *rdmacm.ID {
	e.t.Helper()
	x, err := ch.CreateID(ps)
	require.NoError(e.t, err)
	e.closeAtEnd(x)
	return x
}

// cmEvent takes the next event of ch, which must be of type want.
func (e *env) cmEvent(ch *rdmacm.EventChannel, want rdmacm.EventType) *rdmacm.Event {
	e.t.Helper()
	ev, err := ch.Get(e.within(cmLimit))
	require.NoError(e.t, err, "waiting for %v", want)
	require.Equal(e.t, want.String(), ev.Type.String(), "status %d", ev.Status)
	if ev.Listener != nil {
		e.closeAtEnd(ev.ID)
	}
	return ev
}

// cmListen makes a listening ID on addr with a channel of its own.
func (e *env) cmListen(ps rdmacm.PortSpace, addr netip.Addr) *rdmacm.ID {
	e.t.Helper()
	x := e.cmID(e.cmChannel(), ps)
	require.NoError(e.t, x.BindAddr(netip.AddrPortFrom(addr, 0)))
	require.NoError(e.t, x.Listen(8))
	require.NotZero(e.t, x.LocalAddr().Port())
	return x
}

// cmResolve makes an ID with a channel of its own and a route to dst.
func (e *env) cmResolve(ps rdmacm.PortSpace, dst netip.AddrPort) *rdmacm.ID {
	e.t.Helper()
	x := e.cmID(e.cmChannel(), ps)
	require.NoError(e.t, x.ResolveAddr(netip.AddrPort{}, dst, 2*time.Second))
	e.cmEvent(x.Channel(), rdmacm.EventAddrResolved)
	require.NoError(e.t, x.ResolveRoute(2*time.Second))
	e.cmEvent(x.Channel(), rdmacm.EventRouteResolved)
	return x
}

// cmRes are a domain, a queue and memory on the device of an ID.
type cmRes struct {
	pd *verbs.PD
	cq *verbs.CQ
	mr *verbs.MR
}

func (e *env) cmRes(x *rdmacm.ID) *cmRes {
	e.t.Helper()
	ctx := x.Context()
	require.NotNil(e.t, ctx)
	require.Equal(e.t, e.dev, ctx.Name())
	pd, err := ctx.AllocPD()
	require.NoError(e.t, err)
	e.closeAtEnd(pd)
	cq, err := ctx.CreateCQ(64, nil)
	require.NoError(e.t, err)
	e.closeAtEnd(cq)
	mr, err := pd.RegMR(e.mem(8192), allAccess)
	require.NoError(e.t, err)
	e.closeAtEnd(mr)
	return &cmRes{pd, cq, mr}
}

func (r *cmRes) qpConfig() verbs.QPConfig {
	return verbs.QPConfig{SendCQ: r.cq, Cap: verbs.QPCap{MaxSendWR: 16, MaxRecvWR: 16, MaxSendSGE: 2, MaxRecvSGE: 2}}
}

func (e *env) cmQP(x *rdmacm.ID, r *cmRes) *verbs.QP {
	e.t.Helper()
	q, err := x.CreateQP(r.pd, r.qpConfig())
	require.NoError(e.t, err)
	e.closeAtEnd(q)
	return q
}

// exchange sends 100 bytes from a to b.
func (e *env) exchange(a *verbs.QP, am *verbs.MR, b *verbs.QP, bm *verbs.MR, seed int) {
	e.t.Helper()
	fill(am.Bytes()[:100], seed)
	e.recv(b, verbs.RecvWR{ID: 41, SGList: sgl(bm.SGE(4096, 200))})
	e.send(a, verbs.SendWR{ID: 42, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(am.SGE(0, 100))})
	e.ok(a.SendCQ(), 42, verbs.WCSuccess)
	w := e.ok(b.RecvCQ(), 41, verbs.WCSuccess)
	require.Equal(e.t, uint32(100), w.ByteLen)
	require.Equal(e.t, am.Bytes()[:100], bm.Bytes()[4096:4196])
}

// listen listens on a free port of addr.
func (e *env) listen(addr netip.Addr, cfg rdmacm.ListenConfig) *rdmacm.Listener {
	e.t.Helper()
	l, err := e.listenOn(e.within(cmLimit), netip.AddrPortFrom(addr, 0), cfg)
	require.NoError(e.t, err)
	e.closeAtEnd(l)
	return l
}

// connPair connects a new pair through l.
func (e *env) connPair(l *rdmacm.Listener, peer netip.AddrPort, cfg rdmacm.DialConfig) (server, client *rdmacm.Conn) {
	e.t.Helper()
	type res struct {
		c   *rdmacm.Conn
		err error
	}
	done := make(chan res, 1)
	ctx := e.within(cmLimit)
	go func() {
		c, err := l.Accept(ctx)
		done <- res{c, err}
	}()
	client, err := e.dial(ctx, peer, cfg)
	require.NoError(e.t, err)
	e.closeAtEnd(client)
	r := <-done
	require.NoError(e.t, r.err)
	e.closeAtEnd(r.c)
	return r.c, client
}

func (e *env) connMR(c *rdmacm.Conn) *verbs.MR {
	e.t.Helper()
	m, err := c.PD.RegMR(e.mem(8192), allAccess)
	require.NoError(e.t, err)
	e.closeAtEnd(m)
	return m
}

// blackHole is an address whose host resolves to an Ethernet address that nobody has.
func (e *env) blackHole() netip.Addr {
	e.t.Helper()
	b := e.ip4.As4()
	b[3] = 77
	a := netip.AddrFrom4(b)
	if e.soft { // packets to an address that nobody has opened are lost
		return a
	}
	out, err := exec.Command("ip", "neigh", "replace", a.String(), "lladdr", "02:00:00:00:00:77", "nud", "permanent", "dev", e.netdev).CombinedOutput()
	require.NoError(e.t, err, "%s", out)
	e.t.Cleanup(func() { _ = exec.Command("ip", "neigh", "del", a.String(), "dev", e.netdev).Run() })
	return a
}

// nobody is an address of the subnet that no host answers for.
func (e *env) nobody() netip.Addr {
	if e.soft { // no route leads there from any address of the device
		if e.memory {
			return netip.MustParseAddr("127.0.0.78")
		}
		return netip.MustParseAddr("203.0.113.78")
	}
	b := e.ip4.As4()
	b[3] = 78
	return netip.AddrFrom4(b)
}

// linkLocal is the netdev's link-local address with its zone. That of a software
// device has none in memory, and on loopback there is no such address.
func (e *env) linkLocal() netip.Addr {
	e.t.Helper()
	if e.soft {
		for _, x := range e.table() {
			if a := x.GID.Addr(); a.IsLinkLocalUnicast() {
				return a
			}
		}
		return netip.Addr{}
	}
	ifi, err := net.InterfaceByName(e.netdev)
	require.NoError(e.t, err)
	addrs, err := ifi.Addrs()
	require.NoError(e.t, err)
	for _, a := range addrs {
		ip := netip.MustParsePrefix(a.String()).Addr()
		if ip.Is6() && ip.IsLinkLocalUnicast() {
			return ip.WithZone(e.netdev)
		}
	}
	require.Fail(e.t, "no link-local address", e.netdev)
	return netip.Addr{}
}

// usage counts open files and open objects.
func usage(t *testing.T) (fds, objects int) {
	t.Helper()
	l, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(l), len(handle.Live())
}

// unchanged requires that open files and objects come back to what they were.
func unchanged(t *testing.T, fds, objects int) {
	t.Helper()
	require.Eventually(t, func() bool {
		f, o := usage(t)
		return f <= fds && o <= objects
	}, 10*time.Second, 10*time.Millisecond, "open files and objects before: %d, %d", fds, objects)
}

// warm makes the manager open what it keeps until the process ends.
func (e *env) warm() {
	e.t.Helper()
	if e.soft { // its manager has what it needs since the device is open
		return
	}
	_, err := rdmacm.Devices()
	require.NoError(e.t, err)
}
