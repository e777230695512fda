// Command offload shows package dpu: a host that reads and writes blocks, a storage
// server, and between them an agent, as it would run on the cores of a DPU. Without
// --role it is all three in one process, on three software devices.
//
//	offload                                                        # all in one go
//	offload --role storage --device rxe0 --dir /var/lib/blocks     # on the storage server
//	offload --role agent --device rxe0 --storage storage:7471      # on the DPU; or zrdma agent
//	offload --role host --device rxe0 --storage storage:7471 --agent dpu:7472
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// options of all roles.
type options struct {
	role, device, listen, dir, storage, agent string

	stallAfter int           // agent: hang at the n-th access to the host's memory
	stall      time.Duration // and go on after so long, as if nothing had been
	chunk      int

	load
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "offload:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	o := &options{}
	c := &cobra.Command{Use: "offload", Short: "blocks through an agent on a DPU, and without it", Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true}
	fs := c.Flags()
	fs.SortFlags = false
	fs.StringVar(&o.role, "role", "", "host, agent or storage; default: all three here")
	fs.StringVar(&o.device, "device", os.Getenv("ZRDMA_DEVICE"), "RDMA `device`")
	fs.StringVar(&o.listen, "listen", "", "`address` to listen on; default :7471 (storage), :7472 (agent)")
	fs.StringVar(&o.storage, "storage", "", "`host:port` of the storage server")
	fs.StringVar(&o.agent, "agent", "", "`host:port` of the agent; without it the host has none")
	fs.StringVar(&o.dir, "dir", "", "storage: `directory` of the blocks; default: a temporary one")
	fs.IntVar(&o.chunk, "chunk", 0, "agent: `bytes` that are moved at a time; default 256 KiB")
	fs.IntVar(&o.stallAfter, "stall-after", 0, "agent, for tests: hang at the `n`-th access to the host's memory")
	fs.DurationVar(&o.stall, "stall", 10*time.Second, "agent, for tests: how long to hang; then it writes, late, lease or not")
	o.load.flags(fs)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.load.check(); err != nil {
			return err
		}
		ctx, out := cmd.Context(), cmd.OutOrStdout()
		switch o.role {
		case "storage":
			return o.serveStorage(ctx, out, nil)
		case "agent":
			return o.serveAgent(ctx, out, nil)
		case "host":
			return o.runHost(ctx, out)
		case "":
			return o.runAll(ctx, out)
		}
		return fmt.Errorf("--role %q: host, agent or storage", o.role)
	}
	return c
}

// openDevice opens a device with memory for blocks.
func openDevice(name string) (*qp.Device, error) {
	return qp.Open(qp.DeviceConfig{Name: name, Pool: mr.PoolConfig{Memory: mr.Config{Huge: mr.HugeOff},
		Classes: []int{4 << 10, 64 << 10, 1 << 20, 4 << 20, block.MaxBlock}, RegionSize: 32 << 20, Limit: 512 << 20}})
}

// serveStorage keeps blocks until ctx ends. ready, if not nil, gets the address.
func (o *options) serveStorage(ctx context.Context, out io.Writer, ready chan<- string) (err error) {
	d, err := openDevice(o.device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	dir := o.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "offload"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	s, err := block.Open(dir, d.PD(), block.StoreConfig{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: d, DataQPs: 2}, MaxBytes: 512 << 20})
	if err != nil {
		return err
	}
	s.Register(srv)
	l, err := srv.Listen(ctx, or(o.listen, ":7471"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "storage on %s, device %s, %d blocks in %s\n", l.Addr(), d.Context().Name(), s.Len(), dir)
	if ready != nil {
		ready <- l.Addr()
	}
	context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(drain)
	})
	return errors.Join(srv.Serve(l), srv.Close())
}

// serveAgent is an agent until ctx ends. zrdma agent is the same with more flags.
func (o *options) serveAgent(ctx context.Context, out io.Writer, ready chan<- string) (err error) {
	if o.storage == "" {
		return errors.New("an agent needs --storage HOST:PORT")
	}
	o.stallAgents(out)
	d, err := openDevice(o.device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	cl, err := dial(ctx, o.storage, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	a, err := dpu.NewAgent(dpu.AgentConfig{Device: d, Backends: map[uint32]dpu.Backend{0: block.Client{Client: cl}}, Chunk: o.chunk})
	if err != nil {
		return err
	}
	l, err := a.Listen(ctx, or(o.listen, ":7472"))
	if err != nil {
		return errors.Join(err, a.Close())
	}
	fmt.Fprintf(out, "agent on %v, device %s, storage %s\n", l.Addr(), d.Context().Name(), o.storage)
	if ready != nil {
		ready <- l.Addr().String()
	}
	context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = a.Shutdown(drain)
	})
	err = a.Serve(l)
	return errors.Join(err, a.Close())
}

// dial tries for a while: a server may be starting.
func dial(ctx context.Context, addr string, d *qp.Device) (*rpc.Client, error) {
	for end := time.Now().Add(20 * time.Second); ; {
		c, err := rpc.Dial(ctx, addr, rpc.Config{Device: d, DataQPs: 2, MaxBackoff: time.Second})
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return c, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// runAll is the three roles in one process.
func (o *options) runAll(ctx context.Context, out io.Writer) error {
	life, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 2)
	start := func(name string, p options, serve func(*options, chan<- string) error) (string, error) {
		p.device, p.listen = "soft:"+name, name+":0"
		ready := make(chan string, 1)
		go func() { ended <- serve(&p, ready) }()
		select {
		case a := <-ready:
			return a, nil
		case err := <-ended:
			ended <- nil
			return "", err
		}
	}
	var err error
	if o.storage, err = start("127.0.0.3", *o, func(p *options, r chan<- string) error { return p.serveStorage(life, out, r) }); err != nil {
		return err
	}
	// What serves the host must end after it, so the agent has a life of its own.
	agentLife, stopAgent := context.WithCancel(context.Background())
	defer stopAgent()
	if o.agent, err = start("127.0.0.2", *o, func(p *options, r chan<- string) error { return p.serveAgent(agentLife, out, r) }); err != nil {
		return err
	}
	o.device = "soft:127.0.0.1"
	err = o.runHost(ctx, out)
	stopAgent()
	err = errors.Join(err, <-ended)
	stop()
	return errors.Join(err, <-ended)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
