package mr

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/verbs"
)

func ptr[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

func TestMeminfo(t *testing.T) {
	const text = "MemTotal:       8000 kB\nHugePages_Free:        3\nHugepagesize:       2048 kB\nOdd: x kB\nBare:\n"
	n, ok := meminfo(text, "HugePages_Free")
	require.True(t, ok)
	require.Equal(t, 3, n)
	require.Equal(t, 2<<20, hugePageSize(text))
	require.Zero(t, hugePageSize("MemTotal: 1 kB\n"))
	_, ok = meminfo(text, "Odd")
	require.False(t, ok)
	_, ok = meminfo(text, "Bare")
	require.False(t, ok)
}

// Without reserved huge pages: a fallback that is said once, or an error that
// says what to reserve.
func TestHugePagesAreShort(t *testing.T) {
	free, _ := meminfo(readMeminfo(), "HugePages_Free")
	size := (free + 1) * max(hugeSize(), 2<<20)
	_, err := mapAnon(size, HugeOnly, -1)
	require.ErrorIs(t, err, syscall.ENOMEM)
	require.ErrorContains(t, err, "nr_hugepages")
	if raceBuild || hugeSize() == 0 {
		return // a race build takes Go memory
	}
	before := strings.Count(logs.String(), "no huge pages")
	sayOnce = sync.Once{}
	for range 3 {
		m, err := mapAnon(size, HugeAuto, -1)
		require.NoError(t, err)
		require.Contains(t, []Backing{TransparentHuge, OrdinaryPages}, m.backing)
		m.mem[len(m.mem)-1] = 1
		require.NoError(t, m.unmap())
	}
	require.Equal(t, before+1, strings.Count(logs.String(), "no huge pages"), "once")
	m, err := mapAnon(size, HugeOff, -1)
	require.NoError(t, err)
	require.Equal(t, OrdinaryPages, m.backing)
	require.NoError(t, m.unmap())
}

// Reserved huge pages are used when there are some. Root can reserve them.
func TestReservedHugePages(t *testing.T) {
	if raceBuild || hugeSize() == 0 {
		return
	}
	const knob = "/proc/sys/vm/nr_hugepages"
	old, err := os.ReadFile(knob)
	require.NoError(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(old)))
	require.NoError(t, err)
	if os.WriteFile(knob, []byte(strconv.Itoa(n+1)), 0) != nil {
		t.Log("cannot reserve huge pages here; the fallback is tested above")
		return
	}
	defer func() { require.NoError(t, os.WriteFile(knob, old, 0)) }()
	if free, _ := meminfo(readMeminfo(), "HugePages_Free"); free == 0 {
		t.Log("the kernel had no huge page left")
		return
	}
	m, err := mapAnon(1000, HugeOnly, -1)
	require.NoError(t, err)
	require.Equal(t, ReservedHuge, m.backing)
	require.Len(t, m.mem, hugeSize())
	m.mem[len(m.mem)-1] = 1
	require.NoError(t, m.unmap())
}

func TestNodes(t *testing.T) {
	require.Equal(t, -1, AnyNode.resolve(nil))
	require.Equal(t, 0, OnNode(0).resolve(nil))
	require.Equal(t, 3, OnNode(3).resolve(nil))
	require.Equal(t, -1, NearDevice.resolve(nil))
	_, pd := fake(t)
	require.Equal(t, -1, NearDevice.resolve([]*verbs.PD{pd}))
	if raceBuild {
		return
	}
	m, err := mapAnon(8192, HugeOff, 0)
	require.NoError(t, err)
	m.mem[0] = 1
	var mode int
	_, _, e := unix.Syscall6(unix.SYS_GET_MEMPOLICY, ptr(&mode), 0, 0, ptr(&m.mem[0]), 2 /* MPOL_F_ADDR */, 0)
	if e == 0 { // a kernel without NUMA has no policies
		require.Equal(t, 1, mode, "MPOL_PREFERRED")
	} else {
		require.Contains(t, []syscall.Errno{syscall.ENOSYS, syscall.EPERM}, e)
	}
	require.NoError(t, m.unmap())
	m, err = mapAnon(8192, HugeOff, 1000)
	require.NoError(t, err, "a hint only")
	require.NoError(t, m.unmap())
}
