package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/zrdma/zrdma/internal/pingpong"
	"github.com/zrdma/zrdma/verbs"
)

// defaultTCPPort is beside the one of the C ping-pong programs, which speak
// another protocol.
const defaultTCPPort = 18516

type pingFlags struct {
	serve, loopback bool
	count, size     int
	interval        time.Duration
	timeout         time.Duration
	tcpPort         int
	events, poll    bool
	quiet, verbose  bool
	cfg             pingpong.Config
	host            string
}

func pingCommand() *cobra.Command {
	f := &pingFlags{interval: time.Second, timeout: 10 * time.Second}
	c := &cobra.Command{
		Use:   "ping {HOST | --serve | --loopback}",
		Short: "Send messages over RDMA and have them sent back",
		Long: `Sends messages over a reliable connection, has them sent back and compares every
byte. "zrdma ping --serve" on the other machine answers; --loopback runs both
ends here, on one device.

The ends find each other over TCP; the messages then go over the device, for
RoCE v2 through UDP port 4791.
` + exitCodes,
		Example: "  zrdma ping --serve\n  zrdma ping -c 10 --size 65536 10.0.0.1\n  zrdma ping --loopback --count 1000",
		Args:    func(_ *cobra.Command, args []string) error { return f.takeArgs(args) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd.Flags().Changed); err != nil {
				return err
			}
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.BoolVarP(&f.serve, "serve", "s", false, "answer clients until interrupted")
	fs.BoolVar(&f.loopback, "loopback", false, "both ends in this process; a table at the end")
	fs.BoolVar(&f.loopback, "self", false, "the same as --loopback")
	fs.IntVarP(&f.count, "count", "c", 0, "how many messages; 0: until interrupted (with --loopback 1000)")
	fs.IntVar(&f.size, "size", 64, "bytes of a message")
	fs.VarP((*seconds)(&f.interval), "interval", "i", "time from one message to the next; 0: at once (with --loopback the default)")
	fs.VarP((*seconds)(&f.timeout), "timeout", "W", "how long to wait for a message to come back")
	fs.StringVarP(&f.cfg.Device, "device", "d", "", "the device; default: $"+verbs.EnvDevice+", else the first kernel device with an active port, else soft:127.0.0.1")
	fs.IntVar(&f.cfg.Port, "port", 0, "port of the device; 0: the first active one")
	fs.IntVarP(&f.cfg.GIDIndex, "gid-index", "g", -1, "index of the GID to use; default: the address of the TCP connection, else one of its family")
	fs.IntVarP(&f.tcpPort, "tcp-port", "p", defaultTCPPort, "TCP port on which the ends meet")
	fs.BoolVarP(&f.events, "events", "e", false, "sleep until a completion comes (the default)")
	fs.BoolVar(&f.poll, "poll", false, "spin until a completion comes")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "only the summary")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "with --loopback: a line for every message too")
	return c
}

func (f *pingFlags) takeArgs(args []string) error {
	modes := 0
	for _, on := range []bool{f.serve, f.loopback, len(args) > 0} {
		if on {
			modes++
		}
	}
	switch {
	case modes == 0:
		return usagef("whom? give a HOST, or --serve to answer others, or --loopback for both ends here")
	case modes > 1:
		return usagef("a HOST, --serve and --loopback exclude each other")
	case len(args) > 1:
		return usagef("one HOST, not %d", len(args))
	case len(args) == 1:
		if f.host = args[0]; f.host == "" {
			return usagef("the HOST is empty")
		}
	}
	return nil
}

