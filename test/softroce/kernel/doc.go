// Package kernel finds a Linux kernel that has Soft-RoCE (rdma_rxe): the
// machine's own, one named by the caller, or Debian's, unpacked into a cache and
// never installed.
//
// # Ownership
//
// The files of a [Kernel] belong to the machine or to the cache; nobody changes
// them after Find returned them.
//
// # Concurrency
//
// Any number of processes may fill one cache at the same time: a file lock lets
// one of them work, and a kernel appears in the cache by a rename, whole.
//
// # Blocking
//
// Find downloads about 70 MB the first time, and waits for another process that
// is doing so; its context ends both.
//
// # Cleanup
//
// What an interrupted download left behind is removed by the next one.
package kernel
