package mr

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// PoolConfig describes a Pool. The zero value is fit for most.
type PoolConfig struct {
	Classes    []int  // sizes in bytes, ascending; nil: 4 KiB, 16 KiB, 64 KiB, 256 KiB, 1 MiB, 4 MiB
	RegionSize int    // bytes registered at a time; 0: 32 MiB. Less when memory is short, never less than the largest class
	Limit      int64  // bytes registered at most; 0: 256 MiB
	Memory     Config // how the regions are made

	// Canaries puts guard bytes around every slot and looks at them at every
	// release: damage is logged and counted in PoolStats.Damaged. For tests.
	Canaries bool
}

const (
	defaultRegion = 32 << 20
	defaultLimit  = 256 << 20
	growRetry     = time.Second // after a growth that failed
)

// withDefaults fills in what is zero and refuses what makes no sense.
func (cfg PoolConfig) withDefaults() (PoolConfig, error) {
	bad := func(f string, a ...any) (PoolConfig, error) {
		return cfg, fmt.Errorf("mr: PoolConfig."+f+": %w", append(a, syscall.EINVAL)...)
	}
	if cfg.Classes == nil {
		cfg.Classes = []int{4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20}
	}
	if len(cfg.Classes) == 0 {
		return bad("Classes is empty")
	}
	for i, n := range cfg.Classes {
		if n <= 0 || n > 1<<30 {
			return bad("Classes: %d bytes, at most 1 GiB", n)
		}
		if i > 0 && n <= cfg.Classes[i-1] {
			return bad("Classes must ascend, %d follows %d", n, cfg.Classes[i-1])
		}
	}
	if cfg.RegionSize < 0 || cfg.Limit < 0 {
		return bad("RegionSize and Limit must not be negative")
	}
	chunk := int64(cfg.chunkSize())
	if cfg.Limit == 0 {
		cfg.Limit = max(defaultLimit, chunk)
	}
	if cfg.Limit < chunk {
		return bad("Limit: %d bytes do not hold one buffer of the largest class, which takes %d", cfg.Limit, chunk)
	}
	if stride, _ := cfg.stride(cfg.Classes[0]); cfg.Limit/int64(stride) > indexMask-1 {
		return bad("Limit: %d bytes are more than %d buffers of the smallest class: make that larger", cfg.Limit, indexMask-1)
	}
	if cfg.RegionSize == 0 {
		cfg.RegionSize = defaultRegion
	}
	cfg.RegionSize = int(min(max(int64(cfg.RegionSize), chunk), cfg.Limit))
	return cfg, nil
}

// stride is what a slot of a class takes, and guard what of it lies before the
// memory. Slots of 4 KiB and more begin on a page, smaller ones on a cache line.
func (cfg PoolConfig) stride(size int) (stride, guard int) {
	align := 64
	if size >= 4096 {
		align = 4096
	}
	if cfg.Canaries {
		guard = align
	}
	return roundUp(size, align) + 2*guard, guard
}

// chunkSize is the unit that classes are given: one slot of the largest.
func (cfg PoolConfig) chunkSize() int {
	n, _ := cfg.stride(cfg.Classes[len(cfg.Classes)-1])
	return roundUp(n, 4096)
}

// Pool hands out registered buffers of a few sizes, cut from a few large
// regions. It registers memory as it is needed, up to a limit, and keeps it
// until Close.
type Pool struct {
	cfg     PoolConfig
	domains []*verbs.PD
	classes []*class
	chunk   int
	acct    account
	damaged atomic.Uint64

	waiting atomic.Int32 // len(line); read without mu by put

	mu          sync.Mutex
	regions     []*Region // guarded by mu, as all below
	registered  int64
	free        []*chunk // given to no class
	line        []*waiter
	growing     bool
	grown       chan struct{} // closed when the growth under way has ended
	growErr     error
	growErrAt   time.Time
	growFails   uint64
	searchAt    time.Time // see spareChunk
	searchLater bool
	closed      bool
}

// NewPool makes a pool whose buffers are registered in each of domains. Nothing
// is registered before the first Get; Prepare does it ahead.
func NewPool(cfg PoolConfig, domains ...*verbs.PD) (*Pool, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if len(domains) == 0 {
		return nil, fmt.Errorf("mr: a pool needs a protection domain: %w", syscall.EINVAL)
	}
	p := &Pool{cfg: cfg, domains: domains, chunk: cfg.chunkSize()}
	for i, n := range cfg.Classes {
		p.classes = append(p.classes, newClass(p, i, n))
	}
	return p, nil
}

