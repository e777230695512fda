package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
	"github.com/zrdma/zrdma/verbs"
)

type agentFlags struct {
	listen, device, tenants string
	storage                 []string
	chunk, inFlight, batch  int
	wait, drain, report     seconds
}

func agentCommand() *cobra.Command {
	f := &agentFlags{wait: seconds(20 * time.Second), drain: seconds(5 * time.Second)}
	c := &cobra.Command{
		Use:   "agent --storage [HANDLE=]HOST:PORT",
		Short: "Carry out block operations for hosts, on the cores of a DPU",
		Long: `Runs the agent of package dpu: it owns the connections to block servers
(examples/blockstore) and moves blocks between them and the memory of hosts
(dpu.Client), which only post a descriptor.

Hosts connect to --listen over the connection manager. Without --tenants every
host that reaches it may use it: do that only on the link between a DPU and its
host. The file is JSON, the tenants by name:

  {"vm7": {"secret_file": "/etc/zrdma/vm7", "backends": [0], "max_ops": 64,
           "max_bytes": 67108864, "memory": 8388608}}

SIGINT or SIGTERM ends it in order: hosts are told, and what they have begun is
finished within --drain.
` + exitCodes,
		Example: "  zrdma agent --storage storage-7:7471\n" +
			"  zrdma agent -d mlx5_2 --listen 192.168.100.2:7472 --storage 0=storage-7:7471 --storage 1=storage-8:7471 --tenants tenants.json",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.StringArrayVarP(&f.storage, "storage", "s", nil, "`[HANDLE=]HOST:PORT` of a block server; may be repeated, then with handles")
	fs.StringVarP(&f.listen, "listen", "l", ":7472", "`address` of the connection manager where hosts connect; port 0 chooses one")
	fs.StringVarP(&f.device, "device", "d", "", "the device; default: $"+verbs.EnvDevice+", else the first kernel device with an active port, else soft:127.0.0.1")
	fs.StringVar(&f.tenants, "tenants", "", "JSON `file` of who may use the agent; default: everybody")
	fs.IntVar(&f.chunk, "chunk", 256<<10, "`bytes` that are moved at a time")
	fs.IntVar(&f.inFlight, "in-flight", 0, "`bytes` of one operation in the agent's memory; default: 4 chunks")
	fs.IntVar(&f.batch, "batch", 16, "status entries for one doorbell")
	fs.Var(&f.wait, "wait", "how long to try to reach the block servers at the start")
	fs.Var(&f.drain, "drain", "how long operations may take to end after a signal")
	fs.Var(&f.report, "report", "print counts that often; 0: only at the end")
	return c
}

func (f *agentFlags) check() (map[uint32]string, error) {
	if len(f.storage) == 0 {
		return nil, usagef("for whom? give --storage HOST:PORT of a block server")
	}
	if f.wait < 0 || f.drain < 0 || f.report < 0 {
		return nil, usagef("--wait, --drain and --report are not negative")
	}
	if f.chunk < 4096 || f.chunk > block.MaxBlock {
		return nil, usagef("--chunk %d: 4096 to %d bytes", f.chunk, block.MaxBlock)
	}
	if f.inFlight != 0 && f.inFlight < f.chunk {
		return nil, usagef("--in-flight %d is less than a chunk of %d", f.inFlight, f.chunk)
	}
	if f.batch < 1 {
		return nil, usagef("--batch %d: at least 1", f.batch)
	}
	servers := map[uint32]string{}
	for i, s := range f.storage {
		h := uint32(i)
		name, addr, found := strings.Cut(s, "=")
		if !found {
			addr = s
		} else {
			n, err := strconv.ParseUint(name, 0, 32)
			if err != nil {
				return nil, usagef("--storage %s: a handle is a number of 32 bits", s)
			}
			h = uint32(n)
		}
		if _, _, ok := strings.Cut(addr, ":"); !ok {
			return nil, usagef("--storage %s: HOST:PORT is wanted", s)
		}
		if servers[h] != "" {
			return nil, usagef("--storage %s: handle %d is %s already", s, h, servers[h])
		}
		servers[h] = addr
	}
	return servers, nil
}

// readTenants reads the file of --tenants.
func readTenants(path string) (map[string]dpu.Tenant, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var in map[string]struct {
		SecretFile string   `json:"secret_file"`
		Backends   []uint32 `json:"backends"`
		MaxOps     int      `json:"max_ops"`
		Sessions   int      `json:"max_sessions"`
		MaxBytes   int64    `json:"max_bytes"`
		Memory     int64    `json:"memory"`
	}
	d := json.NewDecoder(file)
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, usagef("--tenants %s: %v", path, err)
	}
	if len(in) == 0 {
		return nil, usagef("--tenants %s has none: nobody could use the agent", path)
	}
	out := map[string]dpu.Tenant{}
	for name, t := range in {
		x := dpu.Tenant{Backends: t.Backends, MaxOps: t.MaxOps, MaxSessions: t.Sessions, MaxBytes: t.MaxBytes, Memory: t.Memory}
		if t.SecretFile != "" {
			b, err := os.ReadFile(t.SecretFile)
			if err != nil {
				return nil, fmt.Errorf("tenant %q: %w", name, err)
			}
			if x.Secret = []byte(strings.TrimRight(string(b), "\r\n")); len(x.Secret) == 0 {
				return nil, usagef("tenant %q: %s is empty", name, t.SecretFile)
			}
		}
		out[name] = x
	}
	return out, nil
}

