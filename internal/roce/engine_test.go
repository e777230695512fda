package roce

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
)

// waitLimit bounds every wait of these tests.
const waitLimit = 20 * time.Second

const allAccess = provider.AccessLocalWrite | provider.AccessRemoteWrite | provider.AccessRemoteRead |
	provider.AccessRemoteAtomic | provider.AccessMWBind

// end is one device with a region of memory.
type end struct {
	t   testing.TB
	ctx *devCtx
	pd  *pd
	mem []byte
	mr  provider.MR
}

// queuePair is a queue pair with a CQ for each half.
type queuePair struct {
	*end
	*qp
	send, recv provider.CQ
}

var testAddrs = []netip.Addr{netip.MustParseAddr("127.0.0.21"), netip.MustParseAddr("127.0.0.22")}

// networks runs f on a network in memory and over UDP.
func networks(t *testing.T, f func(t *testing.T, a, b *end)) {
	for name, net := range map[string]func() link.Network{
		"memory": func() link.Network { return link.Memory(1, link.MemOptions{}) },
		"udp":    func() link.Network { return link.UDP(link.UDPOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			n := net()
			f(t, newEnd(t, n, 0), newEnd(t, n, 1))
		})
	}
}

func newEnd(t testing.TB, net link.Network, i int) *end {
	t.Helper()
	c, err := New(Config{Addrs: testAddrs[i : i+1], Net: net}).Open()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	p, err := c.AllocPD()
	require.NoError(t, err)
	e := &end{t: t, ctx: c.(*devCtx), pd: p.(*pd), mem: make([]byte, 4<<20)}
	t.Cleanup(func() { _ = p.Close() })
	e.mr, err = p.RegMR(addrOf(e.mem), uint64(len(e.mem)), 0, false, allAccess)
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.mr.Close() })
	return e
}

// sync is what the race detector needs to see, where one end looks at memory that
// the other device wrote: a socket does not order them in its eyes.
func (e *end) sync() { e.ctx.n.Counters() }

func (e *end) sge(off, n int) provider.SGE {
	return provider.SGE{Addr: addrOf(e.mem) + uint64(off), Length: uint32(n), LKey: e.mr.LKey()}
}

func (e *end) cq(n int) provider.CQ {
	q, err := e.ctx.CreateCQ(&provider.CQInit{CQE: n})
	require.NoError(e.t, err)
	return q
}

func (e *end) qp(typ provider.QPType, mod ...func(*provider.QPInit)) *queuePair {
	e.t.Helper()
	q := &queuePair{end: e, send: e.cq(4096), recv: e.cq(4096)}
	in := provider.QPInit{Type: typ, PD: e.pd, SendCQ: q.send, RecvCQ: q.recv, SendOps: sendOps(typ),
		Cap: provider.QPCap{MaxSendWR: 256, MaxRecvWR: 256, MaxSendSGE: 4, MaxRecvSGE: 4, MaxInlineData: 128}}
	for _, f := range mod {
		f(&in)
	}
	p, err := e.ctx.CreateQP(&in)
	require.NoError(e.t, err)
	q.qp = p.(*qp)
	return q
}

func (e *end) ah(to netip.Addr) provider.AHAttr {
	return provider.AHAttr{IsGlobal: true, PortNum: 1, GRH: provider.GlobalRoute{DGID: provider.GIDFromAddr(to), HopLimit: 64}}
}

// up moves a queue pair to RTS.
func (q *queuePair) up(dest *queuePair, mod ...func(*provider.QPAttr)) {
	q.t.Helper()
	a := provider.QPAttr{PortNum: 1, AccessFlags: allAccess &^ provider.AccessMWBind, QKey: 7, PathMTU: provider.MTU4096,
		MaxDestRdAtomic: 16, MinRNRTimer: 5, Timeout: 14, RetryCnt: 7, RNRRetry: 7, MaxRdAtomic: 16, RQPSN: 0xfffff0, SQPSN: 0xfffff0}
	if dest != nil {
		a.DestQPN, a.AH = dest.num, q.ah(dest.ctx.n.links[0].Addr())
	}
	for _, f := range mod {
		f(&a)
	}
	for from, to := provider.QPSReset, provider.QPSInit; to <= provider.QPSRTS; from, to = to, to+1 {
		req, _, ok := attrs(q.typ, from, to)
		require.True(q.t, ok)
		a.State = to
		require.NoError(q.t, q.Modify(&a, req|provider.QPAttrState), "%v", to)
	}
}

