package dpu_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/rpc"
)

// rig is a storage server, an agent and a host on a network in memory.
type rig struct {
	t   *testing.T
	net *rdmatest.Network
	log *slog.Logger

	sdev, adev, hdev *rdmatest.Device
	sd, ad, hd       *qp.Device

	dir     string
	onWrite func(string, dpu.Token)
	store   *block.Store
	srv     *rpc.Server
	served  chan error
	storage string // address

	acfg    dpu.AgentConfig
	backend *rpc.Client
	agent   *dpu.Agent
	aserved chan error
	at      string // the agent's address

	direct *rpc.Client
	ccfg   dpu.ClientConfig
	c      *dpu.Client

	mu     sync.Mutex
	events []dpu.Event // guarded by mu
}

var rigPool = mr.PoolConfig{Canaries: true, Classes: []int{1024, 4096, 65536, 1 << 20}, RegionSize: 2 << 20, Limit: 64 << 20, Memory: mr.Config{Huge: mr.HugeOff}}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// newRig makes the parts; agentUp and hostUp let them work.
func newRig(t *testing.T, net *rdmatest.Network) *rig {
	w := &rig{t: t, net: net, log: quiet(), dir: t.TempDir()}
	w.sdev, w.sd = w.device()
	w.adev, w.ad = w.device()
	w.hdev, w.hd = w.device()
	w.storage = w.sdev.Addr().String() + ":7471"
	w.at = w.adev.Addr().String() + ":7472"
	w.storageUp()
	w.acfg = dpu.AgentConfig{Device: w.ad, Chunk: 16 << 10, Logger: w.log}
	w.ccfg = dpu.ClientConfig{Device: w.hd, Agent: w.at, Policy: dpu.Policy{MinSize: -1}, Lease: 200 * time.Millisecond, Logger: w.log, OnEvent: w.event,
		MaxBackoff: time.Second}
	return w
}

func (w *rig) device() (*rdmatest.Device, *qp.Device) {
	dev := w.net.Device(w.t)
	d, err := qp.Open(qp.DeviceConfig{Context: dev.Context, Logger: w.log, Pool: rigPool})
	require.NoError(w.t, err)
	return dev, d
}

func (w *rig) event(e dpu.Event) {
	w.mu.Lock()
	w.events = append(w.events, e)
	w.mu.Unlock()
}

// count is how many events of a kind there were.
func (w *rig) count(k dpu.EventKind) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}

func (w *rig) storageUp() {
	var err error
	w.store, err = block.Open(w.dir, w.sd.PD(), block.StoreConfig{NoSync: true, OnWrite: w.onWrite})
	require.NoError(w.t, err)
	w.srv, err = rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: w.sd, Logger: w.log, DataQPs: 2}})
	require.NoError(w.t, err)
	w.store.Register(w.srv)
	l, err := w.srv.Listen(w.t.Context(), w.storage)
	require.NoError(w.t, err)
	w.served = make(chan error, 1)
	go func() { w.served <- w.srv.Serve(l) }()
}

