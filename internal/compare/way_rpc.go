package compare

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
	"github.com/zrdma/zrdma/verbs"
)

// rpcWay is what a program would use: calls with a block of data each.
var rpcWay = way{
	name: "rpc", title: "RDMA through package rpc",
	how:   "a call for each block; the handler pushes the mapped file into a window on the caller's buffer, which the answer takes away again",
	serve: serveRPC, fetch: fetchRPC,
}

const rpcMethod = "compare.block"

// rpcEnd is what both ends have.
type rpcEnd struct {
	e      *env
	ctx    *verbs.Context // of the software device; nil: dev has its own
	dev    *qp.Device
	region *mr.Region
	bufs   []mr.Buf
}

func (p *rpcEnd) open(e *env) error { return p.openAs(e, e.device, mr.PoolConfig{}) }

func (p *rpcEnd) openAs(e *env, device string, pool mr.PoolConfig) (err error) {
	p.e = e
	pool.Memory.Huge = mr.HugeOff
	cfg := qp.DeviceConfig{Name: device, Logger: slog.New(slog.DiscardHandler), Pool: pool,
		OnEvent: func(ev verbs.AsyncEvent) {
			if ev.Type == verbs.EventDeviceFatal {
				e.fail(fmt.Errorf("device %s was taken away", device))
			}
		}}
	if strings.HasPrefix(device, SoftDevice) {
		if p.ctx, err = openDevice(device, localIP(e.conn.c)); err != nil {
			return err
		}
		cfg.Context = p.ctx
	} // else by name: the kernel's connection manager wants a context of its own
	if p.dev, err = qp.Open(cfg); err != nil {
		return err
	}
	e.m.watch(p.dev.Context())
	return nil
}

// cut makes a Buf of each block of the region.
func (p *rpcEnd) cut(n int) error {
	for i := range n {
		b, err := p.region.Buf(uint64(i)*uint64(p.e.job.Block), p.e.job.Block)
		if err != nil {
			return err
		}
		p.bufs = append(p.bufs, b)
	}
	return nil
}

// places makes the memory that blocks come into, a Buf of each place.
func (p *rpcEnd) places() (err error) {
	if p.region, err = mr.Alloc(p.e.job.depth()*p.e.job.Block, mr.Config{Huge: mr.HugeOff}, p.dev.PD()); err != nil {
		return err
	}
	if err := p.cut(p.e.job.depth()); err != nil {
		return err
	}
	for _, b := range p.bufs {
		mem, err := b.Bytes()
		if err != nil {
			return err
		}
		touch(mem)
	}
	return nil
}

