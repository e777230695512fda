package link

import (
	"math/rand/v2"
	"net/netip"
	"sort"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// overEach runs a test on both kinds of network.
func overEach(t *testing.T, f func(t *testing.T, n Network)) {
	t.Run("udp", func(t *testing.T) { f(t, UDP(UDPOptions{})) })
	t.Run("memory", func(t *testing.T) { f(t, Memory(0, MemOptions{})) })
}

// fates are what an observer saw.
type fates struct {
	mu  sync.Mutex
	all []Seen
}

func (f *fates) see(s *Seen) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, *s)
}

func (f *fates) count(fate Fate) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.all {
		if s.Fate&fate != 0 {
			n++
		}
	}
	return n
}

// sendNumbered sends n packets numbered by PSN, with some payload.
func sendNumbered(t *testing.T, l Link, dst netip.Addr, from, n int) {
	data := make([]byte, 100)
	for i := range n {
		p := wire.Packet{Opcode: wire.RCSendOnly, PSN: uint32(from + i)}
		l.Send(dst, &p, [][]byte{data}, len(data))
		if i%50 == 49 {
			require.NoError(t, l.Flush())
		}
	}
	require.NoError(t, l.Flush())
}

func psns(g []got) (out []uint32) {
	for _, x := range g {
		out = append(out, x.pkt.PSN)
	}
	return out
}

func TestFaultsOfEachKind(t *testing.T) {
	const total = 2000
	for name, r := range map[string]Rules{
		"none":      {},
		"drop":      {Drop: 0.1},
		"duplicate": {Duplicate: 0.1},
		"corrupt":   {Corrupt: 0.1},
		"reorder":   {Reorder: 0.1, ReorderDepth: 5},
		"delay":     {Delay: time.Millisecond, Jitter: time.Millisecond},
		"all":       {Drop: 0.1, Duplicate: 0.1, Corrupt: 0.1, Reorder: 0.1, Delay: 100 * time.Microsecond, Jitter: 100 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, func(t *testing.T, n Network) {
				f := Faulty(n, 7)
				var seen fates
				f.Observe(seen.see)
				s := newSink()
				a, b := open(t, f, lo1, newSink()), open(t, f, lo2, s)
				f.SetAll(r)
				want, bad := 0, uint64(0)
				var order []uint32
				for i := range total / 100 { // so that no buffer overflows
					sendNumbered(t, a, lo2, i*100, 100)
					require.Eventually(t, func() bool {
						seen.mu.Lock()
						defer seen.mu.Unlock()
						want, bad, order = 0, 0, nil
						for _, x := range seen.all {
							k := 1
							if x.Fate&Duplicated != 0 {
								k = 2
							}
							switch {
							case x.Fate&(Dropped|Cut|QueueFull) != 0:
							case x.Fate&Corrupted != 0:
								bad += uint64(k)
							default:
								for range k {
									order = append(order, x.Pkt.PSN)
								}
								want += k
							}
						}
						return len(seen.all) == (i+1)*100 && len(s.all()) == want && b.Stats().RxBadICRC == bad
					}, 20*time.Second, 200*time.Microsecond)
				}
				// What an observer sees is the order on the wire.
				require.Equal(t, order, psns(s.all()))
				require.Equal(t, r.Reorder > 0, !sort.SliceIsSorted(order, func(i, j int) bool { return order[i] < order[j] }))
				require.Zero(t, b.Stats().RxMalformed)
				for fate, p := range map[Fate]float64{Dropped: r.Drop, Duplicated: r.Duplicate, Corrupted: r.Corrupt, Reordered: r.Reorder} {
					if p == 0 {
						require.Zero(t, seen.count(fate), fate)
					} else {
						require.InDelta(t, p, float64(seen.count(fate))/total, 0.04, fate)
					}
				}
				if r.Delay > 0 {
					require.Equal(t, total-seen.count(Dropped), seen.count(Delayed))
				}
			})
		})
	}
}

// The fates of a direction are the seed's, on every network, whatever happens in
// other directions.
func TestFatesAreTheSeeds(t *testing.T) {
	run := func(n Network, seed uint64, other bool) map[uint64]Fate {
		f := Faulty(n, seed)
		f.SetAll(Rules{Drop: 0.2, Duplicate: 0.2, Corrupt: 0.2, Reorder: 0.2})
		out := map[uint64]Fate{}
		f.Observe(func(s *Seen) {
			if s.Src == lo1 {
				out[s.N] = s.Fate
			}
		})
		a, b := open(t, f, lo1, newSink()), open(t, f, lo2, newSink())
		defer b.Close()
		defer a.Close()
		for i := range 20 {
			sendNumbered(t, a, lo2, i, 10)
			if other {
				sendNumbered(t, b, lo1, i, 7)
			}
		}
		require.Eventually(t, func() bool {
			f.seenMu.Lock()
			defer f.seenMu.Unlock()
			return len(out) == 200
		}, 10*time.Second, time.Millisecond)
		f.Observe(nil)
		return out
	}
	mem := func() Network { return Memory(0, MemOptions{}) }
	first := run(mem(), 1, false)
	require.Equal(t, first, run(mem(), 1, true))
	require.Equal(t, first, run(UDP(UDPOptions{}), 1, true))
	require.NotEqual(t, first, run(mem(), 2, false))
}

// A rule that changes does not move the others' chances.
func TestFaultsAreIndependent(t *testing.T) {
	a, b := Rules{Duplicate: 0.3}, Rules{Duplicate: 0.3, Corrupt: 0.3, Reorder: 0.3}
	for i := range uint64(1000) {
		require.Equal(t, a.fate(5, i)&Duplicated, b.fate(5, i)&Duplicated)
	}
}

