package mr

import (
	"fmt"

	"github.com/zrdma/zrdma/verbs"
)

// window is a type 2 window that is not bound.
type window struct {
	mw    *verbs.MW
	binds int
}

// maxBinds is how often a window is bound before it is replaced. The low byte of
// its key counts the binds and wraps: a key that a peer knew from 256 binds ago
// would fit again.
const maxBinds = 255

// window takes an idle one or allocates.
func (g *Granter) window() (*window, error) {
	g.mu.Lock()
	if n := len(g.idle); n > 0 {
		w := g.idle[n-1]
		g.idle = g.idle[:n-1]
		g.mu.Unlock()
		return w, nil
	}
	g.mu.Unlock()
	mw, err := g.pd.AllocMW(verbs.MWType2)
	if err != nil {
		return nil, fmt.Errorf("mr: a window for a grant: %w", err)
	}
	return &window{mw: mw}, nil
}

// keep makes an unbound window available, or frees it when there are enough.
func (g *Granter) keep(w *window) {
	g.mu.Lock()
	if w.binds < maxBinds && len(g.idle) < g.cfg.IdleWindows && !g.closed {
		g.idle = append(g.idle, w)
		w = nil
	}
	g.mu.Unlock()
	if w != nil {
		_ = w.mw.Close() // it is not bound: nothing depends on it; verbs reports the leak
	}
}

// settle takes back what a grant that has ended held. A window that nothing could
// free waits for Close: its binding goes with it, or with the queue pair.
func (g *Granter) settle(t *Grant, leaked bool) {
	if t.w != nil && t.unbound {
		g.keep(t.w)
	} else if t.free() != nil || leaked {
		g.mu.Lock()
		g.stuck = append(g.stuck, t)
		g.mu.Unlock()
	}
	g.mu.Lock()
	g.open--
	if leaked {
		g.leaks++
	}
	g.mu.Unlock()
}

// Close frees the idle windows. ErrInUse while a grant has not ended. Windows
// and regions that could not be freed are tried once more.
func (g *Granter) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open > 0 {
		return fmt.Errorf("mr: %w: %d grant(s) have not been revoked", ErrInUse, g.open)
	}
	g.closed = true
	for len(g.idle) > 0 {
		if err := g.idle[len(g.idle)-1].mw.Close(); err != nil {
			return err
		}
		g.idle = g.idle[:len(g.idle)-1]
	}
	for len(g.stuck) > 0 {
		if err := g.stuck[len(g.stuck)-1].free(); err != nil {
			return err
		}
		g.stuck = g.stuck[:len(g.stuck)-1]
	}
	return nil
}

// GranterStats is a snapshot.
type GranterStats struct {
	Granted uint64 // ever
	Revoked uint64 // fenced, by whatever means
	Hard    uint64 // of them, those where LOCAL_INV or the first attempt failed
	Killed  uint64 // of them, those that cost the queue pair
	Open    int    // grants that have not ended
	Idle    int    // windows kept
	Leaked  int    // grants of which nothing could be proven
}

// Stats takes a snapshot.
func (g *Granter) Stats() GranterStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return GranterStats{g.granted.Load(), g.revoked.Load(), g.harder.Load(), g.killed.Load(), g.open, len(g.idle), g.leaks}
}
