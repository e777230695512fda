package verbs

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
)

func TestSoftNames(t *testing.T) {
	for name, want := range map[string]string{
		"soft:127.0.0.1":             "soft:127.0.0.1",
		"soft:127.0.0.1,::1":         "soft:127.0.0.1,::1",
		"soft:::ffff:127.0.0.2":      "soft:127.0.0.2",
		"soft:::1":                   "soft:::1",
		"soft:fe80::1%eth0":          "soft:fe80::1%eth0",
		"soft:192.0.2.7,2001:db8::7": "soft:192.0.2.7,2001:db8::7",
	} {
		d, err := DeviceByName(name)
		require.NoError(t, err, name)
		require.Equal(t, want, d.Name())
		again, err := DeviceByName(want)
		require.NoError(t, err)
		require.Same(t, d, again, "one device for all who name it")
		require.Equal(t, -1, d.Index())
		require.Empty(t, d.SysfsPath())
		require.Empty(t, d.CharDevice())
	}
	for name, says := range map[string]string{
		"soft":                     "soft:127.0.0.1,::1",
		"soft:":                    "its address is missing",
		"soft:eth0":                `"eth0" is no IP address`,
		"soft:127.0.0.1:4791":      "without a port",
		"soft:127.0.0.1,":          `"" is no IP address`,
		"soft:127.0.0.1,127.0.0.1": "it is there twice",
		"soft:0.0.0.0":             "name the addresses themselves",
		"soft:::":                  "name the addresses themselves",
		"soft:224.0.0.1":           "not the address of one host",
		"soft:255.255.255.255":     "not the address of one host",
		"soft:fe80::1":             "needs its zone",
	} {
		_, err := Open(name)
		require.ErrorIs(t, err, syscall.EINVAL, name)
		require.ErrorContains(t, err, says, name)
	}
	_, err := OpenSoft(SoftConfig{Addrs: []netip.Addr{{}}})
	require.ErrorContains(t, err, "not an address")
}

func TestSoftIsAlwaysListed(t *testing.T) {
	l, err := Devices()
	require.NoError(t, err)
	require.NotEmpty(t, l)
	last := l[len(l)-1]
	require.Equal(t, "soft:127.0.0.1", last.Name())
	for _, d := range l[:len(l)-1] {
		require.False(t, d.p.Info().Soft, "kernel devices come first")
	}
	kernel, err := KernelDevices()
	require.Len(t, l, len(kernel)+1)
	if err != nil {
		// The reason is not lost: it is what a kernel device's name gets.
		require.ErrorIs(t, err, errors.ErrUnsupported)
		_, byName := DeviceByName("mlx5_0")
		require.ErrorIs(t, byName, errors.ErrUnsupported)
		require.ErrorIs(t, byName, syscall.ENODEV)
		require.ErrorContains(t, byName, err.Error())
		require.ErrorContains(t, byName, "soft:127.0.0.1")
	}
}

func TestSoftOpenErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		says string
	}{
		{syscall.EADDRINUSE, "soft:127.0.0.2"},
		{syscall.EADDRNOTAVAIL, "ip addr"},
		{syscall.EPERM, "firewall"},
	} {
		d := &Device{p: brokenDevice{c.err}}
		_, err := d.Open()
		require.ErrorIs(t, err, c.err)
		require.ErrorContains(t, err, c.says)
	}
}

type brokenDevice struct{ err error }

func (brokenDevice) Info() provider.DeviceInfo {
	return provider.DeviceInfo{Name: "soft:192.0.2.1", Soft: true}
}
func (d brokenDevice) Open() (provider.Context, error) { return nil, d.err }
