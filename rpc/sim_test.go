package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
)

var (
	rpcSeeds = flag.Int("rpc.seeds", 6, "how many seeds TestSimulation runs")
	rpcSeed  = flag.Uint64("rpc.seed", 0, "the first seed of TestSimulation; 0: 1")
	rpcTell  = flag.Bool("rpc.tell", false, "say what each seed of TestSimulation did")
)

// TestSimulation lets clients call a server over a network that loses, repeats,
// reorders, damages and parts, while calls are given up at random moments and the
// server is closed, drained and started again. Whatever happens:
//   - each call ends exactly once, at most a second after its context;
//   - an answer is that of its call, byte for byte;
//   - a call that is not idempotent is done once at most, and not at all when its
//     error says that it was not;
//   - memory that came back does not change any more: it is filled and scanned at
//     random later moments, and pools have canaries;
//   - in the end pools, budgets and places of calls are whole, and nothing is left.
func TestSimulation(t *testing.T) {
	first := max(*rpcSeed, 1)
	for seed := first; seed < first+uint64(*rpcSeeds); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rdmatest.Run(t, seed, func(t *testing.T, net *rdmatest.Network) { simulate(t, net, seed, false) })
		})
	}
}

// TestSimulationRails is TestSimulation with two or three devices a host, whose
// links fail one by one, and buffers cut over them.
func TestSimulationRails(t *testing.T) {
	first := max(*rpcSeed, 1)
	for seed := first; seed < first+uint64(*rpcSeeds); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rdmatest.Run(t, seed, func(t *testing.T, net *rdmatest.Network) { simulate(t, net, seed, true) })
		})
	}
}

// sim is one run.
type sim struct {
	t       *testing.T
	net     *rdmatest.Network
	seed    uint64
	rng     *rand.Rand // of the goroutine that makes trouble
	sdev    []*rdmatest.Device
	sd      []*qp.Device
	cfg     ServerConfig
	addr    string
	srv     *Server
	served  chan error
	clients []*simClient

	id   atomic.Uint64
	mu   sync.Mutex
	done map[uint64]int // guarded by mu: how often the handler of a call was begun

	outcome [32]atomic.Int64 // by code; the last: ErrIndeterminate
	holds   sync.WaitGroup
	trouble []string
}

type simClient struct {
	w   *sim
	dev []*rdmatest.Device
	ds  []*qp.Device
	d   *qp.Device // the first
	c   *Client
}

var simPool = mr.PoolConfig{Canaries: true, Classes: []int{1024, 4096, 65536}, RegionSize: 1 << 20, Limit: 24 << 20}

const simBlock = 60000

func simLog() *slog.Logger {
	if *rpcTell && *rpcSeeds == 1 {
		slog.SetLogLoggerLevel(slog.LevelDebug)
		return slog.Default()
	}
	return quiet()
}

func (w *sim) devices(n int) (devs []*rdmatest.Device, ds []*qp.Device) {
	for range n {
		dev := w.net.Device(w.t)
		d, err := qp.Open(qp.DeviceConfig{Context: dev.Context, Logger: simLog(), Pool: simPool})
		require.NoError(w.t, err)
		devs, ds = append(devs, dev), append(ds, d)
	}
	return devs, ds
}

// addrs is where the server listens: on the first device, or on all.
func addrs(devs []*rdmatest.Device, all bool) string {
	var l []string
	for _, d := range devs {
		l = append(l, d.Addr().String()+":7471")
		if !all {
			break
		}
	}
	return strings.Join(l, ",")
}

// pattern fills p with what only the call id has; scan finds what is not that.
func pattern(p []byte, id uint64) {
	x := id*0x9e3779b97f4a7c15 + 0x1234567
	for len(p) >= 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p, x)
		p = p[8:]
	}
	for i := range p {
		p[i] = byte(x >> (8 * i))
	}
}

// scan is the index of the first byte that is not the pattern's, -1 for none.
func scan(p []byte, id uint64) int {
	x := id*0x9e3779b97f4a7c15 + 0x1234567
	for at := 0; ; at += 8 {
		if len(p) < 8 {
			for i := range p {
				if p[i] != byte(x>>(8*i)) {
					return at + i
				}
			}
			return -1
		}
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		if binary.LittleEndian.Uint64(p) != x {
			return at
		}
		p = p[8:]
	}
}

