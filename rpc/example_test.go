package rpc_test

import (
	"context"
	"fmt"
	"log"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// A call whose answer is memory: the server's device writes it into the caller's
// buffer.
func Example() {
	ctx := context.Background()
	dev, err := qp.Open(qp.DeviceConfig{Name: "soft:127.0.12.4"}) // no name: a NIC if there is one
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()

	srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: dev}})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	srv.Handle("block.read", func(ctx context.Context, c *rpc.ServerCall) error {
		block, err := c.Device().Pool().Get(ctx, c.OutLen())
		if err != nil {
			return err
		}
		b, _ := block.Bytes()
		copy(b, "the block "+string(c.Body))
		if err := c.Push(ctx, block); err != nil { // takes block
			return err
		}
		return c.Reply([]byte("ok"))
	})
	l, err := srv.Listen(ctx, "127.0.12.4:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)

	cl, err := rpc.Dial(ctx, l.Addr(), rpc.Config{Device: dev})
	if err != nil {
		log.Fatal(err)
	}
	defer cl.Close()
	buf, err := dev.Pool().Get(ctx, 12)
	if err != nil {
		log.Fatal(err)
	}
	reply, err := cl.Call(ctx, "block.read", []byte("17"), rpc.ReadInto(buf)) // takes buf
	if err != nil {
		log.Fatal(err)
	}
	defer reply.Release()
	block := reply.Buf(0) // the new right to it
	b, _ := block.Bytes()
	fmt.Printf("%s: %s\n", reply.Body, b)
	_ = block.Release()
	// Output: ok: the block 17
}

// Methods with Go types.
func ExampleMethod() {
	type request struct{ A, B int }
	add := rpc.Method[request, int]{Name: "add"} // both sides declare it

	ctx := context.Background()
	dev, err := qp.Open(qp.DeviceConfig{Name: "soft:127.0.12.4"})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: dev}})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	add.Handle(srv, func(_ context.Context, _ *rpc.ServerCall, r request) (int, error) {
		if r.A < 0 {
			return 0, rpc.Errorf(rpc.InvalidArgument, "A is %d; it must not be negative", r.A)
		}
		return r.A + r.B, nil
	})
	l, err := srv.Listen(ctx, "127.0.12.4:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	cl, err := rpc.Dial(ctx, l.Addr(), rpc.Config{Device: dev})
	if err != nil {
		log.Fatal(err)
	}
	defer cl.Close()
	fmt.Println(add.Call(ctx, cl, request{40, 2}))
	_, err = add.Call(ctx, cl, request{-1, 2})
	fmt.Println(err, rpc.CodeOf(err) == rpc.InvalidArgument)
	// Output:
	// 42 <nil>
	// rpc: add: INVALID_ARGUMENT: A is -1; it must not be negative true
}
