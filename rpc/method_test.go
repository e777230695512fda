package rpc

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/rdmatest"
)

type sumArgs struct{ A, B int }

func TestMethod(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		sum := Method[sumArgs, int]{Name: "sum"}
		ptr := Method[*sumArgs, *sumArgs]{Name: "swap"}
		size := Method[string, int]{Name: "size"}
		b := newBoth(t, net, ServerConfig{}, func(s *Server) {
			sum.Handle(s, func(_ context.Context, _ *ServerCall, a sumArgs) (int, error) {
				if a.A < 0 {
					return 0, Errorf(OutOfRange, "negative")
				}
				return a.A + a.B, nil
			})
			ptr.Handle(s, func(_ context.Context, _ *ServerCall, a *sumArgs) (*sumArgs, error) { return &sumArgs{a.B, a.A}, nil })
			size.Handle(s, func(_ context.Context, c *ServerCall, _ string) (int, error) { return c.InLen(), nil })
		})
		c := b.dial(Config{})
		n, err := sum.Call(ctxFor(t), c, sumArgs{3, 4})
		require.NoError(t, err)
		require.Equal(t, 7, n)
		_, err = sum.Call(ctxFor(t), c, sumArgs{A: -1})
		require.Equal(t, OutOfRange, CodeOf(err))
		p, err := ptr.Call(ctxFor(t), c, &sumArgs{1, 2})
		require.NoError(t, err)
		require.Equal(t, &sumArgs{2, 1}, p)
		n, r, err := size.CallBufs(ctxFor(t), c, "x", WriteFrom(b.buf(4096)))
		require.NoError(t, err)
		require.Equal(t, 4096, n)
		x := r.Buf(0)
		require.Equal(t, 4096, x.Len())
		r.Release()
		require.NoError(t, x.Release(), "it was the caller's")
		_, err = c.Call(ctxFor(t), "sum", []byte("{"))
		require.Equal(t, InvalidArgument, CodeOf(err))
		// Arguments that do not encode leave no buffer behind.
		bad := Method[chan int, int]{Name: "size"}
		_, err = bad.Call(ctxFor(t), c, nil, WriteFrom(b.buf(4096)))
		require.Equal(t, InvalidArgument, CodeOf(err))
		b.close(c)
	})
}
