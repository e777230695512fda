// Package interop has the tests between two VMs: the Go programs against those
// of rdma-core, `zrdma ping` over a network that fails, and the software device
// against the kernel's rxe (TestSoft), for which ./peer and ./c are the two ends.
package interop
