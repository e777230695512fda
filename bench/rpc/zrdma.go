package main

import (
	"context"
	"os"
	"time"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/roce"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// The two ends are devices on two loopback addresses, or one kernel device.
var serverDevice, serverAddr, clientDevice = "soft:127.0.10.1", "127.0.10.1", "soft:127.0.10.2"

// patience keeps connections up where processors are scarce.
const patience = 20 * time.Second

func init() {
	if d := os.Getenv("ZRDMA_BENCH_DEVICE"); d != "" {
		serverDevice, clientDevice, serverAddr = d, d, os.Getenv("ZRDMA_BENCH_ADDR")
	}
}

// device counts what the software device of this process has done, if it has one.
var device func() roce.Counters

func openDevice(name string) (*qp.Device, error) {
	cfg := qp.DeviceConfig{Name: name}
	if os.Getenv("ZRDMA_BENCH_POLL") != "" {
		cfg.Engine.Spin = -1
	}
	d, err := qp.Open(cfg)
	if err == nil && d.Context().IsSoft() {
		device = bridge.Inner(d.Context()).(interface{ Counters() roce.Counters }).Counters
	}
	return d, err
}

func serveZrdma() (string, func(), error) {
	d, err := openDevice(serverDevice)
	if err != nil {
		return "", nil, err
	}
	s, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: d, DeadAfter: patience}})
	if err != nil {
		return "", nil, err
	}
	s.Handle("echo", func(_ context.Context, c *rpc.ServerCall) error { return c.Reply(c.Body) })
	s.Handle("read", func(ctx context.Context, c *rpc.ServerCall) error {
		b, err := c.Device().Pool().Get(ctx, c.OutLen())
		if err != nil {
			return err
		}
		p, err := b.Bytes()
		if err != nil {
			return err
		}
		fill(p)
		if err := c.Push(ctx, b); err != nil {
			return err
		}
		return c.Reply(nil)
	})
	s.Handle("write", func(ctx context.Context, c *rpc.ServerCall) error {
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
		if err := checkBlock(p, p, len(p), c.InLen()); err != nil {
			return err
		}
		return c.Reply(nil)
	})
	l, err := s.Listen(context.Background(), serverAddr+":0")
	if err != nil {
		return "", nil, err
	}
	go s.Serve(l)
	return l.Addr(), func() { _ = s.Close() }, nil
}

type zrdmaClient struct {
	d *qp.Device
	c *rpc.Client
}

func dialZrdma(addr string) (client, error) {
	d, err := openDevice(clientDevice)
	if err != nil {
		return nil, err
	}
	c, err := rpc.Dial(context.Background(), addr, rpc.Config{Device: d, DeadAfter: patience, DialTimeout: patience})
	if err != nil {
		return nil, err
	}
	return &zrdmaClient{d, c}, nil
}

func (z *zrdmaClient) close() error { return z.c.Close() }

func (z *zrdmaClient) caller(size int) (caller, error) {
	b, err := z.d.Pool().Get(context.Background(), size)
	if err != nil {
		return nil, err
	}
	p, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	fill(p)
	return &zrdmaCaller{c: z.c, buf: b}, nil
}

type zrdmaCaller struct {
	c    *rpc.Client
	body [small]byte
	buf  mr.Buf
}

func (z *zrdmaCaller) close() { _ = z.buf.Release() }

func (z *zrdmaCaller) echo(seq byte) error {
	r, err := z.c.Call(context.Background(), "echo", echoBody(z.body[:], seq))
	if err != nil {
		return err
	}
	err = checkEcho(r.Body, seq)
	r.Release()
	return err
}

func (z *zrdmaCaller) read(size int) error {
	r, err := z.c.Call(context.Background(), "read", nil, rpc.ReadInto(z.buf))
	if err != nil {
		return err
	}
	z.buf = r.Buf(0)
	r.Release()
	p, err := z.buf.Bytes()
	if err != nil {
		return err
	}
	return checkBlock(p, p, len(p), size)
}

func (z *zrdmaCaller) write(int) error {
	r, err := z.c.Call(context.Background(), "write", nil, rpc.WriteFrom(z.buf))
	if err != nil {
		return err
	}
	z.buf = r.Buf(0)
	r.Release()
	return nil
}
