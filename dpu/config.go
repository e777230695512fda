package dpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
)

// Config says what Discover looks at. The zero value is this machine.
type Config struct {
	// Root is the folder that has sys; "": /. Another one turns the live sources
	// off: devlink, RDMA netlink, rdmamap and probing are then asked only when
	// they are given here.
	Root string

	// Arch is the processor in Go's words; "": the one this program was built for.
	Arch string

	// Devlink lists the devlink devices with their ports; nil: the kernel's.
	Devlink func(context.Context) ([]DevlinkDevice, error)

	// RDMALinks lists the RDMA devices as netlink has them; nil: the kernel's.
	RDMALinks func(context.Context) ([]RDMALink, error)

	// RDMAOf names the RDMA devices of a PCI or auxiliary device; nil: rdmamap.
	RDMAOf func(device string) []string

	// DMI identifies the machine; nil: sysfs.
	DMI func() (DMI, error)

	// VPD is the vital product data of a PCI address; nil: sysfs. No data is no error.
	VPD func(pci string) ([]byte, error)

	// Mstconfig is the text of `mstconfig -d PCI query` (or mlxconfig) by PCI
	// address. The tool is never run from here.
	Mstconfig map[string]string

	// Probe finds the capabilities of an RDMA device; nil: Probe, by verbs.
	Probe func(ctx context.Context, device string) (*Capabilities, error)

	// NoProbe leaves RDMA devices unopened.
	NoProbe bool
}

func (c Config) withDefaults() (Config, error) {
	live := c.Root == ""
	if live {
		c.Root = "/"
	}
	if st, err := os.Stat(c.Root); err != nil {
		return c, fmt.Errorf("dpu: root: %w", err)
	} else if !st.IsDir() {
		return c, fmt.Errorf("dpu: root %s is not a folder", c.Root)
	}
	for pci := range c.Mstconfig {
		if !isPCI(pci) {
			return c, fmt.Errorf("dpu: mstconfig text for %q: that is no PCI address as in 0000:03:00.0", pci)
		}
	}
	if c.Arch == "" {
		c.Arch = runtime.GOARCH
	}
	if c.Devlink == nil {
		c.Devlink = func(context.Context) ([]DevlinkDevice, error) { return nil, nil }
		if live {
			c.Devlink = kernelDevlink
		}
	}
	if c.RDMALinks == nil {
		c.RDMALinks = func(context.Context) ([]RDMALink, error) { return nil, nil }
		if live {
			c.RDMALinks = kernelRDMALinks
		}
	}
	if c.RDMAOf == nil {
		c.RDMAOf = func(string) []string { return nil }
		if live {
			c.RDMAOf = rdmamapOf
		}
	}
	if c.Probe == nil {
		if live {
			c.Probe = ProbeDevice
		} else {
			c.NoProbe = true
		}
	}
	return c, nil
}

var errNoLive = errors.New("dpu: only Linux has this source")
