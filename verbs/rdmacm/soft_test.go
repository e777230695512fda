package rdmacm

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// connect listens on one device and dials from the other; nil is the default one.
func connect(t *testing.T, from, to *verbs.Context, addr netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l, err := Listen(ctx, netip.AddrPortFrom(addr, 0), ListenConfig{Device: to})
	require.NoError(t, err)
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept(ctx)
		if err == nil {
			err = c.WaitDisconnected(ctx)
			c.Close()
		}
		served <- err
	}()
	c, err := Dial(ctx, l.Addr(), DialConfig{Device: from})
	require.NoError(t, err)
	require.Equal(t, addr, c.PeerAddr().Addr())
	if from != nil {
		require.Same(t, from, c.ID.Context())
		require.ErrorIs(t, from.Close(), verbs.ErrInUse, "the connection is open")
	}
	require.NoError(t, c.Close())
	require.NoError(t, <-served)
}

// The default is what ZRDMA_DEVICE names.
func TestSoftByEnvironment(t *testing.T) {
	t.Setenv(verbs.EnvDevice, "soft:127.7.0.1")
	connect(t, nil, nil, netip.MustParseAddr("127.7.0.1"))
	l, err := Devices()
	require.NoError(t, err)
	require.Len(t, l, 1)
	require.Equal(t, "soft:127.7.0.1", l[0].Name())
	ai, err := GetAddrInfo(t.Context(), "127.7.0.1", "7", nil)
	require.NoError(t, err)
	require.Equal(t, netip.MustParseAddrPort("127.7.0.1:7"), ai[0].Dst)
}

// Several devices in one process: each channel says which, whatever the
// environment says.
func TestSoftByDevice(t *testing.T) {
	t.Setenv(verbs.EnvDevice, "no_such_device")
	var dev [2]*verbs.Context
	for i, a := range []string{"127.7.0.2", "127.7.0.3"} {
		var err error
		dev[i], err = verbs.OpenSoft(verbs.SoftConfig{Addrs: []netip.Addr{netip.MustParseAddr(a)}})
		require.NoError(t, err)
	}
	connect(t, dev[0], dev[1], netip.MustParseAddr("127.7.0.3"))
	connect(t, dev[1], dev[1], netip.MustParseAddr("127.7.0.3"))
	ch, err := CreateEventChannelOn(dev[0])
	require.NoError(t, err)
	require.ErrorIs(t, dev[0].Close(), verbs.ErrInUse, "a channel is open")
	require.NoError(t, ch.Close())
	for _, d := range dev {
		require.NoError(t, d.Close())
	}
	_, err = CreateEventChannelOn(dev[0])
	require.ErrorIs(t, err, ErrClosed)
}

// Without a kernel device the software device is taken, and the log says why.
func TestFallbackIsLogged(t *testing.T) {
	why := kernelFault()
	if why == "" {
		t.Setenv(verbs.EnvDevice, "")
		_, soft := softByDefault()
		require.False(t, soft, "this machine has a kernel device")
		return
	}
	var b strings.Builder
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&b, nil)))
	defer slog.SetDefault(old)
	t.Setenv(verbs.EnvDevice, "")
	name, soft := softByDefault()
	require.True(t, soft)
	require.Empty(t, name)
	require.Equal(t, why, noKernel())
	require.Empty(t, b.String(), "a name needs no device")
	sayOnce()
	require.Contains(t, b.String(), "soft:127.0.0.1")
	require.Contains(t, b.String(), "why=")
	t.Setenv(verbs.EnvDevice, "mlx5_0")
	_, soft = softByDefault()
	require.False(t, soft, "a kernel device was asked for")
}
