package roce

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
)

// TestBadNetwork runs every operation over links that lose, repeat, delay and
// damage packets.
func TestBadNetwork(t *testing.T) {
	for name, net := range map[string]link.Network{
		"memory": link.Memory(1, link.MemOptions{}), "udp": link.UDP(link.UDPOptions{}),
	} {
		t.Run(name, func(t *testing.T) {
			f := link.Faulty(net, 7)
			f.SetAll(link.Rules{Drop: .01, Duplicate: .01, Reorder: .01, Corrupt: .005})
			a, b := newEnd(t, f, 0), newEnd(t, f, 1)
			x, y := connected(a, b, provider.QPTRC, func(a *provider.QPAttr) { a.PathMTU, a.Timeout = provider.MTU1024, 12 })
			fill(a.mem[:1<<20], 1)
			remote := provider.WR{RemoteAddr: addrOf(b.mem) + 1<<20, RKey: b.mr.RKey()}
			sum := uint64(0)
			for i := range 40 {
				n := 1 + i*i*37
				y.postRecv(1, b.sge(2<<20, 1<<20))
				wr := remote
				wr.ID, wr.Opcode = 2, provider.WRSend
				x.post(wr, a.sge(i, n))
				wr.ID, wr.Opcode = 3, provider.WRRDMAWrite
				x.post(wr, a.sge(i, n))
				wr.ID, wr.Opcode = 4, provider.WRAtomicFetchAndAdd
				wr.RemoteAddr, wr.CompareAdd = addrOf(b.mem), uint64(i)
				x.post(wr, a.sge(3<<20, 8))
				wr.ID, wr.Opcode, wr.RemoteAddr = 5, provider.WRRDMARead, remote.RemoteAddr
				x.post(wr, a.sge(1<<20, n))
				for id := range uint64(4) {
					ok(t, x.send, id+2)
				}
				require.Equal(t, uint32(n), ok(t, y.recv, 1).ByteLen)
				b.sync()
				want := string(a.mem[i : i+n])
				require.True(t, want == string(b.mem[2<<20:][:n]), "SEND")
				require.True(t, want == string(b.mem[1<<20:][:n]), "WRITE")
				require.True(t, want == string(a.mem[1<<20:][:n]), "READ")
				require.Equal(t, sum, le64(a.mem[3<<20:]), "each atomic once")
				sum += uint64(i)
			}
			s, p := a.ctx.n.Counters().RC, b.ctx.n.Counters().RC
			require.NotZero(t, s.NAKs+s.Probes+s.Timeouts+p.Gaps+p.Repeats, "nothing was lost: %+v %+v", s, p)
		})
	}
}

