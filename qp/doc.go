// Package qp is connected queue pairs that keep their promises: every operation
// completes exactly once, no queue overflows, no receive is missing, and no
// buffer comes back while a device may still use it. It stands on packages mr and
// verbs.
//
// # Ownership
//
// An operation takes its mr.Bufs when it is posted; its completion, good or bad,
// makes new ones. A caller that stops waiting gets none: the connection keeps the
// memory until the device is done, then releases it. A Message belongs to its
// receiver. A Conn belongs to who dialled, accepted or connected it: Close it,
// also after it has ended by itself.
//
// # Concurrency
//
// Everything may be called from any goroutine. Operations of one batch stay in
// order, those of different callers mix. Done, OnMessage and OnEnd run in the
// engine's goroutine (OnEnd in one of its own): they must not block, and may post
// with TryPost, for Post waits when there is no room.
//
// # Blocking
//
// Post waits for room in the send queue and for credits of the peer, Recv for a
// message, Do and its kin for a completion; these take a context. An Engine polls
// as long as that pays and then sleeps in the network poller.
//
// # Cleanup
//
// Connections, then listeners and shared receives, then the Device. Close of a
// connection moves the queue pair to the error state, waits until everything
// posted was flushed, and destroys it; messages not received are dropped.
package qp
