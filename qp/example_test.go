package qp_test

import (
	"context"
	"fmt"
	"log"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// A message, and memory of the peer that is read without its processor.
func Example() {
	ctx := context.Background()
	dev, err := qp.Open(qp.DeviceConfig{Name: "soft:127.0.12.3"}) // no name: a NIC if there is one
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	l, err := dev.Listen(ctx, "127.0.12.3:0", qp.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go serve(ctx, l)

	c, err := dev.Dial(ctx, l.Addr().String(), qp.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	m, err := c.Recv(ctx) // the server says where its memory is
	if err != nil {
		log.Fatal(err)
	}
	var where qp.Remote
	b, _ := m.Buf.Bytes()
	if err := where.UnmarshalBinary(b); err != nil {
		log.Fatal(err)
	}
	_ = m.Buf.Release()

	buf, err := dev.Pool().Get(ctx, int(where.Len))
	if err != nil {
		log.Fatal(err)
	}
	if buf, err = c.Read(ctx, buf, where); err != nil { // buf is a new right to the same memory
		log.Fatal(err)
	}
	b, _ = buf.Bytes()
	fmt.Printf("%s\n", b)
	_ = buf.Release()
	if err := c.SendBytes(ctx, []byte("done")); err != nil {
		log.Fatal(err)
	}
	// Output: what the server has
}

// serve grants a client the right to read some memory, until it says that it is
// done.
func serve(ctx context.Context, l *qp.Listener) {
	c, err := l.Accept(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	g, err := mr.NewGranter(c.PD(), mr.GranterConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	buf, err := c.Device().Pool().Get(ctx, 19)
	if err != nil {
		log.Fatal(err)
	}
	b, _ := buf.Bytes()
	copy(b, "what the server has")
	grant, err := g.Grant(ctx, c, buf, mr.DeviceReads) // one peer, one range, one direction
	if err != nil {
		log.Fatal(err)
	}
	where, _ := grant.Remote().MarshalBinary()
	if err := c.SendBytes(ctx, where); err != nil {
		log.Fatal(err)
	}
	m, err := c.Recv(ctx)
	if err == nil {
		_ = m.Buf.Release()
	}
	if buf, err := grant.Revoke(ctx); err == nil { // from here on nobody can read it
		_ = buf.Release()
	}
}
