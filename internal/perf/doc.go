// Package perf measures what a device does between two ends: the engine of
// `zrdma bench`.
//
// The client decides what is measured. The ends meet over TCP, where they agree on
// a version (hello.go), set up queue pairs and say when to stop (wire.go); what is
// measured goes over the device. A Server serves one client at a time.
//
// # Ownership
//
// A Client and a Server use a Device of the caller, which is closed after them.
//
// # Concurrency
//
// One goroutine uses a Client; Progress may be called from others. Within a
// measurement each thread has a goroutine, a completion queue and queue pairs of
// its own.
//
// # Blocking
//
// Everything takes a context. When it ends, what was measured so far is returned
// together with the error.
//
// # Cleanup
//
// A measurement frees what it made before it returns, error or not.
package perf
