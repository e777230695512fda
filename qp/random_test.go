package qp

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
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
	seeds    = flag.Int("qp.seeds", 6, "how many seeds TestRandomWork runs")
	oneSeed  = flag.Uint64("qp.seed", 0, "the only seed to run")
	verboseQ = flag.Bool("qp.log", false, "log what connections say")
)

// TestRandomWork does random operations over a network that loses, repeats,
// reorders and corrupts packets, with callers that give up, and ends each
// connection in a random way. Whatever happens: every operation ends exactly once,
// no buffer is handed out while a device may use it (canaries and contents), every
// credit is accounted for, and in the end nothing is left.
func TestRandomWork(t *testing.T) {
	if *oneSeed != 0 {
		rdmatest.Run(t, *oneSeed, func(t *testing.T, net *rdmatest.Network) { randomWork(t, net, *oneSeed) })
		return
	}
	for seed := uint64(1); seed <= uint64(*seeds); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rdmatest.Run(t, seed, func(t *testing.T, net *rdmatest.Network) { randomWork(t, net, seed) })
		})
	}
}

type side struct {
	d      *Device
	c      *Conn
	g      *mr.Granter
	grants []*mr.Grant // what the peer may write, and what it may read
	word   *verbs.MR   // what it may change atomically
	posted atomic.Int64
	ended  atomic.Int64
	lost   atomic.Int64 // waits given up
	recvd  atomic.Int64
	tried  atomic.Int64
	write  Remote
	read   Remote
	atom   Remote
}

func quietLogger() *slog.Logger {
	if *verboseQ {
		return slog.Default()
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

func netDevice(t testing.TB, net *rdmatest.Network, pool mr.PoolConfig) *Device {
	pool.Canaries = true
	d, err := Open(DeviceConfig{Context: net.Device(t).Context, Pool: pool, Logger: quietLogger()})
	require.NoError(t, err)
	return d
}

func randomWork(t *testing.T, net *rdmatest.Network, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	pool := mr.PoolConfig{Classes: []int{64, 4096, 65536}, RegionSize: 1 << 20, Limit: 8 << 20}
	cfg := Config{SendDepth: 1 + rng.IntN(32), RecvDepth: 1 + rng.IntN(32), MaxSGE: 1 + rng.IntN(4), MaxMessage: 256 << rng.IntN(5),
		MTU: verbs.MTU(1 + rng.IntN(5)), DeadAfter: time.Duration(1+rng.IntN(5)) * time.Second}
	cfg2 := cfg
	cfg2.SendDepth, cfg2.RecvDepth = 1+rng.IntN(32), 1+rng.IntN(32)
	a, b := &side{d: netDevice(t, net, pool)}, &side{d: netDevice(t, net, pool)}
	pa, err := a.d.Prepare(netip.Addr{}, cfg)
	require.NoError(t, err)
	pb, err := b.d.Prepare(netip.Addr{}, cfg2)
	require.NoError(t, err)
	la, lb := pa.Local(), pb.Local()
	a.c, err = pa.Connect(lb)
	require.NoError(t, err)
	b.c, err = pb.Connect(la)
	require.NoError(t, err)
	sides := []*side{a, b}
	for _, s := range sides {
		s.g, err = mr.NewGranter(s.d.PD(), mr.GranterConfig{})
		require.NoError(t, err)
		for _, dir := range []mr.Direction{mr.DeviceWrites, mr.DeviceReads} {
			mem, err := s.d.Pool().Get(ctx, 65536)
			require.NoError(t, err)
			g, err := s.g.Grant(ctx, s.c, mem, dir)
			require.NoError(t, err)
			s.grants = append(s.grants, g)
		}
		s.word, err = s.d.PD().RegMR(make([]byte, 4096), verbs.AccessLocalWrite|verbs.AccessRemoteAtomic)
		require.NoError(t, err)
	}
	for i, s := range sides {
		p := sides[1-i]
		s.write, s.read = p.grants[0].Remote(), p.grants[1].Remote()
		s.atom = Remote{Addr: p.word.Addr() &^ 7, Len: 8, RKey: p.word.RKey()}
	}
	f := rdmatest.Faults{Drop: rng.Float64() * 0.05, Duplicate: rng.Float64() * 0.05, Reorder: rng.Float64() * 0.05, Corrupt: rng.Float64() * 0.02}
	net.SetFaults(f)

	var wg sync.WaitGroup
	for i, s := range sides {
		for w := range 1 + rng.IntN(3) {
			r := rand.New(rand.NewPCG(seed, uint64(10+10*i+w)))
			wg.Go(func() { s.work(t, ctx, r) })
		}
		wg.Go(func() { s.receive(t, ctx) })
	}
	// The end: one side closes, both do, or the network parts for good.
	time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
	switch how := rng.IntN(4); how {
	case 0:
		require.NoError(t, a.c.Close())
	case 1:
		wg.Go(func() {
			if err := a.c.Close(); err != nil {
				t.Error(err)
			}
		})
		require.NoError(t, b.c.Close())
	case 2:
		net.SetFaults(rdmatest.Faults{Drop: 1})
	case 3: // a key that is not valid ends it
		_, err := a.c.Do(ctx, Op{Kind: Write, Data: []byte("12345678"), Remote: Remote{Addr: 8, Len: 8, RKey: 12345}})
		if err == nil {
			t.Error("a write with a bad key succeeded")
		}
	}
	wg.Wait()
	for _, s := range sides {
		select {
		case <-s.c.Done():
		case <-ctx.Done():
			t.Fatalf("the connection did not end: %+v", s.c.Stats())
		}
		require.NoError(t, s.c.Close())
		st := s.c.Stats()
		if *verboseQ {
			t.Logf("seed %d: %+v; why: %v", seed, st, s.c.Err())
		}
		require.Equal(t, s.posted.Load(), s.ended.Load(), "%+v", st)
		require.Equal(t, st.Posted, st.Completed)
		require.Zero(t, st.InFlight)
		require.Zero(t, st.Orphans)
		for _, g := range s.grants {
			if buf, err := g.Revoke(ctx); err == nil {
				require.NoError(t, buf.Release())
			}
		}
		require.NoError(t, s.word.Close())
	}
	for i, s := range sides {
		// What was acknowledged was received, unless the receiver closed over it;
		// nothing was received that was not sent.
		require.LessOrEqual(t, s.recvd.Load(), sides[1-i].tried.Load())
		require.NoError(t, s.g.Close())
		ps := s.d.Pool().Stats()
		require.Zero(t, ps.Damaged)
		require.NoError(t, s.d.Close())
	}
}

// work does operations until the connection ends.
func (s *side) work(t *testing.T, ctx context.Context, r *rand.Rand) {
	for {
		if err := s.step(t, ctx, r); err != nil {
			var end *EndError
			if !errors.As(err, &end) {
				t.Error(err)
				s.c.end(err)
			}
			return
		}
	}
}

// ops makes a random batch. Every one reports its end exactly once.
func (s *side) step(t *testing.T, ctx context.Context, r *rand.Rand) error {
	n := 1 + r.IntN(min(4, s.c.cfg.SendDepth, s.c.MaxBatch()))
	ops := make([]Op, 0, n)
	for range n {
		op, err := s.op(ctx, r)
		if err != nil {
			return err
		}
		ops = append(ops, op)
	}
	if n == 1 && r.IntN(3) == 0 { // synchronous, sometimes impatient
		op := ops[0]
		op.Done = nil
		c, cancel := ctx, context.CancelFunc(func() {})
		if r.IntN(2) == 0 {
			c, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(3000))*time.Microsecond)
		}
		bufs, err := s.c.Do(c, op)
		cancel()
		for _, b := range bufs {
			if err := b.Release(); err != nil {
				return err
			}
		}
		if errors.Is(err, context.DeadlineExceeded) {
			s.lost.Add(1)
			err = nil
		}
		var ce *verbs.CompletionError
		if errors.As(err, &ce) {
			err = s.c.Err() // it says why, as the others will
			if err == nil {
				time.Sleep(time.Millisecond)
			}
		}
		return err
	}
	ended := make([]atomic.Bool, len(ops))
	for i := range ops {
		ops[i].Done = func(res Result) {
			if ended[i].Swap(true) {
				t.Errorf("%v ended twice", res.Kind)
			}
			s.ended.Add(1)
			for _, b := range res.Bufs {
				if err := b.Release(); err != nil {
					t.Error(err)
				}
			}
		}
	}
	s.posted.Add(int64(len(ops)))
	err := s.c.Post(ctx, ops...)
	if err != nil {
		// Those that were not posted are the caller's still.
		for i := range ops {
			if ended[i].Load() {
				continue
			}
			mine := len(ops[i].Bufs) == 0
			for _, b := range ops[i].Bufs {
				if b.Err() == nil {
					mine = true
					if err := b.Release(); err != nil {
						return err
					}
				}
			}
			if mine {
				s.posted.Add(-1)
			}
		}
	}
	return err
}

