// Package cm is the connection manager of the software RoCEv2 device: the MADs
// of the InfiniBand communication manager on queue pair 1, with the addresses
// that rdma_cm puts in front of the private data, behind provider.CM.
package cm
