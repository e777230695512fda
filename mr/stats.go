package mr

import (
	"fmt"
	"strings"
)

// ClassStats counts the buffers of one size of a pool.
type ClassStats struct {
	Size     int    // bytes of a buffer
	Slots    int    // buffers that exist
	Free     int    // about how many of them are free
	InFlight int    // how many of the others the device owns
	Gets     uint64 // handed out; begins again after 2^40
	Waits    uint64 // Gets that found none and had to wait
	Waiting  int    // Gets that wait now
	Borrowed uint64 // handed out for smaller requests
}

// PoolStats is a snapshot of a pool. Its numbers are taken one after the other
// while the pool works.
type PoolStats struct {
	Registered      int64 // bytes
	Limit           int64 // bytes
	Regions         int
	Backing         Backing // of the last region
	GrowFailures    uint64
	Misuse          uint64 // uses of a Buf that were refused
	Damaged         uint64 // writes outside a buffer, or after its release, that were seen
	Quarantined     int    // buffers that wait for the device to have stopped
	QuarantinedEver uint64
	QuarantineBytes int64
	Leaked          int // buffers that are never used again
	LeakedBytes     int64
	Classes         []ClassStats
}

// Stats takes a snapshot. It stops nobody for longer than it takes to look at
// the state of every buffer.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := PoolStats{
		Registered: p.registered, Limit: p.cfg.Limit, Regions: len(p.regions), GrowFailures: p.growFails,
		Misuse: p.acct.misuse.Load(), Damaged: p.damaged.Load(),
		Quarantined: int(p.acct.quarantined.Load()), QuarantinedEver: p.acct.quarantinedEver.Load(),
		QuarantineBytes: p.acct.quarantineBytes.Load(),
		Leaked:          int(p.acct.leaked.Load()), LeakedBytes: p.acct.leakedBytes.Load(),
	}
	if n := len(p.regions); n > 0 {
		st.Backing = p.regions[n-1].backing
	}
	for _, c := range p.classes {
		cs := ClassStats{Size: int(c.size), Slots: c.slots, Free: c.idle(), Gets: c.gets(), Waits: c.waits, Waiting: int(c.waiting.Load()), Borrowed: c.borrowed}
		for _, s := range *c.table.Load() {
			if s != nil && s.flying() {
				cs.InFlight++
			}
		}
		st.Classes = append(st.Classes, cs)
	}
	return st
}

// flying reports a slot that the device owns, or a part of it.
func (s *slot) flying() bool {
	return s.first.word.Load()&flyingBit != 0 || s.flights.Load() > 0
}

// whoHolds lists where the buffers that are out were acquired, with tracing on. mu is held.
func (p *Pool) whoHolds() string {
	var b strings.Builder
	for _, c := range p.classes {
		free := map[*slot]bool{}
		for _, s := range c.drain() {
			free[s] = true
		}
		for _, s := range *c.table.Load() {
			if s == nil || free[s] {
				continue
			}
			if t := s.trace.Load(); t != nil {
				fmt.Fprintf(&b, "\n%d bytes acquired at\n%s", s.size, stack(t.acquired[:t.na]))
			}
		}
		for s := range free {
			c.push(s)
		}
	}
	if b.Len() == 0 {
		return "; SetTracing(true) says where they were acquired"
	}
	return b.String()
}
