package rdmanet_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmanet"
)

// An echo: what a program with TCP connections does, it does here.
func Example() {
	ctx := context.Background()
	dev, err := qp.Open(qp.DeviceConfig{Name: "soft:127.0.12.6"}) // Config{} takes a NIC if there is one
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	l, err := rdmanet.Listen(ctx, "127.0.12.6:0", rdmanet.Config{Device: dev})
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

	d := rdmanet.Dialer{Config: rdmanet.Config{Device: dev}}
	c, err := d.Connect(ctx, l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		log.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		log.Fatal(err)
	}
	b, err := io.ReadAll(c)
	fmt.Printf("%s %v over %s\n", b, err, c.RemoteAddr().Network())
	// Output: hello <nil> over rdma
}

// net/http over RDMA.
func ExampleDialer_DialContext() {
	ctx := context.Background()
	dev, err := qp.Open(qp.DeviceConfig{Name: "soft:127.0.12.6"})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	l, err := rdmanet.Listen(ctx, "127.0.12.6:0", rdmanet.Config{Device: dev})
	if err != nil {
		log.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "you asked for ", r.URL.Path)
	})}
	go s.Serve(l)
	defer s.Close()

	d := &rdmanet.Dialer{Config: rdmanet.Config{Device: dev}}
	t := &http.Transport{DialContext: d.DialContext}
	defer t.CloseIdleConnections()
	r, err := (&http.Client{Transport: t}).Get("http://" + l.Addr().String() + "/blocks")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	fmt.Println(r.StatusCode, string(b))
	// Output: 200 you asked for /blocks
}
