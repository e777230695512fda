package perf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
	"github.com/zrdma/zrdma/verbs"
)

// rpcMethod asks for a number of bytes. Up to rpcInline they come in the answer;
// more is pushed into the caller's buffer, which no CPU copies.
const (
	rpcMethod = "zrdma.bench.get"
	rpcInline = 2048
	rpcDead   = 5 * time.Second // a peer that is silent for so long; a machine under load is not dead
)

// quiet keeps the library's log from the tool's output: what fails is said in an error.
var quiet = slog.New(slog.DiscardHandler)

// openRPC opens the device as package rpc wants it: kernel devices by name, so
// that it is the connection manager's.
func openRPC(dev *endpoint.Device, c *Case) (*qp.Device, error) {
	cfg := qp.DeviceConfig{Port: dev.Port(), Logger: quiet, Pool: mr.PoolConfig{Limit: 64<<20 + 2*c.memory(), Memory: mr.Config{Huge: mr.HugeOff}}}
	if dev.Soft() {
		cfg.Context = dev.Context()
	} else {
		cfg.Name = dev.Context().Name()
	}
	return qp.Open(cfg)
}

type rpcServer struct {
	dev *qp.Device
	srv *rpc.Server
	wg  sync.WaitGroup
}

// serveRPC listens at the address of our GID, through the connection manager or,
// where there is none, over TCP.
func serveRPC(ctx context.Context, dev *endpoint.Device, gid verbs.GIDEntry, c *Case, answer *ready) (_ *rpcServer, err error) {
	s := &rpcServer{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dev, err = openRPC(dev, c); err != nil {
		return nil, err
	}
	addr := net.JoinHostPort(gid.GID.Addr().String(), "0")
	l, err := s.listen(ctx, addr, false, c)
	if err != nil {
		answer.Plain = true
		var perr error
		if l, perr = s.listen(ctx, addr, true, c); perr != nil {
			return nil, errors.Join(err, perr)
		}
	}
	answer.RPC = l.Addr()
	s.wg.Go(func() { _ = s.srv.Serve(l) })
	return s, nil
}

func (s *rpcServer) listen(ctx context.Context, addr string, plain bool, c *Case) (*rpc.Listener, error) {
	srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: s.dev, PlainTCP: plain, DeadAfter: rpcDead, Logger: quiet}, MaxBytes: 256<<20 + 2*c.memory()})
	if err != nil {
		return nil, err
	}
	srv.Handle(rpcMethod, get)
	l, err := srv.Listen(ctx, addr)
	if err != nil {
		_ = srv.Close()
		return nil, err
	}
	s.srv = srv
	return l, nil
}

var zeros [rpcInline]byte

func get(ctx context.Context, c *rpc.ServerCall) error {
	if len(c.Body) != 8 {
		return rpc.Errorf(rpc.InvalidArgument, "%d bytes are no number", len(c.Body))
	}
	n := binary.BigEndian.Uint64(c.Body)
	if n <= rpcInline {
		return c.Reply(zeros[:n])
	}
	if n > uint64(c.OutLen()) {
		return rpc.Errorf(rpc.InvalidArgument, "%d bytes do not fit into %d", n, c.OutLen())
	}
	b, err := c.Device().Pool().Get(ctx, int(n))
	if err != nil {
		return err
	}
	if err := c.Push(ctx, b); err != nil {
		return err
	}
	return c.Reply(nil)
}

func (s *rpcServer) close() {
	if s.srv != nil {
		_ = s.srv.Close()
	}
	s.wg.Wait()
	if s.dev != nil {
		_ = s.dev.Close()
	}
}

type rpcClient struct {
	dev   *qp.Device
	cl    *rpc.Client
	sent  atomic.Int64        // calls that were answered
	hists [16]sharedHistogram // each of some of the callers: a histogram is large
}

// sharedHistogram is one of several goroutines.
type sharedHistogram struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

func (s *sharedHistogram) record(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.h == nil {
		s.h = newHistogram()
	}
	_ = s.h.RecordValue(min(max(int64(d), 1), int64(time.Minute)))
}

func dialRPC(ctx context.Context, dev *endpoint.Device, to *ready, c *Case) (_ *rpcClient, err error) {
	r := &rpcClient{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.dev, err = openRPC(dev, c); err != nil {
		return nil, err
	}
	if n := r.dev.Pool().MaxLen(); c.Size > n {
		return nil, fmt.Errorf("a call moves at most %s, not %s", FormatSize(int64(n)), FormatSize(int64(c.Size)))
	}
	r.cl, err = rpc.Dial(ctx, to.RPC, rpc.Config{Device: r.dev, PlainTCP: to.Plain, MaxCalls: max(1, r.callers(c)), DataQPs: min(c.QPs, 8), NoReconnect: true, DeadAfter: rpcDead, DialTimeout: stepTime, Logger: quiet})
	return r, err
}

// callers is how many calls are under way.
func (r *rpcClient) callers(c *Case) int {
	if c.Mode == Latency {
		return c.Threads
	}
	return c.Depth * c.QPs
}

func (r *rpcClient) run(hard context.Context, g goal, c *Case) error {
	ctx, cancel := context.WithCancel(hard)
	defer cancel()
	errs := make([]error, r.callers(c))
	var wg sync.WaitGroup
	for i := range errs {
		h := &r.hists[i%len(r.hists)]
		wg.Go(func() {
			if errs[i] = r.calls(ctx, g, c.Size, h); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	if err := context.Cause(hard); err != nil {
		return err
	}
	for _, err := range errs { // the first that is no consequence of another
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return nil
}

func (r *rpcClient) calls(ctx context.Context, g goal, size int, h *sharedHistogram) error {
	body := binary.BigEndian.AppendUint64(nil, uint64(size))
	k := &link{}
	var buf mr.Buf
	defer func() { buf.Release() }()
	for start := time.Now(); !g.reached(k, start); {
		var opts []rpc.Option
		if size > rpcInline {
			if buf.Len() == 0 {
				var err error
				if buf, err = r.dev.Pool().Get(ctx, size); err != nil {
					return err
				}
			}
			opts = []rpc.Option{rpc.ReadInto(buf)}
			buf = mr.Buf{}
		}
		a, err := r.cl.Call(ctx, rpcMethod, body, opts...)
		if err != nil {
			return err
		}
		got := len(a.Body)
		if opts != nil {
			got, buf = a.Pushed, a.Buf(0)
		}
		a.Release()
		if got != size {
			return fmt.Errorf("%d bytes were answered, not %d", got, size)
		}
		end := time.Now()
		h.record(end.Sub(start))
		start = end
		k.posted++
		r.sent.Add(1)
	}
	return nil
}

func (r *rpcClient) close() (err error) {
	if r.cl != nil {
		err = r.cl.Close()
	}
	if r.dev != nil {
		err = errors.Join(err, r.dev.Close())
	}
	return err
}
