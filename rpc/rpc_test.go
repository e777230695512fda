package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// both is a server and the device of a client, on one network.
type both struct {
	t      testing.TB
	net    *rdmatest.Network
	sd, cd *qp.Device
	rs, rc *rdmatest.Device
	s      *Server
	addr   string
	done   chan error
}

func newBoth(t testing.TB, net *rdmatest.Network, cfg ServerConfig, handle func(*Server)) *both {
	b := &both{t: t, net: net, done: make(chan error, 1)}
	open := func() (*rdmatest.Device, *qp.Device) {
		dev := net.Device(t)
		d, err := qp.Open(qp.DeviceConfig{Context: dev.Context, Logger: quiet(),
			Pool: mr.PoolConfig{Canaries: true, RegionSize: 4 << 20, Limit: 64 << 20, Classes: []int{4096, 65536, 1 << 20}}})
		require.NoError(t, err)
		return dev, d
	}
	b.rs, b.sd = open()
	b.rc, b.cd = open()
	cfg.Device, cfg.Logger = b.sd, quiet()
	var err error
	b.s, err = NewServer(cfg)
	require.NoError(t, err)
	handle(b.s)
	l, err := b.s.Listen(context.Background(), b.rs.Addr().String()+":0")
	require.NoError(t, err)
	b.addr = l.Addr()
	go func() { b.done <- b.s.Serve(l) }()
	return b
}

func (b *both) dial(cfg Config) *Client {
	cfg.Device, cfg.Logger = b.cd, quiet()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := Dial(ctx, b.addr, cfg)
	require.NoError(b.t, err)
	return c
}

func (b *both) close(cl ...*Client) {
	for _, c := range cl {
		require.NoError(b.t, c.Close())
	}
	require.NoError(b.t, b.s.Close())
	require.NoError(b.t, <-b.done)
	require.Zero(b.t, b.cd.Pool().Stats().Damaged+b.sd.Pool().Stats().Damaged)
	require.NoError(b.t, b.cd.Close())
	require.NoError(b.t, b.sd.Close())
}

func ctxFor(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func echo(s *Server) {
	s.Handle("echo", func(_ context.Context, c *ServerCall) error { return c.Reply(c.Body) })
	s.Handle("fail", func(context.Context, *ServerCall) error { return Errorf(NotFound, "no such block") })
	s.Handle("panic", func(context.Context, *ServerCall) error { panic("oops") })
	s.Handle("block", func(ctx context.Context, c *ServerCall) error { <-ctx.Done(); return ctx.Err() })
	s.Handle("get", func(ctx context.Context, c *ServerCall) error {
		b, err := c.Device().Pool().Get(ctx, c.OutLen())
		if err != nil {
			return err
		}
		p, err := b.Bytes()
		if err != nil {
			return err
		}
		for i := range p {
			p[i] = c.Body[0] + byte(i)
		}
		if err := c.Push(ctx, b); err != nil {
			return err
		}
		return c.Reply([]byte("here"))
	})
	s.Handle("put", func(ctx context.Context, c *ServerCall) error {
		b, err := c.Device().Pool().Get(ctx, c.InLen())
		if err != nil {
			return err
		}
		if b, err = c.Pull(ctx, b); err != nil {
			return err
		}
		defer b.Release()
		p, err := b.Bytes()
		if err != nil {
			return err
		}
		var sum byte
		for _, x := range p {
			sum += x
		}
		return c.Reply([]byte{sum})
	})
}

func virtual(t *testing.T, f func(t *testing.T, net *rdmatest.Network)) {
	rdmatest.Run(t, 1, f)
}

func TestEcho(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, echo)
		c := b.dial(Config{})
		for _, n := range []int{0, 1, 60, 100, 300, 4096 - headerLen} {
			body := bytes.Repeat([]byte{byte(n)}, n)
			r, err := c.Call(ctxFor(t), "echo", body)
			require.NoError(t, err, n)
			require.Equal(t, string(body), string(r.Body))
			r.Release()
		}
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				body := []byte{byte(i), byte(i >> 8)}
				r, err := c.Call(ctxFor(t), "echo", body)
				if err != nil || !bytes.Equal(r.Body, body) {
					t.Error(i, err)
				}
				r.Release()
			})
		}
		wg.Wait()
		b.close(c)
	})
}

