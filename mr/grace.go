package mr

import (
	"sync"
	"time"
)

// A software device is a program on the same processors. rxe looks its window or
// queue pair up, drops the reference, and copies a packet; a fence can complete
// in between. Time alone does not prove that the copy is over: a virtual
// processor that the host has put aside stands still in the middle of it for as
// long as it likes. (Measured on an emulated VM of a loaded host: in 12 of 400
// rounds bytes moved later than 3 ms after LOCAL_INV.) So beside the time the
// quarantine waits for a grace period of the kernel: until every processor has
// been through a context switch or idle since. rxe copies in a softirq, or in a
// system call or worker without a point to sleep at, which a grace period waits
// for; except on kernels that preempt kernel code (preempt=full, PREEMPT_RT).

// settled calls f on some goroutine once d has passed and then a grace period.
func settled(d time.Duration, f func()) {
	time.AfterFunc(d, func() { graces.after(f) })
}

var graces gracePeriods

// gracePeriods lets all who wait at the same time share one: it takes some tens
// of milliseconds and holds a thread.
type gracePeriods struct {
	mu      sync.Mutex
	waiting []func() // guarded by mu
	running bool     // guarded by mu
}

func (g *gracePeriods) after(f func()) {
	if !hasGrace() {
		f()
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, f)
	if !g.running {
		g.running = true
		go g.run()
	}
}

func (g *gracePeriods) run() {
	for {
		g.mu.Lock()
		l := g.waiting
		g.waiting = nil
		if len(l) == 0 {
			g.running = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		gracePeriod() // begins after all of l came
		for _, f := range l {
			f()
		}
	}
}
