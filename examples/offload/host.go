package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// load is what the host does.
type load struct {
	blocks, size, workers, minSize int
	path, op, compare              string
	duration, lease, deadline      time.Duration
	patience                       time.Duration
	json, events, verify, noFence  bool
	wait                           time.Duration
	tenant, secretFile             string

	policy dpu.Path
}

func (l *load) flags(fs *pflag.FlagSet) {
	fs.IntVar(&l.blocks, "blocks", 64, "host: how many blocks")
	fs.IntVar(&l.size, "size", 1<<20, "host: `bytes` of a block")
	fs.IntVar(&l.workers, "workers", 4, "host: calls at a time")
	fs.StringVar(&l.path, "path", "auto", "host: auto, direct or staged")
	fs.StringVar(&l.op, "op", "all", "host: put, get, or all: put, then get; versions: write and read back newer and newer versions, for --duration; zombie: see --stall-after")
	fs.DurationVar(&l.duration, "duration", 0, "host: repeat for so long; default: once")
	fs.StringVar(&l.compare, "check", "full", "host: compare full or sample contents, beside the checksums")
	fs.IntVar(&l.minSize, "min-size", 0, "host: smallest block in `bytes` that goes to the agent; default 64 KiB")
	fs.DurationVar(&l.lease, "lease", 0, "host: silence of the agent after which it is lost; default 1s")
	fs.DurationVar(&l.deadline, "deadline", 0, "host: how long the agent may take for one call; default 10s")
	fs.DurationVar(&l.patience, "patience", time.Minute, "host: how long a call may take")
	fs.BoolVar(&l.verify, "verify", false, "host: checksums here too, of what goes through the agent")
	fs.StringVar(&l.tenant, "tenant", "", "host: name of the tenant")
	fs.StringVar(&l.secretFile, "secret-file", "", "host: `file` with the tenant's secret")
	fs.BoolVar(&l.events, "events", false, "host: print fall-backs and what becomes of the agent")
	fs.DurationVar(&l.wait, "wait", 15*time.Second, "host, zombie: how long to wait for the late write; more than --stall")
	fs.BoolVar(&l.noFence, "no-fence", false, "host, zombie: the control, without a fence, which must see corruption")
	fs.BoolVar(&l.json, "json", false, "host: print results as JSON, a line each")
}

func (l *load) check() (err error) {
	switch {
	case l.blocks < 1 || l.workers < 1 || l.size < 1 || l.size > block.MaxBlock || l.duration < 0 || l.patience <= 0:
		return fmt.Errorf("--blocks, --workers and --patience are positive, --size is 1 to %d, --duration not negative", block.MaxBlock)
	case !slices.Contains([]string{"put", "get", "all", "versions", "zombie"}, l.op):
		return fmt.Errorf("--op %q: put, get, all, versions or zombie", l.op)
	case l.noFence && l.op != "zombie":
		return errors.New("--no-fence is for --op zombie only")
	case l.compare != "full" && l.compare != "sample":
		return fmt.Errorf("--check %q: full or sample", l.compare)
	}
	l.policy, err = dpu.ParsePath(l.path)
	return err
}

// result is what one phase did.
type result struct {
	Phase         string  `json:"phase"`
	Path          string  `json:"path"` // that was asked for
	Blocks        int64   `json:"blocks"`
	Bytes         int64   `json:"bytes"`
	Seconds       float64 `json:"seconds"`
	CPUProcess    float64 `json:"cpu_process_s"`    // of this process
	CPUMachine    float64 `json:"cpu_machine_s"`    // of this machine, interrupts included; 0: not known
	ProcessPerGB  float64 `json:"cpu_process_s_gb"` // a GB is 10^9 bytes
	MachinePerGB  float64 `json:"cpu_machine_s_gb"`
	Direct        uint64  `json:"direct"` // calls by the path that ended them
	Staged        uint64  `json:"staged"`
	FellBack      uint64  `json:"fell_back"`
	Refused       uint64  `json:"refused"`
	Replayed      uint64  `json:"replayed"`
	Indeterminate uint64  `json:"indeterminate"`
	AgentsLost    uint64  `json:"agents_lost"`
	Fences        uint64  `json:"fences"`
	FenceMs       float64 `json:"fence_ms"` // of one, on average
	P50Ms         float64 `json:"p50_ms"`
	P99Ms         float64 `json:"p99_ms"`
	MaxMs         float64 `json:"max_ms"`         // the longest call
	FallBackMaxMs float64 `json:"fall_back_ms"`   // the longest call that fell back
	FencedMaxMs   float64 `json:"lost_fenced_ms"` // from giving the agent up to the last fence
	Leaked        int     `json:"leaked"`         // buffers
}

