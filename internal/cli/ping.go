package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/zrdma/zrdma/internal/perf"
	"github.com/zrdma/zrdma/internal/pingpong"
	"github.com/zrdma/zrdma/verbs"
)

// defaultTCPPort is beside the one of the C ping-pong programs, which speak
// another protocol. The connection manager has ports of its own: the same number
// for messages, and rpcPorts more for calls.
const (
	defaultTCPPort = 18516
	rpcPorts       = 2
)

type pingFlags struct {
	serve, loopback bool
	count           int
	sizes           string
	size            []int
	interval        time.Duration
	timeout         time.Duration
	deadline        time.Duration
	tcpPort         int
	transport       string
	cm, rpc, mtu    bool
	flood           bool
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
		Long: `Sends messages over a reliable connection or, with --transport ud, as datagrams,
has them sent back and compares every byte. "zrdma ping --serve" on the other
machine answers; --loopback runs both ends here, on one device.

The ends find each other over TCP or, with --cm, through the connection manager;
the messages then go over the device, for RoCE v2 through UDP port 4791. --rpc makes
calls of this library's RPC instead. What fails is named by its step: device, port,
gid, resources, route, exchange (over TCP), cm (the connection manager), qp (the
queue pair), rnr (the peer has no receive buffer), retry (nobody acknowledges), or
ping. A reliable connection ends with its first message that is lost; datagrams
are counted, as ping(8) does.

--mtu finds the path MTU: the largest packet that passes, to and fro.
` + exitCodes,
		Example: `  zrdma ping --serve
  zrdma ping -c 10 --size 64k 10.0.0.1
  zrdma ping --cm --transport ud -i 0.2 10.0.0.1
  zrdma ping --rpc --size 64,4k,1m -c 20 10.0.0.1
  zrdma ping --flood -w 10 10.0.0.1
  zrdma ping --mtu 10.0.0.1
  zrdma ping --loopback --count 1000`,
		Args: func(_ *cobra.Command, args []string) (err error) {
			f.host, err = takeHost(args, f.serve, f.loopback)
			return err
		},
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
	fs.StringVar(&f.sizes, "size", "64", "bytes of a message; a list such as 64,4k,1m: a session for each, of 5 messages without --count")
	fs.VarP((*seconds)(&f.interval), "interval", "i", "time from one message to the next; 0: at once (with --loopback the default)")
	fs.VarP((*seconds)(&f.timeout), "timeout", "W", "how long to wait for a message to come back (datagrams 1s, in a flood 0.1s)")
	fs.VarP((*seconds)(&f.deadline), "deadline", "w", "end after so long, however many messages; 0: do not")
	fs.BoolVarP(&f.flood, "flood", "f", false, "one message after the other; a dot for each, taken back when it came back")
	fs.StringVarP(&f.transport, "transport", "t", "rc", "rc, a reliable connection, or ud, datagrams")
	fs.BoolVar(&f.cm, "cm", false, "meet through the connection manager (rdma_cm) instead of TCP")
	fs.BoolVar(&f.rpc, "rpc", false, "make calls instead, through the connection manager")
	fs.BoolVar(&f.mtu, "mtu", false, "find the path MTU instead")
	fs.StringVarP(&f.cfg.Device, "device", "d", "", "the device; default: $"+verbs.EnvDevice+", else the first kernel device with an active port, else soft:127.0.0.1")
	fs.IntVar(&f.cfg.Port, "port", 0, "port of the device; 0: the first active one")
	fs.IntVarP(&f.cfg.GIDIndex, "gid-index", "g", -1, "index of the GID to use; default: the address of the TCP connection, else one of its family")
	fs.IntVarP(&f.tcpPort, "tcp-port", "p", defaultTCPPort, "TCP port, and port of the connection manager, on which the ends meet; calls: 2 more")
	fs.BoolVarP(&f.events, "events", "e", false, "sleep until a completion comes (the default)")
	fs.BoolVar(&f.poll, "poll", false, "spin until a completion comes")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "only the summary")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "with --loopback: a line for every message too")
	completions(c)
	return c
}

func (f *pingFlags) check(given func(string) bool) (err error) {
	f.size = nil
	for _, s := range splitList(f.sizes) {
		n, err := perf.ParseSize(s)
		if err != nil {
			return usagef("--size %s: %v", s, err)
		}
		if n < 1 || n > pingpong.MaxSize {
			return usagef("--size %s: messages have 1 to %d bytes", s, pingpong.MaxSize)
		}
		f.size = append(f.size, int(n))
	}
	switch {
	case f.count < 0:
		return usagef("--count %d is negative", f.count)
	case f.interval < 0:
		return usagef("--interval %v is negative", f.interval)
	case f.timeout <= 0:
		return usagef("--timeout %v: nothing comes back in no time", f.timeout)
	case f.deadline < 0:
		return usagef("--deadline %v is negative", f.deadline)
	case f.events && f.poll:
		return usagef("--events and --poll exclude each other")
	case f.transport != "rc" && f.transport != "ud":
		return usagef("--transport %s: it is rc or ud", f.transport)
	case f.rpc && (f.transport == "ud" || f.mtu):
		return usagef("--rpc goes over reliable connections: it excludes --transport ud and --mtu")
	case f.mtu && (f.cm || f.transport == "ud"):
		return usagef("--mtu chooses the MTU of a reliable connection itself: it excludes --cm and --transport ud")
	case f.loopback && (f.cm || f.rpc || f.mtu || f.flood || f.transport == "ud" || len(f.size) > 1):
		return usagef("--loopback is over a reliable connection of one device, with one size: it excludes --cm, --rpc, --mtu, --flood and --transport ud; for them run --serve and a client with two devices")
	case f.serve && (f.cm || f.rpc || f.mtu || f.flood):
		return usagef("a server answers all that it can: --cm, --rpc, --mtu and --flood are for the client")
	case f.flood && given("interval"):
		return usagef("--flood and --interval exclude each other")
	}
	if err := checkEnd(&f.cfg.Config, f.tcpPort); err != nil {
		return err
	}
	if f.tcpPort > 65535-rpcPorts && (f.rpc || f.serve) {
		return usagef("--tcp-port %d: calls need port %d", f.tcpPort, f.tcpPort+rpcPorts)
	}
	f.cfg.Poll = f.poll
	if f.transport == "ud" && !given("timeout") { // a datagram that is lost ends nothing
		if f.timeout = time.Second; f.flood {
			f.timeout = 100 * time.Millisecond
		}
	}
	if f.loopback && !given("interval") || f.flood {
		f.interval = 0
	}
	if !given("count") {
		if f.loopback {
			f.count = 1000
		} else if len(f.size) > 1 {
			f.count = 5
		}
	}
	return nil
}

