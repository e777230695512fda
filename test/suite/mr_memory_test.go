package suite_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("M07", "mmap memory", mmapMemory)
	register("M08", "huge page memory", hugePages)
	register("M09", "pinned Go heap", goHeap)
	register("M10", "memlock", memlock)
	register("M12", "large MR", largeMR)
	helper("memlock", memlockHelper)
}

func mmapMemory(t *testing.T, e *env) {
	e.roundTrip(e.mr(1<<20, allAccess), e.mr(1<<20, allAccess), 1<<20)

	// Shared between two mappings: what the device writes through one is seen in the other.
	fd, err := unix.MemfdCreate("zrdma", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fd)
	const n = 64 << 10
	require.NoError(t, unix.Ftruncate(fd, n))
	maps := make([][]byte, 2)
	for i := range maps {
		maps[i], err = unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		require.NoError(t, err)
		defer unix.Munmap(maps[i])
	}
	m, err := e.pd.RegMR(maps[0], allAccess)
	require.NoError(t, err)
	e.roundTrip(e.mr(n, allAccess), m, n)
	require.Equal(t, maps[0], maps[1])
	require.NoError(t, m.Close())
}

func hugePages(t *testing.T, e *env) {
	if e.soft {
		e.softHugePages()
		return
	}
	const file = "/proc/sys/vm/nr_hugepages"
	old, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte("8"), 0), "huge pages need root")
	t.Cleanup(func() { _ = os.WriteFile(file, old, 0) })
	const n = 4 << 20 // two pages
	var m [2]*verbs.MR
	for i := range m {
		b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB|21<<unix.MAP_HUGE_SHIFT)
		require.NoError(t, err)
		t.Cleanup(func() { _ = unix.Munmap(b) })
		require.Zero(t, uintptr(unsafe.Pointer(&b[0]))%(2<<20))
		m[i], err = e.pd.RegMR(b, allAccess)
		require.NoError(t, err)
		e.closeAtEnd(m[i])
	}
	e.roundTrip(m[0], m[1], n)
	// A message across the border of two pages.
	p := e.rc()
	const border = 2<<20 - 3000
	fill(m[0].Bytes(), 77)
	e.send(p.a, write(1, m[0].SGE(border, 6000), m[1].Addr()+border+1, m[1].RKey()))
	e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
	require.Equal(t, m[0].Bytes()[border:border+6000], m[1].Bytes()[border+1:border+6001])
}

func goHeap(t *testing.T, e *env) {
	const n, rounds = 256 << 10, 20
	reg := func() *verbs.MR {
		m, err := e.pd.RegMR(make([]byte, n), allAccess)
		require.NoError(t, err)
		e.closeAtEnd(m)
		return m // nothing but the region holds the slice
	}
	a, b := reg(), reg()
	p := e.rc()
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		var keep [][]byte
		for !stop.Load() {
			keep = append(keep, make([]byte, 64<<10))
			if len(keep) > 100 {
				keep = nil
			}
			runtime.GC()
		}
	}()
	for i := range uint64(rounds) {
		fill(a.Bytes(), int(i))
		clear(b.Bytes())
		e.send(p.a, write(i, a.SGE(0, n), b.Addr(), b.RKey()))
		e.ok(p.a.SendCQ(), i, verbs.WCSuccess)
		require.Equal(t, a.Bytes(), b.Bytes(), "round %d", i)
	}
	stop.Store(true)
	<-done

	// Close ends the pinning: the collector may then have the memory.
	collected := make(chan struct{})
	func() {
		s := make([]byte, n)
		runtime.AddCleanup(&s[0], func(int) { close(collected) }, 0)
		m, err := e.pd.RegMR(s, allAccess)
		require.NoError(t, err)
		runtime.GC()
		require.Len(t, m.Bytes(), n)
		require.NoError(t, m.Close())
	}()
	eventually(t, "collection of a closed region's slice", func() bool {
		runtime.GC()
		select {
		case <-collected:
			return true
		default:
			return false
		}
	})
}

