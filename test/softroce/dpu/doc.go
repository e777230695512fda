// Package dpu tests a host, a DPU and a storage server in three VMs on one L2
// network, all on the kernel's Soft-RoCE: the host and the server are amd64, the
// DPU is arm64 and has the DMI of a BlueField. `make dpu` runs it.
package dpu
