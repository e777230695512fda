package rpc

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

var (
	stormCalls   = flag.Int("rpc.storm", 1000, "how many calls TestStorm makes; docs/rpc-proofs.md says what the long run is")
	stormGrace   = flag.Duration("rpc.grace", 30*time.Second, "Config.Grace of TestStorm: a machine that has too much to do answers late, and fences after the grace cost connections")
	stormWorkers = flag.Int("rpc.stormers", 64, "goroutines that call")
)

// storm is many goroutines that move blocks and give half of their calls up.
type storm struct {
	t      testing.TB
	sd, cd *qp.Device
	srv    *Server
	served chan error
	c      *Client

	id, left                 atomic.Int64
	good, cancelled, refused atomic.Int64
	late                     atomic.Int64 // bytes that changed in memory that was ours
	usual                    atomic.Int64 // ns that a call takes, about
	mu                       sync.Mutex
	fences                   []time.Duration // guarded by mu; from the end of a context to the memory's return
}

const stormBlock = 64 << 10

// stormDevices are the device that ZRDMA_TEST_DEVICE names, twice, or two software
// devices on loopback addresses that nobody else takes.
func stormDevices(t testing.TB) (server, client *qp.Device) {
	open := func(name string) *qp.Device {
		d, err := qp.Open(qp.DeviceConfig{Name: name, Logger: quiet(), Pool: mr.PoolConfig{Canaries: true,
			Classes: []int{4096, stormBlock}, RegionSize: 4 << 20, Limit: 32 << 20}})
		require.NoError(t, err)
		return d
	}
	if name := os.Getenv("ZRDMA_TEST_DEVICE"); name != "" {
		return open(name), open(name)
	}
	net := fmt.Sprintf("127.%d.%d.", 64+os.Getpid()%64, os.Getpid()/64%256)
	return open("soft:" + net + "1"), open("soft:" + net + "2")
}

