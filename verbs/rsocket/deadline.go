package rsocket

import (
	"sync"
	"time"
)

// deadline is a channel that is closed when the time has come.
type deadline struct {
	mu    sync.Mutex
	c     chan struct{}
	timer *time.Timer
	turn  uint64 // tells a timer that it was replaced
}

func newDeadline() *deadline { return &deadline{c: make(chan struct{})} }

// done is the channel for a wait that begins now.
func (d *deadline) done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.c
}

func (d *deadline) passed() bool {
	select {
	case <-d.done():
		return true
	default:
		return false
	}
}

// set replaces the deadline; the zero time is none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	select {
	case <-d.c:
		d.c = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		close(d.c)
		return
	}
	turn := d.turn
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.turn == turn {
			close(d.c)
		}
	})
}