func (f *pingFlags) check(given func(string) bool) error {
	switch {
	case f.size < 1 || f.size > pingpong.MaxSize:
		return usagef("--size %d: messages have 1 to %d bytes", f.size, pingpong.MaxSize)
	case f.count < 0:
		return usagef("--count %d is negative", f.count)
	case f.interval < 0:
		return usagef("--interval %v is negative", f.interval)
	case f.timeout <= 0:
		return usagef("--timeout %v: nothing comes back in no time", f.timeout)
	case f.tcpPort < 1 || f.tcpPort > 65535:
		return usagef("--tcp-port %d: TCP ports are 1 to 65535", f.tcpPort)
	case f.cfg.Port < 0 || f.cfg.Port > 255:
		return usagef("--port %d: ports of a device are counted from 1; for the TCP port there is --tcp-port", f.cfg.Port)
	case f.cfg.GIDIndex < -1 || f.cfg.GIDIndex > 255:
		return usagef("--gid-index %d: GID indices are 0 to 255", f.cfg.GIDIndex)
	case f.events && f.poll:
		return usagef("--events and --poll exclude each other")
	}
	f.cfg.Poll = f.poll
	if f.loopback {
		if !given("interval") {
			f.interval = 0
		}
		if !given("count") {
			f.count = 1000
		}
	}
	return nil
}

func (f *pingFlags) run(ctx context.Context, out, errOut io.Writer) (err error) {
	f.cfg.Warn = func(format string, args ...any) { fmt.Fprintf(errOut, "warning: "+format+"\n", args...) }
	d, err := pingpong.Open(f.cfg)
	if errors.Is(err, syscall.ENODEV) {
		return noDevice(err)
	}
	if err != nil {
		return err
	}
	if !f.loopback && f.cfg.Device == "" && os.Getenv(verbs.EnvDevice) == "" && d.Soft() {
		f.cfg.Warn("no kernel device can be used here: this is the software device on loopback, which reaches no other machine; --device soft:ADDRESS takes an address of this one")
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	switch {
	case f.serve:
		return f.runServer(ctx, d, out)
	case f.loopback:
		return f.runLoopback(ctx, d, out)
	}
	c, err := d.Dial(ctx, net.JoinHostPort(f.host, strconv.Itoa(f.tcpPort)), f.size)
	if err != nil {
		if ctx.Err() != nil {
			return coded{errors.New("interrupted before the first message"), ExitFailed}
		}
		return err
	}
	fmt.Fprintf(out, "PING %s, %d bytes over %s: %v\n", f.host, f.size, d.Name(), c)
	var s pingpong.Stats
	err = f.session(ctx, c, &s, out, !f.quiet)
	err = errors.Join(err, c.Close())
	fmt.Fprintf(out, "--- %s ping statistics ---\n%v\n", f.host, &s)
	if err == nil && s.Received < s.Sent {
		err = errSaid
	}
	return err
}

func (f *pingFlags) runServer(ctx context.Context, d *pingpong.Device, out io.Writer) error {
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(f.tcpPort)))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "answering on TCP port %d with %s\n", f.tcpPort, d.Name())
	return d.Serve(ctx, l, func(s pingpong.Session) {
		if s.Err != nil {
			fmt.Fprintf(out, "%v: %d messages of %d bytes, then: %v\n", s.Peer, s.Echoed, s.Size, s.Err)
			return
		}
		fmt.Fprintf(out, "%v: %d messages of %d bytes\n", s.Peer, s.Echoed, s.Size)
	})
}

// session pings until the count is reached, ctx ends or a message is lost.
func (f *pingFlags) session(ctx context.Context, c *pingpong.Client, s *pingpong.Stats, out io.Writer, lines bool) error {
	next := time.Now()
	for i := 1; (f.count == 0 || i <= f.count) && ctx.Err() == nil; i++ {
		pctx, cancel := context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("nothing came back within %v", f.timeout))
		rtt, err := c.Ping(pctx)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return nil // interrupted: neither sent nor lost
			}
			s.Lose()
			return err
		}
		s.Add(rtt)
		if lines {
			fmt.Fprintf(out, "%d bytes: seq=%d time=%.1f us\n", f.size, i, float64(rtt.Nanoseconds())/1e3)
		}
		if next = next.Add(f.interval); i == f.count {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(next)):
		}
	}
	return nil
}
