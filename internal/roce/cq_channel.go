package roce

import (
	"context"
	"slices"
	"sync"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// compChannel is a completion channel: a queue of events, one for each arming
// that came true.
type compChannel struct {
	n    *node
	turn chan struct{} // one Get at a time waits
	wake chan struct{} // holds a token when something changed; only the Get whose turn it is takes it

	mu      sync.Mutex // guards what follows
	events  []*cq      // taken from head on
	head    int
	kicked  bool
	stopped bool
}

var _ provider.CompChannel = (*compChannel)(nil)

// CreateCompChannel makes a completion channel.
//
// Verb: ibv_create_comp_channel(3).
func (c *devCtx) CreateCompChannel() (provider.CompChannel, error) { return newCompChannel(c.n), nil }

func newCompChannel(n *node) *compChannel {
	return &compChannel{n: n, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
}

// change alters the state and wakes the waiter.
func (ch *compChannel) change(f func()) {
	ch.mu.Lock()
	f()
	ch.mu.Unlock()
	select {
	case ch.wake <- struct{}{}:
	default:
	}
}

// post queues an event. Called with q.mu held.
func (ch *compChannel) post(q *cq) {
	ch.mu.Lock()
	ch.events = append(ch.events, q)
	ch.mu.Unlock()
	select {
	case ch.wake <- struct{}{}:
	default:
	}
}

// forget drops the events of a queue that closed.
func (ch *compChannel) forget(q *cq) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	rest := slices.DeleteFunc(ch.events[ch.head:], func(e *cq) bool { return e == q })
	ch.events = ch.events[:ch.head+len(rest)]
}

// next takes an event without waiting: EAGAIN when there is none.
func (ch *compChannel) next() (uint64, syscall.Errno) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	switch {
	case ch.stopped:
		return 0, syscall.ECANCELED
	case ch.head < len(ch.events):
		q := ch.events[ch.head]
		ch.events[ch.head] = nil
		ch.head++
		if 2*ch.head >= len(ch.events) {
			ch.events = slices.Delete(ch.events, 0, ch.head)
			ch.head = 0
		}
		return q.cookie, 0
	}
	return 0, syscall.EAGAIN
}

// Get waits for an event.
//
// Verb: ibv_get_cq_event(3), ibv_ack_cq_events(3).
func (ch *compChannel) Get(ctx context.Context) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	select {
	case ch.turn <- struct{}{}:
	default:
		select {
		case ch.turn <- struct{}{}:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	defer func() { <-ch.turn }()
	for {
		if ch.takeKick() {
			return 0, syscall.EAGAIN
		}
		cookie, e := ch.next()
		if e == 0 {
			return cookie, nil
		}
		if e != syscall.EAGAIN {
			return 0, e
		}
		ch.n.idle()
		select {
		case <-ch.wake:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (ch *compChannel) takeKick() bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	k := ch.kicked && !ch.stopped
	ch.kicked = false
	return k
}

// TryGet is Get without waiting.
//
// Verb: ibv_get_cq_event(3), ibv_ack_cq_events(3).
func (ch *compChannel) TryGet() (uint64, error) {
	cookie, e := ch.next()
	if e != 0 {
		return 0, e
	}
	return cookie, nil
}

// Kick makes the Get under way, or else the next one, return EAGAIN.
func (ch *compChannel) Kick() { ch.change(func() { ch.kicked = true }) }

// Interrupt makes every Get return ECANCELED, now and later.
func (ch *compChannel) Interrupt() { ch.change(func() { ch.stopped = true }) }

// Close ends the channel.
//
// Verb: ibv_destroy_comp_channel(3).
func (ch *compChannel) Close() error {
	ch.change(func() { ch.stopped, ch.events, ch.head = true, nil, 0 })
	return nil
}
