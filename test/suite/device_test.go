package suite_test

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("D01", "device list", deviceList)
	register("D02", "no driver", func(t *testing.T, _ *env) { noDriver(t) })
	register("D03", "open close", openClose)
	register("D04", "query device", queryDevice)
	register("D05", "query device ex", queryDeviceEx)
	register("D16", "fork status", forkStatus)
	helper("nodriver", func(t *testing.T) {
		denyRDMANetlink(t)
		_, err := verbs.KernelDevices()
		if err != nil && strings.Contains(err.Error(), "libibverbs.so.1") {
			requireNoDriver(t, err, "apt-get install") // a machine without the library
			return
		}
		requireNoDriver(t, err, "modprobe ib_uverbs")
	})
	helper("nolibrary", func(t *testing.T) {
		hide(t, "libibverbs.so.1")
		_, err := verbs.KernelDevices()
		requireNoDriver(t, err, "libibverbs.so.1")
		require.ErrorContains(t, err, "apt-get install")
	})
	helper("forkinit", func(t *testing.T) {
		require.NoError(t, verbs.ForkInit())
		requireForkSafe(t)
		require.NoError(t, verbs.ForkInit(), "a second call changes nothing")
	})
}

func deviceList(t *testing.T, e *env) {
	l, err := verbs.Devices()
	require.NoError(t, err)
	require.NotEmpty(t, l)
	again, err := verbs.Devices()
	require.NoError(t, err)
	require.Len(t, again, len(l))
	byName := map[string]*verbs.Device{}
	for _, d := range again {
		byName[d.Name()] = d
	}
	require.Len(t, byName, len(l), "names are unique")
	indices := map[int]bool{}
	for _, d := range l {
		a := byName[d.Name()]
		require.NotNil(t, a)
		require.NotEmpty(t, d.Name())
		require.NotZero(t, d.GUID())
		if strings.HasPrefix(d.Name(), "soft:") {
			require.Equal(t, -1, d.Index())
			require.Equal(t, d.GUID(), a.GUID())
			require.Empty(t, d.CharDevice())
			require.Empty(t, d.SysfsPath())
			continue
		}
		require.GreaterOrEqual(t, d.Index(), 0, "the kernel numbers devices from 0")
		require.Equal(t, d.Index(), a.Index())
		require.Equal(t, d.GUID(), a.GUID())
		require.False(t, indices[d.Index()], "indices are unique")
		indices[d.Index()] = true
		require.Equal(t, d.Name(), d.String())
		_, err := os.Stat(filepath.Join("/dev/infiniband", d.CharDevice()))
		require.NoError(t, err)
		node, err := os.ReadFile(filepath.Join("/sys/class/infiniband", d.Name(), "node_guid"))
		require.NoError(t, err)
		require.Equal(t, strings.TrimSpace(string(node)), d.GUID().String())
	}
	require.Equal(t, "soft:127.0.0.1", l[len(l)-1].Name(), "the software device is always there, after the kernel's")
	d := byName[e.dev]
	if e.soft {
		d = e.device()
	}
	require.NotNil(t, d)
	require.Equal(t, verbs.NodeCA, d.NodeType())
	require.Equal(t, verbs.TransportIB, d.Transport())

	_, err = verbs.Open("no_such_device")
	require.ErrorIs(t, err, syscall.ENODEV)
	require.ErrorContains(t, err, `"no_such_device"`)
	if !e.soft {
		require.ErrorContains(t, err, e.dev, "the error lists the devices there are")
	}
	require.ErrorContains(t, err, "soft:127.0.0.1")
}

// TestNoDriver needs no device and runs everywhere: it is D02.
func TestNoDriver(t *testing.T) { noDriver(t) }

func noDriver(t *testing.T) {
	if _, err := verbs.KernelDevices(); err != nil {
		requireNoDriver(t, err, "")
		_, err := verbs.DeviceByName("mlx5_0")
		requireNoDriver(t, err, "")
	}
	// libibverbs finds devices by netlink or else in sysfs, which is where SYSFS_PATH says.
	out := mustHelper(t, "nodriver", nil, "SYSFS_PATH=/nonexistent")
	require.NotContains(t, out, "panic")
	if os.Geteuid() == 0 {
		mustHelper(t, "nolibrary", &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	}
}

func requireNoDriver(t *testing.T, err error, hint string) {
	t.Helper()
	require.Error(t, err)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorIs(t, err, syscall.ENOSYS)
	require.ErrorContains(t, err, hint)
	var ve *verbs.Error
	require.ErrorAs(t, err, &ve)
	require.Equal(t, "ibv_get_device_list", ve.Verb)
}

// denyRDMANetlink gives this thread what a kernel without ib_core gives to the
// question for RDMA devices: there is no such protocol.
func denyRDMANetlink(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good: the filter stays on the thread
	const (
		load, eq, ret     = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		nr, family, proto = 0, 16, 32 // offsets in struct seccomp_data, little-endian
	)
	prog := []unix.SockFilter{
		{Code: load, K: nr}, {Code: eq, K: unix.SYS_SOCKET, Jf: 5},
		{Code: load, K: family}, {Code: eq, K: unix.AF_NETLINK, Jf: 3},
		{Code: load, K: proto}, {Code: eq, K: unix.NETLINK_RDMA, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	require.NoError(t, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	require.NoError(t, unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&fprog)), 0, 0))
	_, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_RDMA)
	require.ErrorIs(t, err, unix.EPROTONOSUPPORT)
}