func simulate(t *testing.T, net *rdmatest.Network, seed uint64, rails bool) {
	rng := rand.New(rand.NewPCG(seed, 77))
	w := &sim{t: t, net: net, seed: seed, rng: rng, done: map[uint64]int{}}
	many := func() int {
		if rails {
			return 2 + rng.IntN(2)
		}
		return 1
	}
	w.sdev, w.sd = w.devices(many())
	w.cfg = ServerConfig{Config: Config{Device: w.sd[0], Rails: w.sd[1:], Logger: simLog(), SlotSize: 512 << rng.IntN(3), MaxCalls: 1 + rng.IntN(64),
		DeadAfter: time.Duration(200+rng.IntN(1500)) * time.Millisecond}, MaxBytes: simBlock + rng.Int64N(2<<20)}
	w.addr = addrs(w.sdev, rails && rng.IntN(2) == 0)
	if rails && rng.IntN(3) == 0 {
		w.cfg.SharedReceives = 1200
	}
	w.start()
	for range 1 + rng.IntN(3) {
		c := &simClient{w: w}
		c.dev, c.ds = w.devices(many())
		c.d = c.ds[0]
		cfg := Config{Device: c.d, Rails: c.ds[1:], Stripe: 4096 << rng.IntN(3), DevicePushes: rng.IntN(3), Logger: simLog(), SlotSize: 512 << rng.IntN(3), MaxCalls: 1 + rng.IntN(64), DataQPs: 1 + rng.IntN(3),
			Bulk: BulkMode(rng.IntN(3)), DeadAfter: time.Duration(200+rng.IntN(1500)) * time.Millisecond,
			Grace: time.Duration(1+rng.IntN(60)) * time.Millisecond, MaxBackoff: time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		var err error
		c.c, err = Dial(ctx, w.addr, cfg)
		cancel()
		require.NoError(t, err)
		w.clients = append(w.clients, c)
	}
	w.faults()
	var wg sync.WaitGroup
	for ci, c := range w.clients {
		for k := range 1 + rng.IntN(6) {
			r := rand.New(rand.NewPCG(seed, uint64(1000+100*ci+k)))
			n := 5 + rng.IntN(20)
			wg.Go(func() {
				for range n {
					c.step(r)
				}
			})
		}
	}
	stop := make(chan struct{})
	troubled := make(chan struct{})
	go func() {
		defer close(troubled)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(w.rng.IntN(400)) * time.Millisecond):
				w.disturb()
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-troubled
	// All is well again: every client recovers.
	net.SetFaults(rdmatest.Faults{})
	for _, c := range w.clients {
		for _, d := range c.dev {
			for j := range w.sdev {
				net.Heal(d, w.sdev[j])
			}
		}
	}
	for _, c := range w.clients {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		r, err := c.c.Call(ctx, "echo", w.body(0, 0), WaitForServer(), Idempotent())
		for CodeOf(err) == ResourceExhausted { // calls that were given up still run
			time.Sleep(50 * time.Millisecond)
			r, err = c.c.Call(ctx, "echo", w.body(0, 0), WaitForServer(), Idempotent())
		}
		cancel()
		require.NoError(t, err, "after everything was healed; trouble: %v", w.trouble)
		r.Release()
	}
	w.holds.Wait()
	time.Sleep(10 * time.Second) // fences, quarantine
	for _, c := range w.clients {
		if cs := c.current(); cs != nil {
			cs.mu.Lock()
			require.Zero(t, cs.used, "places of calls")
			cs.mu.Unlock()
		}
	}
	if rng.IntN(2) == 0 { // the server goes first
		w.stop(false)
		w.closeClients()
	} else {
		w.closeClients()
		w.stop(false)
	}
	if *rpcTell {
		t.Logf("seed %d: outcomes by code %v, trouble %v", seed, w.outcomes(), w.trouble)
		for _, c := range w.clients {
			t.Logf("seed %d: rails %+v", seed, c.c.Rails())
		}
	}
	w.closeDevices(w.sd)
}

func (w *sim) closeDevices(ds []*qp.Device) {
	for _, d := range ds {
		require.NoError(w.t, d.Close())
	}
}

func (w *sim) outcomes() map[string]int64 {
	m := map[string]int64{}
	for i := range w.outcome {
		if n := w.outcome[i].Load(); n > 0 {
			m[Code(i).String()] = n
		}
	}
	return m
}

func (c *simClient) current() *clientSession {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	return c.c.cur
}

func (w *sim) closeClients() {
	for _, c := range w.clients {
		require.NoError(w.t, c.c.Close())
		for _, d := range c.ds {
			w.whole(d)
		}
		w.closeDevices(c.ds)
	}
}

// whole checks a pool of which nobody should hold anything.
func (w *sim) whole(d *qp.Device) {
	st := d.Pool().Stats()
	require.Zero(w.t, st.Damaged, "writes outside of buffers or after their release")
	require.Zero(w.t, st.Leaked)
	require.Zero(w.t, st.Quarantined)
	for _, c := range st.Classes {
		require.Equal(w.t, c.Slots, c.Free, "buffers of %d bytes; trouble: %v", c.Size, w.trouble)
		require.Zero(w.t, c.InFlight)
	}
}

// start starts a server at the address.
func (w *sim) start() {
	s, err := NewServer(w.cfg)
	require.NoError(w.t, err)
	s.Handle("echo", w.handler(w.echo))
	s.Handle("get", w.handler(w.get))
	s.Handle("put", w.handler(w.put))
	s.Handle("turn", w.handler(w.turn))
	s.Handle("fail", w.handler(func(context.Context, *ServerCall, uint64, *rand.Rand) error { return Errorf(NotFound, "none") }))
	s.Handle("panic", w.handler(func(context.Context, *ServerCall, uint64, *rand.Rand) error { panic("as asked") }))
	l, err := s.Listen(w.t.Context(), w.addr)
	require.NoError(w.t, err)
	w.srv, w.served = s, make(chan error, 1)
	go func() { w.served <- s.Serve(l) }()
}

// stop ends the server, at once or by draining, and looks what is left of it.
func (w *sim) stop(drain bool) {
	if drain {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Duration(w.rng.IntN(3000))*time.Millisecond)
		if err := w.srv.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			w.t.Error("Shutdown:", err)
		}
		cancel()
	} else if err := w.srv.Close(); err != nil {
		w.t.Error("Server.Close:", err)
	}
	if err := <-w.served; err != nil {
		w.t.Error("Serve:", err)
	}
	if left := w.srv.bytes.left.Load(); left != w.cfg.MaxBytes {
		w.t.Errorf("the budget is %d bytes after the end, and was %d", left, w.cfg.MaxBytes)
	}
	if st := w.srv.Stats(); st.Open != 0 {
		w.t.Errorf("sessions are left: %+v", st)
	}
	for _, d := range w.sd {
		w.whole(d)
	}
}