func newStorm(t testing.TB, cfg Config) *storm {
	w := &storm{t: t, served: make(chan error, 1)}
	w.usual.Store(int64(time.Millisecond))
	w.sd, w.cd = stormDevices(t)
	cfg.Logger, cfg.Device, cfg.DeadAfter = quiet(), w.sd, 10*time.Second
	var err error
	w.srv, err = NewServer(ServerConfig{Config: cfg})
	require.NoError(t, err)
	w.srv.Handle("get", w.get)
	w.srv.Handle("put", w.put)
	g, err := w.sd.Context().SelectGID(w.sd.Port(), netip.Addr{})
	require.NoError(t, err)
	l, err := w.srv.Listen(t.Context(), g.GID.Addr().String()+":0")
	require.NoError(t, err)
	go func() { w.served <- w.srv.Serve(l) }()
	cfg.Device = w.cd
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	w.c, err = Dial(ctx, l.Addr(), cfg)
	require.NoError(t, err)
	// How long a call takes when many are under way, about.
	var wg sync.WaitGroup
	start := time.Now()
	for i := range *stormWorkers {
		wg.Go(func() {
			if _, err := w.one(ctx, rand.New(rand.NewPCG(8, uint64(i))), source{w: w}, false); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.usual.Store(int64(time.Since(start)))
	return w
}

func (w *storm) close() {
	require.NoError(w.t, w.c.Close())
	require.NoError(w.t, w.srv.Close())
	require.NoError(w.t, <-w.served)
	for _, d := range []*qp.Device{w.cd, w.sd} {
		st := d.Pool().Stats()
		require.Zero(w.t, st.Leaked)
		require.Zero(w.t, st.Damaged)
		require.NoError(w.t, d.Close())
	}
}

// get pushes the pattern of the call, at once or a little later.
func (w *storm) get(ctx context.Context, c *ServerCall) error {
	id := binary.LittleEndian.Uint64(c.Body)
	b, err := c.Device().Pool().Get(ctx, c.OutLen())
	if err != nil {
		return err
	}
	p, err := b.Bytes()
	if err != nil {
		return err
	}
	pattern(p, id)
	if id%4 == 0 {
		time.Sleep(time.Duration(id%500) * time.Microsecond)
	}
	if err := c.Push(ctx, b); err != nil {
		return err
	}
	return c.Reply(c.Body)
}

func (w *storm) put(ctx context.Context, c *ServerCall) error {
	id := binary.LittleEndian.Uint64(c.Body)
	b, err := c.Device().Pool().Get(ctx, c.InLen())
	if err != nil {
		return err
	}
	b, err = c.Pull(ctx, b)
	if err != nil {
		if !b.IsZero() && b.Err() == nil {
			_ = b.Release()
		}
		return err
	}
	defer b.Release()
	p, err := b.Bytes()
	if err != nil {
		return err
	}
	if at := scan(p, id); at >= 0 {
		w.t.Errorf("call %d: byte %d that was pulled is another's", id, at)
	}
	return c.Reply(c.Body)
}

// source is where a goroutine has its memory from: the pool, or a region of its own,
// of which it can see when it is back.
type source struct {
	w   *storm
	own *mr.Region
}

func (s source) get(ctx context.Context, n int) (mr.Buf, error) {
	if s.own == nil {
		return s.w.cd.Pool().Get(ctx, n)
	}
	for {
		b, err := s.own.Buf(0, n)
		if err == nil || ctx.Err() != nil {
			return b, err
		}
		time.Sleep(20 * time.Microsecond)
	}
}

// one does a call; with giveUp it is given up at a random moment. It returns when
// its context ended, zero if it did not.
func (w *storm) one(ctx context.Context, r *rand.Rand, from source, giveUp bool) (ended time.Time, err error) {
	n := 1 + r.IntN(stormBlock)
	b, err := from.get(ctx, n)
	if err != nil {
		return ended, err
	}
	id := uint64(w.id.Add(1))
	p, err := b.Bytes()
	if err != nil {
		return ended, err
	}
	// What is ours must not change: neither by a call of before nor by another's.
	poison := r.Uint64()
	pattern(p, poison)
	if r.IntN(4) == 0 {
		time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
	}
	if scan(p, poison) >= 0 {
		w.late.Add(1)
	}
	method, opt := "get", ReadInto(b)
	if r.IntN(2) == 0 {
		pattern(p, id)
		method, opt = "put", WriteFrom(b)
	}
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	gaveUp := make(chan time.Time, 1)
	if giveUp { // not by a deadline: the server would refuse what it cannot do in time
		defer time.AfterFunc(time.Duration(r.Int64N(w.usual.Load()*3/2)), func() {
			gaveUp <- time.Now()
			cancel()
		}).Stop()
	}
	start := time.Now()
	rep, err := w.c.Call(call, method, binary.LittleEndian.AppendUint64(nil, id), opt)
	switch {
	case err == nil:
		took := time.Since(start)
		w.usual.Store((7*w.usual.Load() + int64(took)) / 8)
		w.good.Add(1)
		b := rep.Buf(0)
		p, err := b.Bytes()
		if err != nil {
			return ended, err
		}
		if binary.LittleEndian.Uint64(rep.Body) != id || scan(p, id) >= 0 {
			w.t.Errorf("call %d: wrong data", id)
		}
		rep.Release()
		return ended, b.Release()
	case call.Err() != nil && ctx.Err() == nil:
		w.cancelled.Add(1)
		return <-gaveUp, nil
	case CodeOf(err) == ResourceExhausted, CodeOf(err) == Unavailable:
		if w.refused.Add(1) <= 3 {
			w.t.Logf("refused: %v", err)
		}
		return ended, nil
	}
	return ended, err
}

// worker calls until all calls are made.
func (w *storm) worker(ctx context.Context, r *rand.Rand, measure bool) error {
	from := source{w: w}
	if measure {
		own, err := mr.Alloc(stormBlock, mr.Config{Huge: mr.HugeOff}, w.cd.PD())
		if err != nil {
			return err
		}
		from.own = own
		defer own.Close()
	}
	for w.left.Add(-1) >= 0 {
		ended, err := w.one(ctx, r, from, r.IntN(10) > 0) // about half of all end before
		if err != nil {
			return err
		}
		if from.own != nil {
			b, err := from.get(ctx, 1)
			if err != nil {
				return fmt.Errorf("the memory of a call that was given up does not come back: %w", err)
			}
			if !ended.IsZero() {
				w.mu.Lock()
				w.fences = append(w.fences, time.Since(ended))
				w.mu.Unlock()
			}
			if err := b.Release(); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestStorm: half of all bulk calls are given up at random moments; no memory
// changes after it came back, and the connection lives.
func TestStorm(t *testing.T) {
	for _, mode := range []BulkMode{Push, Pull} {
		t.Run(mode.String(), func(t *testing.T) {
			w := newStorm(t, Config{Bulk: mode, DataQPs: 2, Grace: *stormGrace})
			w.left.Store(int64(*stormCalls))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+time.Duration(*stormCalls)*10*time.Millisecond)
			defer cancel()
			var wg sync.WaitGroup
			start := time.Now()
			for i := range *stormWorkers {
				r := rand.New(rand.NewPCG(uint64(mode), uint64(i)))
				wg.Go(func() {
					if err := w.worker(ctx, r, i%8 == 0); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			st := w.c.Stats()
			t.Logf("%d calls in %v: %d good, %d given up, %d refused; fenced by the server's word %d, by taking the right away %d; late answers %d",
				*stormCalls, time.Since(start).Round(time.Millisecond), w.good.Load(), w.cancelled.Load(), w.refused.Load(), st.FencedByAck, st.FencedHard, st.Late)
			slices.Sort(w.fences)
			if n := len(w.fences); n > 0 {
				t.Logf("fence time of %d calls: p50 %v, p90 %v, p99 %v, max %v", n, w.fences[n/2], w.fences[n*9/10], w.fences[n*99/100], w.fences[n-1])
			}
			lost := st.Sessions - 1
			t.Logf("late writes %d, connections lost %d; grants %+v", w.late.Load(), lost, w.c.nics[0].granter.Stats())
			require.Zero(t, w.late.Load(), "late writes")
			require.NotZero(t, w.cancelled.Load())
			require.NotZero(t, w.good.Load())
			require.LessOrEqual(t, float64(lost), max(1, 0.001*float64(w.cancelled.Load())), "connections lost to cancellation")
			w.close()
		})
	}
}