func TestPartition(t *testing.T) {
	overEach(t, func(t *testing.T, n Network) {
		f := Faulty(n, 1)
		sa, sb := newSink(), newSink()
		a, b := open(t, f, lo1, sa), open(t, f, lo2, sb)
		f.Cut(lo1, lo2, true)
		sendNumbered(t, a, lo2, 0, 10)
		sendNumbered(t, b, lo1, 0, 10)
		sa.wait(t, 10)
		require.Empty(t, sb.all())
		f.Partition(lo1, lo2, true)
		sendNumbered(t, a, lo2, 10, 10)
		sendNumbered(t, b, lo1, 10, 10)
		f.Partition(lo1, lo2, false)
		sendNumbered(t, a, lo2, 20, 10)
		sendNumbered(t, b, lo1, 20, 10)
		require.EqualValues(t, 20, sb.wait(t, 10)[0].pkt.PSN)
		require.EqualValues(t, 20, sa.wait(t, 20)[10].pkt.PSN)
	})
}

// A packet held back is not lost when nothing follows, and the time that delay
// and rate take is exact under a test's clock.
func TestFaultTimes(t *testing.T) {
	for name, x := range map[string]struct {
		rules Rules
		want  time.Duration // of the last of 10 packets of 116 bytes
		got   int
	}{
		"nothing": {Rules{}, 0, 10},
		"held":    {Rules{Reorder: 1, ReorderDepth: 1 << 20}, reorderWait, 10},
		"delay":   {Rules{Delay: time.Second}, time.Second, 10},
		"rate":    {Rules{Rate: 1160}, time.Second, 10},
		"both":    {Rules{Rate: 1160, Delay: time.Second}, 2 * time.Second, 10},
		"queue":   {Rules{Rate: 1160, Queue: 500}, 400 * time.Millisecond, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := Faulty(Memory(1, MemOptions{Virtual: true}), 1)
				var seen fates
				f.Observe(seen.see)
				f.Set(lo1, lo2, x.rules)
				s := &timed{}
				a, err := f.Open(lo1, newSink())
				require.NoError(t, err)
				b, err := f.Open(lo2, s)
				require.NoError(t, err)
				start := time.Now()
				sendNumbered(t, a, lo2, 0, 10)
				time.Sleep(time.Minute)
				synctest.Wait()
				require.NoError(t, a.Close())
				require.NoError(t, b.Close())
				require.Len(t, s.at, x.got)
				// A packet's way takes up to 2 µs besides.
				require.InDelta(t, x.want, s.at[x.got-1].Sub(start), float64(3*time.Microsecond))
				require.Equal(t, 10-x.got, seen.count(QueueFull))
			})
		})
	}
}

// timed notes when packets arrive.
type timed struct{ at []time.Time }

func (s *timed) Input(_ Link, batch []Rx) {
	for range batch {
		s.at = append(s.at, time.Now())
	}
}
func (*timed) Writable(Link) {}

// Rules reach packets from outside, which are not sent through them.
func TestFaultsOfStrangers(t *testing.T) {
	overEach(t, func(t *testing.T, n Network) {
		f := Faulty(n, 3)
		var seen fates
		f.Observe(seen.see)
		s := newSink()
		a, b := open(t, n, lo1, newSink()), open(t, f, lo2, s)
		f.Set(lo1, lo2, Rules{Drop: 0.3, Duplicate: 0.3, Corrupt: 0.3})
		for i := range 10 {
			sendNumbered(t, a, lo2, 100*i, 100)
			require.Eventually(t, func() bool { return b.Stats().RxPackets == uint64(100*(i+1)) }, 10*time.Second, 100*time.Microsecond)
		}
		require.Eventually(t, func() bool {
			seen.mu.Lock()
			defer seen.mu.Unlock()
			want := 0
			for _, x := range seen.all {
				switch {
				case x.Fate&(Dropped|Corrupted) != 0:
				case x.Fate&Duplicated != 0:
					want += 2
				default:
					want++
				}
			}
			return len(seen.all) == 1000 && len(s.all()) == want
		}, 10*time.Second, time.Millisecond)
		require.InDelta(t, 300, seen.count(Dropped), 80)
	})
}

// Every damage is one that the receiver finds.
func TestDamageIsFound(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	a := wire.Addrs{Src: lo1, Dst: lo2, SrcPort: wire.Port, DstPort: wire.Port, DF: true}
	for i := range 20000 {
		p, segs := somePacket(r, wire.RCSendOnly, r.IntN(40))
		b := appendPacket(nil, 0, &a, &p, segs, len(p.Payload))
		require.True(t, a.Check(b))
		damage(b, &a, 5, uint64(i))
		require.False(t, a.CheckUnknownID(b))
	}
}

func TestSeenText(t *testing.T) {
	p := wire.Packet{Opcode: wire.RCAck, DestQP: 17, PSN: 5, Syndrome: 0x62}
	s := Seen{Src: v4(127, 0, 0, 1), Dst: v4(127, 0, 0, 2), Pkt: &p}
	require.Equal(t, "127.0.0.1 > 127.0.0.2: ACK qp=0x11 psn=5 NAK remote access msn=0", s.String())
	s.Fate = Corrupted | Delayed
	require.Equal(t, "127.0.0.1 > 127.0.0.2: ACK qp=0x11 psn=5 NAK remote access msn=0 [corrupted,delayed]", s.String())
	require.Equal(t, "sent", Fate(0).String())
}