func (w *sim) faults() {
	r := w.rng
	w.net.SetFaults(rdmatest.Faults{Drop: r.Float64() * 0.05, Duplicate: r.Float64() * 0.05, Reorder: r.Float64() * 0.05,
		Corrupt: r.Float64() * 0.02, Delay: time.Duration(r.IntN(200)) * time.Microsecond})
}

// disturb does one kind of harm.
func (w *sim) disturb() {
	c := w.clients[w.rng.IntN(len(w.clients))]
	note := func(s string) { w.trouble = append(w.trouble, s) }
	pause := func() { time.Sleep(time.Duration(w.rng.IntN(3000)) * time.Millisecond) }
	rail := w.rng.IntN(min(len(c.dev), len(w.sdev)))
	rails := min(len(c.dev), len(w.sdev)) > 1
	switch w.rng.IntN(12) {
	case 0, 1:
		w.faults()
	case 2:
		if !rails {
			w.faults()
			return
		}
		note(fmt.Sprint("loss on rail ", rail))
		w.net.SetFaultsFrom(c.dev[rail], w.sdev[rail], rdmatest.Faults{Drop: 0.3, Corrupt: 0.1})
		pause()
		w.faults()
	case 3, 4, 5:
		note("partition")
		first, last := 0, len(c.dev)-1
		if rails && w.rng.IntN(4) > 0 { // of one rail
			first, last = rail, rail
			note(fmt.Sprint("of rail ", rail))
		}
		for i := first; i <= last; i++ {
			for j := range w.sdev {
				w.net.Partition(c.dev[i], w.sdev[j])
			}
		}
		pause()
		for i := first; i <= last; i++ {
			for j := range w.sdev {
				w.net.Heal(c.dev[i], w.sdev[j])
			}
		}
	case 6:
		note(fmt.Sprint("one way, rail ", rail))
		if w.rng.IntN(2) == 0 {
			w.net.Cut(w.sdev[rail], c.dev[rail])
		} else {
			w.net.Cut(c.dev[rail], w.sdev[rail])
		}
		pause()
		w.net.Heal(c.dev[rail], w.sdev[rail])
	case 7, 8:
		note("close")
		w.stop(false)
		time.Sleep(time.Duration(w.rng.IntN(1000)) * time.Millisecond)
		w.start()
	case 9:
		note("drain")
		w.stop(true)
		time.Sleep(time.Duration(w.rng.IntN(1000)) * time.Millisecond)
		w.start()
	default: // a while of peace
		time.Sleep(time.Duration(w.rng.IntN(1000)) * time.Millisecond)
	}
}