func le64(b []byte) (v uint64) {
	for i := range 8 {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}

// TestUnreliableConnectedLoses sends messages of several packets over a network
// that drops: each arrives whole or not at all, in order.
func TestUnreliableConnectedLoses(t *testing.T) {
	f := link.Faulty(link.Memory(1, link.MemOptions{}), 3)
	f.SetAll(link.Rules{Drop: .05})
	a, b := newEnd(t, f, 0), newEnd(t, f, 1)
	x, y := connected(a, b, provider.QPTUC)
	const n, size = 200, 5*4096 + 7
	for i := range uint64(n) {
		y.postRecv(i, b.sge(int(i%64)*32768, 32768))
	}
	for i := range uint64(n) {
		fill(a.mem[:size], i)
		x.post(provider.WR{ID: i, Opcode: provider.WRSendWithImm, Imm: uint32(i)}, a.sge(0, size))
		ok(t, x.send, i)
	}
	var wc [n]provider.WC
	got := 0
	for quiet := 0; quiet < 50; {
		k, err := y.recv.Poll(wc[got:])
		require.NoError(t, err)
		if quiet++; k > 0 {
			quiet = 0
		}
		got += k
		time.Sleep(time.Millisecond)
	}
	require.Less(t, got, n)
	require.Greater(t, got, n/4)
	want := make([]byte, size)
	for i := range wc[:got] {
		w := &wc[i]
		require.Equal(t, provider.WCSuccess, w.Status)
		require.Equal(t, uint64(i), w.WRID, "a receive that broke off serves the next message")
		require.True(t, i == 0 || w.Imm() > wc[i-1].Imm(), "in order")
		if got-i <= 64 {
			fill(want, uint64(w.Imm()))
			require.True(t, string(want) == string(b.mem[i%64*32768:][:size]), "message %d", w.Imm())
		}
	}
	require.NotZero(t, b.ctx.n.Counters().OutOfOrder)
}

// TestPartition cuts the network for longer than all retries take.
func TestPartition(t *testing.T) {
	f := link.Faulty(link.Memory(1, link.MemOptions{}), 1)
	a, b := newEnd(t, f, 0), newEnd(t, f, 1)
	x, _ := connected(a, b, provider.QPTRC, func(a *provider.QPAttr) { a.Timeout, a.RetryCnt = 8, 2 })
	f.Partition(testAddrs[0], testAddrs[1], true)
	for i := range uint64(3) {
		x.post(provider.WR{ID: i, Opcode: provider.WRSend}, a.sge(0, 10))
	}
	w := some(t, x.send, 3)
	require.Equal(t, provider.WCRetryExcErr, w[0].Status)
	require.Equal(t, provider.WCWRFlushErr, w[2].Status)
}

func TestWrongSender(t *testing.T) {
	networks(t, func(t *testing.T, a, b *end) {
		x, y := connected(a, b, provider.QPTRC, func(a *provider.QPAttr) { a.Timeout, a.RetryCnt = 8, 1 })
		// y believes that its peer lives on b.
		require.NoError(t, y.Modify(&provider.QPAttr{State: provider.QPSReset}, provider.QPAttrState))
		y.up(x, func(a *provider.QPAttr) { a.AH = b.ah(testAddrs[1]) })
		y.postRecv(1, b.sge(0, 100))
		x.post(provider.WR{ID: 1, Opcode: provider.WRSend}, a.sge(0, 10))
		require.Equal(t, provider.WCRetryExcErr, done(t, x.send).Status)
		require.Eventually(t, func() bool { return b.ctx.n.Counters().BadSource > 0 }, waitLimit, time.Millisecond)
	})
}

// TestManyQueuePairs lets 400 pairs have bulk under way at once.
func TestManyQueuePairs(t *testing.T) {
	networks(t, func(t *testing.T, a, b *end) {
		const pairs = 400
		cq := a.cq(pairs)
		for i := range pairs {
			small := func(in *provider.QPInit) {
				in.SendCQ, in.Cap = cq, provider.QPCap{MaxSendWR: 2, MaxSendSGE: 1}
			}
			x, y := a.qp(provider.QPTRC, small), b.qp(provider.QPTRC, small)
			x.up(y)
			y.up(x)
			x.post(provider.WR{ID: uint64(i), Opcode: provider.WRRDMAWrite, RemoteAddr: addrOf(b.mem), RKey: b.mr.RKey()}, a.sge(0, 64<<10))
		}
		seen := map[uint64]bool{}
		for _, w := range some(t, cq, pairs) {
			require.Equal(t, provider.WCSuccess, w.Status)
			seen[w.WRID] = true
		}
		require.Len(t, seen, pairs)
	})
}

// TestCloseUnderTraffic destroys everything while packets and posts are under way.
func TestCloseUnderTraffic(t *testing.T) {
	networks(t, func(t *testing.T, a, b *end) {
		for round := range 20 {
			x, y := connected(a, b, provider.QPTRC)
			var wg sync.WaitGroup
			for _, q := range []*queuePair{x, y} {
				wr := []provider.WR{{Opcode: provider.WRRDMAWrite, NumSGE: 1, RemoteAddr: addrOf(b.mem), RKey: b.mr.RKey()}}
				if round%2 == 1 {
					wr[0].Opcode = provider.WRRDMARead
				}
				if q == y {
					wr[0].RemoteAddr, wr[0].RKey = addrOf(a.mem)+1<<20, a.mr.RKey()
				}
				sge := []provider.SGE{q.sge(2<<20, 50_000)}
				wg.Go(func() {
					for {
						if _, err := q.PostSend(wr, sge); err == syscall.EINVAL {
							return
						}
					}
				})
			}
			time.Sleep(time.Millisecond)
			require.NoError(t, x.qp.Close())
			require.NoError(t, y.qp.Close())
			wg.Wait()
			n, err := x.send.Poll(make([]provider.WC, 1))
			require.NoError(t, err)
			require.Zero(t, n, "completions of a queue pair that is gone")
		}
	})
}

// TestDeregIsAFenceUnderTraffic takes a region away while it is written to.
func TestDeregIsAFenceUnderTraffic(t *testing.T) {
	networks(t, func(t *testing.T, a, b *end) {
		hit := 0 // rounds in which traffic was under way: the processor may go to it alone
		for range 10 {
			x, _ := connected(a, b, provider.QPTRC)
			buf := make([]byte, 1<<20)
			m, err := b.pd.RegMR(addrOf(buf), 1<<20, 0, false, allAccess)
			require.NoError(t, err)
			fill(a.mem[:1<<20], 3)
			for i := range uint64(8) {
				x.post(provider.WR{ID: i, Opcode: provider.WRRDMAWrite, RemoteAddr: addrOf(buf), RKey: m.RKey()}, a.sge(0, 1<<20))
			}
			require.NoError(t, m.Close())
			clear(buf) // ours again
			last := some(t, x.send, 8)[7]
			if last.Status != provider.WCSuccess {
				hit++
			}
			for i := range buf {
				if buf[i] != 0 {
					t.Fatal("written after Close")
				}
			}
			require.NoError(t, x.qp.Close())
		}
		require.Positive(t, hit)
	})
}

func TestOpen(t *testing.T) {
	d := New(Config{Addrs: testAddrs[:1]})
	require.Equal(t, "soft:127.0.0.21", d.Info().Name)
	require.True(t, d.Info().Soft)
	c, err := d.Open()
	require.NoError(t, err)
	c2, err := New(Config{Addrs: testAddrs[:1], Name: "another"}).Open()
	require.NoError(t, err, "one process shares it")
	require.Same(t, c.(*devCtx).n, c2.(*devCtx).n)
	_, err = New(Config{Addrs: testAddrs[:1], Net: link.UDP(link.UDPOptions{})}).Open()
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "127.0.0.")
	_, err = New(Config{Addrs: []netip.Addr{testAddrs[1], netip.MustParseAddr("192.0.2.1")}}).Open()
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	got := make(chan error, 1)
	go func() { _, err := c.GetEvent(context.Background()); got <- err }()
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-got, syscall.ECANCELED)
	require.NoError(t, c.Close(), "twice is once")
	_, err = c2.AllocPD()
	require.NoError(t, err)
	require.NoError(t, c2.Close())
	c, err = New(Config{Addrs: testAddrs[:1]}).Open()
	require.NoError(t, err, "its port is free again")
	require.NoError(t, c.Close())
}

