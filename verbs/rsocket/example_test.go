package rsocket_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"github.com/zrdma/zrdma/verbs/rsocket"
)

// An echo server and its client. It is compiled and not run: rsockets need a
// kernel device. The verbs suite runs this package on rdma_rxe.
func Example() {
	ctx := context.Background()
	l, err := rsocket.Listen(ctx, "tcp", "10.0.0.7:7471")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	c, err := rsocket.Dial(ctx, "tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		log.Fatal(err)
	}
	in := make([]byte, 5)
	if _, err := io.ReadFull(c, in); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", in)
}