func (w *rig) storageDown() {
	require.NoError(w.t, w.srv.Close())
	require.NoError(w.t, <-w.served)
	for range 100 { // what was being read
		if w.store.Close() == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.NoError(w.t, w.store.Close())
}

func (w *rig) agentUp() {
	var err error
	for i := 0; w.backend == nil; i++ { // on a bad network one attempt may fail
		w.backend, err = rpc.Dial(w.t.Context(), w.storage, rpc.Config{Device: w.ad, Logger: w.log, DataQPs: 2, MaxBackoff: 200 * time.Millisecond})
		if i == 20 {
			require.NoError(w.t, err)
		}
	}
	w.acfg.Backends = map[uint32]dpu.Backend{0: block.Client{Client: w.backend}}
	w.agent, err = dpu.NewAgent(w.acfg)
	require.NoError(w.t, err)
	l, err := w.agent.Listen(w.t.Context(), w.at)
	require.NoError(w.t, err)
	a, served := w.agent, make(chan error, 1)
	w.aserved = served
	go func() { served <- a.Serve(l) }()
}

// agentDown ends the agent, which tells its hosts.
func (w *rig) agentDown() {
	require.NoError(w.t, w.agent.Close())
	require.NoError(w.t, <-w.aserved)
}

func (w *rig) hostUp() {
	var err error
	if w.direct == nil {
		w.direct, err = rpc.Dial(w.t.Context(), w.storage, rpc.Config{Device: w.hd, Logger: w.log, DataQPs: 2, MaxBackoff: 200 * time.Millisecond})
		require.NoError(w.t, err)
	}
	if w.ccfg.Direct == nil {
		w.ccfg.Direct = block.Client{Client: w.direct, Patient: true}
	}
	w.c, err = dpu.NewClient(w.t.Context(), w.ccfg)
	require.NoError(w.t, err)
}

// down ends everything and looks that nothing is left.
func (w *rig) down() {
	require.NoError(w.t, w.c.Close())
	require.NoError(w.t, w.direct.Close())
	w.agentDown()
	require.NoError(w.t, w.backend.Close())
	w.storageDown()
	for name, d := range map[string]*qp.Device{"host": w.hd, "agent": w.ad, "storage": w.sd} {
		st := d.Pool().Stats()
		require.Zero(w.t, st.Damaged, "%s: writes outside of buffers or after their release", name)
		require.Zero(w.t, st.Leaked, name)
		require.Zero(w.t, st.Quarantined, name)
		for _, c := range st.Classes {
			require.Equal(w.t, c.Slots, c.Free, "%s: buffers of %d bytes", name, c.Size)
		}
		require.NoError(w.t, d.Close(), name)
	}
}

// all is a rig at work.
func (w *rig) up() {
	w.agentUp()
	w.hostUp()
	require.True(w.t, w.c.Stats().Up, "the agent is reached: %v", w.events)
}

// buf is a buffer of the host, filled with the contents of seed.
func (w *rig) buf(n int, seed uint64) mr.Buf {
	b, err := w.hd.Pool().Get(w.t.Context(), n)
	require.NoError(w.t, err)
	block.Content(w.bytes(b), seed)
	return b
}

func (w *rig) bytes(b mr.Buf) []byte {
	p, err := b.Bytes()
	require.NoError(w.t, err)
	return p
}

// put writes a block with the contents of seed.
func (w *rig) put(ctx context.Context, key string, n int, seed uint64) error {
	b, err := w.c.Put(ctx, key, w.buf(n, seed))
	if err != nil {
		require.True(w.t, b.IsZero())
		return err
	}
	require.Equal(w.t, n, b.Len())
	return b.Release()
}

// get reads a block of at most n bytes.
func (w *rig) get(ctx context.Context, key string, n int) ([]byte, error) {
	b, err := w.c.Get(ctx, key, w.buf(n, 99))
	if err != nil {
		require.True(w.t, b.IsZero())
		return nil, err
	}
	p := append([]byte(nil), w.bytes(b)...)
	return p, b.Release()
}

func content(n int, seed uint64) []byte {
	p := make([]byte, n)
	block.Content(p, seed)
	return p
}

// stall makes the agent hang when it is about to touch the host for the n-th time,
// until the returned function is called. hung is closed when it does.
func (w *rig) stall(n int) (hung chan struct{}, resume func()) {
	hung, over := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	var once sync.Once
	w.agent.SetGate(func(point string) {
		mu.Lock()
		if point == "data" {
			n--
		}
		stop := n < 0
		mu.Unlock()
		if stop {
			once.Do(func() { close(hung) })
			<-over
		}
	})
	var done sync.Once
	return hung, func() { done.Do(func() { close(over) }) }
}

func rng(seed, n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }

func key(i int) string { return fmt.Sprint("block-", i) }

// same compares contents, and does not print them.
func same(t *testing.T, want, got []byte, say ...any) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatal(append([]any{"lengths differ:", len(want), len(got)}, say...)...)
	}
	for i := range want {
		if want[i] != got[i] {
			t.Fatal(append([]any{"contents differ at byte", i, "of", len(want)}, say...)...)
		}
	}
}