func connected(a, b *end, typ provider.QPType, mod ...func(*provider.QPAttr)) (x, y *queuePair) {
	x, y = a.qp(typ), b.qp(typ)
	x.up(y, mod...)
	y.up(x, mod...)
	return x, y
}

func (q *queuePair) post(wr provider.WR, sge ...provider.SGE) {
	q.t.Helper()
	wr.NumSGE = uint32(len(sge))
	wr.Flags |= provider.SendSignaled
	n, err := q.PostSend([]provider.WR{wr}, sge)
	require.NoError(q.t, err)
	require.Equal(q.t, 1, n)
}

func (q *queuePair) postRecv(id uint64, sge ...provider.SGE) {
	q.t.Helper()
	_, err := q.PostRecv([]provider.RecvWR{{ID: id, NumSGE: uint32(len(sge))}}, sge)
	require.NoError(q.t, err)
}

// done waits for one completion.
func done(t testing.TB, q provider.CQ) provider.WC {
	t.Helper()
	return some(t, q, 1)[0]
}

func some(t testing.TB, q provider.CQ, n int) []provider.WC {
	t.Helper()
	out := make([]provider.WC, 0, n)
	wc := make([]provider.WC, 16)
	for end := time.Now().Add(waitLimit); len(out) < n; {
		k, err := q.Poll(wc[:min(16, n-len(out))])
		require.NoError(t, err)
		out = append(out, wc[:k]...)
		if k == 0 {
			require.True(t, time.Now().Before(end), "%d of %d completions", len(out), n)
			time.Sleep(10 * time.Microsecond)
		}
	}
	return out
}

func ok(t testing.TB, q provider.CQ, id uint64) provider.WC {
	t.Helper()
	w := done(t, q)
	require.Equal(t, provider.WCSuccess, w.Status, "%+v", w)
	require.Equal(t, id, w.WRID)
	return w
}

func fill(b []byte, seed uint64) {
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
}

func TestReliable(t *testing.T) {
	networks(t, func(t *testing.T, a, b *end) {
		for _, mtu := range []provider.MTU{provider.MTU256, provider.MTU1024, provider.MTU4096} {
			x, y := connected(a, b, provider.QPTRC, func(a *provider.QPAttr) { a.PathMTU = mtu })
			for i, n := range []int{0, 1, 255, 256, 4096, 4097, 100_000, 1 << 20} {
				fill(a.mem[:n], uint64(i))
				remote := provider.WR{RemoteAddr: addrOf(b.mem) + 1<<20, RKey: b.mr.RKey()}

				y.postRecv(1, b.sge(3<<20, 1<<20))
				x.post(provider.WR{ID: 2, Opcode: provider.WRSendWithImm, Imm: 77}, a.sge(0, n))
				ok(t, x.send, 2)
				w := ok(t, y.recv, 1)
				require.Equal(t, uint32(n), w.ByteLen)
				require.Equal(t, uint32(77), w.Imm())
				require.Equal(t, provider.WCGRH|provider.WCWithImm, w.Flags)
				require.Equal(t, string(a.mem[:n]), string(b.mem[3<<20:][:n]))

				remote.ID, remote.Opcode = 3, provider.WRRDMAWrite
				x.post(remote, a.sge(0, n))
				ok(t, x.send, 3)
				b.sync()
				require.Equal(t, string(a.mem[:n]), string(b.mem[1<<20:][:n]))

				remote.ID, remote.Opcode = 4, provider.WRRDMARead
				x.post(remote, a.sge(1<<20, n))
				require.Equal(t, uint32(n), ok(t, x.send, 4).ByteLen)
				require.Equal(t, string(a.mem[:n]), string(a.mem[1<<20:][:n]))
			}
			b.sync()
			counter := (*uint64)(unsafe.Pointer(&b.mem[0]))
			*counter = 40
			b.sync()
			x.post(provider.WR{ID: 5, Opcode: provider.WRAtomicFetchAndAdd, CompareAdd: 2, RemoteAddr: addrOf(b.mem), RKey: b.mr.RKey()}, a.sge(8, 8))
			ok(t, x.send, 5)
			x.post(provider.WR{ID: 6, Opcode: provider.WRAtomicCmpAndSwp, CompareAdd: 42, Swap: 9, RemoteAddr: addrOf(b.mem), RKey: b.mr.RKey()}, a.sge(16, 8))
			ok(t, x.send, 6)
			b.sync()
			require.Equal(t, uint64(40), *(*uint64)(unsafe.Pointer(&a.mem[8])))
			require.Equal(t, uint64(42), *(*uint64)(unsafe.Pointer(&a.mem[16])))
			require.Equal(t, uint64(9), *counter)
			require.NoError(t, x.qp.Close())
			require.NoError(t, y.qp.Close())
		}
	})
}

