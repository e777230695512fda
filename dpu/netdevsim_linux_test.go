package dpu

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// devlink as a kernel speaks it: netdevsim, with two ports, three virtual functions and
// a switch. scripts/netdevsim.sh builds the modules and runs this in a VM.
func TestNetdevsim(t *testing.T) {
	modules := os.Getenv("ZRDMA_NETDEVSIM")
	if modules == "" {
		t.Skip("ZRDMA_NETDEVSIM names no modules: make netdevsim")
	}
	for _, m := range strings.Split(modules, ":") {
		f, err := os.Open(m)
		require.NoError(t, err)
		require.NoError(t, unix.FinitModule(int(f.Fd()), "", 0), m)
		require.NoError(t, f.Close())
	}
	const bus, name = "netdevsim", "netdevsim10"
	write := func(path, text string) {
		t.Helper()
		require.NoError(t, os.WriteFile("/sys/bus/netdevsim/"+path, []byte(text), 0))
	}
	read := func() *DevlinkDevice {
		t.Helper()
		list, err := kernelDevlink(t.Context())
		require.NoError(t, err)
		for i := range list {
			if list[i].Bus == bus && list[i].Device == name {
				return &list[i]
			}
		}
		return nil
	}
	require.Nil(t, read())
	write("new_device", "10 2")
	d := read()
	require.NotNil(t, d)
	require.Equal(t, "legacy", d.Eswitch)
	require.Equal(t, "10.20.30", d.Info["fw.mgmt"])
	require.Len(t, d.Ports, 2)

	write("devices/"+name+"/sriov_numvfs", "3")
	require.NoError(t, netlink.DevLinkSetEswitchMode(&netlink.DevlinkDevice{BusName: bus, DeviceName: name}, "switchdev"))
	d = read()
	require.Equal(t, "switchdev", d.Eswitch)
	require.Len(t, d.Ports, 5)
	netdevs := map[string]bool{}
	for i, p := range d.Ports {
		require.Equal(t, bus, p.Bus)
		require.NotEmpty(t, p.Netdev)
		_, err := os.Stat("/sys/class/net/" + p.Netdev)
		require.NoError(t, err, "not the name of a netdev")
		netdevs[p.Netdev] = true
		if i < 2 {
			require.Equal(t, "physical", p.Flavour)
			require.Equal(t, uint32(i+1), *p.Number)
			require.Nil(t, p.VF)
			continue
		}
		require.Equal(t, "pcivf", p.Flavour)
		require.Equal(t, uint16(0), *p.PF)
		require.Equal(t, uint16(i-2), *p.VF)
		require.Equal(t, uint32(0), *p.Controller)
		require.False(t, p.External)
	}
	require.Len(t, netdevs, 5)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	inv, err := Discover(ctx, Config{})
	require.NoError(t, err)
	require.Empty(t, inv.Warnings)
	require.Len(t, inv.DevlinkPorts, 5)

	write("del_device", "10")
	require.Nil(t, read())
}
