package compare

import (
	"os"
	"runtime"
	"runtime/debug"
)

// Host is a machine that takes part.
type Host struct {
	Name       string `json:"name"`
	Kernel     string `json:"kernel"`
	Arch       string `json:"arch"`
	Processors int    `json:"processors"`
	Go         string `json:"go"`
	Version    string `json:"version"` // of this program
	Load       string `json:"load"`    // average of a minute, when it began
	PID        int    `json:"pid"`
	Device     string `json:"device"` // the RDMA device, or why there is none
}

func thisHost(device string) *Host {
	name, err := os.Hostname()
	if err != nil {
		name = "?"
	}
	version := "unknown"
	if b, ok := debug.ReadBuildInfo(); ok {
		version = b.Main.Version
	}
	return &Host{Name: name, Kernel: kernelName(), Arch: runtime.GOARCH, Processors: runtime.NumCPU(), Go: runtime.Version(),
		Version: version, Load: loadAverage(), PID: os.Getpid(), Device: device}
}