func (f *pingFlags) run(ctx context.Context, out, errOut io.Writer) (err error) {
	e, err := openEnd(&f.cfg.Config, f.loopback, errOut)
	if err != nil {
		return err
	}
	d := pingpong.New(e, f.cfg.Poll)
	defer func() { err = errors.Join(err, d.Close()) }()
	if f.deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.deadline)
		defer cancel()
	}
	switch {
	case f.serve:
		return f.runServer(ctx, d, out)
	case f.loopback:
		return f.runLoopback(ctx, d, out)
	case f.mtu:
		return f.runMTU(ctx, d, out)
	}
	for _, n := range f.size {
		if err := f.runClient(ctx, d, n, out); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// pinger is a session of any kind.
type pinger interface {
	Ping(ctx context.Context) (time.Duration, error)
	Close() error
	fmt.Stringer
}

func (f *pingFlags) dial(ctx context.Context, d *pingpong.Device, o pingpong.Options) (pinger, error) {
	addr := func(port int) string { return net.JoinHostPort(f.host, strconv.Itoa(port)) }
	switch {
	case f.rpc:
		return notNil(d.DialRPC(ctx, addr(f.tcpPort+rpcPorts), o.Size))
	case f.cm:
		return notNil(d.DialCM(ctx, addr(f.tcpPort), o))
	}
	return notNil(d.Dial(ctx, addr(f.tcpPort), o))
}

// notNil keeps a nil pointer from becoming a non-nil interface.
func notNil[P pinger](p P, err error) (pinger, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (f *pingFlags) runClient(ctx context.Context, d *pingpong.Device, size int, out io.Writer) error {
	c, err := f.dial(ctx, d, pingpong.Options{Size: size, Transport: pingpong.Transport(f.transport)})
	if err != nil {
		if ctx.Err() != nil {
			return coded{errors.New("interrupted before the first message"), ExitFailed}
		}
		return mismatch(err)
	}
	if _, err := fmt.Fprintf(out, "PING %s, %d bytes over %s: %v\n", f.host, size, d.Name(), c); err != nil {
		return coded{errors.Join(err, c.Close()), ExitReport}
	}
	s := session{pingFlags: f, c: c, size: size, out: out}
	err = s.run(ctx, !f.quiet)
	err = errors.Join(err, c.Close())
	if _, werr := fmt.Fprintf(out, "--- %s ping statistics ---\n%v\n", f.host, &s.stats); werr != nil || s.outErr != nil {
		return coded{errors.Join(fmt.Errorf("the results could not be printed: %w", errors.Join(s.outErr, werr)), err), ExitReport}
	}
	if err == nil && s.stats.Received < s.stats.Sent {
		err = errSaid
	}
	return err
}

func (f *pingFlags) runMTU(ctx context.Context, d *pingpong.Device, out io.Writer) error {
	fmt.Fprintf(out, "PATH MTU to %s over %s, whose port has %d\n", f.host, d.Name(), 128<<d.Attr().ActiveMTU)
	dial := func(o pingpong.Options) (*pingpong.Client, error) {
		return d.Dial(ctx, net.JoinHostPort(f.host, strconv.Itoa(f.tcpPort)), o)
	}
	narrow := false
	m, err := d.DiscoverMTU(ctx, dial, func(p pingpong.Probe) {
		if p.Err == nil {
			fmt.Fprintf(out, "%d bytes: pass, time=%.1f us\n", 128<<p.MTU, float64(p.RTT.Nanoseconds())/1e3)
			return
		}
		narrow = true
		fmt.Fprintf(out, "%d bytes: %s\n", 128<<p.MTU, p.Where)
	})
	if err != nil {
		return mismatch(err)
	}
	if _, err := fmt.Fprintf(out, "path MTU %d\n", 128<<m); err != nil {
		return coded{err, ExitReport}
	}
	if narrow {
		fmt.Fprintf(out, "Both ports take more: something between drops larger packets. RoCE needs some 60 bytes of\nEthernet, IP, UDP and transport headers beside the path MTU: compare the MTU of netdevs and switches.\n")
	}
	return nil
}
