package pingpong

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// rpcMethod answers with what it was given: up to rpcInline bytes in messages, more
// as memory, pulled and pushed.
const (
	rpcMethod = "zrdma.ping.echo"
	rpcInline = 2048
)

// quietLog keeps the library's log from the tool's output: what fails is said in an error.
var quietLog = slog.New(slog.DiscardHandler)

// openRPC opens the device as package rpc wants it: kernel devices by name, so
// that it is the connection manager's.
func (d *Device) openRPC() (*qp.Device, error) {
	cfg := qp.DeviceConfig{Port: d.Port(), Logger: quietLog, Pool: mr.PoolConfig{Classes: []int{4 << 10, 64 << 10, 1 << 20, 16 << 20}, Memory: mr.Config{Huge: mr.HugeOff}}}
	if d.Soft() {
		cfg.Context = d.Context()
	} else {
		cfg.Name = d.Context().Name()
	}
	return qp.Open(cfg)
}

// ServeRPC answers calls at addr, host:port of the connection manager, until ctx ends.
func (d *Device) ServeRPC(ctx context.Context, addr string, ready func()) error {
	dev, err := d.openRPC()
	if err != nil {
		return endpoint.Step("resources", err)
	}
	srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: dev, Logger: quietLog}})
	if err != nil {
		return endpoint.Step("resources", errors.Join(err, dev.Close()))
	}
	defer func() { _ = dev.Close() }()
	defer func() { _ = srv.Close() }()
	srv.Handle(rpcMethod, func(ctx context.Context, c *rpc.ServerCall) error {
		if c.InLen() == 0 {
			return c.Reply(c.Body)
		}
		b, err := c.Device().Pool().Get(ctx, c.InLen())
		if err != nil {
			return err
		}
		if b, err = c.Pull(ctx, b); err != nil {
			return err
		}
		if err := c.Push(ctx, b); err != nil {
			return err
		}
		return c.Reply(nil)
	})
	l, err := srv.Listen(ctx, addr)
	if err != nil {
		return endpoint.Step("cm", err)
	}
	ready()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err = <-served:
	case <-ctx.Done():
		err = srv.Close()
		<-served
	}
	return endpoint.Step("cm", err)
}

// Caller pings with calls. One goroutine at a time uses it.
type Caller struct {
	dev  *qp.Device
	cl   *rpc.Client
	size int
	seq  uint64
	name string
	out  []byte
}

// DialRPC connects to a server at addr, host:port of the connection manager.
func (d *Device) DialRPC(ctx context.Context, addr string, size int) (_ *Caller, err error) {
	if err := d.CheckSize(size, 16<<20); err != nil {
		return nil, endpoint.Step("size", err)
	}
	ctx, cancel := context.WithTimeout(ctx, ExchangeTime)
	defer cancel()
	c := &Caller{size: size, out: make([]byte, size), name: "calls to " + addr}
	if c.dev, err = d.openRPC(); err != nil {
		return nil, endpoint.Step("resources", err)
	}
	if c.cl, err = rpc.Dial(ctx, addr, rpc.Config{Device: c.dev, NoReconnect: true, Logger: quietLog}); err != nil {
		_ = c.dev.Close()
		return nil, endpoint.Step("cm", err)
	}
	return c, nil
}

// String names the server.
func (c *Caller) String() string { return c.name }

// Ping is one call whose answer is compared.
func (c *Caller) Ping(ctx context.Context) (rtt time.Duration, err error) {
	c.seq++
	pattern(c.out, c.seq)
	body := c.out
	var opts []rpc.Option
	if c.size > rpcInline {
		var in, out mr.Buf
		if in, err = c.dev.Pool().Get(ctx, c.size); err == nil {
			out, err = c.dev.Pool().Get(ctx, c.size)
		}
		if err == nil {
			var b []byte
			if b, err = out.Bytes(); err == nil {
				copy(b, c.out)
			}
		}
		if err != nil {
			_, _ = in.Release(), out.Release()
			return 0, endpoint.Step("resources", err)
		}
		body, opts = nil, []rpc.Option{rpc.WriteFrom(out), rpc.ReadInto(in)}
	}
	start := time.Now()
	r, err := c.cl.Call(ctx, rpcMethod, body, opts...)
	rtt = time.Since(start)
	if err != nil {
		if cause := context.Cause(ctx); ctx.Err() != nil && cause != nil {
			err = cause
		}
		return 0, endpoint.Step("ping", err)
	}
	defer r.Release()
	back := r.Body
	if opts != nil {
		in := r.Buf(1)
		defer in.Release()
		if back, err = in.Bytes(); err != nil {
			return 0, endpoint.Step("ping", err)
		}
		back = back[:min(r.Pushed, len(back))]
	}
	if len(back) != c.size {
		return 0, endpoint.Step("ping", fmt.Errorf("%d bytes came back, not %d", len(back), c.size))
	}
	if i := differ(c.out, back); i >= 0 {
		return 0, endpoint.Step("ping", fmt.Errorf("call %d came back wrong: byte %d is %#02x, not %#02x", c.seq, i, back[i], c.out[i]))
	}
	return rtt, nil
}

// Close ends the session.
func (c *Caller) Close() error { return errors.Join(c.cl.Close(), c.dev.Close()) }
