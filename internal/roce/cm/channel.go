package cm

import (
	"context"
	"sync"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// channel is an event channel.
type channel struct {
	m     *Manager
	queue []event       // guarded by m.mu
	wake  chan struct{} // has a token when the queue may be not empty
	stop  chan struct{} // closed by Interrupt
	once  sync.Once
}

// event waits for x; made is the id of a connection request.
type event struct {
	x, made *id
	ev      provider.CMEvent
}

func newChannel(m *Manager) *channel {
	return &channel{m: m, wake: make(chan struct{}, 1), stop: make(chan struct{})}
}

func (ch *channel) signal() {
	select {
	case ch.wake <- struct{}{}:
	default:
	}
}

// put is called with m.mu held.
func (ch *channel) put(e event) {
	ch.queue = append(ch.queue, e)
	ch.signal()
}

// take removes the oldest event. It is called with m.mu held.
func (ch *channel) take(fresh func() uint64) (provider.CMEvent, bool) {
	for len(ch.queue) > 0 {
		e := ch.queue[0]
		ch.queue[0] = event{}
		if ch.queue = ch.queue[1:]; len(ch.queue) == 0 {
			ch.queue = nil
		}
		e.ev.Cookie = e.x.cookie
		if x := e.made; x != nil {
			if e.x.lst != nil {
				e.x.lst.pending--
			}
			if x.conn.st == stClosed {
				// The peer gave up before anybody looked.
				x.closed = true
				delete(ch.m.ids, x)
				continue
			}
			x.cookie, x.known, x.ch = fresh(), true, ch
			e.ev.New, e.ev.NewCookie = x, x.cookie
		}
		if len(ch.queue) > 0 {
			ch.signal()
		}
		return e.ev, true
	}
	return provider.CMEvent{}, false
}

func (ch *channel) interrupted() bool {
	select {
	case <-ch.stop:
		return true
	default:
		return false
	}
}

// TryGet takes an event if there is one.
func (ch *channel) TryGet(fresh func() uint64) (provider.CMEvent, error) {
	if ch.interrupted() {
		return provider.CMEvent{}, syscall.ECANCELED
	}
	ch.m.mu.Lock()
	defer ch.m.mu.Unlock()
	if ev, ok := ch.take(fresh); ok {
		return ev, nil
	}
	return provider.CMEvent{}, syscall.EAGAIN
}

// Get waits for an event.
func (ch *channel) Get(ctx context.Context, fresh func() uint64) (provider.CMEvent, error) {
	for {
		if err := ctx.Err(); err != nil {
			ch.signal() // the token taken below may have been for another waiter
			return provider.CMEvent{}, err
		}
		ev, err := ch.TryGet(fresh)
		if err != syscall.EAGAIN {
			return ev, err
		}
		select {
		case <-ch.wake:
		case <-ch.stop:
		case <-ctx.Done():
		}
	}
}

// Interrupt makes every Get return ECANCELED.
func (ch *channel) Interrupt() { ch.once.Do(func() { close(ch.stop) }) }

// Close frees the channel.
func (ch *channel) Close() error {
	ch.Interrupt()
	return nil
}

// split takes the events of x out of the queue. It is called with m.mu held.
func (ch *channel) split(x *id) (its []event) {
	var rest []event
	for _, e := range ch.queue {
		if e.x == x {
			its = append(its, e)
		} else {
			rest = append(rest, e)
		}
	}
	ch.queue = rest
	return its
}
