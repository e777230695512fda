// Package rsocket is rsocket(7) in Go: sockets over RDMA, by librdmacm's
// protocol. Type Socket has the C calls one to one; Dial, Listen and
// ListenPacket give a net.Conn, a net.Listener and a net.PacketConn over them.
// Both ends of a connection must be rsockets: this is no TCP.
//
// # Ownership
//
// The library copies what is sent and received, so a buffer is the caller's
// again when the call returns. Memory given to IOMap is pinned, and the peer
// may write to it, until IOUnmap or Close.
//
// # Concurrency
//
// Every method may be called from any goroutine. Writes of one Conn are
// serialised. Close ends calls that wait on other goroutines.
//
// # Blocking
//
// Methods of Socket never wait: what cannot be done now is EAGAIN, or
// EINPROGRESS from Connect, and Socket.Wait parks until it can. An rsocket is
// not a descriptor that epoll can watch, because the protocol advances only
// inside rpoll; so one goroutine of the package, on one thread, stands in rpoll
// for every waiter of the process. librdmacm adds at most four threads of its
// own. Accept and Connect look again every 20 ms or sooner instead. Each wake costs time in proportion to the number of sockets waited for:
// this fits hundreds of connections, not tens of thousands.
//
// # Limits
//
// librdmacm before 53.0 (44.7 of the 44 series) corrupts the heap with more than
// 3 connections in a process. The first Connect or Listen works around that, which costs it
// some milliseconds, for 1,026 connections and 66 listeners; more are EMFILE.
//
// # Cleanup
//
// Close tells the peer and waits, no longer than the linger time, until its
// device has acknowledged what was sent. What is not closed leaks, and is logged.
//
// # A peer that dies
//
// librdmacm connects with a retry count of 7, and rsockets have no option for
// it. On hardware that is some seconds until an error; Soft-RoCE takes it as
// endless. When the process of the peer ends, its kernel says so and reads end
// with io.EOF, at most 5 s later; when its host or the network is gone nothing does: set deadlines.
package rsocket
