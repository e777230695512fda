package protocodec_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
	"github.com/zrdma/zrdma/rpc/protocodec"
)

// A method whose arguments and answer are protobuf messages.
func Example() {
	since := rpc.Method[*timestamppb.Timestamp, *durationpb.Duration]{Name: "since", Codec: protocodec.Codec}

	ctx := context.Background()
	dev, err := qp.Open(qp.DeviceConfig{Name: "soft:127.0.12.5"})
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: dev}})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	since.Handle(srv, func(_ context.Context, _ *rpc.ServerCall, t *timestamppb.Timestamp) (*durationpb.Duration, error) {
		return durationpb.New(time.Unix(1000, 0).Sub(t.AsTime())), nil
	})
	l, err := srv.Listen(ctx, "127.0.12.5:0")
	if err != nil {
		log.Fatal(err)
	}
	go srv.Serve(l)
	cl, err := rpc.Dial(ctx, l.Addr(), rpc.Config{Device: dev})
	if err != nil {
		log.Fatal(err)
	}
	defer cl.Close()
	d, err := since.Call(ctx, cl, timestamppb.New(time.Unix(940, 0)))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(d.AsDuration())
	// Output: 1m0s
}
