// Package userland has programs and libraries for guests whose architecture is
// not this machine's: Debian packages, unpacked into a cache and never installed.
// The same folder is the sysroot of a cross compiler.
//
// # Ownership
//
// The folder belongs to the cache; nobody changes it after Find returned it.
//
// # Concurrency
//
// Any number of processes may call Find at the same time: a file lock lets one of
// them work, and the folder appears by a rename, whole.
//
// # Blocking
//
// Find downloads about 40 MB the first time, and waits for another process that
// is doing so; its context ends both.
//
// # Cleanup
//
// What an interrupted download left behind is removed by the next one.
package userland