func TestPipelined(t *testing.T) {
	networks(t, func(t *testing.T, a, b *end) {
		x, y := connected(a, b, provider.QPTRC)
		const n = 5000
		errs := make(chan error, 1)
		go func() { // the receiver
			for i := range uint64(256) {
				y.postRecv(i, b.sge(int(i)*8192, 8192))
			}
			for i := range uint64(n) {
				w := done(t, y.recv)
				if w.Status != 0 || w.Imm() != uint32(i) || w.WRID != i%256 || b.mem[w.WRID*8192] != byte(i) {
					errs <- fmt.Errorf("message %d: %+v", i, w)
					return
				}
				y.postRecv(w.WRID, b.sge(int(w.WRID)*8192, 8192))
			}
			errs <- nil
		}()
		sent, got := uint64(0), uint64(0)
		for got < n {
			for sent < n && sent-got < 128 {
				off := int(sent%128) * 8192
				a.mem[off] = byte(sent)
				x.post(provider.WR{ID: sent, Opcode: provider.WRSendWithImm, Imm: uint32(sent)}, a.sge(off, 1+int(sent*37)%8000))
				sent++
			}
			ok(t, x.send, got)
			got++
		}
		require.NoError(t, <-errs)
	})
}

func TestDatagrams(t *testing.T) {
	networks(t, func(t *testing.T, a, b *end) {
		x, y := a.qp(provider.QPTUD), b.qp(provider.QPTUD)
		x.up(nil)
		y.up(nil)
		attr := a.ah(testAddrs[1])
		h, err := a.pd.CreateAH(&attr)
		require.NoError(t, err)
		to := provider.WR{ID: 1, Opcode: provider.WRSend, AH: h.Handle(), RemoteQPN: y.num, RemoteQKey: 7}
		send := func(n int, mod func(*provider.WR)) {
			wr := to
			if mod != nil {
				mod(&wr)
			}
			x.post(wr, a.sge(0, n))
		}
		fill(a.mem[:8192], 3)
		for _, n := range []int{0, 1, 4096} {
			y.postRecv(9, b.sge(1000, 5000))
			send(n, func(wr *provider.WR) { wr.Opcode, wr.Imm = provider.WRSendWithImm, 5 })
			ok(t, x.send, 1)
			w := ok(t, y.recv, 9)
			require.Equal(t, uint32(n+40), w.ByteLen)
			require.Equal(t, x.num, w.SrcQP)
			require.Equal(t, uint32(5), w.Imm())
			require.Equal(t, a.mem[:n], b.mem[1040:1040+n])
			back, err := b.ctx.InitAHFromWC(1, &w, (*[40]byte)(b.mem[1000:]))
			require.NoError(t, err)
			require.Equal(t, provider.GIDFromAddr(testAddrs[0]), back.GRH.DGID)
		}
		// What is not for it is dropped, and the receive stays.
		before := b.ctx.n.Counters()
		y.postRecv(9, b.sge(1000, 140))
		send(1, func(wr *provider.WR) { wr.RemoteQKey = 8 })
		send(101, nil)
		send(1, func(wr *provider.WR) { wr.RemoteQPN ^= 1 << 20 })
		send(1, func(wr *provider.WR) { wr.RemoteQKey = 1 << 31 }) // ours instead
		some(t, x.send, 4)
		require.Equal(t, uint32(41), ok(t, y.recv, 9).ByteLen)
		c := b.ctx.n.Counters()
		require.Equal(t, []uint64{1, 1, 1}, []uint64{c.BadQKey - before.BadQKey, c.TooLong - before.TooLong, c.NoQP - before.NoQP})
		send(1, nil)
		done(t, x.send)
		require.Eventually(t, func() bool { return b.ctx.n.Counters().NoRecv == 1 }, waitLimit, time.Millisecond)
		send(4097, nil)
		require.Equal(t, provider.WCLocLenErr, done(t, x.send).Status)
		send(1, nil)
		require.Equal(t, provider.WCWRFlushErr, done(t, x.send).Status, "in SQE")
		require.NoError(t, x.Modify(&provider.QPAttr{State: provider.QPSRTS}, provider.QPAttrState))
		send(1, nil)
		ok(t, x.send, 1)
	})
}

