package compare

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rpc"
)

// EnvAgent names the offload agent of the client's DPU, host:port. EnvStore is where
// the server serves its blocks to that agent, address:port; by default port 7471 of
// the address that the client came to. The agent must know it: zrdma agent --storage.
const (
	EnvAgent = "ZRDMA_DPU_AGENT"
	EnvStore = "ZRDMA_DPU_STORE"
)

const storePort = 7471

// storePool has buffers for whole blocks, which the store copies into its files.
var storePool = mr.PoolConfig{Classes: []int{4 << 10, 64 << 10, 1 << 20, block.MaxBlock}, RegionSize: 2 * block.MaxBlock, Limit: 512 << 20}

var dpuWay = way{
	name: "dpu", title: "DPU, through its agent",
	how: "a call for each block; the agent reads it from the server into its own memory, and writes it into a window on the caller's buffer; the agent's own processor time is nobody's here",
	can: func() error {
		if os.Getenv(EnvAgent) == "" {
			return errors.New("no agent configured: $" + EnvAgent + " names none")
		}
		return nil
	},
	atClient: true,
	serve:    serveDPU, fetch: fetchDPU,
}

func blockKey(i uint64) string { return fmt.Sprintf("compare-%08d", i) }

// storeServer is the storage server that the agent talks to.
type storeServer struct {
	rpcEnd
	srv    *rpc.Server
	store  *block.Store
	dir    string
	served chan error
}

// storeAddress is told over the data connection.
type storeAddress struct {
	At  string `json:"at"`
	Why string `json:"why,omitempty"`
}

func serveDPU(ctx context.Context, e *env) (part, error) {
	p := &storeServer{}
	at, err := p.listen(ctx, e)
	if err != nil {
		_ = sendFrame(e.conn.c, storeAddress{Why: err.Error()})
		return nil, errors.Join(err, p.close())
	}
	if err := sendFrame(e.conn.c, storeAddress{At: at}); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *storeServer) listen(ctx context.Context, e *env) (at string, err error) {
	if e.job.Block > block.MaxBlock {
		return "", fmt.Errorf("blocks of %s: an agent takes at most %s", Size(int64(e.job.Block)), Size(block.MaxBlock))
	}
	addr := netip.AddrPortFrom(localIP(e.conn.c), storePort)
	if s := os.Getenv(EnvStore); s != "" {
		if addr, err = netip.ParseAddrPort(s); err != nil {
			return "", fmt.Errorf("$%s is %q: an address with a port is due: %w", EnvStore, s, err)
		}
	}
	device := e.device
	if device == SoftDevice && addr.Addr() != localIP(e.conn.c) {
		device += ":" + addr.Addr().String() // it has addresses of its own
	}
	if err := p.openAs(e, device, storePool); err != nil {
		return "", err
	}
	if p.dir, err = os.MkdirTemp("", "zrdma-compare-"); err != nil {
		return "", err
	}
	if p.store, err = block.Open(p.dir, p.dev.PD(), block.StoreConfig{NoSync: true}); err != nil {
		return "", err
	}
	cfg := p.config()
	cfg.PlainTCP = false
	if p.srv, err = rpc.NewServer(rpc.ServerConfig{Config: cfg, MaxBytes: 2 * maxFlight}); err != nil {
		return "", err
	}
	p.store.Register(p.srv)
	l, err := p.srv.Listen(ctx, addr.String())
	if err != nil {
		return "", err
	}
	p.served = make(chan error, 1)
	go func() { p.served <- p.srv.Serve(l) }()
	return addr.String(), p.fill(ctx, addr.String())
}

// fill stores the blocks, as a client of the server itself.
func (p *storeServer) fill(ctx context.Context, at string) (err error) {
	cfg := p.config()
	cfg.PlainTCP = false
	c, err := rpc.Dial(ctx, at, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	cl := block.Client{Client: c}
	for i := range uint64(p.e.job.distinct()) {
		src := p.e.src.block(i)
		b, err := p.dev.Pool().Get(ctx, len(src))
		if err != nil {
			return err
		}
		mem, err := b.Bytes()
		if err != nil {
			return err
		}
		copy(mem, src)
		if b, err = cl.Put(ctx, blockKey(i), b); err != nil {
			return err
		}
		if err := b.Release(); err != nil {
			return err
		}
	}
	return nil
}

func (p *storeServer) run(ctx context.Context) error { return untilEnded(ctx, p.served) }

func (p *storeServer) close() error {
	var errs []error
	if p.srv != nil {
		errs = append(errs, p.srv.Close())
		if p.served != nil {
			errs = append(errs, <-p.served)
		}
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	if p.dir != "" {
		errs = append(errs, os.RemoveAll(p.dir))
	}
	return errors.Join(append(errs, p.rpcEnd.close())...)
}

// agentClient has the agent bring the blocks.
type agentClient struct {
	rpcEnd
	direct *rpc.Client
	cl     *dpu.Client
}

func fetchDPU(ctx context.Context, e *env) (_ part, err error) {
	p := &agentClient{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	var at storeAddress
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
	cfg := p.config()
	cfg.PlainTCP = false
	if p.direct, err = rpc.Dial(ctx, at.At, cfg); err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	p.cl, err = dpu.NewClient(ctx, dpu.ClientConfig{Device: p.dev, Direct: block.Client{Client: p.direct}, Agent: os.Getenv(EnvAgent),
		Policy: dpu.Policy{Path: dpu.Staged}, Depth: max(e.job.depth(), 16), Lease: stall, Logger: quiet})
	if err != nil {
		return nil, err
	}
	return p, p.reach(ctx, at.At)
}

// reach waits for the agent, and asks it for a block: it must know the store, and may
// have to connect to it first.
func (p *agentClient) reach(ctx context.Context, store string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := p.cl.Stat(ctx, blockKey(0))
		switch {
		case err == nil:
			return nil
		case (errors.Is(err, dpu.ErrNoAgent) || rpc.CodeOf(err) == rpc.Unavailable) && ctx.Err() == nil:
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		case errors.Is(err, dpu.ErrNoAgent):
			return &CannotError{"client", fmt.Sprintf("the agent %s does not answer", os.Getenv(EnvAgent))}
		default:
			return &CannotError{"client", fmt.Sprintf("the agent %s does not reach the server's blocks (zrdma agent --storage %s): %v", os.Getenv(EnvAgent), store, err)}
		}
	}
}

func (p *agentClient) run(ctx context.Context) error { return p.work(ctx, p.worker) }

func (p *agentClient) worker(ctx context.Context, place int) error {
	distinct := uint64(p.e.job.distinct())
	for i := uint64(place); i < uint64(p.e.job.Blocks()); i += uint64(len(p.bufs)) {
		p.e.rec.asked(place)
		b := p.bufs[place]
		p.bufs[place] = mr.Buf{} // the call's, which gives it back unless it fails
		b, err := p.cl.Get(ctx, blockKey(i%distinct), b)
		if err != nil {
			return err
		}
		p.bufs[place] = b
		mem, err := b.Bytes()
		if err != nil {
			return err
		}
		if err := p.e.rec.arrived(place, i, mem); err != nil {
			return err
		}
	}
	if n := p.cl.Stats().FellBack; n > 0 {
		return fmt.Errorf("%d blocks did not come through the agent", n)
	}
	return nil
}

func (p *agentClient) close() error {
	var errs []error
	if p.cl != nil {
		errs = append(errs, p.cl.Close())
	}
	if p.direct != nil {
		errs = append(errs, p.direct.Close())
	}
	return errors.Join(append(errs, p.rpcEnd.close())...)
}
