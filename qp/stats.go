package qp

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/zrdma/zrdma/verbs"
)

// connStats are running counts.
type connStats struct {
	posted, completed, doorbells, received, abandoned, orphans, copied atomic.Uint64
	byStatus                                                           [32]atomic.Uint64
}

func (s *connStats) fail(st verbs.WCStatus) {
	if int(st) < len(s.byStatus) {
		s.byStatus[st].Add(1)
	}
}

// Stats are running counts of a connection. They are read while it works, so
// they need not agree with each other to the last one.
type Stats struct {
	Posted, Completed uint64 // work requests, control messages among them
	InFlight          int
	Doorbells         uint64 // posts: one for a batch
	Received          uint64 // messages, control messages among them
	Abandoned         uint64 // operations whose caller did not wait for the end
	Orphans           uint64 // completions of nothing; always 0
	Copied            uint64 // payload bytes that the library copied: SendBytes

	SendFree, SendWaiting       int    // places in the send queue, and who waits for one
	Credits, CreditWaiting      int    // messages that the peer can take, and who waits
	SendStalls, CreditStalls    uint64 // waits begun
	ReceivesPosted, Undelivered int

	Errors map[verbs.WCStatus]uint64 // completions that failed
}

// Stats reads the counts of the connection.
func (c *Conn) Stats() Stats {
	s := Stats{
		Posted: c.stats.posted.Load(), Completed: c.stats.completed.Load(), Doorbells: c.stats.doorbells.Load(), Received: c.stats.received.Load(),
		Abandoned: c.stats.abandoned.Load(), Orphans: c.stats.orphans.Load(), Copied: c.stats.copied.Load(), Errors: statuses(&c.stats.byStatus),
	}
	s.SendFree, s.SendWaiting, s.SendStalls = c.slots.state()
	if c.credits != nil {
		s.Credits, s.CreditWaiting, s.CreditStalls = c.credits.state()
	}
	c.send.Lock()
	s.InFlight = int(c.send.tail - c.send.head)
	c.send.Unlock()
	s.ReceivesPosted = c.recv.posted()
	s.Undelivered = c.in.held()
	return s
}

func statuses(a *[32]atomic.Uint64) map[verbs.WCStatus]uint64 {
	m := map[verbs.WCStatus]uint64{}
	for i := range a {
		if n := a[i].Load(); n > 0 {
			m[verbs.WCStatus(i)] = n
		}
	}
	return m
}

// EngineStats are running counts of an Engine.
type EngineStats struct {
	QueuePairs  int
	Completions uint64
	Batches     uint64 // turns that found completions; Completions/Batches is the size of a batch
	Orphans     uint64 // completions of queue pairs that are gone
	Depth       int    // of the completion queue
	Reserved    int    // completions that can be outstanding

	Wait verbs.WaitStats // how it waited: an idle engine arms once and sleeps

	Errors map[verbs.WCStatus]uint64
}

// Stats reads the counts of the engine.
func (e *Engine) Stats() EngineStats {
	s := EngineStats{QueuePairs: e.qps.len(), Completions: e.stats.completions.Load(), Batches: e.stats.batches.Load(),
		Orphans: e.stats.orphans.Load(), Wait: e.cq.WaitStats(), Errors: statuses(&e.stats.byStatus)}
	e.mu.Lock()
	s.Depth, s.Reserved = e.depth, e.reserved
	e.mu.Unlock()
	return s
}

// Counters reads the hardware counters of the device's port from sysfs, by name;
// empty for a device without, such as the software device.
func (d *Device) Counters() map[string]uint64 {
	m := map[string]uint64{}
	base := d.dev.SysfsPath()
	if base == "" {
		return m
	}
	for _, dir := range []string{"counters", "hw_counters"} {
		files, _ := filepath.Glob(filepath.Join(base, "ports", strconv.Itoa(int(d.port)), dir, "*"))
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				continue
			}
			if v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
				m[filepath.Base(f)] = v
			}
		}
	}
	return m
}
