package roce

import (
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/internal/provider"
)

func mmap(t *testing.T, length, prot int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, length, prot, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(b)) })
	return b
}

// Memory that would fault when a packet comes is refused when it is registered.
func TestRegUnmapped(t *testing.T) {
	p := newPD(t, objects(false))
	try := func(addr, length uint64, a provider.AccessFlags) error {
		m, err := p.RegMR(addr, length, 0, false, a)
		if err == nil {
			require.NoError(t, m.Close())
		}
		return err
	}
	const rdwr = unix.PROT_READ | unix.PROT_WRITE
	b := mmap(t, 3*4096, rdwr)
	at := addrOf(b)
	require.NoError(t, try(at, 3*4096, lw))
	require.NoError(t, try(at+4000, 4096, lw), "the address need not be that of a page")
	require.Equal(t, syscall.EFAULT, try(4096, 4096, lw))
	require.Equal(t, syscall.EFAULT, checkResident(4096, 4096))
	require.NoError(t, checkResident(at+4000, 4096))

	require.NoError(t, unix.Mprotect(b[4096:8192], unix.PROT_READ))
	require.Equal(t, syscall.EFAULT, try(at, 3*4096, lw), "a page in the middle cannot be written")
	require.NoError(t, try(at, 3*4096, rr), "but it can be read")
	require.NoError(t, unix.Mprotect(b[4096:8192], unix.PROT_NONE))
	require.Equal(t, syscall.EFAULT, try(at, 3*4096, rr))
	require.NoError(t, try(at, 4096, lw))
	require.True(t, canPopulate(), "this kernel has MADV_POPULATE_READ; older ones are checked by mincore")
	_ = unsafe.Pointer(&b[0])
}
