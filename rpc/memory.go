package rpc

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// memory is what the sessions of this process's clients hold for messages to
// come, and who could give some of it back.
var memory budgetedSessions

type budgetedSessions struct {
	mu      sync.Mutex
	limit   int64 // 0: none; guarded by mu, as all below
	used    int64
	members map[*idleEntry]struct{}
	retired uint64
}

// MemoryStats is what the sessions of this process's clients hold.
type MemoryStats struct {
	Limit, Used int64  // bytes
	Sessions    int    // open
	Retired     uint64 // closed, because others needed their memory
}

// SetMemoryLimit bounds what the sessions of all clients of this process hold for
// messages to come, in bytes; 0, as in the beginning, is no bound. One more
// session than fits closes those that have been idle longest: their clients
// connect again when they are called. When none is idle the dial fails with
// ErrBusy.
func SetMemoryLimit(bytes int64) {
	memory.mu.Lock()
	memory.limit = max(bytes, 0)
	memory.mu.Unlock()
}

// Memory reads the use of the memory that SetMemoryLimit bounds.
func Memory() MemoryStats {
	memory.mu.Lock()
	defer memory.mu.Unlock()
	return MemoryStats{memory.limit, memory.used, len(memory.members), memory.retired}
}

// idleEntry is a session's part of the memory.
type idleEntry struct {
	cs   *clientSession
	cost int64
	last atomic.Int64 // when its last call ended, in ns
}

// reserve makes room for a session of cost bytes.
func (m *budgetedSessions) reserve(cost int64) error {
	busy := map[*idleEntry]bool{}
	for {
		m.mu.Lock()
		if m.limit == 0 || m.used+cost <= m.limit {
			m.used += cost
			m.mu.Unlock()
			return nil
		}
		var oldest *idleEntry
		for e := range m.members {
			if !busy[e] && e.cs.open.Load() && (oldest == nil || e.last.Load() < oldest.last.Load()) {
				oldest = e
			}
		}
		used, limit := m.used, m.limit
		m.mu.Unlock()
		if oldest == nil {
			return &Error{Code: ResourceExhausted, Method: "dial", Cause: ErrBusy,
				Message: fmt.Sprintf("a session of %d bytes; %d of %d (rpc.SetMemoryLimit) are used and no session is idle", cost, used, limit)}
		}
		busy[oldest] = true
		if !oldest.cs.c.cfg.NoReconnect && oldest.cs.retire(true) {
			m.mu.Lock()
			m.retired++
			m.mu.Unlock()
			oldest.remove()
		}
	}
}

func (e *idleEntry) add(cs *clientSession, cost int64) {
	e.cs, e.cost = cs, cost
	e.touch()
	memory.mu.Lock()
	defer memory.mu.Unlock()
	if memory.members == nil {
		memory.members = map[*idleEntry]struct{}{}
	}
	memory.members[e] = struct{}{}
}

// touch notes that the session was used now.
func (e *idleEntry) touch() { e.last.Store(time.Now().UnixNano()) }

func (e *idleEntry) remove() {
	memory.mu.Lock()
	defer memory.mu.Unlock()
	if _, ok := memory.members[e]; ok {
		delete(memory.members, e)
		memory.used -= e.cost
	}
}
