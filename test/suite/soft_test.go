package suite_test

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/roce"
	rocelink "github.com/zrdma/zrdma/internal/roce/link"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// Values of ZRDMA_TEST_DEVICE for the software device on a network in memory, and
// on one that loses, repeats, swaps and damages packets: there the cases of
// reliable connections and of their manager must hold. soft:127.0.0.1,::1 is the
// same device over UDP.
const (
	inMemory = "memory"
	lossy    = "lossy"
)

var memoryDevices = map[string]func() *verbs.Device{
	inMemory: sync.OnceValue(func() *verbs.Device { return memoryDevice(rocelink.Rules{}) }),
	lossy: sync.OnceValue(func() *verbs.Device {
		return memoryDevice(rocelink.Rules{Drop: 0.01, Duplicate: 0.01, Reorder: 0.02, Corrupt: 0.005})
	}),
}

func memoryDevice(r rocelink.Rules) *verbs.Device {
	addrs := []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1"), netip.MustParseAddr("fe80::77")}
	net := rocelink.Network(rocelink.Memory(1, rocelink.MemOptions{}))
	if r != (rocelink.Rules{}) {
		f := rocelink.Faulty(net, 1)
		f.SetAll(r)
		net = f
	}
	p := roce.New(roce.Config{Name: "soft:memory", Addrs: addrs, Net: net})
	return bridge.Device(p).(*verbs.Device)
}

// deviceOf is the device that ZRDMA_TEST_DEVICE means by name.
func deviceOf(t *testing.T, name string) *verbs.Device {
	t.Helper()
	if f := memoryDevices[name]; f != nil {
		return f()
	}
	d, err := verbs.DeviceByName(name)
	require.NoError(t, err)
	return d
}

// device is the device under test.
func (e *env) device() *verbs.Device {
	e.t.Helper()
	return deviceOf(e.t, e.name)
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
	mustHelper(e.t, "unprivileged", attr, helperDevice(e))
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
func isSoft(dev string) bool { return memoryDevices[dev] != nil || strings.HasPrefix(dev, "soft:") }

// softExtras are verbs that rxe lacks and the software device has.
func (e *env) softExtras() {
	m := e.mr(4096, allAccess)
	require.NoError(e.t, m.Rereg(verbs.ReregMRChangeAccess, verbs.ReregConfig{Access: verbs.AccessLocalWrite}))
	p := e.rc()
	e.send(p.a, at(sig(1, verbs.WRRDMAWrite, e.mr(64, allAccess).SGE(0, 64)), m, 0))
	e.ok(p.a.SendCQ(), 1, verbs.WCRemAccessErr)
	s1, ns1, err := e.ctx.QueryRTValues()
	require.NoError(e.t, err)
	s2, ns2, err := e.ctx.QueryRTValues()
	require.NoError(e.t, err)
	require.True(e.t, s2 > s1 || s2 == s1 && ns2 >= ns1, "the clock goes forward: %d.%09d, %d.%09d", s1, ns1, s2, ns2)
}

// unreachable dials a peer that is cut off, with the same connection manager under
// a test's clock: in real time it gives up after a minute.
func (e *env) unreachable() (err error) {
	rdmatest.Run(e.t, 1, func(t *testing.T, net *rdmatest.Network) {
		a, b := net.Device(t), net.Device(t)
		net.Partition(a, b)
		start := time.Now()
		_, err = a.Dial(t.Context(), netip.AddrPortFrom(b.Addr(), 7), rdmacm.DialConfig{})
		require.Greater(t, time.Since(start), 30*time.Second)
	})
	return err
}

// kernelDevice is testDevice for tests whose peers are C programs: Z05.
func kernelDevice(t *testing.T) string {
	t.Helper()
	dev := testDevice(t)
	if isSoft(dev) {
		t.Skip("Z05: " + meaningless()["Z05"])
	}
	return dev
}