// hide puts an empty file over a library, in this process's own mount namespace.
func hide(t *testing.T, lib string) {
	t.Helper()
	n := 0
	for _, dir := range []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"} {
		p, err := filepath.EvalSymlinks(filepath.Join(dir, lib))
		if err != nil {
			continue
		}
		require.NoError(t, unix.Mount("/dev/null", p, "", unix.MS_BIND, ""))
		n++
	}
	t.Logf("%d file(s) hidden", n)
}

func openClose(t *testing.T, e *env) {
	for range 3 {
		c, err := e.device().Open()
		require.NoError(t, err)
		require.Equal(t, e.dev, c.Name())
		require.Positive(t, c.NumCompVectors())
		pd, err := c.AllocPD()
		require.NoError(t, err)
		require.ErrorIs(t, c.Close(), verbs.ErrInUse)
		require.NoError(t, pd.Close())
		require.NoError(t, c.Close())
		require.NoError(t, c.Close(), "a second Close is nil")
		_, err = c.QueryDevice()
		require.ErrorIs(t, err, verbs.ErrClosed)
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = c.AllocPD()
		require.ErrorIs(t, err, verbs.ErrClosed)
		_, err = c.CreateCQ(1, nil)
		require.ErrorIs(t, err, verbs.ErrClosed)
		_, err = c.GetAsyncEvent(t.Context())
		require.ErrorIs(t, err, verbs.ErrClosed)
	}
}

func queryDevice(t *testing.T, e *env) {
	a, err := e.ctx.QueryDevice()
	require.NoError(t, err)
	require.Positive(t, a.MaxQP)
	require.Positive(t, a.MaxQPWR)
	require.Positive(t, a.MaxMR)
	require.Positive(t, a.MaxPD)
	require.Positive(t, a.MaxSGE)
	require.Positive(t, a.MaxCQE)
	require.NotZero(t, a.MaxMRSize)
	require.NotZero(t, a.PhysPortCnt)
	require.Equal(t, e.device().GUID(), a.NodeGUID)
	if e.isRXE {
		require.EqualValues(t, 32767, a.MaxCQE)
		require.EqualValues(t, 32, a.MaxSGE)
		require.EqualValues(t, 27, a.MaxSRQSGE)
		require.Equal(t, verbs.AtomicHCA, a.AtomicCap)
		require.EqualValues(t, 1, a.PhysPortCnt)
		require.NotZero(t, a.DeviceCapFlags&verbs.DeviceMemWindow)
	}
}

func queryDeviceEx(t *testing.T, e *env) {
	a, err := e.ctx.QueryDevice()
	require.NoError(t, err)
	x, err := e.ctx.QueryDeviceEx()
	require.NoError(t, err)
	require.Equal(t, a, x.Orig)
	require.EqualValues(t, a.PhysPortCnt, x.PhysPortCntEx)
	if e.isRXE {
		require.Zero(t, x.ODP)
		require.Zero(t, x.TSO)
		require.Zero(t, x.RSS)
		require.Zero(t, x.TM)
		require.Zero(t, x.PacketPacing)
		require.Zero(t, x.MaxDMSize)
		require.EqualValues(t, 1, x.PhysPortCntEx)
	}
}

func forkStatus(t *testing.T, _ *env) {
	if !kernelAtLeast(5, 12) {
		t.Fatalf("kernel %s is older than what this library supports", kernel())
	}
	mustHelper(t, "forkinit", nil)
	// Also in a process that has regions: the kernel copies pinned pages on fork.
	requireForkSafe(t)
}

// Without ib_core nobody can tell libibverbs that the kernel copies pinned pages:
// it protects them itself once asked to. The software device pins none.
func requireForkSafe(t *testing.T) {
	t.Helper()
	s := verbs.IsForkInitialized()
	if _, err := verbs.KernelDevices(); err == nil {
		require.Equal(t, verbs.ForkUnneeded, s)
	}
	require.Contains(t, []verbs.ForkStatus{verbs.ForkUnneeded, verbs.ForkEnabled, verbs.ForkDisabled}, s)
}

// netdevOf is the netdev's link; changing one needs root.
func netdevOf(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	return l
}

// eventually polls until cond holds; the error of the last attempt is shown.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(waitLimit); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, waitLimit)
		}
	}
}

const noPort = math.MaxUint8

var noIP netip.Addr
