// Package cli is the command line of zrdma.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes. `zrdma help exit-codes` describes them.
const (
	ExitOK          = 0
	ExitFailed      = 1 // the message names the step
	ExitUsage       = 2
	ExitNoDevice    = 3   // this machine has no such RDMA device
	ExitMismatch    = 4   // the other end speaks something else, or has other settings, or is busy
	ExitReport      = 5   // results could not be written where they were asked for
	ExitInterrupted = 130 // by SIGINT or SIGTERM; what was measured was printed
)

const exitCodes = `
Exit codes: 0 success, 1 failure (the message names the step that failed),
2 bad usage, 3 this machine does not have the RDMA device asked for, 4 the other
end does not fit, 5 results could not be written, 130 interrupted.`

// coded is an error with an exit code of its own.
type coded struct {
	error
	code int
}

func (c coded) Unwrap() error { return c.error }

func usagef(format string, args ...any) error {
	return coded{fmt.Errorf(format, args...), ExitUsage}
}

// errSaid fails without a message: it has been said.
var errSaid = coded{errors.New("failed"), ExitFailed}

// Main runs the command line and returns the exit code. SIGINT and SIGTERM end
// a command in order; a second one ends the process.
func Main(args []string, out, errOut io.Writer) int {
	// Only what is wrong: which device is used is said by the commands themselves.
	slog.SetDefault(slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: slog.LevelWarn})))
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(ctx, cancel)
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	var c coded
	if !errors.As(err, &c) {
		c = coded{err, ExitFailed}
	}
	if c != errSaid {
		fmt.Fprintf(errOut, "%s: %v\n", cmd.CommandPath(), err)
	}
	if c.code == ExitUsage {
		fmt.Fprintf(errOut, "See %s --help.\n", cmd.CommandPath())
	}
	return c.code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "zrdma",
		Short:         "Look at RDMA devices, try them and measure them",
		Long:          "zrdma looks at RDMA devices, tries them and measures them.\n" + exitCodes,
		SilenceErrors: true,
		SilenceUsage:  true,
		// Without a command: the help, but not a success for what is unknown.
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return coded{err, ExitUsage} })
	root.AddCommand(agentCommand(), devicesCommand(), doctorCommand(), pingCommand(), benchCommand(), compareCommand(), manCommand())
	root.AddCommand(topics()...)
	return root
}
