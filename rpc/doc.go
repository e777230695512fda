// Package rpc calls methods of another process, with small arguments in messages
// and blocks of data as memory: the devices move those between the buffers of
// caller and handler, and no CPU copies them.
//
//	srv, err := rpc.NewServer(rpc.ServerConfig{})
//	srv.Handle("block.read", func(ctx context.Context, c *rpc.ServerCall) error {
//		...
//		if err := c.Push(ctx, block); err != nil { // into the caller's buffer
//			return err
//		}
//		return c.Reply(nil)
//	})
//	l, err := srv.Listen(ctx, ":7471")
//	go srv.Serve(l)
//
//	cl, err := rpc.Dial(ctx, "storage-7:7471", rpc.Config{})
//	reply, err := cl.Call(ctx, "block.read", args, rpc.ReadInto(buf))
//	defer reply.Release()
//
// Method gives methods Go types, with a Codec. Client.ReadStream and WriteStream
// cut objects that are larger than one transfer should be. docs/rpc-protocol.md is
// what goes over the wire.
//
// # Ownership
//
// A call takes the buffers it is given; Reply.Buf gives new rights to them. After
// an error they are the library's, which releases them once no device can touch
// them. What a Reply or a ServerCall lends (Body) ends with Release, or with the
// handler.
//
// # Cancellation
//
// When the context of a call ends, Call returns at once; the memory does not. The
// server is told, ends the handler's context, waits for its one-sided operations
// and acknowledges; or, when it does not within Config.Grace, the right to the
// memory is taken away by a fence (package mr). The connection lives on. Memory of a
// pool goes back to it then. Of a Region of the caller's own, Region.Close and another
// Buf of the range fail with mr.ErrInUse until then: that is how it is known.
//
// # Failure
//
// Errors are *Error, with a code numbered as gRPC's; errors.Is finds ErrBusy,
// ErrTooLong and the like, context.Canceled and context.DeadlineExceeded in them.
//
// A call is done at most once. When the connection ends under one that was sent,
// its error is ErrIndeterminate; calls marked Idempotent are sent again instead.
//
// # Concurrency
//
// Client and Server may be used from any goroutine, a ServerCall from its
// handler's. Handlers run in goroutines of their own; those of one order key one
// after the other.
//
// # Blocking
//
// Call waits for a place among Config.MaxCalls and for the answer, Push and Pull for
// the devices; their context ends the wait. Hooks and a codec must not block for
// long: they run in the goroutine of the call.
//
// # Cleanup
//
// Clients and servers, then the Device. Close waits until no memory is in flight.
package rpc
