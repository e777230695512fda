// Command blockstore is a storage server and its client: blocks of up to 16 MiB
// in files that the server maps and hands to the device as they are, and to which
// the device writes, with checksums from end to end.
//
//	blockstore serve --dir /var/lib/blocks --listen :7471
//	blockstore put|get|stat|list|delete --server host:7471 ...
//	blockstore load --server host:7471 --blocks 2000
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "blockstore:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{Use: "blockstore", Short: "a block store over RDMA", SilenceUsage: true, SilenceErrors: true}
	root.PersistentFlags().DurationVar(&deadAfter, "dead-after", 0, "how long the other end may be silent; a machine that stalls needs more (default 1s)")
	root.AddCommand(serveCommand(), loadCommand(), putCommand(), getCommand(), statCommand(), listCommand(), deleteCommand())
	return root
}

var deadAfter time.Duration // --dead-after

// devices are those of this host that are used, the first and more rails.
type devices struct {
	*qp.Device
	rails []*qp.Device
}

// openDevices opens the devices that ZRDMA_DEVICE names, with commas between, or
// the best there is.
func openDevices() (d devices, err error) {
	for i, name := range strings.Split(os.Getenv("ZRDMA_DEVICE"), ",") {
		pool := mr.PoolConfig{Memory: mr.Config{Huge: mr.HugeOff}}
		if i == 0 {
			pool.Classes, pool.RegionSize, pool.Limit = []int{4 << 10, 64 << 10, 1 << 20, 4 << 20, block.MaxBlock}, 32<<20, 512<<20
		}
		q, err := qp.Open(qp.DeviceConfig{Name: name, Pool: pool})
		if err != nil {
			return d, errors.Join(err, d.Close())
		}
		if i == 0 {
			d.Device = q
		} else {
			d.rails = append(d.rails, q)
		}
	}
	return d, nil
}

// Close closes them, the first one first: its memory is registered with the others.
func (d devices) Close() error {
	var errs []error
	if d.Device != nil {
		errs = append(errs, d.Device.Close())
	}
	for _, r := range d.rails {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

func serveCommand() *cobra.Command {
	var dir, listen string
	var cache int64
	c := &cobra.Command{Use: "serve", Short: "keep blocks in a directory and serve them", Args: cobra.NoArgs}
	c.Flags().StringVar(&dir, "dir", "", "`directory` of the blocks (required)")
	c.Flags().StringVar(&listen, "listen", ":7471", "`address` of the connection manager to listen on")
	c.Flags().Int64Var(&cache, "cache", 1<<30, "`bytes` of blocks that stay mapped and registered")
	_ = c.MarkFlagRequired("dir")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		d, err := openDevices()
		if err != nil {
			return err
		}
		s, err := block.Open(dir, d.PD(), block.StoreConfig{Cache: cache})
		if err != nil {
			return err
		}
		srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: d.Device, Rails: d.rails, DataQPs: 2, DeadAfter: deadAfter}, MaxBytes: 512 << 20})
		if err != nil {
			return err
		}
		s.Register(srv)
		l, err := srv.Listen(ctx, listen)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "serving %d blocks of %s on %s, device %s\n", s.Len(), dir, l.Addr(), d.Context().Name())
		go func() {
			<-ctx.Done()
			drain, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = srv.Shutdown(drain)
		}()
		if err := srv.Serve(l); err != nil {
			return err
		}
		if err := srv.Close(); err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
		return d.Close()
	}
	return c
}

// withClient gives a command the --server flag and a connected client.
func withClient(c *cobra.Command, f func(context.Context, block.Client, *qp.Device) error) *cobra.Command {
	server := c.Flags().String("server", "", "`host:port` of the server (required)")
	_ = c.MarkFlagRequired("server")
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		d, err := openDevices()
		if err != nil {
			return err
		}
		cl, err := dial(cmd.Context(), *server, d)
		if err != nil {
			return errors.Join(err, d.Close())
		}
		err = f(cmd.Context(), block.Client{Client: cl, Patient: true}, d.Device)
		if e := cl.Close(); err == nil {
			err = e
		}
		if e := d.Close(); err == nil {
			err = e
		}
		return err
	}
	return c
}

