package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/zrdma/zrdma/internal/compare"
	"github.com/zrdma/zrdma/internal/report"
	"github.com/zrdma/zrdma/verbs"
)

// comparePort is where a server listens, beside that of ping.
const comparePort = "18520"

type compareFlags struct {
	server, loopback, list bool
	bytes, block, data     bytesFlag
	depth, rounds          int
	source, device, dir    string
	ways                   []string
	listen                 string
	maxData                bytesFlag
	once, child            bool
	json, count            bool
	html                   string
	host                   string
}

func compareCommand() *cobra.Command {
	f := &compareFlags{bytes: 1 << 30, block: 1 << 20, data: 64 << 20, maxData: 1 << 30}
	c := &cobra.Command{
		Use:   "compare {HOST[:PORT] | --server | --loopback}",
		Short: "Move the same blocks in every way there is, and say what each costs",
		Long: `Moves the same blocks from one process to another in every way that the machines
know: read and write, io_uring, mmap with MSG_ZEROCOPY, sendfile, splice, RDMA
WRITE and READ, the rpc layer, and a DPU's agent. The ways run in turn, in several
rounds; every block is verified. For each way: GB/s, processor time of sender and
receiver, system calls, copies, context switches and latency, and what could not
be done here and why.

"zrdma compare --server" on the other machine has the blocks and sends them; the
client, which gives the orders, receives them. --loopback starts a server process
here. A server serves one client at a time, and whoever reaches it: listen on a
network that you trust.

Ctrl-C ends it and prints what was measured so far. See docs/compare.md.
` + exitCodes,
		Example: "  zrdma compare --loopback\n  zrdma compare --server\n  zrdma compare --bytes 4GiB --html report.html 10.0.0.1\n  zrdma compare --loopback --way read-write --way rpc --json",
		Args:    func(_ *cobra.Command, args []string) error { return f.takeArgs(args) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, errOut := cmd.OutOrStdout(), shared(cmd.ErrOrStderr())
			switch {
			case f.list:
				return f.printWays(out)
			case f.server:
				return f.serve(cmd.Context(), out, cmd.InOrStdin())
			}
			return f.run(cmd.Context(), out, errOut)
		},
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.BoolVarP(&f.server, "server", "s", false, "have the blocks and send them, until interrupted")
	fs.BoolVar(&f.loopback, "loopback", false, "start a server process on this machine")
	fs.BoolVar(&f.list, "list", false, "list the ways, and what this machine lacks for them")
	fs.VarP(&f.bytes, "bytes", "n", "what one run moves, for instance 512MiB")
	fs.Var(&f.block, "block", "size of a block")
	fs.IntVar(&f.depth, "depth", 8, "blocks asked for and not there yet")
	fs.IntVarP(&f.rounds, "rounds", "r", 3, "how often each way runs; the median counts")
	fs.Var(&f.data, "data", "how many bytes of blocks there are; then they come again")
	fs.StringVar(&f.source, "source", compare.Memory, "where the server has the blocks: memory, or file, in its --dir")
	fs.StringArrayVarP(&f.ways, "way", "w", nil, "only this way, which must be possible then; may be given again (see --list)")
	fs.StringVarP(&f.device, "device", "d", "", "the RDMA device of this end; default: $"+verbs.EnvDevice+", else the first kernel device with an active port, else "+compare.SoftDevice+", the software device")
	fs.BoolVar(&f.json, "json", false, "print JSON")
	fs.StringVar(&f.html, "html", "", "write a report with charts to this `file`")
	fs.BoolVar(&f.count, "count-calls", false, "have the kernel count all system calls, where it lets us (tracefs, root)")
	fs.StringVar(&f.listen, "listen", ":"+comparePort, "server: the `address` to listen on")
	fs.StringVar(&f.dir, "dir", "", "server: the `folder` for the blocks of --source file; default: the one for temporary files")
	fs.Var(&f.maxData, "max-data", "server: the most bytes of blocks that a client may ask for")
	fs.BoolVar(&f.once, "once", false, "server: end after the first client")
	fs.BoolVar(&f.child, "child", false, "")
	_ = fs.MarkHidden("child")
	_ = c.RegisterFlagCompletionFunc("way", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var out []string
		for _, w := range compare.Ways() {
			out = append(out, w.Name)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

func (f *compareFlags) takeArgs(args []string) error {
	modes := 0
	for _, on := range []bool{f.server, f.loopback, f.list, len(args) > 0} {
		if on {
			modes++
		}
	}
	switch {
	case modes == 0:
		return usagef("with whom? give the HOST of a server, or --server to be one, or --loopback for both ends here")
	case modes > 1:
		return usagef("a HOST, --server, --loopback and --list exclude each other")
	case len(args) > 1:
		return usagef("one HOST, not %d", len(args))
	case len(args) == 1:
		if f.host = args[0]; f.host == "" {
			return usagef("the HOST is empty")
		}
	}
	if f.rounds < 1 || f.rounds > 1000 {
		return usagef("--rounds %d: 1 to 1000 rounds", f.rounds)
	}
	if err := f.job().Check(); err != nil {
		return coded{err, ExitUsage}
	}
	if err := compare.CheckWays(f.ways); err != nil {
		return coded{err, ExitUsage}
	}
	return nil
}

func (f *compareFlags) job() compare.Job {
	return compare.Job{Bytes: int64(f.bytes), Block: int(f.block), Depth: f.depth, Data: int64(f.data), Source: f.source}
}

func (f *compareFlags) printWays(out io.Writer) error {
	for _, w := range compare.Ways() {
		fmt.Fprintf(out, "%s: %s\n    %s\n", w.Name, w.Title, w.How)
		if w.Cannot != "" {
			fmt.Fprintf(out, "    not here: %s\n", w.Cannot)
		}
	}
	return nil
}

// serve is the server. A child, of --loopback, ends when its parent does, which
// its standard input tells.
func (f *compareFlags) serve(ctx context.Context, out io.Writer, in io.Reader) error {
	if err := f.checkDevice(); err != nil {
		return err
	}
	if f.count {
		if err := compare.CountAllCalls(); err != nil && !f.child {
			fmt.Fprintf(out, "warning: %v\n", err)
		}
	}
	l, err := compare.Listen(ctx, f.listen)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &compare.Server{Device: f.device, Dir: f.dir, MaxData: int64(f.maxData), Once: f.once || f.child}
	if f.child {
		fmt.Fprintln(out, l.Addr())
		go func() {
			_, _ = io.Copy(io.Discard, in)
			cancel()
		}()
	} else {
		s.Log = func(format string, a ...any) { fmt.Fprintf(out, format+"\n", a...) }
		fmt.Fprintf(out, "serving on %v, RDMA device %s\n", l.Addr(), compare.DeviceName(f.device))
	}
	return s.Serve(ctx, l)
}

// checkDevice refuses a device that was asked for and is not there.
func (f *compareFlags) checkDevice() error {
	if f.device == "" || f.device == compare.SoftDevice {
		return nil
	}
	c, err := verbs.Open(f.device)
	if errors.Is(err, syscall.ENODEV) {
		return noDevice(err)
	}
	if err != nil {
		return err
	}
	return c.Close()
}

func (f *compareFlags) run(ctx context.Context, out, errOut io.Writer) (err error) {
	if err := f.checkDevice(); err != nil {
		return err
	}
	var page *os.File
	if f.html != "" { // a path that cannot be written is known before the work, not after it
		if page, err = os.OpenFile(f.html, os.O_WRONLY|os.O_CREATE, 0o644); err != nil {
			return coded{fmt.Errorf("the report cannot be written: %w", err), ExitReport}
		}
		defer page.Close()
	}
	if f.count {
		if err := compare.CountAllCalls(); err != nil {
			fmt.Fprintf(errOut, "warning: %v\n", err)
		}
	}
	addr := f.host
	if f.loopback {
		child, err := f.startChild(ctx, errOut)
		if err != nil {
			return err
		}
		defer child.stop()
		addr = child.addr
	} else if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(addr, comparePort)
	}
	p := newCompareProgress(errOut)
	r, err := compare.Run(ctx, compare.Config{Addr: addr, Job: f.job(), Rounds: f.rounds, Ways: f.ways, Device: f.device, OnEvent: p.event})
	p.clear()
	if r == nil {
		var no *compare.MismatchError
		switch {
		case ctx.Err() != nil:
			return coded{errors.New("interrupted before anything was measured"), ExitInterrupted}
		case errors.As(err, &no):
			return coded{err, ExitMismatch}
		}
		return err
	}
	if ctx.Err() != nil {
		err = coded{errors.New("interrupted; the numbers are of the runs that had ended"), ExitInterrupted}
	} else if err == nil {
		err = f.missing(r)
	}
	if werr := errors.Join(f.print(out, r), writePage(page, r)); werr != nil {
		return coded{errors.Join(err, werr), ExitReport}
	}
	return err
}

// missing is an error when nothing was measured, or not all that was named.
func (f *compareFlags) missing(r *compare.Result) error {
	measured := false
	for _, w := range r.Ways {
		measured = measured || len(w.Runs) > 0
		if f.ways != nil && w.Cannot != "" {
			return fmt.Errorf("%s was asked for and cannot be done here: %s", w.Name, w.Cannot)
		}
	}
	if !measured {
		return errors.New("none of the ways could be done here")
	}
	return nil
}

func (f *compareFlags) print(out io.Writer, r *compare.Result) error {
	if !f.json {
		return compare.Print(out, r)
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writePage writes the report; the results have been printed before.
func writePage(page *os.File, r *compare.Result) error {
	if page == nil {
		return nil
	}
	err := page.Truncate(0)
	if errors.Is(err, syscall.EINVAL) {
		err = nil // a pipe or a device
	}
	if err == nil {
		err = report.Write(page, compare.Document(r))
	}
	if err = errors.Join(err, page.Close()); err != nil {
		return fmt.Errorf("writing the report (the results are above): %w", err)
	}
	return nil
}

// bytesFlag is a number of bytes with a unit: 4096, 64KiB, 1MiB, 1GB.
type bytesFlag int64

var byteUnits = []struct {
	name string
	n    float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40}, {"B", 1}, {"", 1}}

func (b *bytesFlag) Set(text string) error {
	for _, u := range byteUnits {
		number, ok := cutUnit(text, u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(number, 64)
		if err != nil {
			break
		}
		if v *= u.n; !(v >= 0 && v < 1<<62) {
			return fmt.Errorf("%s is out of range", text)
		}
		*b = bytesFlag(v)
		return nil
	}
	return fmt.Errorf("%q is no number of bytes, like 4096, 64KiB, 1MiB or 1GB", text)
}

func (b *bytesFlag) String() string { return compare.Size(int64(*b)) }
func (b *bytesFlag) Type() string   { return "bytes" }

func cutUnit(text, unit string) (string, bool) {
	number, ok := strings.CutSuffix(text, unit)
	return strings.TrimSpace(number), ok
}
