package mr

import (
	"context"
	"time"
)

// Finish is Revoke without the quarantine, for the usual end of a grant: the peer
// has said, on the queue pair of the grant, that it is done with the memory. The
// right is taken away as by Revoke, by an invalidation that is waited for.
//
// What it relies on: the message was received on the grant's queue pair, so the
// device had executed every WRITE of the peer before it; the peer's READs were
// answered before it sent the message; and the peer started none after it. A
// quarantine is for a packet that is being copied while the key is invalidated,
// and a peer that kept its word has none under way. One that lies could, on a
// device that needs a quarantine, still write a packet's worth into memory that
// it had the right to write until now. After a cancellation, a timeout, or an
// answer that is not to be believed, use Revoke. Where the peer's SEND with
// invalidate took the key away (see Invalidated) nothing is relied on: the same
// queue executed the peer's operations and the invalidation, one after the other.
//
// A fence that fails is followed by harder ones as in Revoke, quarantine included.
//
// Verb: ibv_post_send(3).
func (t *Grant) Finish(ctx context.Context) (Buf, error) {
	t.mu.Lock()
	if !t.claimed && !t.abandoned { // a fence under way keeps its quarantine
		t.finished = true
	}
	t.mu.Unlock()
	return t.Revoke(ctx)
}

// quarantine is how long the memory is kept after the right was taken away by the
// usual means.
func (t *Grant) quarantine() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.finished {
		return 0
	}
	return t.g.quiet
}
