// Package iouring is a small io_uring: one ring, registered buffers, and the three
// operations that `zrdma compare` needs. It speaks to the kernel by
// golang.org/x/sys alone and needs no cgo.
//
// It is our own because no Go module for io_uring was to be had that is kept well:
// docs/compare.md says which were looked at. It is not for use elsewhere.
//
// A Ring belongs to one goroutine. Memory given to Register stays mapped until
// Close has returned, and longer than every operation on it: end a socket's
// operations by shutting the socket down, then Drain.
package iouring
