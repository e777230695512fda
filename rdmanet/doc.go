// Package rdmanet is net.Conn and net.Listener over RDMA: a stream of bytes over
// a reliable connection of package qp, for programs that speak TCP today.
// net/http, crypto/tls and gRPC run over it unchanged. Both ends must be of this
// package: it is no TCP, and no rsocket.
//
//	l, err := rdmanet.Listen(ctx, "10.0.0.7:7472", rdmanet.Config{})
//	go http.Serve(l, handler)
//
//	d := &rdmanet.Dialer{}
//	client := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
//
// A stream has to copy: Write puts the bytes into registered memory, Read takes
// them out of the receive that they came in. [Conn.ReadFrom] and [Conn.WriteTo],
// which io.Copy uses, leave that out: they read into, and write from, registered
// memory. Where blocks of data go to buffers of their own, package rpc copies
// nothing at all.
//
// Nothing is encrypted and nobody is authenticated: use TLS on top.
//
// # Ownership
//
// A buffer is the caller's again when the call returns. A Conn belongs to who
// dialled or accepted it: Close it, also after it has failed.
//
// # Concurrency
//
// Every method may be called from any goroutine. Writes do not mix: one after the
// other. A Conn has no goroutine of its own but that of package qp, and one more
// only while bytes wait for the peer to make room.
//
// # Blocking
//
// Write returns when its bytes are in registered memory and the device has them,
// or, of the last of them, will get them as soon as the peer makes room: what is
// written meanwhile goes along in the same message. It waits when more than
// Config.Window messages were not read. Read waits for the first byte. Deadlines
// and Close end both. Close waits, up to Config.Linger, until the peer's device
// has everything: there is no kernel that would go on sending when the process
// has ended.
//
// # Failure
//
// Errors are *net.OpError, a net.Error; Timeout reports a deadline, and nothing
// else. io.EOF: the peer has closed, or closed its half, and all it wrote was read.
// syscall.ECONNRESET: it ended without that, killed for instance. qp.ErrPeerDead:
// it does not answer, for longer than Config.DeadAfter. syscall.EPIPE: written after
// CloseWrite, or to a peer that has closed. qp.ErrDeviceRemoved: the device is gone.
//
// # Cleanup
//
// Conns and Listeners, then the Device, if it is the caller's.
package rdmanet
