// Package guest is what runs inside the VM: the first process of its initramfs
// and the agent.
//
// Process 1 loads the modules, mounts the host's root read-only over 9p with a
// tmpfs above it, gives the network cards their addresses, adds the rxe devices,
// moves into the new root, starts the agent as a child and from then on only
// reaps. When the agent ends the VM is switched off.
//
// # Ownership
//
// The guest is a machine of its own; nothing it does reaches the host but frames
// on its network cards and on the agent's port.
//
// # Concurrency
//
// Network and file systems are set up side by side; they share nothing.
//
// # Blocking
//
// Nothing waits forever: what does not come up is reported within seconds.
//
// # Cleanup
//
// None is needed: power off.
package guest
