package dpu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/internal/dpufault"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/verbs"
)

// AgentConfig configures an Agent. Device and Backends are needed, the rest may be
// zero.
type AgentConfig struct {
	// Device is where hosts connect. Backends whose clients use another one need
	// its domain in Domains: the agent's memory is registered in all.
	Device  *qp.Device
	Domains []*verbs.PD

	// Backends are the stores by the handle that descriptors name.
	Backends map[uint32]Backend
	// Tenants by name; nil: one whose name is empty, without a secret, that may use
	// every backend. That is for tests and for a link that nobody else can reach.
	Tenants map[string]Tenant

	// Chunk is how many bytes are moved at a time; 0: 256 KiB. At least 4 KiB.
	Chunk int
	// BytesInFlight is how much of one operation is in the agent's memory at a time;
	// 0: 4 chunks.
	BytesInFlight int
	// Batch is how many status entries one doorbell may announce; 0: 16.
	Batch int
	// MaxBlock is the longest block in bytes; 0: 16 MiB.
	MaxBlock int

	Logger *slog.Logger // nil: slog.Default()
}

// Tenant is somebody who may use an agent. Each has a protection domain and memory
// of its own.
type Tenant struct {
	Secret   []byte   // both sides must have it; empty: nothing is asked
	Backends []uint32 // handles; nil: all
	MaxOps   int      // operations at a time over all its connections; 0: 256
	// MaxSessions is how many connections it may have; 0: 64.
	MaxSessions int
	MaxBytes    int64 // memory of the host that they may name; 0: 256 MiB
	Memory      int64 // of the agent, in bytes; 0: 16 times AgentConfig.BytesInFlight
}

func (cfg AgentConfig) withDefaults() (AgentConfig, error) {
	if cfg.Device == nil {
		return cfg, errors.New("dpu: AgentConfig.Device is nil: open one with qp.Open")
	}
	if len(cfg.Backends) == 0 {
		return cfg, errors.New("dpu: AgentConfig.Backends is empty: an agent needs a store to talk to")
	}
	if cfg.Tenants == nil {
		cfg.Tenants = map[string]Tenant{"": {}}
	}
	if cfg.Chunk == 0 {
		cfg.Chunk = 256 << 10
	}
	if cfg.BytesInFlight == 0 {
		cfg.BytesInFlight = 4 * cfg.Chunk
	}
	if cfg.Batch == 0 {
		cfg.Batch = 16
	}
	if cfg.MaxBlock == 0 {
		cfg.MaxBlock = 16 << 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Chunk < 4096 || cfg.BytesInFlight < cfg.Chunk || cfg.Batch < 1 || cfg.MaxBlock < 1 {
		return cfg, fmt.Errorf("dpu: AgentConfig: Chunk is %d (at least 4096), BytesInFlight %d (at least a chunk), Batch %d, MaxBlock %d (both positive)",
			cfg.Chunk, cfg.BytesInFlight, cfg.Batch, cfg.MaxBlock)
	}
	for name, t := range cfg.Tenants {
		if len(name) > 255 {
			return cfg, fmt.Errorf("dpu: the name of a tenant has %d bytes; at most 255", len(name))
		}
		if t.MaxOps < 0 || t.MaxSessions < 0 || t.MaxBytes < 0 || t.Memory < 0 {
			return cfg, fmt.Errorf("dpu: tenant %q: a quota is negative", name)
		}
		for _, h := range t.Backends {
			if cfg.Backends[h] == nil {
				return cfg, fmt.Errorf("dpu: tenant %q may use backend %d, which there is not", name, h)
			}
		}
	}
	return cfg, nil
}

// Agent carries out block operations for hosts: it runs on the cores of a DPU, or of
// any machine near the host. It owns the connections to the stores (its Backends)
// and moves data between them and the hosts' own memory by one-sided operations,
// each under a grant of the host's for this operation.
type Agent struct {
	cfg     AgentConfig
	tenants map[string]*tenant
	life    context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu        sync.Mutex
	sessions  map[*agentSession]bool // guarded by mu, as all below
	listeners map[*qp.Listener]bool
	draining  bool
	closed    bool
	gone      chan struct{} // closed when Close is done
	closeErr  error         // written before gone is closed

	stats agentStats
	gate  atomic.Pointer[func(point string)] // tests: it may block
	deaf  atomic.Bool                        // tests: the agent goes on though its lease is over
}

type agentStats struct {
	ops, failed, refused, cancelled, toHost, fromHost, statuses, doorbells, sessions atomic.Uint64
}

// AgentStats are running counts of an Agent.
type AgentStats struct {
	Sessions                      int    // open
	SessionsEver                  uint64 //
	Ops                           uint64 // operations begun
	Failed, Refused, Cancelled    uint64 // of them; Refused were over a quota, or not allowed
	BytesToHost, BytesFromHost    uint64
	Statuses, Doorbells           uint64 // entries of status rings, and announcements of them
	OpsNow                        int
	BytesNow, MemoryNow, MemoryOf int64 // what operations under way name; the agent's memory, registered and allowed
}

// tenant is a Tenant at work.
type tenant struct {
	Tenant
	name string
	dev  *qp.Device // its own domain and engine, on the agent's device
	pool *mr.Pool   // staging memory, registered with its domain and the backends'

	ops      atomic.Int64
	bytes    atomic.Int64
	sessions atomic.Int64 // that have proven who they are
	greeting atomic.Int64 // that have not yet
}

// maxGreeting bounds what of a tenant's memory those can take who know its name and
// not its secret.
const maxGreeting = 16

// NewAgent makes an agent. Let it Listen, then Serve.
func NewAgent(cfg AgentConfig) (_ *Agent, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, tenants: map[string]*tenant{}, sessions: map[*agentSession]bool{}, listeners: map[*qp.Listener]bool{}, gone: make(chan struct{})}
	a.life, a.stop = context.WithCancel(context.Background())
	f := dpufault.ForAgent()
	if f.Gate != nil {
		a.gate.Store(&f.Gate)
	}
	a.deaf.Store(f.Deaf)
	defer func() {
		if err != nil {
			err = errors.Join(err, a.free())
		}
	}()
	for name, t := range cfg.Tenants {
		if err := a.addTenant(name, t); err != nil {
			return nil, fmt.Errorf("dpu: tenant %q: %w", name, err)
		}
	}
	return a, nil
}