// body is what every call says: its id, how long the handler shall take in
// microseconds, and as many bytes of the pattern as there is room for.
func (w *sim) body(id uint64, pause uint32) []byte {
	b := binary.LittleEndian.AppendUint64(nil, id)
	return binary.LittleEndian.AppendUint32(b, pause)
}

func (w *sim) handler(f func(context.Context, *ServerCall, uint64, *rand.Rand) error) Handler {
	return func(ctx context.Context, c *ServerCall) error {
		if len(c.Body) < 12 {
			return Errorf(InvalidArgument, "too short")
		}
		id, pause := binary.LittleEndian.Uint64(c.Body), binary.LittleEndian.Uint32(c.Body[8:])
		if id != 0 {
			w.mu.Lock()
			w.done[id]++
			w.mu.Unlock()
		}
		rng := rand.New(rand.NewPCG(id, w.seed))
		if pause > 0 {
			select {
			case <-time.After(time.Duration(pause) * time.Microsecond):
			case <-ctx.Done():
				if rng.IntN(2) == 0 {
					return ctx.Err()
				} // else it goes on, as some handlers do
			}
		}
		return f(ctx, c, id, rng)
	}
}

func (w *sim) echo(_ context.Context, c *ServerCall, id uint64, _ *rand.Rand) error {
	out := make([]byte, len(c.Body))
	copy(out, c.Body[:12])
	pattern(out[12:], id)
	if scan(c.Body[12:], id) >= 0 {
		w.t.Errorf("call %d has the arguments of another", id)
	}
	return c.Reply(out)
}

// push sends the pattern of id, whole or in pieces.
func (w *sim) push(ctx context.Context, c *ServerCall, id uint64, rng *rand.Rand) error {
	n := c.OutLen()
	whole := make([]byte, n)
	pattern(whole, id)
	piece := n
	if rng.IntN(3) == 0 {
		piece = 1 + rng.IntN(n)
		piece = max(piece, n/8)
	}
	for off := 0; off < n; off += piece {
		b, err := c.Device().Pool().Get(ctx, min(piece, n-off))
		if err != nil {
			return err
		}
		p, err := b.Bytes()
		if err != nil {
			return err
		}
		copy(p, whole[off:])
		if err := c.PushAt(ctx, off, b); err != nil {
			return err
		}
	}
	return nil
}

func (w *sim) get(ctx context.Context, c *ServerCall, id uint64, rng *rand.Rand) error {
	if err := w.push(ctx, c, id, rng); err != nil {
		return err
	}
	return c.Reply(c.Body[:12])
}

// pull reads the caller's block, whole or in pieces, and verifies it.
func (w *sim) pull(ctx context.Context, c *ServerCall, id uint64, rng *rand.Rand) error {
	n := c.InLen()
	whole := make([]byte, n)
	piece := n
	if rng.IntN(3) == 0 {
		piece = max(1+rng.IntN(n), n/8)
	}
	for off := 0; off < n; off += piece {
		b, err := c.Device().Pool().Get(ctx, min(piece, n-off))
		if err != nil {
			return err
		}
		b, err = c.PullAt(ctx, off, b)
		if err != nil {
			if !b.IsZero() && b.Err() == nil {
				_ = b.Release()
			}
			return err
		}
		p, err := b.Bytes()
		if err != nil {
			return err
		}
		copy(whole[off:], p)
		if err := b.Release(); err != nil {
			return err
		}
	}
	if at := scan(whole, id); at >= 0 {
		w.t.Errorf("call %d: byte %d of %d that were pulled is not the caller's", id, at, n)
	}
	return nil
}

func (w *sim) put(ctx context.Context, c *ServerCall, id uint64, rng *rand.Rand) error {
	if err := w.pull(ctx, c, id, rng); err != nil {
		return err
	}
	return c.Reply(c.Body[:12])
}

func (w *sim) turn(ctx context.Context, c *ServerCall, id uint64, rng *rand.Rand) error {
	if err := w.pull(ctx, c, id, rng); err != nil {
		return err
	}
	return w.get(ctx, c, id, rng)
}
