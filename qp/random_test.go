package qp

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/verbs"
)

var (
	seeds    = flag.Int("qp.seeds", 12, "how many seeds TestRandomWork runs")
	oneSeed  = flag.Uint64("qp.seed", 0, "the only seed to run, or with -qp.seeds the first")
	kindMask = flag.Int("qp.kinds", 0x7e, "bit k: TestRandomWork does operations of Kind k; bit 0: none is fenced")
	verboseQ = flag.Bool("qp.log", false, "log what connections say")
)

// TestRandomWork does random operations on several connections over a network that
// loses, repeats, reorders and corrupts packets, with callers that give up, and
// ends each connection in a random way. Whatever happens: every operation ends
// exactly once, what arrives is what was sent, a buffer that was handed back
// never changes again, every credit and every receive is accounted for, and in
// the end nothing is left (goroutines: the bubble checks; objects: the network).
// With ZRDMA_TEST_DEVICE it works on that device instead, in real time.
func TestRandomWork(t *testing.T) {
	first, n := uint64(1), *seeds
	if *oneSeed != 0 {
		first = *oneSeed
		if n == 25 {
			n = 1
		}
	}
	for seed := first; seed < first+uint64(n); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			if testDevice() != "" {
				randomWork(t, nil, seed)
				return
			}
			rdmatest.Run(t, seed, func(t *testing.T, net *rdmatest.Network) { randomWork(t, net, seed) })
		})
	}
}

func quietLogger() *slog.Logger {
	if *verboseQ {
		slog.SetLogLoggerLevel(slog.LevelDebug)
		return slog.Default()
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

func netDevice(t testing.TB, net *rdmatest.Network, pool mr.PoolConfig) *Device {
	return openOn(t, net, DeviceConfig{Pool: pool})
}

// openOn opens a device on the network, or without one that of the environment.
func openOn(t testing.TB, net *rdmatest.Network, cfg DeviceConfig) *Device {
	cfg.Pool.Canaries, cfg.Logger = true, quietLogger()
	if net != nil {
		cfg.Context = net.Device(t).Context
	} else {
		cfg.Name = testDevice()
	}
	d, err := Open(cfg)
	require.NoError(t, err)
	return d
}

// host is a device with what its connections share.
type host struct {
	d      *Device
	g      *mr.Granter
	shared *SharedReceive
}

// side is one end of a connection with the memory that it shows to the other.
type side struct {
	t     *testing.T
	h     *host
	c     *Conn
	write *mr.Grant // the peer may write there: an area for each of its workers
	read  *mr.Grant // and may read this, which is readPattern
	word  *verbs.MR // and may change this atomically
	mem   []byte    // of word

	posted, ended, sent, got, adds atomic.Int64
	last                           [workers]lastWrite // by this side's workers
}

type lastWrite struct {
	n    int
	seed uint32
}

const (
	workers  = 3
	areaSize = 16 << 10
	readSize = 32 << 10
)

func fill(p []byte, seed uint32) {
	for i := range p {
		p[i] = byte(seed>>(i%3*8)) + byte(i*7)
	}
	if len(p) >= 4 {
		binary.LittleEndian.PutUint32(p, seed)
	}
}

func filled(p []byte) bool {
	if len(p) < 4 {
		return true
	}
	seed := binary.LittleEndian.Uint32(p)
	for i := 4; i < len(p); i++ {
		if p[i] != byte(seed>>(i%3*8))+byte(i*7) {
			return false
		}
	}
	return true
}

func readPattern(i int) byte { return byte(i*13 + i>>8) }

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		require.NoError(t, err)
		return v
	}
}

// The ways it ends.
const (
	oneCloses = iota
	bothClose
	deadNetwork
	badKey
	inPeace
	revoked
	killed
	numEnds
)