func TestEvents(t *testing.T) {
	net := link.Memory(1, link.MemOptions{})
	a, b := newEnd(t, net, 0), newEnd(t, net, 1)
	event := func(e *end) provider.AsyncEvent {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
		defer cancel()
		ev, err := e.ctx.GetEvent(ctx)
		require.NoError(t, err)
		return ev
	}
	s, err := b.ctx.CreateSRQ(&provider.SRQInit{PD: b.pd, Attr: provider.SRQAttr{MaxWR: 4, MaxSGE: 1}})
	require.NoError(t, err)
	x := a.qp(provider.QPTRC)
	y := b.qp(provider.QPTRC, func(in *provider.QPInit) { in.SRQ, in.Cookie = s, 77 })
	x.up(y)
	y.up(x)
	_, err = y.PostRecv([]provider.RecvWR{{}}, nil)
	require.Equal(t, syscall.EINVAL, err, "it has an SRQ")
	x.post(provider.WR{Opcode: provider.WRRDMAWrite, RKey: 1}, a.sge(0, 8))
	require.Equal(t, provider.WCRemAccessErr, done(t, x.send).Status)
	require.Equal(t, provider.AsyncEvent{Type: provider.EventQPAccessErr, Cookie: 77}, event(b))
	require.Equal(t, provider.AsyncEvent{Type: provider.EventQPLastWQEReached, Cookie: 77}, event(b))
	require.NoError(t, y.qp.Close())
	require.NoError(t, s.Close())

	for _, typ := range []provider.QPType{provider.QPTUC, provider.QPTUD} {
		q := a.qp(typ, func(in *provider.QPInit) { in.Cookie = 5 })
		q.up(x)
		require.NoError(t, q.Modify(&provider.QPAttr{State: provider.QPSSQD, EnSQDAsyncNotify: true}, provider.QPAttrState|provider.QPAttrEnSQDAsyncNotify))
		require.Equal(t, provider.AsyncEvent{Type: provider.EventSQDrained, Cookie: 5}, event(a))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = a.ctx.GetEvent(ctx)
	require.True(t, errors.Is(err, context.Canceled))
}

func TestMulticast(t *testing.T) {
	a := newEnd(t, link.Memory(1, link.MemOptions{}), 0)
	group := provider.GIDFromAddr(netip.MustParseAddr("239.1.2.3"))
	from, in, out := a.qp(provider.QPTUD), a.qp(provider.QPTUD), a.qp(provider.QPTUD)
	for i, q := range []*queuePair{from, in, out} {
		q.up(nil)
		q.postRecv(uint64(i), a.sge(i*4096, 4096))
	}
	require.NoError(t, in.AttachMcast(group, 0))
	require.NoError(t, in.AttachMcast(group, 0), "twice is once")
	require.NoError(t, from.AttachMcast(group, 0))
	require.Equal(t, syscall.EINVAL, in.AttachMcast(provider.GIDFromAddr(testAddrs[0]), 0))
	require.Equal(t, syscall.EINVAL, a.qp(provider.QPTRC).AttachMcast(group, 0))
	attr := a.ah(netip.MustParseAddr("239.1.2.3"))
	h, err := a.pd.CreateAH(&attr)
	require.NoError(t, err)
	fill(a.mem[1<<20:][:100], 1)
	from.post(provider.WR{ID: 9, Opcode: provider.WRSend, AH: h.Handle(), RemoteQPN: mcastQPN, RemoteQKey: 7}, a.sge(1<<20, 100))
	ok(t, from.send, 9)
	for i, q := range []*queuePair{from, in} {
		w := ok(t, q.recv, uint64(i))
		require.Equal(t, from.num, w.SrcQP)
		require.Equal(t, a.mem[1<<20:][:100], a.mem[i*4096+40:][:100])
	}
	n, _ := out.recv.Poll(make([]provider.WC, 1))
	require.Zero(t, n)
	require.Equal(t, syscall.EBUSY, in.qp.Close())
	require.NoError(t, in.DetachMcast(group, 0))
	require.Equal(t, syscall.EINVAL, in.DetachMcast(group, 0))
	require.NoError(t, in.qp.Close())
	require.NoError(t, h.Close())
}

// fullNet has links whose socket is full every third time.
type fullNet struct{ link.Network }

type fullLink struct {
	link.Link
	h     link.Handler
	calls int
}

var fulls atomic.Int32

func (n fullNet) Open(a netip.Addr, h link.Handler) (link.Link, error) {
	l, err := n.Network.Open(a, h)
	return &fullLink{Link: l, h: h}, err
}

func (l *fullLink) Flush() error {
	if err := l.Link.Flush(); err != nil {
		return err
	}
	if l.calls++; l.calls%3 != 0 {
		return nil
	}
	fulls.Add(1)
	time.AfterFunc(100*time.Microsecond, func() { l.h.Writable(l) })
	return syscall.EAGAIN
}

func TestFullSocket(t *testing.T) {
	net := fullNet{link.Memory(1, link.MemOptions{})}
	a, b := newEnd(t, net, 0), newEnd(t, net, 1)
	for _, typ := range []provider.QPType{provider.QPTRC, provider.QPTUC} {
		x, y := connected(a, b, typ)
		for i := range uint64(8) {
			fill(a.mem[:1<<20], i)
			y.postRecv(i, b.sge(0, 1<<20))
			x.post(provider.WR{ID: i, Opcode: provider.WRSend}, a.sge(0, 1<<20))
			ok(t, x.send, i)
			ok(t, y.recv, i)
			require.True(t, string(a.mem[:1<<20]) == string(b.mem[:1<<20]), typ)
		}
	}
	require.Greater(t, fulls.Load(), int32(10))
}
