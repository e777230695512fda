package mr

import (
	"sync/atomic"
	"time"
)

// again is what a Grant keeps when it is used again, so that granting allocates
// nothing.
type again struct {
	onBound, onInv func(error) // isNowBound, invalidated
	onLate         func()      // tooLate
	late           *time.Timer // bounds LOCAL_INV
	decided        atomic.Bool // of LOCAL_INV
	odd            atomic.Bool // something may still call back: not to be used again
}

// maxSpare bounds the grants kept for the next Start.
const maxSpare = 64

// fresh is a Grant without a past. g.mu is held.
func (g *Granter) fresh() *Grant {
	if n := len(g.spare); n > 0 {
		t := g.spare[n-1]
		g.spare = g.spare[:n-1]
		return t
	}
	t := &Grant{done: make(chan struct{}, 1)}
	t.onBound, t.onInv, t.onLate = t.isNowBound, t.invalidated, t.tooLate
	return t
}

// Recycle gives a grant that has ended to the next Start, which then allocates
// nothing. Call it after Revoke or Finish has returned a Buf, where nobody else has
// t: t must not be used afterwards. It is never needed.
func (t *Grant) Recycle() {
	t.mu.Lock()
	ok := t.ended && t.claimed && !t.abandoned && t.err == nil && t.isBound && t.bindErr == nil && t.mr == nil && !t.odd.Load()
	if ok {
		select {
		case <-t.done:
		default:
		}
		t.q, t.f, t.remote, t.w = nil, Flight{}, Remote{}, nil
		t.isBound, t.bound = false, nil
		t.fencing, t.byPeer, t.finished, t.ended, t.claimed, t.unbound = false, false, false, false, false, false
		t.decided.Store(false)
	}
	t.mu.Unlock()
	if !ok {
		return
	}
	t.g.mu.Lock()
	if len(t.g.spare) < maxSpare && !t.g.closed {
		t.g.spare = append(t.g.spare, t)
	}
	t.g.mu.Unlock()
}
