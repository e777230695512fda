package block_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// A store that keeps its blocks in a directory, and a client that puts one there and
// reads it back.
func Example() {
	ctx := context.Background()
	dev, err := qp.Open(qp.DeviceConfig{Name: "soft:127.0.12.43"})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	dir, err := os.MkdirTemp("", "blocks")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := block.Open(dir, dev.PD(), block.StoreConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: dev}})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	store.Register(srv)
	l, err := srv.Listen(ctx, "127.0.12.43:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)

	c, err := rpc.Dial(ctx, l.Addr(), rpc.Config{Device: dev})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	cl := block.Client{Client: c}
	b, err := dev.Pool().Get(ctx, 4096)
	if err != nil {
		log.Fatal(err)
	}
	p, err := b.Bytes()
	if err != nil {
		log.Fatal(err)
	}
	copy(p, "block 7")
	if b, err = cl.Put(ctx, "7", b); err != nil { // b is the device's meanwhile
		log.Fatal(err)
	}
	if b, err = cl.Get(ctx, "7", b); err != nil {
		log.Fatal(err)
	}
	if p, err = b.Bytes(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.7s, %d bytes\n", p, len(p))
	_ = b.Release()
	// Output: block 7, 4096 bytes
}