// work has a goroutine for each place.
func (p *rpcEnd) work(ctx context.Context, worker func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for place := range p.bufs {
		wg.Go(func() {
			if err := worker(ctx, place); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// untilEnded waits for the client to be done; a server that ends before is an error.
func untilEnded(ctx context.Context, served chan error) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		served <- err // close reads it
		if err == nil {
			err = errors.New("the rpc server ended")
		}
		return err
	}
}

func (p *rpcEnd) config() rpc.Config {
	return rpc.Config{Device: p.dev, PlainTCP: true, MaxCalls: max(p.e.job.depth(), 16), NoReconnect: true, DeadAfter: stall, DialTimeout: patience, Logger: slog.New(slog.DiscardHandler)}
}

func (p *rpcEnd) close() error {
	var errs []error
	for _, b := range p.bufs {
		if !b.IsZero() {
			errs = append(errs, b.Release())
		}
	}
	if p.region != nil {
		errs = append(errs, p.region.Close())
	}
	if p.dev != nil {
		errs = append(errs, p.dev.Close())
	}
	if p.ctx != nil {
		errs = append(errs, p.ctx.Close())
	}
	return errors.Join(errs...)
}

type rpcServer struct {
	rpcEnd
	srv    *rpc.Server
	served chan error
}

// rpcAddress is told over the data connection.
type rpcAddress struct {
	Port uint16 `json:"port"`
	Why  string `json:"why,omitempty"`
}

func serveRPC(ctx context.Context, e *env) (part, error) {
	p := &rpcServer{}
	port, err := p.listen(ctx, e)
	if err != nil {
		_ = sendFrame(e.conn.c, rpcAddress{Why: err.Error()})
		return nil, errors.Join(err, p.close())
	}
	if err := sendFrame(e.conn.c, rpcAddress{Port: port}); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *rpcServer) listen(ctx context.Context, e *env) (uint16, error) {
	if err := p.open(e); err != nil {
		return 0, err
	}
	var err error
	if p.region, err = mr.MapFile(e.src.f, mr.FileConfig{}, p.dev.PD()); err != nil {
		return 0, err
	}
	if err := p.cut(e.job.distinct()); err != nil {
		return 0, err
	}
	cfg := rpc.ServerConfig{Config: p.config(), MaxBytes: 2 * maxFlight}
	if p.srv, err = rpc.NewServer(cfg); err != nil {
		return 0, err
	}
	p.srv.Handle(rpcMethod, p.handle)
	l, err := p.srv.Listen(ctx, net.JoinHostPort(localIP(e.conn.c).String(), "0"))
	if err != nil {
		return 0, err
	}
	at, err := netip.ParseAddrPort(l.Addr())
	if err != nil {
		return 0, fmt.Errorf("the server listens on %q: %w", l.Addr(), err)
	}
	p.served = make(chan error, 1)
	go func() { p.served <- p.srv.Serve(l) }()
	return at.Port(), nil
}

func (p *rpcServer) handle(ctx context.Context, c *rpc.ServerCall) error {
	if len(c.Body) != 8 || c.OutLen() < p.e.job.Block {
		return rpc.Errorf(rpc.InvalidArgument, "a request of %d bytes with a buffer of %d", len(c.Body), c.OutLen())
	}
	block := p.bufs[binary.LittleEndian.Uint64(c.Body)%uint64(len(p.bufs))]
	b, err := block.Slice(0, block.Len())
	if err != nil {
		return err
	}
	if err := c.Push(ctx, b); err != nil {
		return err
	}
	return c.Reply(nil)
}

func (p *rpcServer) run(ctx context.Context) error { return untilEnded(ctx, p.served) }

func (p *rpcServer) close() error {
	var errs []error
	if p.srv != nil {
		errs = append(errs, p.srv.Close())
		if p.served != nil {
			errs = append(errs, <-p.served)
		}
	}
	return errors.Join(append(errs, p.rpcEnd.close())...)
}

type rpcClient struct {
	rpcEnd
	cl *rpc.Client
}

func fetchRPC(ctx context.Context, e *env) (_ part, err error) {
	p := &rpcClient{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	var at rpcAddress
	if err := receiveFrame(e.conn.c, &at); err != nil {
		return nil, err
	}
	if at.Why != "" {
		return nil, &CannotError{"server", plain(at.Why)}
	}
	if err := p.open(e); err != nil {
		return nil, err
	}
	if err := p.places(); err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(e.conn.c.RemoteAddr().String())
	if err != nil {
		return nil, err
	}
	p.cl, err = rpc.Dial(ctx, net.JoinHostPort(host, strconv.Itoa(int(at.Port))), p.config())
	return p, err
}

// run has a goroutine for each place; each asks for every depth-th block, so that
// no block comes twice in a row into one place.
func (p *rpcClient) run(ctx context.Context) error { return p.work(ctx, p.worker) }

func (p *rpcClient) worker(ctx context.Context, place int) error {
	var ask [8]byte
	for i := uint64(place); i < uint64(p.e.job.Blocks()); i += uint64(len(p.bufs)) {
		binary.LittleEndian.PutUint64(ask[:], i)
		p.e.rec.asked(place)
		b := p.bufs[place]
		p.bufs[place] = mr.Buf{} // the call's, which gives it back unless it fails
		r, err := p.cl.Call(ctx, rpcMethod, ask[:], rpc.ReadInto(b))
		if err != nil {
			return err
		}
		b = r.Buf(0)
		r.Release()
		p.bufs[place] = b
		mem, err := b.Bytes()
		if err != nil {
			return err
		}
		if err := p.e.rec.arrived(place, i, mem); err != nil {
			return err
		}
	}
	return nil
}

func (p *rpcClient) finish() { p.e.m.copied.Add(int64(p.cl.Stats().Copied)) }

func (p *rpcClient) close() error {
	var errs []error
	if p.cl != nil {
		errs = append(errs, p.cl.Close())
	}
	return errors.Join(append(errs, p.rpcEnd.close())...)
}
