// Package dpu knows which network cards, SmartNICs and DPUs a machine has.
//
// Discover reads sysfs, DMI, PCI vital product data, devlink and RDMA netlink and
// reports cards and their functions. Every statement is a Claim: a value with the
// evidence it rests on. Where nothing proves more the claim is Unknown; an id names
// a family of cards and is never taken for the mode a card is in.
//
// # Ownership
//
// An Inventory is plain data, a snapshot that belongs to the caller.
//
// # Concurrency
//
// The functions have no state; call them from any goroutine. An
// Inventory is safe to read from several.
//
// # Blocking
//
// Discover and Probe read files, ask the kernel and open RDMA devices,
// milliseconds in all; both return when ctx is done.
//
// # Cleanup
//
// Whatever they open is closed before they return.
package dpu
