package link

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

func TestMemoryCarriesAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	n, s := Memory(0, MemOptions{}), newSink()
	a, b := open(t, n, lo1, newSink()), open(t, n, lo6, s)
	var want []wire.Packet
	for range 300 {
		for range 1 + r.IntN(100) {
			p, segs := somePacket(r, someOpcodes[r.IntN(len(someOpcodes))], r.IntN(4097))
			a.Send(lo6, &p, segs, len(p.Payload))
			want = append(want, p)
		}
		require.NoError(t, a.Flush())
		if r.IntN(2) == 0 {
			b.Poll()
		}
		s.wait(t, len(want))
	}
	for i, g := range s.all() {
		require.Equal(t, lo1, g.from)
		require.True(t, bytes.Equal(want[i].Payload, g.pkt.Payload))
		w := want[i]
		w.Payload, g.pkt.Payload = nil, nil
		require.Equal(t, w, g.pkt)
	}
	require.EqualValues(t, len(want), a.Stats().TxPackets)
	require.EqualValues(t, len(want), b.Stats().RxPackets)
	require.Equal(t, a.Stats().TxBytes, b.Stats().RxBytes)
	require.Zero(t, b.Stats().RxDropped)
}

func TestMemoryPollerStops(t *testing.T) { pollerStops(t, Memory(0, MemOptions{})) }

func TestMemoryRefusals(t *testing.T) {
	n := Memory(0, MemOptions{MTU: 512})
	l := open(t, n, lo1, newSink())
	require.Equal(t, 512, l.MTU())
	require.Equal(t, lo1, l.Addr())
	_, err := n.Open(netip.AddrFrom16(lo1.As16()), newSink())
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	_, err = n.Open(netip.IPv4Unspecified(), newSink())
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	p := wire.Packet{Opcode: wire.RCAck}
	l.Send(lo2, &p, nil, 0)
	require.NoError(t, l.Flush())
	require.EqualValues(t, 1, l.Stats().TxDropped)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Flush(), net.ErrClosed)
	open(t, n, lo1, newSink())
}

// stuck does not return from Input until it is told to.
type stuck struct{ in, out chan struct{} }

func (s stuck) Input(Link, []Rx) { s.in <- struct{}{}; <-s.out }
func (stuck) Writable(Link)      {}

func TestMemoryInboxIsBounded(t *testing.T) {
	n := Memory(0, MemOptions{Inbox: 100})
	h := stuck{make(chan struct{}), make(chan struct{})}
	a, b := open(t, n, lo1, newSink()), open(t, n, lo2, h)
	p := wire.Packet{Opcode: wire.RCAck}
	a.Send(lo2, &p, nil, 0)
	require.NoError(t, a.Flush())
	<-h.in
	for range 250 {
		a.Send(lo2, &p, nil, 0)
	}
	require.NoError(t, a.Flush())
	require.EqualValues(t, 150, b.Stats().RxDropped)
	closed := make(chan struct{})
	go func() { b.Close(); close(closed) }()
	select {
	case <-closed:
		t.Fatal("Close did not wait for the handler")
	case <-time.After(10 * time.Millisecond):
	}
	h.out <- struct{}{}
	<-closed
}

// gossip sends what it gets on to somebody, until it has run out, from a
// goroutine of its own.
type gossip struct {
	n     int
	peers []netip.Addr
	r     *rand.Rand
	in    chan wire.Packet
	log   *gossipLog
}

type gossipLog struct {
	mu    sync.Mutex
	start time.Time
	lines []string
}

func (g *gossip) Writable(Link) {}
func (g *gossip) Input(_ Link, batch []Rx) {
	g.log.mu.Lock()
	defer g.log.mu.Unlock()
	for _, r := range batch {
		g.log.lines = append(g.log.lines, fmt.Sprint(time.Since(g.log.start), r.Src, " to ", g.n, ": ", r.Pkt.String()))
		g.in <- r.Pkt
	}
}

func (g *gossip) run(l Link) {
	for p := range g.in {
		if p.PSN == 0 {
			continue
		}
		p.PSN--
		for range 1 + g.r.IntN(2) {
			p.DestQP = uint32(g.r.IntN(1000))
			l.Send(g.peers[g.r.IntN(len(g.peers))], &p, nil, 0)
		}
		l.Flush()
	}
}

// gossipRun is what happens on a virtual network on which everybody starts to
// talk at once.
func gossipRun(t *testing.T, mk func() Network) (lines []string) {
	synctest.Test(t, func(t *testing.T) {
		n := mk()
		require.True(t, n.Virtual())
		log := &gossipLog{start: time.Now()}
		var peers []netip.Addr
		for i := range 5 {
			peers = append(peers, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
		}
		var links []Link
		var all []*gossip
		for i, a := range peers {
			g := &gossip{i, peers, rand.New(rand.NewPCG(uint64(i), 9)), make(chan wire.Packet, 10000), log}
			l, err := n.Open(a, g)
			require.NoError(t, err)
			require.Zero(t, l.Poll())
			links, all = append(links, l), append(all, g)
		}
		for i, g := range all {
			go g.run(links[i])
			g.in <- wire.Packet{Opcode: wire.RCAck, PSN: 10}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for i, l := range links {
			require.NoError(t, l.Close())
			close(all[i].in)
		}
		lines = log.lines
	})
	return lines
}

func TestAlign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for i := range 2000 {
			d := time.Duration(i % 1300)
			for c := Class(0); c <= CMWait; c++ {
				a := Align(d, c)
				require.GreaterOrEqual(t, a, max(d, 1))
				require.Less(t, a, max(d, 1)+time.Microsecond)
				require.EqualValues(t, c*alignStep, time.Now().Add(a).UnixNano()%1000)
			}
			time.Sleep(7 * time.Nanosecond)
		}
	})
}

// Packets arrive at instants that nobody's wait ends at.
func TestVirtualInstants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := Memory(1, MemOptions{Virtual: true}), &timed{}
		a, err := n.Open(lo1, newSink())
		require.NoError(t, err)
		b, err := n.Open(lo2, s)
		require.NoError(t, err)
		sendNumbered(t, a, lo2, 0, 3000)
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
		require.Len(t, s.at, 3000)
		for i, x := range s.at {
			require.NotZero(t, x.UnixNano()%alignStep)
			require.True(t, i == 0 || x.After(s.at[i-1]))
		}
	})
}

func TestVirtualRunIsTheSeeds(t *testing.T) {
	run := func(seed uint64) []string {
		return gossipRun(t, func() Network { return Memory(seed, MemOptions{Virtual: true}) })
	}
	first := run(1)
	require.Greater(t, len(first), 200)
	for range 5 {
		require.Equal(t, first, run(1))
	}
	require.NotEqual(t, first, run(2))
}

func TestVirtualRunWithFaultsIsTheSeeds(t *testing.T) {
	run := func(seed uint64) []string {
		return gossipRun(t, func() Network {
			f := Faulty(Memory(1, MemOptions{Virtual: true}), seed)
			f.SetAll(Rules{Drop: 0.05, Duplicate: 0.2, Corrupt: 0.1, Reorder: 0.2, Delay: 5 * time.Microsecond, Jitter: 20 * time.Microsecond})
			return f
		})
	}
	first := run(1)
	require.Greater(t, len(first), 200)
	for range 5 {
		require.Equal(t, first, run(1))
	}
	require.NotEqual(t, first, run(2))
}