// As a user without CAP_IPC_LOCK and with 64 KiB of locked memory.
func memlock(t *testing.T, e *env) {
	if e.soft {
		e.softMemlock()
		return
	}
	d, err := verbs.DeviceByName(e.dev)
	require.NoError(t, err)
	node := "/dev/infiniband/" + d.CharDevice()
	st, err := os.Stat(node)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(node, 0o666))
	t.Cleanup(func() { _ = os.Chmod(node, st.Mode().Perm()) })
	cred := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	mustHelper(t, "memlock", cred, helperDevice(e))

	// No permission at all on the device's node.
	require.NoError(t, os.Chmod(node, 0o600))
	mustHelper(t, "noaccess", cred, helperDevice(e), "ZRDMA_NODE="+node)
}

// helperDevice names the device under test for a helper's process.
func helperDevice(e *env) string {
	if e.soft && !e.memory { // whose addresses this process has
		return "ZRDMA_TEST_DEVICE=soft:127.0.0.9"
	}
	return "ZRDMA_TEST_DEVICE=" + e.name
}

func memlockHelper(t *testing.T) {
	require.Equal(t, 65534, os.Getuid())
	caps, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	require.Contains(t, string(caps), "CapEff:\t0000000000000000")
	const limit = 64 << 10
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: limit, Max: limit}))
	e := newEnv(t, testDevice(t))
	_, err = e.pd.RegMR(e.mem(1<<20), allAccess)
	require.ErrorIs(t, err, syscall.ENOMEM)
	require.ErrorContains(t, err, "ibv_reg_mr")
	require.ErrorContains(t, err, fmt.Sprint("locked-memory limit is ", limit))
	require.ErrorContains(t, err, "ulimit -l")
	m := e.mr(4096, allAccess)
	require.NoError(t, m.Close())
	for range 100 { // what was deregistered counts no more
		m, err := e.pd.RegMR(e.mem(32<<10), allAccess)
		require.NoError(t, err)
		require.NoError(t, m.Close())
	}
}

func init() {
	helper("noaccess", func(t *testing.T) {
		_, err := deviceOf(t, testDevice(t)).Open()
		require.ErrorIs(t, err, syscall.EACCES)
		require.ErrorContains(t, err, os.Getenv("ZRDMA_NODE"))
		require.ErrorContains(t, err, "udev rule")
	})
}

// A region of 1 GiB, and a write of 16 MiB into its last bytes. Where memory is
// short the region is one file of 64 MiB mapped 16 times in a row.
func largeMR(t *testing.T, e *env) {
	const size, msg = 1 << 30, 16 << 20
	b := bigMemory(t, size)
	m, err := e.pd.RegMR(b, allAccess)
	require.NoError(t, err)
	require.EqualValues(t, size, m.Len())
	src := e.mr(msg, allAccess)
	fill(src.Bytes(), 12)
	p := e.rc()
	e.send(p.a, write(1, src.SGE(0, msg), m.Addr()+size-msg, m.RKey()))
	w := e.pollFor(p.a.SendCQ(), 1, 3*waitLimit)
	require.Len(t, w, 1)
	require.Equal(t, verbs.WCSuccess, w[0].Status)
	require.Equal(t, src.Bytes(), b[size-msg:])
	require.Equal(t, make([]byte, 4096), b[size-msg-4096:size-msg], "nothing before it")
	e.send(p.a, write(2, src.SGE(0, 2), m.Addr()+size-1, m.RKey()))
	e.ok(p.a.SendCQ(), 2, verbs.WCRemAccessErr)
	require.NoError(t, m.Close())
}

func bigMemory(t *testing.T, size int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Munmap(b) })
	info, err := os.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(info), "MemAvailable:")
	var kib int
	_, err = fmt.Sscan(rest, &kib)
	require.NoError(t, err)
	if kib<<10 > size+512<<20 {
		t.Logf("MemAvailable %d KiB: memory of its own", kib)
		return b
	}
	const part = 64 << 20
	t.Logf("MemAvailable %d KiB: %d MiB mapped %d times", kib, part>>20, size/part)
	fd, err := unix.MemfdCreate("zrdma", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Ftruncate(fd, part))
	base := unsafe.Pointer(&b[0])
	for off := 0; off < size; off += part {
		_, err := unix.MmapPtr(fd, 0, unsafe.Add(base, off), part, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
		require.NoError(t, err)
	}
	return b
}
