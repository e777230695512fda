// Package dpu knows which network cards, SmartNICs and DPUs a machine has, and lets an
// agent on a DPU carry out block operations.
//
// # Inventory
//
// Discover reads sysfs, DMI, PCI vital product data, devlink and RDMA netlink and
// reports cards and their functions. Every statement is a Claim: a value with the
// evidence it rests on. Where nothing proves more the claim is Unknown; an id names
// a family of cards and is never taken for the mode a card is in.
//
// # Offload
//
// An Agent runs on the DPU's cores, owns the connections to block stores (Backend), and
// moves data between them and the memory of hosts. A Client is such a host: it has the
// calls of the direct client of the store (Blocks), gives operations to the agent where a
// Policy says so, and does them directly otherwise. When the agent is lost its rights to
// the host's memory are taken away first; then reads run again directly, and writes with a
// Token that makes the server (Ledger) do them once. docs/dpu.md has the rules.
//
// # Ownership
//
// An Inventory is plain data, a snapshot that belongs to the caller. Calls of a Client
// take the buffers they are given and return new rights to them; after an error the
// memory goes back to its pool when no device can touch it any more.
//
// # Concurrency
//
// The functions have no state; call them from any goroutine. An Inventory is safe to read
// from several. Client, Agent and Ledger may be used from any goroutine.
//
// # Blocking
//
// Discover and Probe read files, ask the kernel and open RDMA devices, milliseconds in
// all; both return when ctx is done. So do the calls of a Client; a write that was given
// up may still be done. NewClient waits for one attempt to reach the agent.
//
// # Cleanup
//
// Whatever Discover and Probe open is closed before they return. Clients, then the direct
// client, then the device; agents before their backends and device.
package dpu