// class finds the smallest class for n bytes, nil when there is none.
func (p *Pool) class(n int) *class {
	for _, c := range p.classes {
		if n <= int(c.size) {
			return c
		}
	}
	return nil
}

// Get hands out a buffer of n bytes, of the smallest class that holds them: a
// larger one only when nothing else is left. When the pool is exhausted it waits
// until ctx ends, behind those of its class that waited before. The memory is
// not zeroed. ErrClosed after Close; syscall.EMSGSIZE when no class is as large.
func (p *Pool) Get(ctx context.Context, n int) (Buf, error) {
	c := p.class(n)
	if c == nil || n < 0 {
		return Buf{}, p.tooLarge(n)
	}
	if c.waiting.Load() == 0 {
		if s := c.pop(); s != nil {
			return c.out(s, uint32(n)), nil
		}
	}
	return p.getSlow(ctx, c, n, true)
}

// TryGet is Get that does not wait for others to release: ErrExhausted. It may
// register memory, or wait for somebody who does.
func (p *Pool) TryGet(n int) (Buf, error) {
	c := p.class(n)
	if c == nil || n < 0 {
		return Buf{}, p.tooLarge(n)
	}
	if c.waiting.Load() == 0 {
		if s := c.pop(); s != nil {
			return c.out(s, uint32(n)), nil
		}
	}
	return p.getSlow(context.Background(), c, n, false)
}

func (p *Pool) tooLarge(n int) error {
	last := p.classes[len(p.classes)-1].size
	return fmt.Errorf("mr: no class of the pool holds %d bytes, the largest is %d: name a larger one in PoolConfig.Classes, or use Alloc: %w", n, last, syscall.EMSGSIZE)
}

// Prepare registers memory ahead until at least n bytes are registered, or the
// limit is reached.
func (p *Pool) Prepare(n int64) error {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return ErrClosed
		}
		if p.registered >= min(n, p.cfg.Limit) || !p.roomToGrow() {
			p.mu.Unlock()
			return nil
		}
		busy := p.growing
		err := p.grow()
		p.mu.Unlock()
		if err != nil {
			return err
		}
		if busy { // somebody else does it
			time.Sleep(time.Millisecond)
		}
	}
}

// Domains are the protection domains that the buffers are registered in.
func (p *Pool) Domains() []*verbs.PD { return p.domains }

// MaxLen is the size of the largest class in bytes.
func (p *Pool) MaxLen() int { return int(p.classes[len(p.classes)-1].size) }

// Close frees the pool. ErrInUse while a buffer is held, in flight or in
// quarantine; with tracing on the error says where they were acquired. Leaked
// buffers do not hinder it: deregistering their region is the proof that they
// lacked. When deregistering fails Close may be called again.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		if err := p.seal(); err != nil {
			return err
		}
	}
	for len(p.regions) > 0 {
		r := p.regions[len(p.regions)-1]
		if err := r.Close(); err != nil {
			return err
		}
		p.registered -= int64(r.size)
		p.regions = p.regions[:len(p.regions)-1]
	}
	return nil
}

// seal takes every free slot away, so that no Get succeeds any more, or puts
// them back if some are out. mu is held.
func (p *Pool) seal() error {
	var all [][]*slot
	n, have := 0, 0
	for _, c := range p.classes {
		l := c.drain()
		all = append(all, l)
		n += len(l)
		have += c.slots
	}
	if out := have - n - p.beyondUse(); out > 0 {
		for i, c := range p.classes {
			for _, s := range all[i] {
				c.push(s)
			}
		}
		p.serve() // those who waited while the slots were away
		return fmt.Errorf("mr: %w: %d buffer(s) of the pool are held, in flight or in quarantine%s", ErrInUse, out, p.whoHolds())
	}
	p.closed = true
	for _, w := range p.line {
		w.fail(ErrClosed)
	}
	p.line = nil
	p.waiting.Store(0)
	for _, c := range p.classes {
		c.waiting.Store(0)
	}
	return nil
}

// beyondUse counts the slots that only the device can have, and no holder. mu is held.
func (p *Pool) beyondUse() int {
	n := 0
	if p.acct.leaked.Load() > 0 {
		for _, c := range p.classes {
			for _, s := range *c.table.Load() {
				if s != nil && s.beyondUse() {
					n++
				}
			}
		}
	}
	return n
}