// dial tries for a while: a server may be starting, and over a network that loses
// packets connecting takes several attempts.
func dial(ctx context.Context, addr string, d devices) (*rpc.Client, error) {
	for end := time.Now().Add(20 * time.Second); ; {
		c, err := rpc.Dial(ctx, addr, rpc.Config{Device: d.Device, Rails: d.rails, DataQPs: 2, DeadAfter: deadAfter, MaxBackoff: time.Second})
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return c, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func putCommand() *cobra.Command {
	c := &cobra.Command{Use: "put KEY < FILE", Short: "store standard input as a block", Args: cobra.ExactArgs(1)}
	return withClient(c, func(ctx context.Context, cl block.Client, d *qp.Device) error {
		data, err := io.ReadAll(io.LimitReader(c.InOrStdin(), block.MaxBlock+1))
		if err != nil {
			return err
		}
		if len(data) == 0 || len(data) > block.MaxBlock {
			return fmt.Errorf("a block has 1 to %d bytes", block.MaxBlock)
		}
		b, err := d.Pool().Get(ctx, len(data))
		if err != nil {
			return err
		}
		p, err := b.Bytes()
		if err != nil {
			return err
		}
		copy(p, data)
		if b, err = cl.Put(ctx, c.Flags().Arg(0), b); err != nil {
			return err
		}
		return b.Release()
	})
}

func getCommand() *cobra.Command {
	c := &cobra.Command{Use: "get KEY > FILE", Short: "write a block to standard output", Args: cobra.ExactArgs(1)}
	return withClient(c, func(ctx context.Context, cl block.Client, d *qp.Device) error {
		in, err := cl.Stat(ctx, c.Flags().Arg(0))
		if err != nil {
			return err
		}
		b, err := d.Pool().Get(ctx, int(in.Size))
		if err != nil {
			return err
		}
		if b, err = cl.Get(ctx, in.Key, b); err != nil {
			return err
		}
		defer b.Release()
		p, err := b.Bytes()
		if err != nil {
			return err
		}
		_, err = c.OutOrStdout().Write(p)
		return err
	})
}

func statCommand() *cobra.Command {
	c := &cobra.Command{Use: "stat KEY", Short: "size and checksum of a block", Args: cobra.ExactArgs(1)}
	return withClient(c, func(ctx context.Context, cl block.Client, _ *qp.Device) error {
		in, err := cl.Stat(ctx, c.Flags().Arg(0))
		if err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s\t%d\t%08x\n", in.Key, in.Size, in.Sum)
		return nil
	})
}

func listCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "all blocks, their sizes and checksums", Args: cobra.NoArgs}
	return withClient(c, func(ctx context.Context, cl block.Client, _ *qp.Device) error {
		return cl.Each(ctx, func(in dpu.BlockInfo) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s\t%d\t%08x\n", in.Key, in.Size, in.Sum)
			return err
		})
	})
}

func deleteCommand() *cobra.Command {
	c := &cobra.Command{Use: "delete KEY", Short: "remove a block", Args: cobra.ExactArgs(1)}
	return withClient(c, func(ctx context.Context, cl block.Client, _ *qp.Device) error {
		return cl.Delete(ctx, c.Flags().Arg(0))
	})
}

func loadCommand() *cobra.Command {
	l := &load{}
	var pid int
	var quiet bool
	var rails time.Duration
	c := &cobra.Command{Use: "load", Short: "write blocks, read them back, verify, and tell how it went", Args: cobra.NoArgs}
	c.Flags().IntVar(&l.blocks, "blocks", 2000, "how `many`")
	c.Flags().IntVar(&l.workers, "workers", 8, "calls at a time")
	c.Flags().IntVar(&l.minSize, "min", 4<<10, "smallest block in `bytes`")
	c.Flags().IntVar(&l.maxSize, "max", block.MaxBlock, "largest block in `bytes`")
	c.Flags().Float64Var(&l.cancel, "cancel", 0.05, "`share` of the calls that are given up half way and done again")
	c.Flags().DurationVar(&l.patience, "patience", 30*time.Second, "how long a call may take, with waiting for a server that is away")
	c.Flags().Uint64Var(&l.seed, "seed", 1, "of sizes and contents")
	c.Flags().BoolVar(&quiet, "quiet", false, "no progress bar")
	c.Flags().BoolVar(&l.verify, "verify", false, "only read, and verify, what the same load has written before")
	c.Flags().DurationVar(&rails, "rails-up", 0, "wait in the end until every device is used again, at most so `long`")
	c.Flags().IntVar(&pid, "server-pid", 0, "`process` of the server, when it runs on this host: its processor time is reported")
	return withClient(c, func(ctx context.Context, cl block.Client, d *qp.Device) error {
		if l.blocks < 1 || l.workers < 1 || l.patience <= 0 || l.minSize < 2 || l.maxSize < l.minSize || l.maxSize > block.MaxBlock || l.cancel < 0 || l.cancel >= 1 {
			return fmt.Errorf("--blocks, --workers and --patience must be positive, --min at least 2, --max at most %d, --cancel below 1", block.MaxBlock)
		}
		l.c, l.d = cl, d
		start, cpu, other := time.Now(), processor(), processorOf(pid)
		progress := c.ErrOrStderr()
		if quiet {
			progress = io.Discard
		}
		fmt.Fprintf(c.OutOrStdout(), "working on %d blocks with %d at a time\n", l.blocks, l.workers)
		if err := l.run(ctx, progress); err != nil {
			return err
		}
		wall := time.Since(start)
		cpu, other = processor()-cpu, processorOf(pid)-other
		staged, answers, err := cl.Copied(ctx)
		if err != nil {
			return err
		}
		l.waitRails(ctx, rails)
		l.report(c.OutOrStdout(), wall, cpu, other, staged, answers)
		return nil
	})
}
