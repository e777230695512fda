package zotel_test

import (
	"context"
	"fmt"
	"log"

	zotel "github.com/zrdma/zrdma/contrib/otel"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// Both ends of a call have a span, of the global providers, and a duration.
func Example() {
	dev, err := qp.Open(qp.DeviceConfig{Name: "soft:127.0.12.42"})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	i, err := zotel.New(zotel.Config{})
	if err != nil {
		log.Fatal(err)
	}
	srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: dev}, Interceptors: []rpc.ServerInterceptor{i.Server}})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	srv.Handle("echo", func(_ context.Context, c *rpc.ServerCall) error { return c.Reply(c.Body) })
	l, err := srv.Listen(context.Background(), "127.0.12.42:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	cl, err := rpc.Dial(context.Background(), l.Addr(), rpc.Config{Device: dev, ClientInterceptors: []rpc.ClientInterceptor{i.Client}})
	if err != nil {
		log.Fatal(err)
	}
	defer cl.Close()
	r, err := cl.Call(context.Background(), "echo", []byte("seen"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", r.Body)
	r.Release()
	// Output: seen
}
