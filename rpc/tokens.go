package rpc

import (
	"context"
	"sync"
)

// tokens are a bounded number of rights, given out in the order they are asked for.
type tokens struct {
	mu    sync.Mutex
	n     int // there are; guarded by mu, as all below
	out   int
	line  []chan struct{}
	waits uint64
}

// resize changes how many there are. Those given out stay out.
func (t *tokens) resize(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n = n
	t.serve()
}

// serve gives to those in line what is free. mu is held.
func (t *tokens) serve() {
	for len(t.line) > 0 && t.out < t.n {
		t.out++
		close(t.line[0])
		t.line = t.line[1:]
	}
}

// try takes one if one is free and nobody waits.
func (t *tokens) try() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.line) > 0 || t.out >= t.n {
		return false
	}
	t.out++
	return true
}

// take takes one, waiting for it until ctx ends or over is closed.
func (t *tokens) take(ctx context.Context, over <-chan struct{}) error {
	t.mu.Lock()
	if len(t.line) == 0 && t.out < t.n {
		t.out++
		t.mu.Unlock()
		return nil
	}
	ch := make(chan struct{})
	t.line = append(t.line, ch)
	t.waits++
	t.mu.Unlock()
	err := ErrUnavailable
	select {
	case <-ch:
		return nil
	case <-over:
	case <-ctx.Done():
		err = ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, x := range t.line {
		if x == ch {
			t.line = append(t.line[:i], t.line[i+1:]...)
			return err
		}
	}
	t.out-- // it had come
	t.serve()
	return err
}

// give gives one back.
func (t *tokens) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.out--
	t.serve()
}

// used is how many are out.
func (t *tokens) used() (out int, waits uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out, t.waits
}
