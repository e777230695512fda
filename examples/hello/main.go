// Command hello is a call that moves a block, on whatever device is there.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

func main() {
	ctx := context.Background()
	dev := must(qp.Open(qp.DeviceConfig{})) // $ZRDMA_DEVICE, else a NIC, else RoCE v2 in Go
	srv := must(rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: dev}}))
	srv.Handle("block.read", func(ctx context.Context, c *rpc.ServerCall) error {
		block := must(dev.Pool().Get(ctx, c.OutLen())) // or a file, mapped: mr.MapFile
		copy(must(block.Bytes()), "block "+string(c.Body))
		if err := c.Push(ctx, block); err != nil { // by RDMA WRITE, into the caller's buffer
			return err
		}
		return c.Reply(nil)
	})
	l := must(srv.Listen(ctx, ":0"))
	go srv.Serve(l)

	client := must(rpc.Dial(ctx, l.Addr(), rpc.Config{Device: dev}))
	buf := must(dev.Pool().Get(ctx, 1<<20))
	reply := must(client.Call(ctx, "block.read", []byte("7"), rpc.ReadInto(buf)))
	fmt.Printf("%.7q of %d bytes\n", must(reply.Buf(0).Bytes()), reply.Pushed)
	reply.Release()
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
