package mr

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func TestRegionHandsOutRanges(t *testing.T) {
	_, pd := fake(t)
	r, err := Alloc(10_000, Config{}, pd)
	require.NoError(t, err)
	require.EqualValues(t, 12288, r.Len(), "whole pages")
	require.Equal(t, []*verbs.PD{pd}, r.Domains())
	a, err := r.Buf(100, 100)
	require.NoError(t, err)
	for _, x := range [][2]int{{100, 1}, {199, 1}, {0, 101}, {0, 1000}, {150, 10}, {50, 1000}} {
		_, err := r.Buf(uint64(x[0]), x[1])
		require.ErrorIs(t, err, ErrInUse, "%v", x)
	}
	b, err := r.Buf(200, 50)
	require.NoError(t, err)
	c, err := r.Buf(0, 100)
	require.NoError(t, err)
	m, err := a.Bytes()
	require.NoError(t, err)
	require.Len(t, m, 100)
	require.Same(t, &r.mem[100], &m[0])
	require.ErrorIs(t, r.Close(), ErrInUse)
	require.NoError(t, a.Release())
	a2, err := r.Buf(120, 10)
	require.NoError(t, err)
	refused(t, Released, a.Err())
	for _, x := range []Buf{a2, b, c} {
		require.NoError(t, x.Release())
	}
	for _, x := range []struct {
		off uint64
		n   int
	}{{0, -1}, {12288, 1}, {0, 12289}, {^uint64(0), 2}, {12289, 0}} {
		_, err := r.Buf(x.off, x.n)
		require.Error(t, err)
	}
	_, err = r.Buf(0, 1<<32)
	require.ErrorContains(t, err, "at most")
	require.ErrorIs(t, r.Sync(0, 1), errors.ErrUnsupported)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	_, err = r.Buf(0, 1)
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, r.AddDomain(pd), ErrClosed)
}

func TestRegisterIsUndone(t *testing.T) {
	d, pd := fake(t)
	_, err := Alloc(4096, Config{}, pd, nil)
	require.ErrorIs(t, err, syscall.EINVAL)
	require.Zero(t, d.mrs.Load(), "what was registered before the error is gone")
	for _, n := range []int{0, -1} {
		_, err = Alloc(n, Config{}, pd)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
	_, err = Register(nil, 0, pd)
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = RegisterDmabuf(-1, 0, 1, 0, pd)
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = RegisterDmabuf(0, 0, 4096, 0, pd)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "cannot register that kind of memory")
}

func TestErrorsSayWhatToDo(t *testing.T) {
	d, pd := fake(t)
	for errno, want := range map[syscall.Errno]string{
		syscall.ENOMEM: "ulimit -l",
		syscall.EFAULT: "leave out AccessLocalWrite",
	} {
		d.regErr = errno
		_, err := Alloc(4096, Config{}, pd)
		require.ErrorIs(t, err, errno)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "4096 bytes")
	}
}

// A Go slice stays where it is and alive while it is registered.
func TestRegisterGoSlice(t *testing.T) {
	_, pd := fake(t)
	b := make([]byte, 1000)
	r, err := Register(b, 0, pd)
	require.NoError(t, err)
	require.Equal(t, CallerMemory, r.Backing())
	x, err := r.Buf(0, 1000)
	require.NoError(t, err)
	m, err := x.Bytes()
	require.NoError(t, err)
	b[999] = 7
	b = nil
	runtime.GC()
	runtime.GC()
	require.EqualValues(t, 7, m[999])
	require.NoError(t, x.Release())
	require.NoError(t, r.Close())
}

func TestMapFile(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // there MapFile is errors.ErrUnsupported
	}
	_, pd := fake(t)
	name := filepath.Join(t.TempDir(), "file")
	content := []byte(strings.Repeat("0123456789abcdef", 1024)) // 16 KiB
	require.NoError(t, os.WriteFile(name, content, 0o600))

	f, err := os.Open(name)
	require.NoError(t, err)
	for n, cfg := range map[string]FileConfig{
		"unaligned":    {Offset: 1},
		"negative":     {Offset: -4096},
		"past the end": {Length: 1 << 20},
		"empty":        {Offset: 16384},
		"rights":       {Access: verbs.AccessLocalWrite},
	} {
		_, err := MapFile(f, cfg, pd)
		require.ErrorIs(t, err, syscall.EINVAL, n)
	}
	_, err = MapFile(f, FileConfig{Writable: true}, pd)
	require.ErrorIs(t, err, syscall.EACCES, "the file is open for reading")

	r, err := MapFile(f, FileConfig{Offset: 4096}, pd)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.True(t, r.ReadOnly())
	require.EqualValues(t, 12288, r.Len())
	require.Zero(t, r.key(pd).access&verbs.AccessLocalWrite)
	a, err := r.Buf(0, 12288)
	require.NoError(t, err)
	b, err := r.Buf(100, 200)
	require.NoError(t, err, "many may read")
	m, err := b.Bytes()
	require.NoError(t, err)
	require.Equal(t, content[4196:4396], m)
	_, err = a.Take(DeviceWrites)
	require.ErrorIs(t, err, errReadOnly)
	require.ErrorIs(t, r.Sync(0, 1), errors.ErrUnsupported)
	require.NoError(t, a.Release())
	require.NoError(t, b.Release())
	require.NoError(t, r.Close())

	f, err = os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	r, err = MapFile(f, FileConfig{Length: 5000, Writable: true}, pd)
	require.NoError(t, err)
	b, err = r.Buf(4990, 10)
	require.NoError(t, err)
	m, err = b.Bytes()
	require.NoError(t, err)
	copy(m, "ABCDEFGHIJ")
	require.NoError(t, r.Sync(4990, 10))
	require.Error(t, r.Sync(4990, 11))
	require.NoError(t, b.Release())
	require.NoError(t, r.Close())
	require.ErrorIs(t, r.Sync(0, 1), ErrClosed)
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, "ABCDEFGHIJ", string(got[4990:5000]))
}