func TestErrors(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, echo)
		c := b.dial(Config{})
		for name, code := range map[string]Code{"fail": NotFound, "panic": Internal, "nothing": Unimplemented} {
			_, err := c.Call(ctxFor(t), name, nil)
			require.Equal(t, code, CodeOf(err), "%s: %v", name, err)
		}
		_, err := c.Call(ctxFor(t), "echo", make([]byte, 5000))
		require.Equal(t, ResourceExhausted, CodeOf(err), err)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		_, err = c.Call(ctx, "block", nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		b.close(c)
	})
}

func TestBulk(t *testing.T) {
	for name, mode := range map[string]BulkMode{"push": Push, "pull": Pull} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *rdmatest.Network) {
				b := newBoth(t, net, ServerConfig{}, echo)
				c := b.dial(Config{Bulk: mode, DataQPs: 2})
				ctx := ctxFor(t)
				for i, n := range []int{1, 4096, 100_000, 1 << 20} {
					buf, err := b.cd.Pool().Get(ctx, n)
					require.NoError(t, err)
					r, err := c.Call(ctx, "get", []byte{byte(i)}, ReadInto(buf))
					require.NoError(t, err)
					require.Equal(t, "here", string(r.Body))
					buf = r.Buf(0)
					p, err := buf.Bytes()
					require.NoError(t, err)
					require.Len(t, p, n)
					var sum byte
					for j, x := range p {
						require.Equal(t, byte(i)+byte(j), x)
						sum += x
					}
					r.Release()
					r, err = c.Call(ctx, "put", nil, WriteFrom(buf))
					require.NoError(t, err)
					require.Equal(t, sum, r.Body[0])
					r.Release()
				}
				b.close(c)
			})
		})
	}
}

func TestCancel(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, echo)
		c := b.dial(Config{})
		for range 20 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			buf, err := b.cd.Pool().Get(ctx, 4096)
			require.NoError(t, err)
			_, err = c.Call(ctx, "block", nil, ReadInto(buf))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		r, err := c.Call(ctxFor(t), "echo", []byte("alive"))
		require.NoError(t, err)
		r.Release()
		require.Equal(t, uint64(1), c.Stats().Sessions)
		time.Sleep(time.Second)
		require.Equal(t, uint64(20), c.Stats().FencedByAck)
		b.close(c)
	})
}

func TestReconnect(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, echo)
		c := b.dial(Config{})
		net.Partition(b.rs, b.rc)
		_, err := c.Call(ctxFor(t), "echo", []byte("x"))
		require.ErrorIs(t, err, ErrIndeterminate)
		net.Heal(b.rs, b.rc)
		r, err := c.Call(ctxFor(t), "echo", []byte("again"), WaitForServer())
		require.NoError(t, err)
		r.Release()
		require.Equal(t, uint64(2), c.Stats().Sessions)
		// An idempotent call goes through by itself.
		net.Partition(b.rs, b.rc)
		go func() {
			time.Sleep(3 * time.Second)
			net.Heal(b.rs, b.rc)
		}()
		buf, err := b.cd.Pool().Get(ctxFor(t), 4096)
		require.NoError(t, err)
		r, err = c.Call(ctxFor(t), "get", []byte{1}, ReadInto(buf), Idempotent())
		require.NoError(t, err)
		r.Release()
		b.close(c)
	})
}

func TestShutdown(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, echo)
		c := b.dial(Config{})
		started := make(chan struct{})
		res := make(chan error, 1)
		go func() {
			close(started)
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			defer cancel()
			_, err := c.Call(ctx, "block", nil)
			res <- err
		}()
		<-started
		time.Sleep(10 * time.Millisecond)
		require.NoError(t, b.s.Shutdown(ctxFor(t)))
		require.ErrorIs(t, <-res, context.DeadlineExceeded)
		_, err := c.Call(ctxFor(t), "echo", nil)
		require.True(t, errors.Is(err, ErrUnavailable), err)
		b.close(c)
	})
}