// host is a host at work.
type host struct {
	load
	d   *qp.Device
	c   *dpu.Client
	out io.Writer

	mu       sync.Mutex
	took     []time.Duration // guarded by mu, as all below
	slowFall time.Duration
	fenced   time.Duration
	bytes    int64
}

func (o *options) runHost(ctx context.Context, out io.Writer) (err error) {
	if o.storage == "" {
		return errors.New("a host needs --storage HOST:PORT")
	}
	d, err := openDevice(o.device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	cl, err := dial(ctx, o.storage, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	h := &host{load: o.load, d: d, out: out}
	cfg := dpu.ClientConfig{Device: d, Direct: block.Client{Client: cl, Patient: true}, Agent: o.agent, Tenant: o.tenant,
		Policy: dpu.Policy{MinSize: o.minSize}, Lease: o.lease, Deadline: o.deadline, Verify: o.verify, OnEvent: h.event, Depth: max(2*o.workers, 16)}
	if o.secretFile != "" {
		if cfg.Secret, err = os.ReadFile(o.secretFile); err != nil {
			return err
		}
		cfg.Secret = bytes.TrimRight(cfg.Secret, "\r\n")
	}
	unfenced := o.prepareZombie()
	if h.c, err = dpu.NewClient(ctx, cfg); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.c.Close()) }()
	if !o.json {
		st := h.c.Stats()
		fmt.Fprintf(out, "host on %s: agent %q is %s, storage %s\n", d.Context().Name(), o.agent, map[bool]string{true: "there", false: "not there"}[st.Up], o.storage)
	}
	if h.op == "zombie" {
		return h.zombie(ctx, cfg.Direct, unfenced)
	}
	return h.run(dpu.WithPath(ctx, o.policy))
}

// event hears of every call, and of the agent.
func (h *host) event(e dpu.Event) {
	h.mu.Lock()
	switch {
	case e.Kind == dpu.Done && e.Err == nil:
		h.took = append(h.took, e.Took)
		h.bytes += int64(e.Size)
		if e.Began != e.Path {
			h.slowFall = max(h.slowFall, e.Took)
		}
	case e.Kind == dpu.AgentLost:
		h.fenced = max(h.fenced, e.Took)
	}
	h.mu.Unlock()
	if h.events && e.Kind != dpu.Done {
		fmt.Fprintf(os.Stderr, "%s %v: %s %s epoch %d, after %v: %v\n", time.Now().Format("15:04:05.000"), e.Kind, e.Op, e.Key, e.Epoch, e.Took.Round(time.Microsecond), e.Err)
	}
}

func (h *host) run(ctx context.Context) error {
	switch h.op {
	case "versions":
		return h.phase("versions", func() error { return h.versions(ctx) })
	case "put", "all":
		if err := h.prepared(ctx, "put", h.put); err != nil || h.op == "put" {
			return err
		}
	default: // get needs blocks: those of this host, by a former run or now
		if _, err := h.c.Stat(ctx, key(h.blocks-1)); err != nil {
			if err := h.prepared(ctx, "", h.put); err != nil {
				return err
			}
		}
	}
	return h.prepared(ctx, "get", h.get)
}

// contents are how many different blocks there are, made once so that making them
// does not count as work of the host.
const contents = 16

func key(i int) string { return fmt.Sprintf("block-%06d", i) }

// prepared does f for every block, once or for --duration, with buffers that have the
// contents already. A phase without a name is not measured.
func (h *host) prepared(ctx context.Context, name string, f func(context.Context, int, mr.Buf) (mr.Buf, error)) error {
	bufs := make([]chan mr.Buf, min(contents, h.blocks))
	per := (h.workers + len(bufs) - 1) / len(bufs)
	for i := range bufs {
		bufs[i] = make(chan mr.Buf, per)
		for range per {
			b, err := h.d.Pool().Get(ctx, h.size)
			if err != nil {
				return err
			}
			p, err := b.Bytes()
			if err != nil {
				return err
			}
			block.Content(p, uint64(i))
			bufs[i] <- b
		}
	}
	defer func() {
		for _, ch := range bufs {
			for len(ch) > 0 {
				_ = (<-ch).Release()
			}
		}
	}()
	all := func() error {
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		var next atomic.Int64
		end := time.Now().Add(h.duration)
		var wg sync.WaitGroup
		for range h.workers {
			wg.Go(func() {
				for ctx.Err() == nil {
					i := int(next.Add(1) - 1)
					if i >= h.blocks && (h.duration == 0 || time.Now().After(end)) {
						return
					}
					i %= h.blocks
					ch := bufs[i%len(bufs)]
					b := <-ch
					call, cancel := context.WithTimeout(ctx, h.patience)
					b, err := f(call, i, b)
					cancel()
					if err != nil {
						stop(fmt.Errorf("block %d: %w", i, err))
						b, err = h.d.Pool().Get(context.WithoutCancel(ctx), h.size)
						if err != nil {
							return
						}
					}
					ch <- b
				}
			})
		}
		wg.Wait()
		return context.Cause(ctx)
	}
	if name == "" {
		return all()
	}
	return h.phase(name, all)
}

