package qp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// EngineConfig configures an Engine. The zero value is good.
type EngineConfig struct {
	// Depth is the size of the completion queue in completions; 0: 4096. It is
	// made larger, where the device can, when connections need more.
	Depth int
	// Spin is how long the engine polls before it sleeps. 0: as long as that pays
	// (verbs.SpinAdaptive); negative: it never sleeps and takes a processor whole.
	Spin time.Duration
	// Vector is the completion vector.
	Vector int
	Logger *slog.Logger // nil: slog.Default()
}

// Engine owns a completion queue and the one goroutine that reads it. Thousands
// of queue pairs share one; idle, it takes no processor time.
type Engine struct {
	dev      *verbs.Context
	ch       *verbs.CompChannel
	cq       *verbs.CQ
	log      *slog.Logger
	spin     int64
	ctx      context.Context
	cancel   context.CancelFunc
	done     chan struct{}
	qps      table
	turn     sync.Mutex // held while a batch is handed out
	barriers int        // guarded by turn

	mu       sync.Mutex
	depth    int  // of the queue
	reserved int  // completions that can be outstanding
	closed   bool // guarded by mu, as all of this group

	stats engineStats
}

// NewEngine makes a completion queue on dev and starts its goroutine.
func NewEngine(dev *verbs.Context, cfg EngineConfig) (_ *Engine, err error) {
	if cfg.Depth == 0 {
		cfg.Depth = 4096
	}
	if cfg.Depth < 0 {
		return nil, fmt.Errorf("qp: EngineConfig.Depth is %d; it must be positive", cfg.Depth)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	e := &Engine{dev: dev, log: cfg.Logger, done: make(chan struct{})}
	switch {
	case cfg.Spin == 0:
		e.spin = verbs.SpinAdaptive
	case cfg.Spin > 0:
		e.spin = int64(cfg.Spin)
	}
	var qc verbs.CQConfig
	qc.Vector = cfg.Vector
	if cfg.Spin >= 0 {
		if e.ch, err = dev.CreateCompChannel(); err != nil {
			return nil, fmt.Errorf("qp: engine: %w", err)
		}
		qc.Channel = e.ch
	}
	if e.cq, err = dev.CreateCQ(cfg.Depth, &qc); err != nil {
		if e.ch != nil {
			e.ch.Close()
		}
		return nil, fmt.Errorf("qp: engine: %w", err)
	}
	e.depth = e.cq.CQE()
	e.ctx, e.cancel = context.WithCancel(context.Background())
	go e.run()
	return e, nil
}

// pollBatch bounds what one turn of the engine takes.
const pollBatch = 64

func (e *Engine) run() {
	defer close(e.done)
	wc := make([]verbs.WC, pollBatch)
	touched := make([]handler, 0, pollBatch)
	for {
		n, err := e.cq.Wait(e.ctx, wc, e.spin)
		if n > 0 {
			e.stats.batches.Add(1)
			e.stats.completions.Add(uint64(n))
			e.turn.Lock()
			touched = e.dispatch(wc[:n], touched[:0])
			e.turn.Unlock()
			// Who was woken comes first: what they post takes the acknowledgements along
			// that the next poll would send alone.
			runtime.Gosched()
		}
		if err == nil {
			continue
		}
		if e.ctx.Err() == nil && !errors.Is(err, verbs.ErrClosed) {
			e.log.Error("qp: the completion queue failed; all its connections end", "device", e.dev.Name(), "err", err)
			e.qps.each(func(h handler) {
				h.fail(removed(fmt.Errorf("completion queue: %w", err)))
			})
		}
		return
	}
}

func (e *Engine) dispatch(wc []verbs.WC, touched []handler) []handler {
	var last handler
	lastQPN := ^uint32(0)
	for i := range wc {
		w := &wc[i]
		if w.Status != verbs.WCSuccess {
			e.stats.fail(w.Status)
		}
		if w.QPN != lastQPN {
			last, lastQPN = e.qps.get(w.QPN), w.QPN
			if last == nil {
				e.stats.orphans.Add(1)
				continue
			}
			seen := false
			for _, h := range touched {
				seen = seen || h == last
			}
			if !seen {
				touched = append(touched, last)
			}
		}
		if last != nil {
			last.complete(w)
		}
	}
	for i, h := range touched {
		h.settle()
		touched[i] = nil
	}
	return touched
}

// barrier returns when the batch being handed out, if any, is done.
func (e *Engine) barrier() {
	e.turn.Lock()
	e.barriers++
	e.turn.Unlock()
}

// reserve makes sure that n more completions fit: an overrun would lose
// completions, and with them memory.
func (e *Engine) reserve(n int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return fmt.Errorf("qp: engine: %w", verbs.ErrClosed)
	}
	if want := e.reserved + n; want > e.depth {
		if err := e.cq.Resize(max(want, 2*e.depth)); err != nil {
			if err2 := e.cq.Resize(want); err2 != nil {
				return fmt.Errorf("qp: the completion queue has %d entries, of which %d are spoken for; %d more need a larger EngineConfig.Depth or another Engine: %w",
					e.depth, e.reserved, n, err)
			}
		}
		e.depth = e.cq.CQE()
	}
	e.reserved += n
	return nil
}

func (e *Engine) unreserve(n int) {
	e.mu.Lock()
	e.reserved -= n
	e.mu.Unlock()
}

// Close stops the engine: verbs.ErrInUse while connections use it.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	if n := e.qps.len(); n > 0 {
		e.mu.Unlock()
		return fmt.Errorf("qp: engine: %d connections are open: %w", n, verbs.ErrInUse)
	}
	if e.reserved > 0 {
		e.mu.Unlock()
		return fmt.Errorf("qp: engine: connections are being made: %w", verbs.ErrInUse)
	}
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	<-e.done
	err := e.cq.Close()
	if e.ch != nil {
		err = errors.Join(err, e.ch.Close())
	}
	return err
}

// engineStats are counted by the engine's goroutine and read by anybody.
type engineStats struct {
	batches, completions, orphans atomic.Uint64
	byStatus                      [32]atomic.Uint64
}

func (s *engineStats) fail(st verbs.WCStatus) {
	if int(st) < len(s.byStatus) {
		s.byStatus[st].Add(1)
	}
}