func (s *side) op(ctx context.Context, r *rand.Rand) (Op, error) {
	k := Kind(1 + r.IntN(6))
	op := Op{Kind: k, Remote: s.write, Fence: r.IntN(8) == 0}
	bytes := 1 + r.IntN(20000)
	switch k {
	case Send:
		bytes = 1 + r.IntN(s.c.peer.maxMessage)
		op.Remote = Remote{}
		s.tried.Add(1)
	case WriteImm:
		s.tried.Add(1)
		op.Imm = uint32(r.IntN(1 << 20))
	case Read:
		op.Remote = s.read
	case CompareAndSwap, FetchAdd:
		op.Add, op.Remote = 1, s.atom
		b, err := s.d.Pool().Get(ctx, 8)
		op.Bufs = []mr.Buf{b}
		return op, err
	}
	if k <= WriteImm && r.IntN(4) == 0 {
		op.Data = make([]byte, 1+r.IntN(s.c.MaxInline()))
		return op, nil
	}
	parts := 1 + r.IntN(s.c.cfg.MaxSGE)
	for range parts {
		b, err := s.d.Pool().Get(ctx, max(1, bytes/parts))
		if err != nil {
			return op, err
		}
		op.Bufs = append(op.Bufs, b)
	}
	return op, nil
}

func (s *side) receive(t *testing.T, ctx context.Context) {
	for {
		m, err := s.c.Recv(ctx)
		if err != nil {
			var end *EndError
			if !errors.As(err, &end) {
				t.Error(err)
			}
			return
		}
		s.recvd.Add(1)
		if !m.Buf.IsZero() {
			if err := m.Buf.Release(); err != nil {
				t.Error(err)
			}
		}
	}
}