func (h *host) put(ctx context.Context, i int, b mr.Buf) (mr.Buf, error) {
	return h.c.Put(ctx, key(i), b)
}

func (h *host) get(ctx context.Context, i int, b mr.Buf) (mr.Buf, error) {
	b, err := h.c.Get(ctx, key(i), b)
	if err != nil {
		return b, err
	}
	return b, h.same(b, uint64(i%min(contents, h.blocks)))
}

// same compares a block with what it should be.
func (h *host) same(b mr.Buf, seed uint64) error {
	p, err := b.Bytes()
	if err != nil {
		return err
	}
	if len(p) != h.size {
		return fmt.Errorf("another block came back: %d bytes for %d", len(p), h.size)
	}
	if h.compare == "sample" {
		p = p[:min(len(p), 64)&^7]
	}
	want := make([]byte, len(p))
	block.Content(want, seed)
	if !bytes.Equal(p, want) {
		return errors.New("another block came back: the contents differ")
	}
	return nil
}

// phase does f and tells how it went.
func (h *host) phase(name string, f func() error) error {
	h.mu.Lock()
	h.took, h.slowFall, h.fenced, h.bytes = nil, 0, 0, 0
	h.mu.Unlock()
	before, start, cpu, machine := h.c.Stats(), time.Now(), processor(), machineTime()
	err := f()
	wall, cpu, machine := time.Since(start), processor()-cpu, machineTime()-machine
	after := h.c.Stats()
	h.mu.Lock()
	defer h.mu.Unlock()
	gb := max(float64(h.bytes), 1) / 1e9
	r := result{Phase: name, Path: h.path, Blocks: int64(len(h.took)), Bytes: h.bytes, Seconds: wall.Seconds(), CPUProcess: cpu.Seconds(), CPUMachine: machine.Seconds(),
		ProcessPerGB: cpu.Seconds() / gb, MachinePerGB: machine.Seconds() / gb,
		Direct: after.Direct - before.Direct, Staged: after.Staged - before.Staged, FellBack: after.FellBack - before.FellBack,
		Refused: after.Refused - before.Refused, Replayed: after.Replayed - before.Replayed, Indeterminate: after.Indeterminate - before.Indeterminate,
		AgentsLost: after.Lost - before.Lost, Fences: after.Fences - before.Fences, FallBackMaxMs: ms(h.slowFall), FencedMaxMs: ms(h.fenced),
		Leaked: h.d.Pool().Stats().Leaked}
	if r.Fences > 0 {
		r.FenceMs = ms(after.FenceTime-before.FenceTime) / float64(r.Fences)
	}
	slices.Sort(h.took)
	if n := len(h.took); n > 0 {
		r.P50Ms, r.P99Ms, r.MaxMs = ms(h.took[n/2]), ms(h.took[n*99/100]), ms(h.took[n-1])
	}
	if h.json {
		b, e := json.Marshal(&r)
		if e != nil {
			return e
		}
		fmt.Fprintf(h.out, "%s\n", b)
		return err
	}
	fmt.Fprintf(h.out, "%s: %d blocks, %.1f MB in %.2f s (%.1f MB/s); direct %d, through the agent %d, fell back %d\n", name, r.Blocks, float64(r.Bytes)/1e6,
		r.Seconds, float64(r.Bytes)/1e6/r.Seconds, r.Direct, r.Staged, r.FellBack)
	fmt.Fprintf(h.out, "  processor: %.3f s/GB of this process, %.3f s/GB of this machine; calls p50 %.2f ms, p99 %.2f ms, longest %.1f ms\n",
		r.ProcessPerGB, r.MachinePerGB, r.P50Ms, r.P99Ms, r.MaxMs)
	if r.AgentsLost+r.FellBack > 0 {
		fmt.Fprintf(h.out, "  agents lost %d; fences %d, %.1f ms each; all memory fenced %.1f ms after the loss; slowest call that fell back %.1f ms; replayed %d, indeterminate %d, leaked %d\n",
			r.AgentsLost, r.Fences, r.FenceMs, r.FencedMaxMs, r.FallBackMaxMs, r.Replayed, r.Indeterminate, r.Leaked)
	}
	return err
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }
