// Package rdmacm is the RDMA connection manager in Go, named like librdmacm:
// every entry point of <rdma/rdma_cma.h> and <rdma/rdma_verbs.h>, and above them
// Dial and Listen, which take a context and leave nothing behind on failure.
//
// # Devices
//
// The kernel has one manager for all its devices, each software device has its
// own. CreateEventChannelOn, and Device in DialConfig and ListenConfig, choose by
// device. Where nothing is chosen it is the manager of the software device that
// ZRDMA_DEVICE names; else the kernel's, or that of soft:127.0.0.1 on a machine
// without kernel devices or rdma_cm.
//
// # Ownership
//
// An ID belongs to who created it or, for a connection request, to who took the
// event. Private data in an Event is a copy; the wire pads it with zeros to the
// length of its message, so carry a length of your own. A device context that
// comes from an ID is shared with all others and stays open.
//
// # Concurrency
//
// Every method may be called from any goroutine; calls on one ID are serialised.
// Close that races with Get makes Get return ErrClosed.
//
// # Blocking
//
// What librdmacm waits for in C is waited for here in Go's network poller, with
// a context: endpoints, requests and completions of an ID too. Nothing else
// blocks, but GetAddrInfo, which resolves names on a goroutine of its own.
//
// # Cleanup
//
// Close the queue pair, then its ID, then the EventChannel; out of order it is
// ErrInUse. Events are acknowledged as they are read, so no Close waits.
package rdmacm
