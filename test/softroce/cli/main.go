package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/zrdma/zrdma/test/softroce"
	"github.com/zrdma/zrdma/test/softroce/kernel"
	"github.com/zrdma/zrdma/test/softroce/userland"
)

const usage = `softroce runs a command in VMs whose kernel has Soft-RoCE (rdma_rxe).

  softroce run [flags] -- command [argument...]    on one host, or the same on each of several
  softroce run [flags] -script FILE                what the file says for each host
  softroce kernel [flags]                          show the kernel that would be booted, fetching it if needed
  softroce userland -arch ARCH                     show the folder with programs and libraries of another architecture
                                                   (a cross compiler's --sysroot), fetching it if needed
  softroce reset                                   forget whether KVM works here

The command sees this machine's files below a layer of its own (what it writes
is gone at the end, see -out), this environment and this folder, and in addition
SOFTROCE_HOST, SOFTROCE_HOSTS, SOFTROCE_IP, SOFTROCE_IP6, SOFTROCE_PEERS,
SOFTROCE_DEVICE and SOFTROCE_ARCH. The exit code is the command's; 125 means that the VMs failed,
124 that the time was up.

"softroce run -help" lists the flags.
`

// Exit codes that are not the command's.
const (
	exitFail    = 125
	exitTimeout = 124
	exitUsage   = 2
)

// Main runs the command line and returns the exit code.
func Main(args []string) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		select {
		case sig := <-signals:
			signal.Stop(signals) // a second one ends us the hard way, and QEMU with us
			cancel(signalError{sig.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return exitUsage
	}
	switch args[0] {
	case "run":
		return runCommand(ctx, args[1:])
	case "kernel":
		return kernelCommand(ctx, args[1:])
	case "userland":
		return userlandCommand(ctx, args[1:])
	case "reset":
		if err := softroce.ForgetAccel(""); err != nil {
			return fail(err)
		}
		return 0
	case "help", "-h", "-help", "--help":
		fmt.Print(usage)
		return 0
	}
	fmt.Fprintf(os.Stderr, "softroce: unknown command %q\n\n%s", args[0], usage)
	return exitUsage
}

func kernelCommand(ctx context.Context, args []string) int {
	fs := newFlags("kernel")
	var cfg kernel.Config
	kernelFlags(fs, &cfg)
	fs.StringVar(&cfg.Arch, "arch", runtime.GOARCH, "for this `architecture`")
	fs.BoolVar(&cfg.Update, "update", false, "ask Debian for the newest although the cache has one")
	if err := fs.Parse(args); err != nil {
		return usageCode(err)
	}
	cfg.Log = os.Stderr
	k, err := kernel.Find(ctx, cfg)
	if err != nil {
		return fail(err)
	}
	fmt.Printf("%s\t%s\t%s\t%s\n", k.Release, k.Origin, k.Image, k.Modules)
	return 0
}

func userlandCommand(ctx context.Context, args []string) int {
	fs := newFlags("userland")
	cfg := userland.Config{Log: os.Stderr}
	fs.StringVar(&cfg.Arch, "arch", "", "for this `architecture`: arm64")
	fs.BoolVar(&cfg.Update, "update", false, "ask Debian again although the cache has it")
	if err := fs.Parse(args); err != nil {
		return usageCode(err)
	}
	dir, err := userland.Find(ctx, cfg)
	if err != nil {
		return fail(err)
	}
	fmt.Println(dir)
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "softroce:", trimName(err))
	return exitFail
}

// signalError ends a run that was told to stop.
type signalError struct{ sig syscall.Signal }

func (e signalError) Error() string { return "stopped by a signal: " + e.sig.String() }

// exitCode is what a finished run means for our own exit.
func exitCode(err error) int {
	var exit *softroce.ExitError
	var stopped signalError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &stopped):
		return 128 + int(stopped.sig)
	case errors.As(err, &exit):
		return exit.Code
	case errors.Is(err, errTimeout):
		return exitTimeout
	}
	return exitFail
}
