package compare

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The kernel's count sees what this process does, where it may be asked.
func TestAllCalls(t *testing.T) {
	err := CountAllCalls()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		require.ErrorContains(t, err, "counting system calls")
		require.EqualValues(t, -1, allCalls())
		t.Skip(err)
	}
	require.NoError(t, err)
	before := allCalls()
	for range 1000 {
		_ = unix.Getppid()
	}
	require.GreaterOrEqual(t, allCalls()-before, int64(1000))
	require.NoError(t, CountAllCalls(), "again")
}

// A disk that is full is said when the blocks are made, and ends nothing else.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("needs the right to mount: ", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	addr, _, _ := serve(t, &Server{Dir: dir})
	cfg := config(addr)
	cfg.Job.Source, cfg.Ways = File, []string{"read-write"}
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	require.Contains(t, r.Ways[0].Cannot, "no space left on device; choose another --dir")
	cfg.Job.Source = Memory
	r, err = Run(t.Context(), cfg)
	require.NoError(t, err)
	require.Len(t, r.Ways[0].Runs, 2)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}