func randomWork(t *testing.T, net *rdmatest.Network, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	pairs, how := 1+rng.IntN(3), rng.IntN(numEnds)
	if net == nil && how == deadNetwork {
		how = inPeace
	}
	var hosts [2]*host
	var cfgs [2]Config
	base := Config{MaxSGE: 1 + rng.IntN(4), MaxMessage: 256 << rng.IntN(5), MTU: verbs.MTU(1 + rng.IntN(3)), DeadAfter: time.Duration(1+rng.IntN(5)) * time.Second}
	if net == nil { // a loaded machine is slow
		base.MTU, base.DeadAfter = 0, 10*time.Second
	}
	for i := range hosts {
		h := &host{d: openOn(t, net, DeviceConfig{Engines: 1 + rng.IntN(2),
			Pool: mr.PoolConfig{Classes: []int{64, 4096, 65536}, RegionSize: 1 << 20, Limit: 32 << 20}})}
		hosts[i] = h
		h.g = must[*mr.Granter](t)(mr.NewGranter(h.d.PD(), mr.GranterConfig{}))
		cfgs[i] = base
		cfgs[i].SendDepth, cfgs[i].RecvDepth = 1+rng.IntN(32), 1+rng.IntN(32)
		if rng.IntN(2) == 0 {
			h.shared = must[*SharedReceive](t)(h.d.NewSharedReceive(SharedReceiveConfig{Depth: pairs * (cfgs[i].RecvDepth + recvReserve), MaxMessage: base.MaxMessage}))
			cfgs[i].Shared = h.shared
		}
	}
	if *verboseQ {
		fmt.Printf("seed %d: %d pairs, end %d, send %d %d, receive %d %d, shared %v %v, %d SGE, messages of %d\n", seed, pairs, how, cfgs[0].SendDepth, cfgs[1].SendDepth,
			cfgs[0].RecvDepth, cfgs[1].RecvDepth, hosts[0].shared != nil, hosts[1].shared != nil, base.MaxSGE, base.MaxMessage)
	}
	all := make([][2]*side, pairs)
	for i := range all {
		a, b := pairOf(t, hosts[0].d, hosts[1].d, cfgs[0], cfgs[1])
		all[i] = [2]*side{newSide(t, ctx, hosts[0], a), newSide(t, ctx, hosts[1], b)}
	}
	if net != nil {
		net.SetFaults(rdmatest.Faults{Drop: rng.Float64() * 0.05, Duplicate: rng.Float64() * 0.05, Reorder: rng.Float64() * 0.05, Corrupt: rng.Float64() * 0.02})
	}
	var work, recv sync.WaitGroup
	for i, p := range all {
		for j, s := range p {
			for w := range 1 + rng.IntN(workers) {
				r := rand.New(rand.NewPCG(seed, uint64(100*i+10*j+w)))
				work.Go(func() { s.work(ctx, r, w, p[1-j], 3+r.IntN(25)) })
			}
			r := rand.New(rand.NewPCG(seed, uint64(1000+10*i+j)))
			recv.Go(func() { s.receive(ctx, r) })
		}
	}
	if how != inPeace {
		time.Sleep(time.Duration(rng.IntN(20000)) * time.Microsecond)
	}
	if how == deadNetwork {
		net.SetFaults(rdmatest.Faults{Drop: 1})
	}
	for i, p := range all {
		end(t, ctx, how, p, &work, i == 0)
	}
	work.Wait()
	if how == inPeace {
		for _, p := range all {
			for j, s := range p {
				require.NoError(t, s.c.Flush(ctx))
				s.conserved(ctx, p[1-j])
			}
		}
	}
	for _, p := range all { // what the end of one connection left of the others
		for _, s := range p {
			require.NoError(t, s.c.Close())
		}
	}
	recv.Wait()
	for _, p := range all {
		for j, s := range p {
			s.finish(ctx, p[1-j], how == inPeace)
		}
	}
	for _, h := range hosts {
		require.NoError(t, h.g.Close())
		if s := h.shared; s != nil {
			s.ring.mu.Lock()
			require.Equal(t, s.cfg.Depth, s.ring.out+len(s.ring.debts), "a shared receive is lost")
			s.ring.mu.Unlock()
			require.Equal(t, s.cfg.Depth, s.left)
			require.NoError(t, s.Close())
		}
		for _, e := range h.d.engines {
			st := e.Stats()
			require.Zero(t, st.Reserved)
			require.Zero(t, st.QueuePairs)
			require.Zero(t, st.Orphans)
		}
		ps := h.d.Pool().Stats()
		require.Zero(t, ps.Damaged)
		require.NoError(t, h.d.Close())
	}
}

func newSide(t *testing.T, ctx context.Context, h *host, c *Conn) *side {
	s := &side{t: t, h: h, c: c, mem: make([]byte, 4096)}
	w := must[mr.Buf](t)(h.d.Pool().Get(ctx, workers*areaSize))
	s.write = must[*mr.Grant](t)(h.g.Grant(ctx, c, w, mr.DeviceWrites))
	r := must[mr.Buf](t)(h.d.Pool().Get(ctx, readSize))
	p := must[[]byte](t)(r.Bytes())
	for i := range p {
		p[i] = readPattern(i)
	}
	s.read = must[*mr.Grant](t)(h.g.Grant(ctx, c, r, mr.DeviceReads))
	s.word = must[*verbs.MR](t)(h.d.PD().RegMR(s.mem, verbs.AccessLocalWrite|verbs.AccessRemoteAtomic))
	return s
}

