package cli

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/zrdma/zrdma/test/softroce"
	"github.com/zrdma/zrdma/test/softroce/kernel"
)

type runFlags struct {
	cfg        softroce.Config
	script     string
	timeout    time.Duration
	dmesg      string
	failOnWarn bool
	memlock    uint64
	uid        uint
	times      bool
	stdin      bool
	outs       []copyOut
}

type copyOut struct {
	host        int // -1: every host
	guest, path string
}

func newFlags(name string) *flag.FlagSet {
	return flag.NewFlagSet("softroce "+name, flag.ContinueOnError)
}

func kernelFlags(fs *flag.FlagSet, cfg *kernel.Config) {
	fs.StringVar(&cfg.Image, "kernel", "", "boot this vmlinuz (with -modules)")
	fs.StringVar(&cfg.Modules, "modules", "", "the `folder` of its modules, with modules.dep")
	fs.StringVar(&cfg.Version, "kernel-version", os.Getenv("KERNEL"), "boot Debian's kernel of this series: 6.1 or 6.12; default $KERNEL, else this machine's kernel, else 6.1")
}

func parseRun(args []string) (*runFlags, []string, error) {
	r := &runFlags{}
	fs := newFlags("run")
	kernelFlags(fs, &r.cfg.Kernel)
	fs.IntVar(&r.cfg.Hosts, "hosts", 1, "how many VMs, on one L2 network")
	fs.IntVar(&r.cfg.CPUs, "cpus", 2, "processors of each VM")
	fs.IntVar(&r.cfg.MemoryMiB, "memory", 2048, "memory of each VM, in `MiB`")
	fs.IntVar(&r.cfg.MTU, "mtu", 4200, "of the network cards")
	fs.IntVar(&r.cfg.Rxe, "rxe", 1, "network cards and rxe devices of each VM, each on a network of its own")
	fs.Func("no-rxe", "a `host`, by number, without rdma_rxe: cards only, and UDP port 4791 is free; may be repeated", func(s string) error {
		h, err := strconv.Atoi(s)
		r.cfg.NoRxe = append(r.cfg.NoRxe, h)
		return err
	})
	fs.Func("arch", "`[host:]architecture`, amd64 or arm64, of all hosts or of one; may be repeated; default: this machine's", func(s string) error {
		h, arch, err := ofHost(s)
		if err != nil {
			return err
		}
		if h < 0 {
			r.cfg.Arch = arch
			return nil
		}
		r.machine(h, func(m *softroce.Machine) { m.Arch = arch })
		return nil
	})
	fs.Func("smbios", "`host:table` for a host's firmware, the table as qemu's -smbios takes it, e.g. 0:type=1,product=X; may be repeated", func(s string) error {
		h, table, err := ofHost(s)
		if err != nil {
			return err
		}
		if h < 0 {
			return errors.New("write the host's number and : in front")
		}
		r.machine(h, func(m *softroce.Machine) { m.SMBIOS = append(m.SMBIOS, table) })
		return nil
	})
	fs.StringVar(&r.cfg.Accel, "accel", "", "kvm or tcg; default: try KVM, remember the answer")
	fs.StringVar(&r.cfg.Init, "init", os.Getenv("SOFTROCE_INIT"), "a prebuilt guest init `file`; default $SOFTROCE_INIT, else built with the go tool")
	fs.StringVar(&r.cfg.Pcap, "pcap", "", "write the frames between the hosts to this `file`")
	fs.DurationVar(&r.cfg.BootTimeout, "boot-timeout", 2*time.Minute, "how long a VM may take to boot")
	fs.DurationVar(&r.timeout, "timeout", 0, "how long the command may take, without the boot; 0: no limit")
	fs.StringVar(&r.script, "script", "", "run the sections of this `file`: [host0], [host1], ..., [*]; a line --- waits for all hosts")
	fs.StringVar(&r.dmesg, "dmesg", "", "write the kernel logs to this `file`; - is stderr")
	fs.BoolVar(&r.failOnWarn, "fail-on-warn", false, "fail if a guest's kernel reported a WARNING, BUG or Oops")
	fs.Uint64Var(&r.memlock, "memlock", 0, "limit of locked memory, in `bytes`; 0: no limit")
	fs.UintVar(&r.uid, "uid", 0, "run the command as this user")
	fs.BoolVar(&r.times, "v", false, "say how long the boot took")
	fs.BoolVar(&r.stdin, "stdin", false, "pass standard input on (one host only)")
	fs.Func("out", "copy `guestpath:hostpath` out afterwards; with more than one host, [host:]guestpath:hostpath, or a * in hostpath stands for the host's number; may be repeated", r.addOut)
	if err := fs.Parse(args); err != nil {
		return nil, nil, err
	}
	argv := fs.Args()
	err := r.check(argv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "softroce run:", err)
	}
	return r, argv, err
}

// ofHost splits "host:value"; without a host it returns -1.
func ofHost(s string) (host int, value string, err error) {
	number, value, ok := strings.Cut(s, ":")
	if !ok {
		return -1, s, nil
	}
	host, err = strconv.Atoi(number)
	if err != nil || host < 0 {
		return 0, "", fmt.Errorf("%q is not the number of a host", number)
	}
	return host, value, nil
}

func (r *runFlags) machine(host int, change func(*softroce.Machine)) {
	if r.cfg.Machines == nil {
		r.cfg.Machines = map[int]softroce.Machine{}
	}
	m := r.cfg.Machines[host]
	change(&m)
	r.cfg.Machines[host] = m
}

func (r *runFlags) check(argv []string) error {
	switch {
	case r.script == "" && len(argv) == 0:
		return errors.New("no command; write it behind --")
	case r.script != "" && len(argv) > 0:
		return errors.New("both -script and a command")
	case r.stdin && (r.cfg.Hosts > 1 || r.script != ""):
		return errors.New("-stdin needs one host and no script")
	}
	for _, o := range r.outs {
		if r.cfg.Hosts > 1 && o.host < 0 && !strings.Contains(o.path, "*") {
			return fmt.Errorf("-out %s:%s: which host? write host: in front or a * in the host path", o.guest, o.path)
		}
		if o.host >= r.cfg.Hosts {
			return fmt.Errorf("-out: there is no host %d", o.host)
		}
	}
	return nil
}

func (r *runFlags) addOut(s string) error {
	parts := strings.Split(s, ":")
	o := copyOut{host: -1}
	if len(parts) == 3 {
		if _, err := fmt.Sscanf(parts[0], "%d", &o.host); err != nil || o.host < 0 {
			return fmt.Errorf("%q is not the number of a host", parts[0])
		}
		parts = parts[1:]
	}
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" {
		return errors.New("not of the form guestpath:hostpath")
	}
	o.guest, o.path = parts[0], parts[1]
	r.outs = append(r.outs, o)
	return nil
}

// usageCode is for errors that the flag package or check has printed.
func usageCode(err error) int {
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	return exitUsage
}

// trimName avoids the program's name twice: errors of the library begin with it.
func trimName(err error) string { return strings.TrimPrefix(err.Error(), "softroce: ") }
