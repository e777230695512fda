package rpc

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rdmatest"
)

// A server that says what cannot be fails the call, and not the client's process.
func TestLyingServer(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, func(s *Server) {
			s.Handle("offers", func(_ context.Context, c *ServerCall) error {
				c.offered = append(c.offered, desc{Remote: mr.Remote{Addr: 4096, Len: 64, RKey: 77}, flags: dirToPeer})
				return c.Reply(nil)
			})
			s.Handle("pushed", func(_ context.Context, c *ServerCall) error {
				c.extent = 4097
				return c.Reply(nil)
			})
		})
		c := b.dial(Config{})
		for _, x := range []struct {
			method string
			opts   []Option
			want   string
		}{
			{"offers", nil, "not asked for"},
			{"offers", []Option{WriteFrom(b.buf(4096))}, "not asked for"},
			{"pushed", []Option{ReadInto(b.buf(4096))}, "put 4097 bytes into a buffer of 4096"},
			{"pushed", nil, "put 4097 bytes into a buffer of 0"},
		} {
			_, err := c.Call(ctxFor(t), x.method, nil, x.opts...)
			require.Equal(t, Internal, CodeOf(err), err)
			require.ErrorContains(t, err, x.want)
		}
		b.close(c)
	})
}

// Calls that end while they wait behind a long one of their order key cost the server
// neither a goroutine nor memory, and the order of the others holds.
func TestOrderedCallsThatEnd(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		release := make(chan struct{})
		var handled []byte
		b := newBoth(t, net, ServerConfig{}, func(s *Server) {
			s.Handle("long", func(context.Context, *ServerCall) error { <-release; return nil })
			s.Handle("note", func(_ context.Context, c *ServerCall) error { handled = append(handled, c.Body...); return nil })
		})
		c := b.dial(Config{})
		ends := make(chan error, 3)
		call := func(method, body string) { // in turn
			go func() {
				r, err := c.Call(ctxFor(t), method, []byte(body), Order(7))
				r.Release()
				ends <- err
			}()
			time.Sleep(time.Millisecond)
		}
		call("long", "")
		call("note", "a")
		before := runtime.NumGoroutine()
		for range 500 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			_, err := c.Call(ctx, "note", []byte("x"), Order(7))
			cancel()
			require.Error(t, err)
		}
		time.Sleep(100 * time.Millisecond)
		require.Less(t, runtime.NumGoroutine(), before+50)
		call("note", "b")
		close(release)
		for range cap(ends) {
			require.NoError(t, <-ends)
		}
		require.Equal(t, "ab", string(handled))
		b.close(c)
	})
}
