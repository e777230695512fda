// Grpc is gRPC over RDMA: what changes in a program that has gRPC already is the
// net.Listener of the server and the dialler of the client.
//
//	grpc -serve -addr 10.0.0.7:7473     # on one machine: the health service
//	grpc -addr 10.0.0.7:7473            # on the other: asks how it is
//
// It is a module of its own, so that gRPC is no dependency of zrdma. Where the
// bytes of calls are large, package rpc moves them without a copy; see
// docs/migrating.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zrdma/zrdma/rdmanet"
)

func main() {
	log.SetFlags(0)
	server := flag.Bool("serve", false, "be the server")
	addr := flag.String("addr", "127.0.0.1:7473", "`host:port` of the server, on an RDMA device")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *server {
		err = serve(ctx, *addr)
	} else {
		err = ask(ctx, *addr)
	}
	if err != nil {
		log.Fatal("grpc: ", err)
	}
}

func serve(ctx context.Context, addr string) error {
	l, err := rdmanet.Listen(ctx, addr, rdmanet.Config{})
	if err != nil {
		return err
	}
	log.Printf("serving at %s over RDMA", l.Addr())
	s := newServer()
	defer context.AfterFunc(ctx, s.GracefulStop)()
	return s.Serve(l)
}

// newServer is a gRPC server like any other.
func newServer() *grpc.Server {
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	return s
}

// dial is a gRPC client whose connections are RDMA.
func dial(d *rdmanet.Dialer, addr string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()), // rdmanet encrypts nothing; TLS goes here
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return d.DialContext(ctx, "rdma", addr)
		}))
	return grpc.NewClient("passthrough:///"+addr, opts...)
}

func ask(ctx context.Context, addr string) error {
	cc, err := dial(&rdmanet.Dialer{}, addr)
	if err != nil {
		return err
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, r.Status)
	return nil
}
