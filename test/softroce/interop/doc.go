// Package interop has the tests between two VMs: the Go programs against those
// of rdma-core, and `zrdma ping` over a network that fails.
package interop