func (a *Agent) addTenant(name string, cfg Tenant) error {
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = 64
	}
	if cfg.MaxOps == 0 {
		cfg.MaxOps = 256
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 256 << 20
	}
	if cfg.Memory == 0 {
		cfg.Memory = 16 * int64(a.cfg.BytesInFlight)
	}
	small := mr.Config{Huge: mr.HugeOff}
	d, err := qp.Open(qp.DeviceConfig{Context: a.cfg.Device.Context(), Port: a.cfg.Device.Port(), Logger: a.cfg.Logger,
		Pool: mr.PoolConfig{Classes: []int{4096}, RegionSize: 1 << 20, Limit: 256 << 20, Memory: small}})
	if err != nil {
		return err
	}
	t := &tenant{Tenant: cfg, name: name, dev: d}
	a.tenants[name] = t
	domains := []*verbs.PD{d.PD(), a.cfg.Device.PD()}
	for _, x := range a.cfg.Domains {
		if !slices.Contains(domains, x) {
			domains = append(domains, x)
		}
	}
	classes := []int{4096}
	if a.cfg.Chunk > 4096 {
		classes = append(classes, a.cfg.Chunk)
	}
	t.pool, err = mr.NewPool(mr.PoolConfig{Classes: classes, RegionSize: max(1<<20, a.cfg.Chunk), Memory: small,
		Limit: max(cfg.Memory, int64(a.cfg.BytesInFlight))}, domains...)
	return err
}

// Listen binds addr, host:port, of the connection manager. Port 0 chooses one.
func (a *Agent) Listen(ctx context.Context, addr string) (*qp.Listener, error) {
	return a.cfg.Device.Listen(ctx, addr, qp.Config{SendDepth: 32, RecvDepth: 16, MaxMessage: 1024, Logger: a.cfg.Logger})
}

// Serve accepts hosts on l until it, or the agent, is closed. It closes l.
func (a *Agent) Serve(l *qp.Listener) error {
	a.mu.Lock()
	if a.closed || a.draining {
		a.mu.Unlock()
		return l.Close()
	}
	a.listeners[l] = true
	a.wg.Add(1)
	a.mu.Unlock()
	defer a.wg.Done()
	defer func() {
		a.mu.Lock()
		delete(a.listeners, l)
		a.mu.Unlock()
		_ = l.Close()
	}()
	// A host that stops half-way through connecting holds up one of them.
	const acceptors = 8
	ends := make(chan error, acceptors)
	for range acceptors {
		go func() { ends <- a.accept(l) }()
	}
	var errs error
	for range acceptors {
		if err := <-ends; err != nil && errs == nil {
			errs = err
			_ = l.Close() // the others end
		}
	}
	return errs
}

