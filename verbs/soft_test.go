package verbs

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
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

// All opens of one device share it; its addresses are free after the last Close.
func TestSoftIsShared(t *testing.T) {
	name := "soft:127.7.1.1,127.7.1.2"
	a, err := Open(name)
	require.NoError(t, err)
	b, err := Open(name)
	require.NoError(t, err)
	port, err := b.ActivePort()
	require.NoError(t, err)
	require.EqualValues(t, 1, port)
	for _, ip := range []string{"127.7.1.1", "127.7.1.2"} {
		_, err := b.SelectGID(1, netip.MustParseAddr(ip))
		require.NoError(t, err)
	}
	_, err = Open("soft:127.7.1.2")
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "two devices of one process")
	require.NoError(t, a.Close())
	_, err = b.QueryDevice()
	require.NoError(t, err)
	require.NoError(t, b.Close())
	c, err := Open("soft:127.7.1.2")
	require.NoError(t, err)
	require.NoError(t, c.Close())
	_, err = Open("soft:203.0.113.9")
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	require.ErrorContains(t, err, "203.0.113.9")
}

func TestOpenDefault(t *testing.T) {
	t.Setenv(EnvDevice, "soft:127.7.1.3")
	c, err := OpenDefault()
	require.NoError(t, err)
	require.Equal(t, "soft:127.7.1.3", c.Name())
	require.NoError(t, c.Close())
	t.Setenv(EnvDevice, "no_such_device")
	_, err = OpenDefault()
	require.ErrorIs(t, err, syscall.ENODEV, "what was asked for is not replaced by something else")

	if l, _ := KernelDevices(); len(l) > 0 {
		return
	}
	var b strings.Builder
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&b, nil)))
	defer slog.SetDefault(old)
	t.Setenv(EnvDevice, "")
	// Another process has 127.0.0.1, this one or one that tests too.
	u, err := net.ListenPacket("udp", "127.0.0.1:4791")
	if err == nil {
		defer u.Close()
	}
	c, err = OpenDefault()
	require.NoError(t, err)
	require.Regexp(t, `^soft:127\.0\.0\.([2-9]|[1-6][0-9])$`, c.Name())
	require.Contains(t, b.String(), "using the software device")
	require.Contains(t, b.String(), "why=")
	require.NoError(t, c.Close())
}
