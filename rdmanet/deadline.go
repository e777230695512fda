package rdmanet

import (
	"net"
	"os"
	"sync"
	"time"
)

// expiry is a deadline as a context: it is done when the time has come, or the
// connection was closed. One serves all waits until it is done.
type expiry struct {
	c   chan struct{}
	err error // written before c is closed
}

func (e *expiry) Deadline() (time.Time, bool) { return time.Time{}, false }
func (e *expiry) Done() <-chan struct{}       { return e.c }
func (e *expiry) Value(any) any               { return nil }

// Err is os.ErrDeadlineExceeded or net.ErrClosed once it is done.
func (e *expiry) Err() error {
	select {
	case <-e.c:
		return e.err
	default:
		return nil
	}
}

func (e *expiry) end(err error) {
	e.err = err
	close(e.c)
}

// deadline is what SetDeadline and its kin move.
type deadline struct {
	mu     sync.Mutex
	cur    *expiry // guarded by mu, as all below
	timer  *time.Timer
	turn   uint64 // tells a timer that it was replaced
	closed bool
}

func newDeadline() *deadline { return &deadline{cur: &expiry{c: make(chan struct{})}} }

// wait is the context of a wait that begins now.
func (d *deadline) wait() *expiry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cur
}

// set replaces the deadline; the zero time is none.
func (d *deadline) set(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	d.turn++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.cur.Err() != nil {
		d.cur = &expiry{c: make(chan struct{})}
	}
	if t.IsZero() {
		return nil
	}
	left := time.Until(t)
	if left <= 0 {
		d.cur.end(os.ErrDeadlineExceeded)
		return nil
	}
	turn := d.turn
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.turn == turn {
			d.cur.end(os.ErrDeadlineExceeded)
		}
	})
	return nil
}

// close ends every wait, now and later.
func (d *deadline) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	d.turn++
	if d.timer != nil {
		d.timer.Stop()
	}
	if d.cur.Err() != nil {
		d.cur = &expiry{c: make(chan struct{})}
	}
	d.cur.end(net.ErrClosed)
}