// TestHeldReceiveGoesBack takes a receive of an SRQ for a datagram that does not
// fit, and destroys the queue pair: another gets the receive.
func TestHeldReceiveGoesBack(t *testing.T) {
	net := link.Memory(1, link.MemOptions{})
	a, b := newEnd(t, net, 0), newEnd(t, net, 1)
	s, err := b.ctx.CreateSRQ(&provider.SRQInit{PD: b.pd, Attr: provider.SRQAttr{MaxWR: 4, MaxSGE: 1}})
	require.NoError(t, err)
	_, err = s.PostRecv([]provider.RecvWR{{ID: 5, NumSGE: 1}}, []provider.SGE{b.sge(0, 100)})
	require.NoError(t, err)
	attr := a.ah(testAddrs[1])
	h, err := a.pd.CreateAH(&attr)
	require.NoError(t, err)
	x := a.qp(provider.QPTUD)
	x.up(nil)
	for _, n := range []int{61, 60} {
		y := b.qp(provider.QPTUD, func(in *provider.QPInit) { in.SRQ = s })
		y.up(nil)
		x.post(provider.WR{Opcode: provider.WRSend, AH: h.Handle(), RemoteQPN: y.num, RemoteQKey: 7}, a.sge(0, n))
		if n == 60 {
			require.Equal(t, uint32(100), ok(t, y.recv, 5).ByteLen)
		} else {
			require.Eventually(t, func() bool { return b.ctx.n.Counters().TooLong == 1 }, waitLimit, time.Millisecond)
		}
		require.NoError(t, y.qp.Close())
	}
	require.NoError(t, s.Close())
}

func TestUnreliableConnected(t *testing.T) {
	networks(t, func(t *testing.T, a, b *end) {
		x, y := connected(a, b, provider.QPTUC)
		fill(a.mem[:1<<17], 1)
		for _, n := range []int{0, 1, 4096, 4097, 50_000} {
			y.postRecv(1, b.sge(1<<20, 1<<17))
			y.postRecv(2)
			x.post(provider.WR{ID: 3, Opcode: provider.WRSend}, a.sge(0, n))
			x.post(provider.WR{ID: 4, Opcode: provider.WRRDMAWriteWithImm, Imm: 6, RemoteAddr: addrOf(b.mem), RKey: b.mr.RKey()}, a.sge(1, n))
			ok(t, x.send, 3)
			ok(t, x.send, 4)
			require.Equal(t, uint32(n), ok(t, y.recv, 1).ByteLen)
			w := ok(t, y.recv, 2)
			require.Equal(t, uint32(6), w.Imm())
			require.Equal(t, string(a.mem[:n]), string(b.mem[1<<20:][:n]))
			require.Equal(t, string(a.mem[1:n+1]), string(b.mem[:n]))
		}
	})
}

func TestManagementDatagrams(t *testing.T) {
	networks(t, func(t *testing.T, a, b *end) {
		mad := make([]byte, madSize)
		require.NoError(t, a.ctx.n.sendMAD(testAddrs[0], testAddrs[1], mad))
		require.Error(t, a.ctx.n.sendMAD(testAddrs[1], testAddrs[0], mad), "not its address")
		require.Error(t, a.ctx.n.sendMAD(testAddrs[0], testAddrs[1], mad[1:]))
		require.Eventually(t, func() bool { return b.ctx.n.Counters().Packets == 1 }, waitLimit, time.Millisecond)
		require.Same(t, b.ctx.CM(), b.ctx.CM())
	})
}

func TestNothingIsAllocated(t *testing.T) {
	net := link.UDP(link.UDPOptions{})
	a, b := newEnd(t, net, 0), newEnd(t, net, 1)
	x, y := connected(a, b, provider.QPTRC)
	wr := []provider.WR{{Opcode: provider.WRSend, Flags: provider.SendSignaled, NumSGE: 1}}
	rr := []provider.RecvWR{{NumSGE: 1}}
	sa, sb := []provider.SGE{a.sge(0, 5000)}, []provider.SGE{b.sge(0, 5000)}
	wc := make([]provider.WC, 4)
	round := func() {
		if _, err := y.PostRecv(rr, sb); err != nil {
			t.Error(err)
		}
		if _, err := x.PostSend(wr, sa); err != nil {
			t.Error(err)
		}
		for n := 0; n < 2; {
			k, _ := x.send.Poll(wc)
			n += k
			k, _ = y.recv.Poll(wc)
			n += k
		}
	}
	for range 300 {
		round()
	}
	require.Less(t, testing.AllocsPerRun(200, round), 1.0)
}
