// Package softroce runs programs in virtual machines whose kernel has Soft-RoCE
// (rdma_rxe), so that code for RDMA can be tested where there is no RDMA: not in
// the hardware, not in the kernel, and without KVM if need be.
//
//	c, err := softroce.Start(ctx, softroce.Config{Hosts: 2})
//	if err != nil { ... }
//	defer c.Close()
//	server := c.Host(0).Command("rping", "-s", "-C", "10")
//	...
//	c.Hub(0).SetLink(0, 1, hub.Faults{Loss: 0.01})
//
// A guest runs the host's own userland: it sees the host's file system read-only
// below a layer of its own, so a test binary is simply there, and what a guest
// writes is gone when it ends unless CopyOut fetches it. Host i has, on its first
// card, the addresses 10.77.0.<i+1> (name host<i>) and fd77::<i+1> (name
// host<i>-v6), and the device rxe0 with the card eth0 below it.
//
// # Ownership
//
// A Cluster owns its VMs, their networks and everything they were given. There
// are no files: sockets and the initramfs are passed to QEMU as descriptors.
//
// # Concurrency
//
// Cluster and Host may be used from any number of goroutines; a Cmd belongs to
// one, as in os/exec.
//
// # Blocking
//
// What waits for a guest takes a context, and Start and Restart also end at
// Config.BootTimeout. Every error names the step that failed and, if a VM was
// involved, shows the end of its console.
//
// # Cleanup
//
// Close kills the VMs. If the process dies before that, by whatever signal, the
// kernel kills them: QEMU is started with a parent-death signal.
package softroce
