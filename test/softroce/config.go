package softroce

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/zrdma/zrdma/test/softroce/kernel"
)

// MaxHosts is how many VMs a cluster may have.
const MaxHosts = 16

// Config of a cluster. The zero value is one VM with one rxe device.
type Config struct {
	Hosts     int // default 1
	CPUs      int // of each VM; default 2
	MemoryMiB int // of each VM; default 2048; the guest's tmpfs gets 3/4 of it at most
	MTU       int // of every card; default 4200, which gives RoCE its 4096
	// Rxe is how many cards and rxe devices a VM has; default 1. Device k sits
	// on eth<k>, in a network of its own: Hub(k), 10.<77+k>.0.0/24, fd<77+k>::/64.
	Rxe int
	// NoRxe are hosts whose kernel does without rdma_rxe: cards, no rxe devices,
	// and UDP port 4791 is free for a RoCEv2 device of userspace.
	NoRxe []int
	// Kernel says which kernel to boot. Default: see kernel.Config. Hosts of another
	// architecture than Kernel.Arch boot Debian's, of Kernel.Version.
	Kernel kernel.Config
	// Arch is the hosts' architecture, "amd64" or "arm64"; default: this machine's.
	// Another one is emulated, and its guests have Debian's programs and libraries
	// for it above this machine's files.
	Arch string
	// Machines sets single hosts apart, by number.
	Machines map[int]Machine
	// Accel is "kvm", "tcg" or "", which tries KVM and remembers the answer.
	Accel string
	// Init is a prebuilt binary of internal/guest/init, for the hosts of its
	// architecture. Default: built with CGO_ENABLED=0 by the go tool, once, and kept
	// in the cache.
	Init string
	// Seed of the hubs' faults. Default 0.
	Seed uint64
	// Pcap gets the frames of Hub(0), Pcap+".1" those of Hub(1), and so on.
	// Default: nothing is captured.
	Pcap string
	// BootTimeout is for each VM, from QEMU's start to rxe being up; default 2 minutes.
	BootTimeout time.Duration
	// Log gets a line about whatever takes long. Default: nobody.
	Log io.Writer
}

// Machine is what one host has of its own.
type Machine struct {
	Arch string // default: Config.Arch
	// SMBIOS are tables for its firmware, each as QEMU's option -smbios takes it:
	// "type=2,manufacturer=Nvidia,product=BlueField-3 SmartNIC Main Card". A comma in
	// a value is written twice. On arm64 the host then boots by UEFI, some seconds
	// more.
	SMBIOS []string
}

// arch of a host; valid after withDefaults.
func (c Config) arch(host int) string {
	if a := c.Machines[host].Arch; a != "" {
		return a
	}
	return c.Arch
}

func (c Config) withDefaults() (Config, error) {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&c.Hosts, 1)
	def(&c.CPUs, 2)
	def(&c.MemoryMiB, 2048)
	def(&c.MTU, 4200)
	def(&c.Rxe, 1)
	if c.Arch == "" {
		c.Arch = runtime.GOARCH
	}
	if c.Kernel.Arch == "" {
		c.Kernel.Arch = c.Arch
	}
	if c.BootTimeout == 0 {
		c.BootTimeout = 2 * time.Minute
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	if c.Kernel.Log == nil {
		c.Kernel.Log = c.Log
	}
	if c.Kernel.Cache == "" {
		dir, err := kernel.CacheDir()
		if err != nil {
			return c, err
		}
		c.Kernel.Cache = dir
	}
	return c, c.check()
}

func (c Config) check() error {
	inRange := func(what string, v, low, high int) error {
		if v < low || v > high {
			return fmt.Errorf("%s is %d, not in %d..%d", what, v, low, high)
		}
		return nil
	}
	err := errors.Join(
		inRange("Hosts", c.Hosts, 1, MaxHosts),
		inRange("CPUs", c.CPUs, 1, 64),
		inRange("MemoryMiB", c.MemoryMiB, 256, 1<<20),
		inRange("MTU", c.MTU, 1280, 9000), // 1280: IPv6 needs it
		inRange("Rxe", c.Rxe, 1, 4),
	)
	for h := range c.Machines {
		err = errors.Join(err, inRange("a host of Machines", h, 0, c.Hosts-1))
	}
	for h := range c.Hosts {
		switch _, known := targets[c.arch(h)]; {
		case !known:
			err = errors.Join(err, fmt.Errorf("architecture (Arch) of host %d is %q, not amd64 or arm64", h, c.arch(h)))
		case c.Accel == "kvm" && c.arch(h) != runtime.GOARCH:
			err = errors.Join(err, fmt.Errorf("Arch of host %d is %s, which KVM cannot run on %s", h, c.arch(h), runtime.GOARCH))
		}
	}
	for _, h := range c.NoRxe {
		err = errors.Join(err, inRange("NoRxe", h, 0, c.Hosts-1))
	}
	if c.Accel != "" && c.Accel != "kvm" && c.Accel != "tcg" {
		err = errors.Join(err, fmt.Errorf("accelerator (Accel) is %q, not kvm or tcg", c.Accel))
	}
	if c.BootTimeout < 0 {
		err = errors.Join(err, errors.New("BootTimeout is negative"))
	}
	if err != nil {
		return fmt.Errorf("softroce: configuration: %w", err)
	}
	return nil
}
