// Package verbs is the whole RDMA verbs API in Go, named like libibverbs: every
// entry point of <infiniband/verbs.h>, on kernel devices through libibverbs and on
// software devices, which speak RoCE v2 in this process and are always there.
// Package verbs/rdmacm has the connection manager, verbs/rsocket the sockets.
//
// # Devices
//
// OpenDefault takes the first kernel device with an active port, else the software
// device on 127.0.0.1, and logs which; ZRDMA_DEVICE overrides it. A software
// device is named soft:ADDR[,ADDR...] after its addresses; it binds no other than
// those, so without being told so it is on no network (docs/soft.md). For tests,
// package rdmatest puts it on a network in memory.
//
// # Ownership
//
// Memory that a posted work request names belongs to the device until its
// completion was polled: this package does not stop you from touching it before.
// Packages mr and qp do. A registered Go slice is pinned and kept reachable by
// its MR until Close.
//
// # Concurrency
//
// Every method may be called from any goroutine. Post and Poll of one object
// are serialised; one goroutine per completion queue is fastest. Close that
// races with another call makes that call return ErrClosed and never crashes.
//
// # Blocking
//
// Post and Poll never block and take no context. CompChannel.Get, CQ.Wait and
// Context.GetAsyncEvent take a context, park in Go's network poller and hold no
// thread. Events are acknowledged as they are read, so no Close waits for one.
//
// # Cleanup
//
// Close what you create, children before parents: Close of a parent is ErrInUse
// while children are open, a second Close is nil, and after it every method
// returns ErrClosed. The garbage collector frees nothing; an object dropped
// without Close is logged with the stack that created it.
//
// What a device, driver, kernel or library cannot do is an error for which
// errors.Is(err, errors.ErrUnsupported).
package verbs