func (f *agentFlags) run(ctx context.Context, out, errOut io.Writer) (err error) {
	servers, err := f.check()
	if err != nil {
		return err
	}
	tenants, err := readTenants(f.tenants)
	if err != nil {
		return err
	}
	small := mr.Config{Huge: mr.HugeOff}
	d, err := qp.Open(qp.DeviceConfig{Name: f.device, Pool: mr.PoolConfig{Memory: small}})
	if err != nil {
		if errors.Is(err, syscall.ENODEV) {
			return noDevice(err)
		}
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	cfg := dpu.AgentConfig{Device: d, Tenants: tenants, Chunk: f.chunk, BytesInFlight: f.inFlight, Batch: f.batch, MaxBlock: block.MaxBlock,
		Backends: map[uint32]dpu.Backend{}}
	for h, addr := range servers {
		cl, err := f.dial(ctx, d, addr)
		if err != nil {
			return fmt.Errorf("block server %s: %w", addr, err)
		}
		defer func() { _ = cl.Close() }()
		cfg.Backends[h] = block.Client{Client: cl}
	}
	a, err := dpu.NewAgent(cfg)
	if err != nil {
		return err
	}
	l, err := a.Listen(ctx, f.listen)
	if err != nil {
		return errors.Join(err, a.Close())
	}
	fmt.Fprintf(out, "agent on %v, device %s, storage %s\n", l.Addr(), d.Context().Name(), strings.Join(f.storage, ", "))
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(l) }()
	var tick <-chan time.Time
	if f.report > 0 {
		t := time.NewTicker(time.Duration(f.report))
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-tick:
			printAgent(out, a.Stats())
			continue
		case err := <-ended:
			return errors.Join(err, a.Close())
		case <-ctx.Done():
		}
		break
	}
	st := a.Stats()
	fmt.Fprintf(errOut, "agent: ends; %d operations under way have %v\n", st.OpsNow, time.Duration(f.drain))
	drain, cancel := context.WithTimeout(context.Background(), time.Duration(f.drain))
	defer cancel()
	err = a.Shutdown(drain)
	<-ended
	printAgent(out, a.Stats())
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("hosts did not end within --drain %v; what they had begun was given up", time.Duration(f.drain))
	}
	return err
}

// dial tries for a while: a server may be starting.
func (f *agentFlags) dial(ctx context.Context, d *qp.Device, addr string) (*rpc.Client, error) {
	for end := time.Now().Add(time.Duration(f.wait)); ; {
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

func printAgent(w io.Writer, s dpu.AgentStats) {
	fmt.Fprintf(w, "agent: hosts %d, operations %d (now %d, failed %d, refused %d, called back %d), to hosts %d bytes, from hosts %d, statuses %d in %d doorbells\n",
		s.Sessions, s.Ops, s.OpsNow, s.Failed, s.Refused, s.Cancelled, s.BytesToHost, s.BytesFromHost, s.Statuses, s.Doorbells)
}
