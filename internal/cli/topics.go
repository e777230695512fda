package cli

import (
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/zrdma/zrdma/internal/perf"
	"github.com/zrdma/zrdma/verbs"
)

// topics are pages of `zrdma help`: commands that do nothing.
func topics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "exit-codes", Short: "What the commands exit with", Long: `zrdma exits with

  0    Success. For ping: every message came back; for bench: all was measured.
  1    Failure. The message begins with the command and names the step that
       failed: device, port, gid, resources, route, exchange, cm, qp, rnr, retry,
       or the work itself. For ping also: messages were lost. For doctor:
       something is broken. What bench had measured by then was printed.
  2    Bad usage: an unknown flag, a value out of range, a file that is no report.
  3    This machine does not have the RDMA device asked for.
  4    The other end does not fit: it is another program (perftest, say), speaks
       another version, has other settings, or serves somebody else.
  5    Results could not be written where they were asked for, for instance on a
       full disk. They were printed instead.
  130  Interrupted by Ctrl-C or SIGTERM. What was measured by then was printed.
       ping, whose statistics are its result, exits with 0 or 1 as at its end.`},
		{Use: "device-names", Short: "How devices are named", Long: `-d takes

  mlx5_0, rxe0, ...      a kernel device, as "zrdma devices" lists them
  soft:127.0.0.1         the software device of this process, on an address of this
                         machine; two processes need two addresses
  soft:192.0.2.1,fd00::1 the same with two addresses

Without -d it is the device that $` + verbs.EnvDevice + ` names, else the first kernel device
with an active port, else soft:127.0.0.1. The software device needs no privilege
and no hardware. It copies every byte: it is a stand-in, whose figures say nothing
of a NIC.`},
		{Use: "examples", Short: "What to type for what", Long: `Is there an RDMA device, and does it work?
  zrdma devices
  zrdma ping --loopback
  zrdma doctor

Do two machines reach each other?
  there:  zrdma ping --serve
  here:   zrdma ping THERE
          zrdma ping THERE --cm            with the connection manager
          zrdma ping THERE --transport ud  with datagrams, which can be lost
          zrdma ping THERE --rpc           with calls of package rpc
          zrdma ping THERE --mtu           the largest MTU that passes

How fast is it?
  there:  zrdma bench --serve
  here:   zrdma bench THERE
          zrdma bench THERE --op all --mode latency --poll
          zrdma bench THERE --op write,read --all-sizes --csv sweep.csv
          zrdma bench THERE --op send --mode rate --qps 4 --threads 4

Did a change help? Alternate, several times, and compare.
  zrdma bench THERE --repeat 10 --json before.json
  zrdma bench THERE --repeat 10 --json after.json
  zrdma bench compare before.json after.json

Without hardware, on one machine:
  zrdma bench --serve -d soft:127.0.0.1 &
  zrdma bench 127.0.0.1 -d soft:127.0.0.2`},
	}
}

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the man pages into a folder",
		Long:    "Writes a man page for every command into DIR, which must exist.\n" + exitCodes,
		Example: "  zrdma man /usr/local/share/man/man1",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("one folder, not %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if st, err := os.Stat(args[0]); err != nil {
				return usagef("%v", err)
			} else if !st.IsDir() {
				return usagef("%s is no folder", args[0])
			}
			cmd.Root().DisableAutoGenTag = true
			if err := doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "ZRDMA", Section: "1", Source: "zrdma " + release()}, args[0]); err != nil {
				return coded{err, ExitReport}
			}
			return nil
		},
	}
}

// release names the program's version.
func release() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "devel"
}

// completions tells shells what the flags of a tool take.
func completions(c *cobra.Command) {
	fixed := func(flag string, values ...string) {
		if c.Flags().Lookup(flag) != nil {
			_ = c.RegisterFlagCompletionFunc(flag, func(_ *cobra.Command, _ []string, part string) ([]cobra.Completion, cobra.ShellCompDirective) {
				return listed(part, values), cobra.ShellCompDirectiveNoFileComp
			})
		}
	}
	fixed("op", append(names(perf.Ops), "all")...)
	fixed("mode", append(names(perf.Modes), "all")...)
	fixed("format", "table", "json", "csv")
	fixed("transport", "rc", "ud")
	if c.Flags().Lookup("device") != nil {
		_ = c.RegisterFlagCompletionFunc("device", func(_ *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var out []string
			l, _ := verbs.Devices()
			for _, d := range l {
				out = append(out, d.Name())
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		})
	}
}

// listed completes the last of a list with commas.
func listed(part string, values []string) []string {
	done := part[:strings.LastIndex(part, ",")+1]
	var out []string
	for _, v := range values {
		if !slices.Contains(strings.Split(done, ","), v) {
			out = append(out, done+v)
		}
	}
	return out
}

func names[T ~string](l []T) []string {
	out := make([]string, len(l))
	for i, v := range l {
		out[i] = fmt.Sprint(v)
	}
	return out
}
