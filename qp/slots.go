package qp

import (
	"context"
	"sync"
)

// slots counts what may be in use at once: places in a send queue, credits of a
// peer. Those who wait are served in the order they came.
type slots struct {
	mu     sync.Mutex
	free   int       // guarded by mu, as all below; below 0 never
	wait   []*waiter // first come, first served
	err    error     // set once: everybody who waits or comes gets it
	spare  []*waiter // to be used again
	stalls uint64    // waits begun
}

type waiter struct {
	n     int
	ready chan error // one value, sent by who serves or fails it
}

func newSlots(n int) *slots { return &slots{free: n} }

// tryTake takes n if that makes nobody wait longer.
func (s *slots) tryTake(n int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false, s.err
	}
	if len(s.wait) > 0 || s.free < n {
		return false, nil
	}
	s.free -= n
	return true, nil
}

// take takes n, and waits for them if it must. When ctx ends first nothing is taken.
func (s *slots) take(ctx context.Context, n int) error {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return s.err
	}
	if len(s.wait) == 0 && s.free >= n {
		s.free -= n
		s.mu.Unlock()
		return nil
	}
	var w *waiter
	if k := len(s.spare); k > 0 {
		w, s.spare = s.spare[k-1], s.spare[:k-1]
	} else {
		w = &waiter{ready: make(chan error, 1)}
	}
	w.n = n
	s.wait = append(s.wait, w)
	s.stalls++
	s.mu.Unlock()

	var err error
	select {
	case err = <-w.ready:
	case <-ctx.Done():
		err = s.giveUp(w, ctx.Err())
	}
	s.mu.Lock()
	s.spare = append(s.spare, w)
	s.mu.Unlock()
	return err
}

// giveUp leaves the line; if the turn came meanwhile it is used after all.
func (s *slots) giveUp(w *waiter, cause error) error {
	s.mu.Lock()
	for i, x := range s.wait {
		if x == w {
			s.wait = append(s.wait[:i], s.wait[i+1:]...)
			s.serve() // the next may be content with less
			s.mu.Unlock()
			return cause
		}
	}
	s.mu.Unlock()
	return <-w.ready
}

// give returns n.
func (s *slots) give(n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	s.free += n
	s.serve()
	s.mu.Unlock()
}

func (s *slots) serve() {
	k := 0
	for ; k < len(s.wait) && s.wait[k].n <= s.free; k++ {
		s.free -= s.wait[k].n
		s.wait[k].ready <- nil
	}
	if k > 0 {
		s.wait = append(s.wait[:0], s.wait[k:]...)
	}
}

// fail ends every wait, now and later, with err.
func (s *slots) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	for _, w := range s.wait {
		w.ready <- err
	}
	s.wait = nil
}

func (s *slots) state() (free, waiting int, stalls uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free, len(s.wait), s.stalls
}
