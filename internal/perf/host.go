package perf

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/verbs"
)

// Host is one end: a machine, and the port that is measured.
type Host struct {
	Name      string `json:"name"`
	Release   string `json:"release"` // of zrdma
	OS        string `json:"os"`
	Arch      string `json:"arch"`
	Kernel    string `json:"kernel"`
	CPUs      int    `json:"cpus"`
	Device    string `json:"device"`
	Port      int    `json:"port"`
	LinkLayer string `json:"link_layer"`
	GID       string `json:"gid"`
	MTU       int    `json:"mtu"` // bytes, the port's active MTU
	// StandIn says that the device is the software device: it copies, and its
	// figures say nothing of a NIC.
	StandIn bool `json:"stand_in"`
}

func hostOf(dev *endpoint.Device, gid verbs.GIDEntry, release string) Host {
	a := dev.Attr()
	h := Host{Release: release, OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Device: dev.Context().Name(),
		Port: int(dev.Port()), LinkLayer: a.LinkLayer.String(), GID: gid.GID.Addr().String(), MTU: 128 << a.ActiveMTU, StandIn: dev.Soft()}
	h.Name, _ = os.Hostname()
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return h
}

// printable makes a peer's host fit for our terminal.
func (h Host) printable() Host {
	for _, s := range []*string{&h.Name, &h.Release, &h.OS, &h.Arch, &h.Kernel, &h.Device, &h.LinkLayer, &h.GID} {
		*s = printable([]byte(strings.ToValidUTF8(*s, "?")))
	}
	return h
}

// CPU is processor time of a process, in seconds.
type CPU struct {
	User   float64 `json:"user_s"`
	System float64 `json:"system_s"`
	// Switches are voluntary context switches and those that were not.
	Switches int64 `json:"switches"`
}

// Total is user and system time, in seconds.
func (c CPU) Total() float64 { return c.User + c.System }

func cpuNow() CPU {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return CPU{}
	}
	return CPU{time.Duration(u.Utime.Nano()).Seconds(), time.Duration(u.Stime.Nano()).Seconds(), int64(u.Nvcsw) + int64(u.Nivcsw)}
}

func (c CPU) since(b CPU) CPU {
	return CPU{c.User - b.User, c.System - b.System, c.Switches - b.Switches}
}