func (a *Agent) accept(l *qp.Listener) error {
	for {
		c, err := l.Accept(a.life)
		if err != nil {
			a.mu.Lock()
			over := a.closed || a.draining
			a.mu.Unlock()
			if over || errors.Is(err, verbs.ErrClosed) {
				return nil
			}
			return fmt.Errorf("dpu: %w", err)
		}
		a.wg.Add(1)
		go func() {
			defer a.wg.Done()
			a.session(c)
		}()
	}
}

// Shutdown drains: no new hosts, hosts are told, what they have begun is finished.
// When ctx ends first the agent closes at once.
func (a *Agent) Shutdown(ctx context.Context) error {
	a.mu.Lock()
	a.draining = true
	all := a.all()
	a.mu.Unlock()
	a.stopListening()
	for _, s := range all {
		s.bye(0, "the agent ends")
	}
	for pause := time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 20*time.Millisecond) {
		a.mu.Lock()
		n := len(a.sessions)
		a.mu.Unlock()
		if n == 0 {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return errors.Join(ctx.Err(), a.Close())
}

// all is the sessions; a.mu is held.
func (a *Agent) all() (l []*agentSession) {
	for s := range a.sessions {
		l = append(l, s)
	}
	return l
}

func (a *Agent) stopListening() {
	a.mu.Lock()
	var l []*qp.Listener
	for x := range a.listeners {
		l = append(l, x)
	}
	a.mu.Unlock()
	for _, x := range l {
		_ = x.Close()
	}
}

// Close ends the agent: operations under way are given up, connections closed.
func (a *Agent) Close() error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		<-a.gone
		return a.closeErr
	}
	a.closed = true
	all := a.all()
	a.mu.Unlock()
	a.stop()
	a.stopListening()
	for _, s := range all {
		s.end(verbs.ErrClosed)
	}
	a.wg.Wait()
	a.closeErr = a.free()
	close(a.gone)
	return a.closeErr
}

func (a *Agent) free() error {
	a.stop()
	var errs []error
	for _, t := range a.tenants {
		if t.pool != nil {
			errs = append(errs, closeSoon(t.pool.Close))
		}
		errs = append(errs, closeSoon(t.dev.Close))
	}
	return errors.Join(errs...)
}

// closeSoon closes what a transfer that was given up may still hold for a moment.
func closeSoon(f func() error) (err error) {
	for pause := time.Millisecond; pause < 2*time.Second; pause *= 2 {
		if err = f(); !errors.Is(err, verbs.ErrInUse) {
			return err
		}
		time.Sleep(pause)
	}
	return err
}

// Stats reads the counts.
func (a *Agent) Stats() AgentStats {
	s := AgentStats{SessionsEver: a.stats.sessions.Load(), Ops: a.stats.ops.Load(), Failed: a.stats.failed.Load(), Refused: a.stats.refused.Load(),
		Cancelled: a.stats.cancelled.Load(), BytesToHost: a.stats.toHost.Load(), BytesFromHost: a.stats.fromHost.Load(),
		Statuses: a.stats.statuses.Load(), Doorbells: a.stats.doorbells.Load()}
	a.mu.Lock()
	s.Sessions = len(a.sessions)
	a.mu.Unlock()
	for _, t := range a.tenants {
		s.OpsNow += int(t.ops.Load())
		s.BytesNow += t.bytes.Load()
		p := t.pool.Stats()
		s.MemoryNow += p.Registered
		s.MemoryOf += p.Limit
	}
	return s
}

// take takes n bytes of the tenant's quota for one more operation.
func (t *tenant) take(n int64) error {
	if t.ops.Add(1) > int64(t.MaxOps) {
		t.ops.Add(-1)
		return fmt.Errorf("tenant %q has %d operations under way, its quota", t.name, t.MaxOps)
	}
	if t.bytes.Add(n) > t.MaxBytes {
		t.bytes.Add(-n)
		t.ops.Add(-1)
		return fmt.Errorf("tenant %q: %d bytes more are over its quota of %d", t.name, n, t.MaxBytes)
	}
	return nil
}

func (t *tenant) give(n int64) {
	t.bytes.Add(-n)
	t.ops.Add(-1)
}

// mayUse reports a backend that the tenant is authorised for.
func (t *tenant) mayUse(h uint32) bool { return t.Backends == nil || slices.Contains(t.Backends, h) }

func (a *Agent) pass(point string) {
	if gate := a.gate.Load(); gate != nil {
		(*gate)(point)
	}
}
