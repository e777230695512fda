package dpu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/internal/dpufault"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/verbs"
)

// ClientConfig configures a Client. Device and Direct are needed, and Agent for
// there to be any offload; the rest may be zero.
type ClientConfig struct {
	// Device has the memory that calls are given, and the queue pairs to the agent.
	Device *qp.Device
	// Direct is the way without an agent. With TokenBlocks a write whose fate an
	// agent took with it is done again, safely; without, it ends as ErrIndeterminate.
	Direct Blocks

	Agent   string // host:port; empty: there is none
	Tenant  string
	Secret  []byte
	Backend uint32 // the agent's handle of the store that Direct talks to

	Policy Policy
	// Depth is how many operations the agent may have at a time; others wait. 0: 128.
	Depth int
	// Batch is how many descriptors one doorbell may post; 0: 16.
	Batch int

	// Lease is how long an agent may be silent before it is lost. Both sides say
	// that they are there four times as often. 0: 1 s.
	Lease time.Duration
	// Deadline is how long an operation may take the agent before it is called back;
	// an agent that does not answer to that within a Lease is lost. 0: 10 s.
	Deadline time.Duration
	// MaxBackoff bounds the pause between attempts to reach the agent; 0: 5 s.
	MaxBackoff time.Duration

	// Verify makes the host check and compute checksums of what goes through the
	// agent, too. The agent always does: without Verify the way between agent and
	// host is covered by RDMA's own checksum only, and the host's processors are spared.
	Verify bool

	// OnEvent hears what happens. It is called from several goroutines and must not
	// block.
	OnEvent func(Event)
	Logger  *slog.Logger // nil: slog.Default()
}

func (cfg ClientConfig) withDefaults() (ClientConfig, error) {
	var err error
	if cfg.Policy, err = cfg.Policy.withDefaults(); err != nil {
		return cfg, err
	}
	switch {
	case cfg.Device == nil:
		return cfg, errors.New("dpu: ClientConfig.Device is nil: open one with qp.Open")
	case cfg.Direct == nil:
		return cfg, errors.New("dpu: ClientConfig.Direct is nil: without an agent there is no other way to the store")
	case cfg.Depth < 0 || cfg.Depth > wire.MaxSlots:
		return cfg, fmt.Errorf("dpu: ClientConfig.Depth is %d; 1 to %d", cfg.Depth, wire.MaxSlots)
	case cfg.Batch < 0 || cfg.Lease < 0 || cfg.Deadline < 0 || cfg.MaxBackoff < 0:
		return cfg, errors.New("dpu: ClientConfig: Batch, Lease, Deadline or MaxBackoff is negative")
	case cfg.Lease > time.Hour:
		return cfg, fmt.Errorf("dpu: ClientConfig.Lease is %v; at most an hour", cfg.Lease)
	case len(cfg.Tenant) > 255:
		return cfg, fmt.Errorf("dpu: ClientConfig.Tenant has %d bytes; at most 255", len(cfg.Tenant))
	case cfg.Policy.Path == CrossGVMI:
		return cfg, errCrossGVMI
	}
	if cfg.Depth == 0 {
		cfg.Depth = 128
	}
	if cfg.Batch == 0 {
		cfg.Batch = 16
	}
	if cfg.Lease == 0 {
		cfg.Lease = time.Second
	}
	if cfg.Deadline == 0 {
		cfg.Deadline = 10 * time.Second
	}
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return cfg, nil
}

var errCrossGVMI = fmt.Errorf("dpu: nothing in this program implements the cross-GVMI path (its types are behind the build tag crossgvmi): %w", errors.ErrUnsupported)

// Client is Blocks over an agent where that pays and works, and over the direct way
// otherwise. Its calls, and what becomes of the buffers that they take, are those of
// the direct client.
//
// When an agent is lost its right to the memory of every operation is taken away
// before anything else is done; then reads run again directly, into the same buffer,
// and writes with their token. OnEvent and Stats tell.
type Client struct {
	cfg     ClientConfig
	tokens  TokenBlocks // cfg.Direct, when it can
	granter *mr.Granter
	pool    *mr.Pool // messages and lists
	writer  Writer   // zero without tokens
	seq     atomic.Uint64
	boot    atomic.Uint64 // of the server, as last told
	policy  policy
	start   time.Time
	life    context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup

	fencing  chan struct{} // a token: one fence of the server at a time
	fenced   uint32        // epochs below it; who has the token
	fencedAt uint64        // the server's process that knows it; with fenced
	owed     atomic.Uint32

	mu       sync.Mutex
	cur      *hostSession // guarded by mu, as all below
	epoch    uint32
	closed   bool
	gone     chan struct{} // closed when Close is done
	closeErr error         // written before gone is closed
	tried    chan struct{} // closed when the first attempt to connect has ended

	stats clientStats
	// unfenced puts all fences off until it is closed: the control of tests, which must
	// see corruption with it.
	unfenced chan struct{}
}

