// Package apt fetches Debian packages of any architecture without installing
// them, by an apt configuration of its own that touches nothing of the machine's.
//
// # Ownership
//
// Everything is below the folder that the caller gives and removes.
//
// # Concurrency
//
// One goroutine for each folder.
//
// # Blocking
//
// Every function runs programs, most use the network; the context ends both.
//
// # Cleanup
//
// None: the caller removes the folder.
package apt
