package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/internal/perf"
	"github.com/zrdma/zrdma/verbs"
)

// defaultBenchPort is beside that of ping.
const defaultBenchPort = 18517

type benchFlags struct {
	serve, loopback bool
	host            string

	ops, modes []string
	sizes      string
	allSizes   bool
	base       perf.Case // what all cases have in common
	events     bool
	poll       bool
	duration   seconds
	warmup     seconds
	repeat     int

	cfg       endpoint.Config
	tcpPort   int
	retry     seconds
	clients   int
	maxMemory string

	format              string
	json, csv, htmlFile string
	quiet               bool
	given               func(string) bool
}

func benchCommand() *cobra.Command {
	f := &benchFlags{duration: seconds(3 * time.Second), warmup: seconds(200 * time.Millisecond), repeat: 1, format: "table"}
	c := &cobra.Command{
		Use:   "bench {HOST | --serve | --loopback}",
		Short: "Measure latency, bandwidth and message rate over RDMA",
		Long: `Measures a device with another machine, on which "zrdma bench --serve" runs, or
with itself (--loopback): sends, one-sided writes and reads, atomics, and calls of
this library's RPC; latency, bandwidth and message rate; with percentiles, and the
processor time of both ends.

The client decides what is measured. Settings that are given to a server are
rules: a client with others is refused. A server serves one client after another;
a second one at the same time is told who is served (--retry waits for its turn).

Latency of send and write-imm is half a round trip, that of the others the time
from post to completion, and for rpc that of a call. MB is 10^6 bytes. CPU s/GB is
the processor time of both ends for 10^9 bytes.
` + exitCodes,
		Example: `  zrdma bench --serve
  zrdma bench 10.0.0.1 --op write --sizes 64,4k,1m
  zrdma bench 10.0.0.1 --op send,read --mode latency --all-sizes --poll
  zrdma bench 10.0.0.1 --op write --qps 8 --threads 4 --bidirectional --duration 10s
  zrdma bench 10.0.0.1 --repeat 10 --json after.json
  zrdma bench compare before.json after.json`,
		Args: func(_ *cobra.Command, args []string) (err error) {
			f.host, err = takeHost(args, f.serve, f.loopback)
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.given = cmd.Flags().Changed
			cases, err := f.cases()
			if err != nil {
				return err
			}
			return f.run(cmd.Context(), cases, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f.define(c.Flags())
	completions(c)
	c.AddCommand(benchCompareCommand())
	return c
}

func (f *benchFlags) define(fs *pflag.FlagSet) {
	fs.SortFlags = false
	fs.BoolVar(&f.serve, "serve", false, "serve clients until interrupted")
	fs.BoolVar(&f.loopback, "loopback", false, "both ends in this process")
	fs.StringSliceVarP(&f.ops, "op", "o", []string{"write"}, "operations: send, write, write-imm, read, cas, fetch-add, rpc; or all")
	fs.StringSliceVarP(&f.modes, "mode", "m", []string{"bandwidth"}, "what of them: latency, bandwidth, rate; or all")
	fs.StringVarP(&f.sizes, "sizes", "s", "64k", "bytes of a message, such as 64,4k,1m; atomics have 8 (default 64k, for latency and rate 64)")
	fs.BoolVarP(&f.allSizes, "all-sizes", "a", false, "the powers of two from 2 B to 8 MiB")
	fs.VarP(&f.duration, "duration", "D", "how long a measurement takes")
	fs.IntVarP(&f.base.Count, "count", "n", 0, "how many messages instead, in each direction")
	fs.VarP(&f.warmup, "warmup", "", "how long each case runs before it is measured")
	fs.IntVarP(&f.repeat, "repeat", "r", 1, "samples of each case; compare wants 6 or more")
	fs.IntVarP(&f.base.Depth, "depth", "t", 0, "messages under way on a queue pair (default 128; rpc 16; latency 1)")
	fs.IntVarP(&f.base.QPs, "qps", "q", 0, "queue pairs (default one a thread)")
	fs.IntVarP(&f.base.Threads, "threads", "T", 0, "threads, with a completion queue each (default 1)")
	fs.IntVarP(&f.base.Batch, "batch", "l", 0, "messages of one post (default 1; rate 16)")
	fs.IntVarP(&f.base.Signal, "signal", "Q", 0, "one completion in so many messages (default 100 up to 8 KiB, else 1)")
	fs.BoolVarP(&f.events, "events", "e", false, "sleep until a completion comes, after a short spin (the default)")
	fs.BoolVar(&f.poll, "poll", false, "spin until a completion comes")
	fs.BoolVarP(&f.base.Bidirectional, "bidirectional", "b", false, "both ends send; figures are of both directions together")
	fs.StringVarP(&f.cfg.Device, "device", "d", "", "the device; default: $"+verbs.EnvDevice+", else the first kernel device with an active port, else soft:127.0.0.1")
	fs.IntVar(&f.cfg.Port, "port", 0, "port of the device; 0: the first active one")
	fs.IntVarP(&f.cfg.GIDIndex, "gid-index", "g", -1, "index of the GID to use; default: the address of the TCP connection, else one of its family")
	fs.IntVarP(&f.tcpPort, "tcp-port", "p", defaultBenchPort, "TCP port on which the ends meet")
	fs.Var(&f.retry, "retry", "how long to try again while the server is not there, or busy")
	fs.IntVar(&f.clients, "clients", 0, "with --serve: end after so many clients; 0: never")
	fs.StringVar(&f.maxMemory, "max-memory", "1g", "with --serve: what a client may make this end register")
	fs.StringVarP(&f.format, "format", "f", "table", "what is printed: table, json or csv")
	fs.StringVar(&f.json, "json", "", "write a report as JSON to this `file` too")
	fs.StringVar(&f.csv, "csv", "", "write a report as CSV to this `file` too")
	f.defineHTML(fs)
	fs.BoolVar(&f.quiet, "quiet", false, "no progress on the terminal")
}

// takeHost is the argument of a tool that has two ends.
func takeHost(args []string, serve, loopback bool) (string, error) {
	modes := 0
	for _, on := range []bool{serve, loopback, len(args) > 0} {
		if on {
			modes++
		}
	}
	switch {
	case modes == 0:
		return "", usagef("whom? give a HOST, or --serve to answer others, or --loopback for both ends here")
	case modes > 1:
		return "", usagef("a HOST, --serve and --loopback exclude each other")
	case len(args) > 1:
		return "", usagef("one HOST, not %d", len(args))
	case len(args) == 0:
		return "", nil
	case args[0] == "":
		return "", usagef("the HOST is empty")
	}
	return args[0], nil
}

// choose reads a list of names, of which "all" is every one.
func choose[T ~string](flag string, given []string, all []T) ([]T, error) {
	var out []T
	for _, s := range given {
		if s == "all" {
			return all, nil
		}
		if !slices.Contains(all, T(s)) {
			return nil, usagef("--%s %s: there are %s, or all", flag, s, joinNames(all))
		}
		if !slices.Contains(out, T(s)) {
			out = append(out, T(s))
		}
	}
	if len(out) == 0 {
		return nil, usagef("--%s is empty", flag)
	}
	return out, nil
}

func joinNames[T ~string](l []T) string {
	var s []string
	for _, v := range l {
		s = append(s, string(v))
	}
	return strings.Join(s, ", ")
}

// cases are what the flags ask for, in order.
func (f *benchFlags) cases() ([]perf.Case, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	ops, err := choose("op", f.ops, perf.Ops)
	if err != nil {
		return nil, err
	}
	modes, err := choose("mode", f.modes, perf.Modes)
	if err != nil {
		return nil, err
	}
	sizes := perf.AllSizes()
	if !f.allSizes {
		if sizes, err = perf.ParseSizes(f.sizes); err != nil {
			return nil, usagef("--sizes %s: %v", f.sizes, err)
		}
	}
	var out []perf.Case
	for _, op := range ops {
		for _, mode := range modes {
			use := sizes
			switch {
			case op.Atomic() && f.given("sizes") && !slices.Equal(sizes, []int{8}) && len(ops) == 1:
				return nil, usagef("--sizes %s: %s works on 8 bytes", f.sizes, op)
			case op.Atomic():
				use = []int{8}
			case mode != perf.Bandwidth && !f.allSizes && !f.given("sizes"):
				use = []int{64}
			}
			for _, n := range use {
				c := f.base
				c.Op, c.Mode, c.Size = op, mode, n
				c, err := c.WithDefaults()
				if err != nil {
					return nil, usagef("%s %s: %v", op, mode, err)
				}
				out = append(out, c)
			}
		}
	}
	return out, nil
}

func (f *benchFlags) check() error {
	switch {
	case f.events && f.poll:
		return usagef("--events and --poll exclude each other")
	case f.allSizes && f.given("sizes"):
		return usagef("--sizes and --all-sizes exclude each other")
	case f.given("count") && f.given("duration"):
		return usagef("--count and --duration exclude each other")
	case f.given("count") && f.base.Count < 1:
		return usagef("--count %d: at least 1", f.base.Count)
	case f.duration <= 0:
		return usagef("--duration %v: nothing is measured in no time", time.Duration(f.duration))
	case f.warmup < 0:
		return usagef("--warmup %v is negative", time.Duration(f.warmup))
	case f.retry < 0:
		return usagef("--retry %v is negative", time.Duration(f.retry))
	case f.repeat < 1 || f.repeat > 10_000:
		return usagef("--repeat %d: it is 1 to 10000", f.repeat)
	case f.clients < 0:
		return usagef("--clients %d is negative", f.clients)
	case f.format != "table" && f.format != "json" && f.format != "csv":
		return usagef("--format %s: it is table, json or csv", f.format)
	case f.serve && (f.given("json") || f.given("csv") || f.given("html") || f.given("format")):
		return usagef("the client has the results: give it --format, --json, --csv and --html")
	}
	for _, flag := range []string{"duration", "count", "warmup", "repeat", "retry", "signal"} {
		if f.serve && f.given(flag) {
			return usagef("--%s is the client's to give: a server follows it", flag)
		}
	}
	if f.clients > 0 && !f.serve {
		return usagef("--clients is for --serve")
	}
	for _, n := range []struct {
		flag string
		v    int
	}{{"depth", f.base.Depth}, {"qps", f.base.QPs}, {"threads", f.base.Threads}, {"batch", f.base.Batch}, {"signal", f.base.Signal}} {
		if n.v < 0 || f.given(n.flag) && n.v == 0 {
			return usagef("--%s %d: at least 1", n.flag, n.v)
		}
	}
	if err := checkEnd(&f.cfg, f.tcpPort); err != nil {
		return err
	}
	if !f.given("count") {
		f.base.Duration = time.Duration(f.duration)
	}
	if f.poll {
		f.base.Wait = perf.Poll
	}
	return nil
}

// checkEnd looks at the flags that ping and bench have in common.
func checkEnd(cfg *endpoint.Config, tcpPort int) error {
	switch {
	case tcpPort < 1 || tcpPort > 65535:
		return usagef("--tcp-port %d: TCP ports are 1 to 65535", tcpPort)
	case cfg.Port < 0 || cfg.Port > 255:
		return usagef("--port %d: ports of a device are counted from 1; for the TCP port there is --tcp-port", cfg.Port)
	case cfg.GIDIndex < -1 || cfg.GIDIndex > 255:
		return usagef("--gid-index %d: GID indices are 0 to 255", cfg.GIDIndex)
	}
	return nil
}

// rules are the settings that were given to a server.
func (f *benchFlags) rules(cases []perf.Case) (r perf.Rules) {
	for _, c := range cases {
		if f.given("op") && !slices.Contains(r.Ops, c.Op) {
			r.Ops = append(r.Ops, c.Op)
		}
		if f.given("mode") && !slices.Contains(r.Modes, c.Mode) {
			r.Modes = append(r.Modes, c.Mode)
		}
		if (f.given("sizes") || f.allSizes) && !slices.Contains(r.Sizes, c.Size) {
			r.Sizes = append(r.Sizes, c.Size)
		}
	}
	r.QPs, r.Threads, r.Depth, r.Batch = f.base.QPs, f.base.Threads, f.base.Depth, f.base.Batch
	r.Bidirectional = f.base.Bidirectional
	switch {
	case f.poll:
		r.Wait = perf.Poll
	case f.events:
		r.Wait = perf.Events
	}
	return r
}

func splitList(s string) []string { return strings.Split(s, ",") }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
