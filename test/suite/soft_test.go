package suite_test

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// inMemory is the value of ZRDMA_TEST_DEVICE for the software device on a network
// that is in memory. soft:127.0.0.1,::1 is the same over UDP.
const inMemory = "memory"

var memoryDevice = func() *verbs.Device { return nil }

// deviceOf is the device that ZRDMA_TEST_DEVICE means by name.
func deviceOf(t *testing.T, name string) *verbs.Device {
	t.Helper()
	if name == inMemory {
		return memoryDevice()
	}
	d, err := verbs.DeviceByName(name)
	require.NoError(t, err)
	return d
}

// device is the device under test.
func (e *env) device() *verbs.Device {
	e.t.Helper()
	if e.memory {
		return memoryDevice()
	}
	return deviceOf(e.t, e.dev)
}

// softAddrs finds the addresses of a software device, which are its GIDs.
func (e *env) softAddrs() {
	for _, x := range e.table() {
		switch a := x.GID.Addr(); {
		case a.Is4() && !e.ip4.IsValid():
			e.ip4 = a
		case a.Is6() && !a.IsLinkLocalUnicast() && !e.ip6.IsValid():
			e.ip6 = a
		}
	}
}

// dial and listenOn connect through the manager of the device under test.
func (e *env) dial(ctx context.Context, peer netip.AddrPort, cfg rdmacm.DialConfig) (*rdmacm.Conn, error) {
	cfg.Device = e.ctx
	return rdmacm.Dial(ctx, peer, cfg)
}

func (e *env) listenOn(ctx context.Context, addr netip.AddrPort, cfg rdmacm.ListenConfig) (*rdmacm.Listener, error) {
	cfg.Device = e.ctx
	return rdmacm.Listen(ctx, addr, cfg)
}

// softGIDs is D13 where addresses do not come and go.
func (e *env) softGIDs() {
	for _, a := range []netip.Addr{e.ip4, e.ip6} {
		g, err := e.ctx.SelectGID(e.port, a)
		require.NoError(e.t, err)
		require.Equal(e.t, a, g.GID.Addr())
	}
	_, err := e.ctx.SelectGID(e.port, netip.MustParseAddr("fd00:7a72:646d::13"))
	require.ErrorIs(e.t, err, syscall.EADDRNOTAVAIL)
	require.ErrorContains(e.t, err, "fd00:7a72:646d::13")
	require.ErrorContains(e.t, err, e.ip4.String(), "the error lists what the port has")
	for _, x := range e.table() {
		if a := x.GID.Addr(); a.IsLinkLocalUnicast() {
			g, err := e.ctx.SelectGID(e.port, a.WithZone("eth0"))
			require.NoError(e.t, err, "a zone does not matter")
			require.Equal(e.t, x.GID, g.GID)
		}
	}
}

// softHugePages is M08 without the privilege to reserve huge pages: the kernel is
// asked for them, and the region is what it would be with them.
func (e *env) softHugePages() {
	const page = 2 << 20
	var m [2]*verbs.MR
	for i := range m {
		b := e.mem(4 * page)
		skip := (page - int(uintptr(unsafe.Pointer(&b[0]))%page)) % page
		b = b[skip : skip+2*page]
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
		var err error
		m[i], err = e.pd.RegMR(b, allAccess)
		require.NoError(e.t, err)
		e.closeAtEnd(m[i])
	}
	e.roundTrip(m[0], m[1], 2*page)
	p := e.rc()
	const border = page - 3000
	fill(m[0].Bytes(), 77)
	e.send(p.a, write(1, m[0].SGE(border, 6000), m[1].Addr()+border+1, m[1].RKey()))
	e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
	require.Equal(e.t, m[0].Bytes()[border:border+6000], m[1].Bytes()[border+1:border+6001])
}

// softMemlock is M10: the device locks no memory, and needs no privilege at all.
func (e *env) softMemlock() {
	var attr *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	mustHelper(e.t, "unprivileged", attr, "ZRDMA_TEST_DEVICE="+inMemory)
	if !e.memory { // the addresses under test are this process's
		mustHelper(e.t, "unprivileged", attr, "ZRDMA_TEST_DEVICE=soft:127.0.0.9")
	}
}

func init() {
	helper("unprivileged", func(t *testing.T) {
		require.NotZero(t, os.Getuid())
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{}))
		e := newEnv(t, testDevice(t))
		e.roundTrip(e.mr(1<<20, allAccess), e.mr(1<<20, allAccess), 1<<20)
	})
}

// isSoft says whether ZRDMA_TEST_DEVICE names a software device.
func isSoft(dev string) bool { return dev == inMemory || strings.HasPrefix(dev, "soft:") }
