// Package blocks tests package rpc between two VMs on rxe, with the block store as
// its work: bad networks, partitions, a server that is killed; and storms of
// cancellations in one VM. SOFTROCE_VM_TESTS=1 runs it.
package blocks
