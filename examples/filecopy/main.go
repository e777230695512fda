// Command filecopy copies a directory tree to another host: files travel as bulk
// memory, are verified there by SHA-256, and get their names when they are whole.
//
//	filecopy serve --dir /srv/copy --listen :7472
//	filecopy copy --server host:7472 /usr/local/go/src
//	filecopy verify --server host:7472 /usr/local/go/src
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "filecopy:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{Use: "filecopy", Short: "copy directory trees over RDMA", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(serveCommand(), sendCommand("copy", "copy a directory tree to a server and verify it there", false),
		sendCommand("verify", "compare a directory tree with what the server has, by checksums", true))
	return root
}

// openDevice opens the device that ZRDMA_DEVICE names, or the best there is.
func openDevice() (*qp.Device, error) {
	return qp.Open(qp.DeviceConfig{Name: os.Getenv("ZRDMA_DEVICE"), Pool: mr.PoolConfig{Memory: mr.Config{Huge: mr.HugeOff},
		Classes: []int{4 << 10, 16 << 10, 64 << 10, 256 << 10, partSize}, RegionSize: 16 << 20, Limit: 256 << 20}})
}

func serveCommand() *cobra.Command {
	var dir, listen string
	c := &cobra.Command{Use: "serve", Short: "take copies into a directory", Args: cobra.NoArgs}
	c.Flags().StringVar(&dir, "dir", "", "`directory` to copy into (required)")
	c.Flags().StringVar(&listen, "listen", ":7472", "`address` of the connection manager to listen on")
	_ = c.MarkFlagRequired("dir")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		r, err := openReceiver(dir)
		if err != nil {
			return err
		}
		d, err := openDevice()
		if err != nil {
			return errors.Join(err, r.close())
		}
		srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: d, SlotSize: slotSize, DataQPs: 2}})
		if err != nil {
			return errors.Join(err, d.Close(), r.close())
		}
		r.register(srv)
		l, err := srv.Listen(ctx, listen)
		if err != nil {
			return errors.Join(err, srv.Close(), d.Close(), r.close())
		}
		fmt.Fprintf(cmd.OutOrStdout(), "copying into %s on %s, device %s\n", dir, l.Addr(), d.Context().Name())
		stop := context.AfterFunc(ctx, func() {
			drain, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = srv.Shutdown(drain)
		})
		defer stop()
		return errors.Join(srv.Serve(l), srv.Close(), r.close(), d.Close())
	}
	return c
}

func sendCommand(use, short string, verify bool) *cobra.Command {
	var server string
	var quiet bool
	var patience time.Duration
	s := &sender{verify: verify}
	c := &cobra.Command{Use: use + " DIRECTORY", Short: short, Args: cobra.ExactArgs(1)}
	c.Flags().StringVar(&server, "server", "", "`host:port` of the server (required)")
	c.Flags().IntVar(&s.jobs, "jobs", 8, "files at a time")
	c.Flags().BoolVar(&quiet, "quiet", false, "no progress")
	c.Flags().DurationVar(&patience, "patience", 20*time.Second, "how long a server is waited for in the beginning")
	if !verify {
		c.Flags().BoolVar(&s.resume, "resume", false, "leave out files that are there with the same size, time and mode")
	}
	_ = c.MarkFlagRequired("server")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if s.jobs < 1 || s.jobs > 256 {
			return fmt.Errorf("--jobs is %d; it must be 1 to 256", s.jobs)
		}
		s.src = args[0]
		d, err := openDevice()
		if err != nil {
			return err
		}
		s.d = d
		if s.c, err = dial(cmd.Context(), server, d, patience); err != nil {
			return errors.Join(err, d.Close())
		}
		err = s.tell(cmd, quiet)
		return errors.Join(err, s.c.Close(), d.Close())
	}
	return c
}

// dial tries for a while: the server may be starting.
func dial(ctx context.Context, addr string, d *qp.Device, patience time.Duration) (*rpc.Client, error) {
	for end := time.Now().Add(patience); ; {
		c, err := rpc.Dial(ctx, addr, rpc.Config{Device: d, SlotSize: slotSize, DataQPs: 2, MaxBackoff: time.Second})
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return c, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// tell runs the sender and says how it goes.
func (s *sender) tell(cmd *cobra.Command, quiet bool) error {
	out := cmd.ErrOrStderr()
	start, cpu := time.Now(), processor()
	clean := func() {
		if !quiet {
			fmt.Fprint(out, "\r"+strings.Repeat(" ", 60)+"\r")
		}
	}
	s.onError = func(p string, err error) {
		clean()
		fmt.Fprintf(out, "%s: %v\n", p, err)
	}
	done := make(chan error, 1)
	go func() { done <- s.run(cmd.Context()) }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if !quiet {
				s.mu.Lock()
				n := float64(s.bytes.Load()) / 1e6
				fmt.Fprintf(out, "\r%6d files %9.1f MB %8.1f MB/s", s.files.Load()+s.skipped.Load(), n, n/time.Since(start).Seconds())
				s.mu.Unlock()
			}
		case err := <-done:
			clean()
			s.summary(cmd.OutOrStdout(), time.Since(start), processor()-cpu)
			return err
		}
	}
}