// end begins the end of a connection.
func end(t *testing.T, ctx context.Context, how int, p [2]*side, work *sync.WaitGroup, first bool) {
	a, b := p[0], p[1]
	switch how {
	case oneCloses:
		require.NoError(t, a.c.Close())
	case bothClose:
		for range 2 {
			work.Go(func() {
				if err := a.c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		require.NoError(t, b.c.Close())
	case badKey:
		if !first {
			return
		}
		_, err := a.c.Do(ctx, Op{Kind: Write, Data: []byte("12345678"), Remote: Remote{Addr: 8, Len: 8, RKey: 12345}})
		require.Error(t, err, "a write with a bad key succeeded")
	case revoked: // the peer's workers may be at it
		buf, err := a.write.Revoke(ctx)
		require.NoError(t, err)
		mem := must[[]byte](t)(buf.Bytes())
		fill(mem, 0xeeeeee)
		time.Sleep(3 * time.Millisecond)
		require.True(t, filled(mem), "the peer wrote after Revoke")
		require.NoError(t, buf.Release())
	case killed:
		if _, err := b.c.Kill(ctx); err != nil {
			t.Error(err)
		}
	}
}

// conserved waits until every credit of this side's window is with the peer or
// owed to it, and every receive is posted or owed.
func (s *side) conserved(ctx context.Context, peer *side) {
	for {
		free, _, _ := peer.c.credits.state()
		r := s.c.recv
		r.mu.Lock()
		data, all := 0, r.out+len(r.debts)
		for _, d := range r.debts {
			if d.c == s.c && !d.control {
				data++
			}
		}
		want := len(r.flights)
		r.mu.Unlock()
		if owed := s.c.in.owing(); free+owed+data == s.c.cfg.RecvDepth && (all == want || !r.own) && s.c.in.held() == 0 {
			return
		} else if ctx.Err() != nil {
			s.t.Fatalf("credits are lost: the peer has %d, %d are owed and %d not replaced of %d; %d receives of %d",
				free, owed, data, s.c.cfg.RecvDepth, all, want)
		}
		time.Sleep(time.Millisecond)
	}
}

// finish checks what a connection has done when nothing moves any more.
func (s *side) finish(ctx context.Context, peer *side, peace bool) {
	t := s.t
	if peace {
		require.Equal(t, peer.sent.Load(), s.got.Load(), "messages")
	} else {
		require.LessOrEqual(t, s.got.Load(), peer.sent.Load())
	}
	require.NoError(t, s.c.Close())
	require.NoError(t, s.c.Close())
	require.Error(t, s.c.Err())
	st := s.c.Stats()
	require.Equal(t, s.posted.Load(), s.ended.Load(), "%+v", st)
	require.Equal(t, st.Posted, st.Completed)
	require.Zero(t, st.InFlight)
	require.Zero(t, st.Orphans)
	require.Zero(t, st.Undelivered)
	if buf, err := s.write.Revoke(ctx); err == nil {
		if p := must[[]byte](t)(buf.Bytes()); peace {
			for w, l := range peer.last {
				if l.n >= 4 {
					area := p[w*areaSize:][:l.n]
					require.Equal(t, l.seed, binary.LittleEndian.Uint32(area))
					require.True(t, filled(area), "what was written is not what is there")
				}
			}
		}
		require.NoError(t, buf.Release())
	}
	if buf, err := s.read.Revoke(ctx); err == nil {
		for i, x := range must[[]byte](t)(buf.Bytes()) {
			require.Equal(t, readPattern(i), x, "memory that could only be read has changed")
		}
		require.NoError(t, buf.Release())
	}
	require.NoError(t, s.word.Close())
	if peace {
		require.Equal(t, peer.adds.Load(), int64(binary.NativeEndian.Uint64(s.mem)), "atomic additions")
	}
}

func (s *side) receive(ctx context.Context, r *rand.Rand) {
	for {
		m, err := s.c.Recv(ctx)
		if err != nil {
			var end *EndError
			if !errors.As(err, &end) {
				s.t.Error(err)
			}
			return
		}
		s.got.Add(1)
		if m.Buf.IsZero() {
			continue
		}
		s.unchanged(r, m.Buf)
	}
}

// unchanged checks the contents of a buffer that came back, now and, if r says
// so, later, and releases it.
func (s *side) unchanged(r *rand.Rand, b mr.Buf) {
	p, err := b.Bytes()
	if err != nil {
		s.t.Error(err)
		return
	}
	if !filled(p) {
		s.t.Errorf("%d bytes that were not sent", len(p))
	}
	if r.IntN(8) == 0 {
		time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
		if !filled(p) {
			s.t.Errorf("a buffer changed after it was handed out")
		}
	}
	if err := b.Release(); err != nil {
		s.t.Error(err)
	}
}
