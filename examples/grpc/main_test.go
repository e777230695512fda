package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmanet"
	"github.com/zrdma/zrdma/rdmatest"
)

// echo is a service by hand: a stream of bytes that come back.
var echo = grpc.ServiceDesc{ServiceName: "test.Echo", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
	StreamName: "Stream", ServerStreams: true, ClientStreams: true,
	Handler: func(_ any, s grpc.ServerStream) error {
		for {
			var m wrapperspb.BytesValue
			if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := s.SendMsg(&m); err != nil {
				return err
			}
		}
	}}}}

func open(t *testing.T, net *rdmatest.Network) *qp.Device {
	d, err := qp.Open(qp.DeviceConfig{Context: net.Device(t).Context})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// start serves and connects; all of it ends with the test.
func start(t *testing.T) (*grpc.Server, *grpc.ClientConn) {
	net := rdmatest.NewNetwork(t, 1)
	l, err := rdmanet.Listen(t.Context(), "10.0.0.1:0", rdmanet.Config{Device: open(t, net)})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer()
	s.RegisterService(&echo, nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
	})
	cc, err := dial(&rdmanet.Dialer{Config: rdmanet.Config{Device: open(t, net)}}, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close(); s.Stop(); wg.Wait() })
	return s, cc
}

func TestUnary(t *testing.T) {
	s, cc := start(t)
	c := healthpb.NewHealthClient(cc)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				r, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{})
				if err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
					t.Error(r, err)
				}
			}
		})
	}
	wg.Wait()
	_, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "none"})
	if status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	w, err := c.Watch(ctx, &healthpb.HealthCheckRequest{})
	for err == nil {
		_, err = w.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
	s.GracefulStop()
	if _, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
}

func TestStream(t *testing.T) {
	_, cc := start(t)
	st, err := cc.NewStream(t.Context(), &echo.Streams[0], "/test.Echo/Stream")
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	go func() {
		for i := range 10 {
			if err := st.SendMsg(wrapperspb.Bytes(data[i:])); err != nil {
				t.Error(err)
			}
		}
		_ = st.CloseSend()
	}()
	for i := range 10 {
		var m wrapperspb.BytesValue
		if err := st.RecvMsg(&m); err != nil || !bytes.Equal(m.Value, data[i:]) {
			t.Fatal(i, len(m.Value), err)
		}
	}
	if err := st.RecvMsg(new(wrapperspb.BytesValue)); err != io.EOF {
		t.Error(err)
	}
}
