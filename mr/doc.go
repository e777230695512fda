// Package mr is registered memory that knows its owner: regions, pools, buffers
// and grants. It stands on package verbs and below package qp.
//
// # Ownership
//
// A [Buf] is the right to touch a piece of registered memory; it is a small
// value and copies of it are the same right. Buf.Take gives that right to the
// device and yields a [Flight], which has no Bytes; from then on every copy of
// the Buf answers [ErrMoved]. Only Flight.Complete makes a new Buf. Buf.Slice
// makes a second holder of a part, counted: the memory goes back to where it
// came from when the last holder was released and nothing of it is in flight.
// Using a Buf after Release, releasing it twice and using it in flight are
// always detected, by a generation that never repeats.
//
// # For those who post: package qp
//
// An operation takes its Bufs before the post and keeps the Flights until its
// completion:
//
//	fs, err := mr.TakeAll(fs[:0], mr.DeviceReads, bufs...) // all or none; ErrMoved: not the caller's to give
//	sge, err := fs[i].SGE(pd)                              // one element each; a key of that domain
//	n, err := q.PostSend(...)                              // refused: Flight.Undo, the caller keeps its Buf
//	buf := fs[i].Complete()                                // good or failed completion: a new Buf for the waiter
//
// DeviceReads is for SEND, WRITE and what a peer may read; DeviceWrites for RECV,
// READ, the result of atomics and what a peer may write. Several operations may
// read the same bytes at once, through slices; a write excludes all others.
//
// A waiter that gives up changes nothing for the device: the poster keeps the
// Flight, and when the completion comes calls Flight.Release instead of Complete:
// the memory goes back to its pool. Where the completion does not prove that the
// device is done (see docs/ownership.md) the poster calls Flight.Quarantine,
// which releases after a while, and where nothing can be proven Flight.Leak,
// which never does, and counts it. A Flight ends exactly once, by one of
// Complete, Release, Undo, Quarantine and Leak; a second end panics, for then
// the poster has lost count and memory is in danger.
//
// Grants need to post: package qp implements [GrantQP].
//
// # Concurrency
//
// Everything may be called from any goroutine. Of two goroutines that take or
// release the same Buf one wins and the other gets ErrMoved. The slice that
// Bytes returned must not be used after the Buf was taken or released; nothing
// can detect that, but a build with the tag invariants poisons released memory
// and finds writes into it at the next Get.
//
// # Blocking
//
// Pool.Get waits when the pool is exhausted, Grant and Revoke wait for
// completions; these take a context. Registering memory can take milliseconds
// for each hundred megabytes and cannot be interrupted. Nothing else blocks.
//
// # Cleanup
//
// Release Bufs, then Close pools, caches and regions, then the domains. Close
// is ErrInUse while a Buf of it is held or in flight. A Buf that was dropped
// without Release stays counted in Stats and, with tracing on, Close names the
// place where it was acquired.
package mr