type clientStats struct {
	direct, staged, directBytes, stagedBytes, failed, fellBack, refused, replayed, indeterminate atomic.Uint64
	fences, fenceTime, agents, lost, doorbells, descriptors, announcements, statuses             atomic.Uint64
}

// NewClient makes a client and tries to reach the agent, once before it returns. That
// there is none is no error: calls go Direct, and it is tried again.
func NewClient(ctx context.Context, cfg ClientConfig) (_ *Client, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, start: time.Now(), tried: make(chan struct{}), unfenced: dpufault.Unfenced(), fencing: newRoom(1), gone: make(chan struct{})}
	if c.tokens, _ = cfg.Direct.(TokenBlocks); c.tokens != nil {
		c.writer = NewWriter()
	}
	c.policy.Policy = cfg.Policy
	c.life, c.stop = context.WithCancel(context.Background())
	if c.granter, err = mr.NewGranter(cfg.Device.PD(), mr.GranterConfig{}); err != nil {
		return nil, err
	}
	c.pool, err = mr.NewPool(mr.PoolConfig{Classes: []int{maxDescMessage, listBytes}, RegionSize: 1 << 20, Limit: 8 << 20,
		Memory: mr.Config{Huge: mr.HugeOff}}, cfg.Device.PD())
	if err != nil {
		return nil, errors.Join(err, c.granter.Close())
	}
	if cfg.Agent == "" {
		close(c.tried)
		return c, nil
	}
	c.wg.Add(1)
	go c.connect()
	select {
	case <-c.tried:
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), c.Close())
	}
	return c, nil
}

// Close ends the client; calls under way go Direct or end. Direct stays open.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.gone
		return c.closeErr
	}
	c.closed = true
	s := c.cur
	c.mu.Unlock()
	c.stop()
	if s != nil {
		s.quit()
	}
	c.wg.Wait()
	c.closeErr = errors.Join(closeSoon(c.granter.Close), closeSoon(c.pool.Close))
	close(c.gone)
	return c.closeErr
}

// Stats reads the counts.
func (c *Client) Stats() ClientStats {
	x := &c.stats
	s := ClientStats{Direct: x.direct.Load(), Staged: x.staged.Load(), DirectBytes: x.directBytes.Load(), StagedBytes: x.stagedBytes.Load(),
		Failed: x.failed.Load(), FellBack: x.fellBack.Load(), Refused: x.refused.Load(), Replayed: x.replayed.Load(),
		Indeterminate: x.indeterminate.Load(), Fences: x.fences.Load(), FenceTime: time.Duration(x.fenceTime.Load()),
		Agents: x.agents.Load(), Lost: x.lost.Load(), Doorbells: x.doorbells.Load(), Descriptors: x.descriptors.Load(),
		StatusWrites: x.announcements.Load(), Statuses: x.statuses.Load()}
	c.mu.Lock()
	s.Up, s.Epoch = c.cur != nil, c.epoch
	c.mu.Unlock()
	c.policy.mu.Lock()
	s.Depth, s.PolicyChanges = c.policy.depth, c.policy.changes
	c.policy.mu.Unlock()
	return s
}

func (c *Client) now() time.Duration { return time.Since(c.start) }

func (c *Client) tell(e Event) {
	if c.cfg.OnEvent != nil {
		c.cfg.OnEvent(e)
	}
}

// session is the agent that takes operations now, or nil.
func (c *Client) session() *hostSession {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cur
}

// fence makes the server refuse what agents of epochs below epoch send, once for
// all who ask.
func (c *Client) fence(ctx context.Context, epoch uint32) error {
	if c.tokens == nil {
		return nil
	}
	if err := c.takeFencing(ctx); err != nil {
		return err
	}
	defer func() { c.fencing <- struct{}{} }()
	if c.fenced >= epoch && c.fencedAt == c.boot.Load() {
		return nil
	}
	boot, err := c.tokens.Fence(ctx, c.writer, epoch)
	if err != nil {
		return fmt.Errorf("dpu: fencing the agent at the server: %w", err)
	}
	c.boot.Store(boot)
	c.fenced, c.fencedAt = epoch, boot
	return nil
}

func (c *Client) takeFencing(ctx context.Context) error {
	select {
	case <-c.fencing:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// owe says that agents of epochs below epoch are to be fenced before the next write:
// one of them was lost with a write that nobody waits for any more, maybe.
func (c *Client) owe(epoch uint32) {
	for {
		x := c.owed.Load()
		if x >= epoch || c.owed.CompareAndSwap(x, epoch) {
			return
		}
	}
}

// pay fences what is owed.
func (c *Client) pay(ctx context.Context) error {
	if x := c.owed.Load(); x > 0 {
		return c.fence(ctx, x)
	}
	return nil
}

// ErrClosed is verbs.ErrClosed: the client or agent was closed.
var ErrClosed = verbs.ErrClosed
