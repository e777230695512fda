//go:build linux

package qp

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

// memfd is a file in memory, sealed as the software device wants it.
func memfd(t *testing.T, size int64, seals int) *os.File {
	fd, err := unix.MemfdCreate("dmabuf", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "dmabuf")
	require.NoError(t, f.Truncate(size))
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	require.NoError(t, err)
	return f
}

// The memory of a descriptor, a dma-buf's or what stands for one here, is written and
// read by a peer, and lives as long as the region, not as its descriptor.
func TestDmabuf(t *testing.T) {
	da, db := devices(t)
	const size, off = 64 << 10, 4096
	f := memfd(t, size, unix.F_SEAL_SHRINK)
	dup, err := syscall.Dup(int(f.Fd()))
	require.NoError(t, err)
	defer syscall.Close(dup)
	r, err := mr.RegisterDmabuf(int(f.Fd()), off, size-off, verbs.AccessLocalWrite|verbs.AccessRemoteWrite|verbs.AccessRemoteRead, db.PD())
	if errors.Is(err, errors.ErrUnsupported) {
		require.NotEmpty(t, testDevice(), "the software device has them")
		return
	}
	require.NoError(t, err)
	require.NoError(t, f.Close(), "the region keeps the memory")
	a, b := pair(t, da, db, Config{}, Config{})

	b1, err := da.Pool().Get(t.Context(), 10000)
	require.NoError(t, err)
	p, err := b1.Bytes()
	require.NoError(t, err)
	want := bytes.Repeat([]byte("block 7 "), 1250)
	copy(p, want)
	key := r.MR(db.PD())
	// The region's addresses begin at the offset.
	b1, err = a.Write(t.Context(), b1, Remote{Addr: off + 100, Len: 10000, RKey: key.RKey()})
	require.NoError(t, err)
	got := make([]byte, 10000)
	_, err = syscall.Pread(dup, got, off+100)
	require.NoError(t, err)
	require.Equal(t, want, got)

	// And as the source of a message.
	src, err := r.Buf(100, 4000)
	require.NoError(t, err)
	require.NoError(t, b.Send(t.Context(), src))
	m, err := a.Recv(t.Context())
	require.NoError(t, err)
	p, err = m.Buf.Bytes()
	require.NoError(t, err)
	require.Equal(t, want[:4000], p)
	for _, x := range []mr.Buf{b1, m.Buf} {
		require.NoError(t, x.Release())
	}
	require.NoError(t, r.Close())

	// Memory that could go away, or is not there.
	for _, x := range []struct {
		f    *os.File
		size uint64
	}{{memfd(t, size, 0), size}, {memfd(t, size, unix.F_SEAL_SHRINK), 2 * size}} {
		_, err := mr.RegisterDmabuf(int(x.f.Fd()), 0, x.size, 0, db.PD())
		require.Error(t, err)
		require.NoError(t, x.f.Close())
	}
}
