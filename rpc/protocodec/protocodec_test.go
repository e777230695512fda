package protocodec_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/rpc"
	"github.com/zrdma/zrdma/rpc/protocodec"
)

var double = rpc.Method[*durationpb.Duration, *durationpb.Duration]{Name: "double", Codec: protocodec.Codec}

func TestMethod(t *testing.T) {
	rdmatest.Run(t, 1, func(t *testing.T, net *rdmatest.Network) {
		quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
		sn, cn := net.Device(t), net.Device(t)
		sd, err := qp.Open(qp.DeviceConfig{Context: sn.Context, Logger: quiet})
		require.NoError(t, err)
		cd, err := qp.Open(qp.DeviceConfig{Context: cn.Context, Logger: quiet})
		require.NoError(t, err)
		srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: sd, Logger: quiet}})
		require.NoError(t, err)
		double.Handle(srv, func(_ context.Context, _ *rpc.ServerCall, d *durationpb.Duration) (*durationpb.Duration, error) {
			return durationpb.New(2 * d.AsDuration()), nil
		})
		l, err := srv.Listen(t.Context(), sn.Addr().String()+":0")
		require.NoError(t, err)
		done := make(chan error)
		go func() { done <- srv.Serve(l) }()
		c, err := rpc.Dial(t.Context(), l.Addr(), rpc.Config{Device: cd, Logger: quiet})
		require.NoError(t, err)
		got, err := double.Call(t.Context(), c, durationpb.New(3*time.Second))
		require.NoError(t, err)
		require.True(t, proto.Equal(durationpb.New(6*time.Second), got))
		_, err = c.Call(t.Context(), "double", []byte{0xff})
		require.Equal(t, rpc.InvalidArgument, rpc.CodeOf(err))
		require.NoError(t, c.Close())
		require.NoError(t, srv.Close())
		require.NoError(t, <-done)
		require.NoError(t, cd.Close())
		require.NoError(t, sd.Close())
	})
}

func TestWhatIsNoMessage(t *testing.T) {
	_, err := protocodec.Codec.Append(nil, 3)
	require.ErrorContains(t, err, "no protobuf message")
	var x *wrapperspb.BytesValue
	require.ErrorContains(t, protocodec.Codec.Decode(nil, &x), "pointers to messages")
}
