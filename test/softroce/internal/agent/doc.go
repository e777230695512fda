// Package agent is the byte protocol between the harness and the process that
// works for it inside a VM, and both of its ends.
//
// One connection carries any number of processes at the same time. Every frame
// has a length prefix; every byte stream (a process's stdin, stdout, stderr) has
// a window of its own, so a reader that is slow stops its own process only.
//
// # Ownership
//
// [NewClient] and [Server.Serve] take ownership of the connection and close it.
//
// # Concurrency
//
// A Client may be used by any number of goroutines; a Proc belongs to one.
//
// # Blocking
//
// Start, Wait and Sync wait for the other end and end early when the connection
// breaks. The kernel log is pushed by the guest and never waits for anybody.
//
// # Cleanup
//
// Closing the client breaks the connection; the server then kills what it
// started and returns.
package agent
