package roce

import (
	"context"
	"sync"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// devCtx is one opening of the device: a provider.Context. Its queries are in
// attr.go, the constructors of PD, CQ, channel and SRQ beside those.
type devCtx struct {
	n      *node
	info   provider.DeviceInfo
	events eventQueue
	once   sync.Once // Close
}

// raise queues an asynchronous event. It takes no lock but the queue's own, so it
// may be called with node.mu held.
func (c *devCtx) raise(t provider.EventType, cookie uint64, port uint32) {
	c.events.add(provider.AsyncEvent{Type: t, Cookie: cookie, Port: port})
}

// Info describes the device.
func (c *devCtx) Info() provider.DeviceInfo { return c.info }

// NumCompVectors is one: completions come from whoever drives the device.
func (c *devCtx) NumCompVectors() int { return 1 }

// Counters gives the counts of the device, for tools that ask for them by type
// assertion.
func (c *devCtx) Counters() Counters { return c.n.Counters() }

// GetEvent waits for an asynchronous event.
//
// Verb: ibv_get_async_event(3).
func (c *devCtx) GetEvent(ctx context.Context) (provider.AsyncEvent, error) { return c.events.get(ctx) }

// Interrupt makes every GetEvent return, now and later.
func (c *devCtx) Interrupt() { c.events.interrupt() }

// maxEvents bounds the queue of events that nobody reads.
const maxEvents = 1 << 16

// eventQueue holds the asynchronous events of a context.
type eventQueue struct {
	mu   sync.Mutex
	q    []provider.AsyncEvent
	stop bool
	wake chan struct{} // closed and replaced when something changed; nil while nobody waits
}

func (e *eventQueue) add(ev provider.AsyncEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.q) < maxEvents {
		e.q = append(e.q, ev)
		e.wakeLocked()
	}
}

func (e *eventQueue) interrupt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stop = true
	e.wakeLocked()
}

func (e *eventQueue) wakeLocked() {
	if e.wake != nil {
		close(e.wake)
		e.wake = nil
	}
}

func (e *eventQueue) get(ctx context.Context) (provider.AsyncEvent, error) {
	for {
		e.mu.Lock()
		switch {
		case e.stop:
			e.mu.Unlock()
			return provider.AsyncEvent{}, syscall.ECANCELED
		case len(e.q) > 0:
			ev := e.q[0]
			e.q = e.q[:copy(e.q, e.q[1:])]
			e.mu.Unlock()
			return ev, nil
		case ctx.Err() != nil:
			e.mu.Unlock()
			return provider.AsyncEvent{}, ctx.Err()
		}
		if e.wake == nil {
			e.wake = make(chan struct{})
		}
		w := e.wake
		e.mu.Unlock()
		select {
		case <-w:
		case <-ctx.Done():
		}
	}
}
