package qp

import "github.com/zrdma/zrdma/verbs"

// Some devices (devkind.RepeatsLocal) execute binds and invalidations again when
// they have to send again what stands before them in the send queue. The second
// bind fails, and rxe's queue pair then stands still without a word; a second
// invalidation makes its kernel panic. So there such requests are handed to the
// device only when it has nothing: they are done before anything could be sent
// again. Until then they wait for their doorbell, and with them what comes behind
// them; all that came meanwhile goes together.

// isLocal reports a request that the device executes without the peer.
func isLocal(w *verbs.SendWR) bool {
	return w.Opcode == verbs.WRBindMW || w.Opcode == verbs.WRLocalInv
}

// held reports that what waits for the doorbell has to wait on: it begins with local
// requests, and the device has others. The lock of the send queue is held.
func (c *Conn) held() bool {
	q := &c.send
	return c.dev.repeats && isLocal(&q.wr[0]) && q.head < q.wr[0].ID && c.cause.Load() == nil
}

// advance moves a local request, the last that waits for the doorbell, before all
// others that do but local ones: several calls then share one turn. It may pass
// them: a bind shows memory under a key that no peer has yet, and an invalidation
// is posted when the peer is done or not to be waited for. It reports whether the
// request is still the last. The lock of the send queue is held.
func (c *Conn) advance() bool {
	q := &c.send
	last := len(q.wr) - 1
	to := 0
	for to < last && isLocal(&q.wr[to]) {
		to++
	}
	n := uint64(len(q.ring))
	for i := last; i > to; i-- {
		a, b := &q.wr[i-1], &q.wr[i]
		*a, *b = *b, *a
		a.ID, b.ID = b.ID, a.ID // the places stay, what is in them moves
		x, y := &q.ring[a.ID%n], &q.ring[b.ID%n]
		*x, *y = *y, *x
	}
	return to == last
}
