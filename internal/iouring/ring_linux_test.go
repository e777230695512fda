package iouring

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// ring skips where the machine has no io_uring, and says why.
func ring(t *testing.T, n int) *Ring {
	t.Helper()
	if err := Probe(OpReadFixed, OpSendZC); err != nil {
		if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrPermission) {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	r, err := New(n)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func mapped(t *testing.T, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(b)) })
	return b
}

// blocking is a connection over loopback, whose descriptors wait.
func blocking(t *testing.T) (a, b int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	fd := func(c net.Conn) int {
		f, err := c.(*net.TCPConn).File()
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, unix.SetNonblock(int(f.Fd()), false))
		t.Cleanup(func() { f.Close() })
		return int(f.Fd())
	}
	x, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	y, err := l.Accept()
	require.NoError(t, err)
	return fd(x), fd(y)
}

// A file goes through a registered buffer to a socket, in one chain, and into
// another registered buffer.
func TestFileToSocket(t *testing.T) {
	r := ring(t, 8)
	const n = 300_000
	out, in := mapped(t, n), mapped(t, n)
	require.NoError(t, r.Register(out, in))
	want := bytes.Repeat([]byte("zrdma/"), n/6)
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file, want, 0o600))
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	a, b := blocking(t)
	require.NoError(t, r.ReadFixed(int(f.Fd()), out, 0, 0, true, 1))
	require.NoError(t, r.SendZC(a, out, 0, false, 2))
	require.NoError(t, r.ReadFixed(b, in, 1, -1, false, 3))
	got, notified, results := 0, false, 0
	for got < n || !notified {
		require.NoError(t, r.Wait(t.Context(), func(c Completion) {
			require.NoError(t, c.Err, "operation %d", c.User)
			switch {
			case c.Notified:
				require.EqualValues(t, 2, c.User)
				notified = true
			case c.User == 3:
				if got += c.N; got < n {
					require.NoError(t, r.ReadFixed(b, in[got:], 1, -1, false, 3))
				}
			default:
				require.Equal(t, n, c.N)
				require.Equal(t, c.User == 2, c.More, "a send is followed by its notification")
				results++
			}
		}))
	}
	require.Equal(t, 2, results)
	require.True(t, bytes.Equal(want, in))
	require.Positive(t, r.Enters)
}

// Where the first of a chain fails the second is not done.
func TestChainBreaks(t *testing.T) {
	r := ring(t, 4)
	buf := mapped(t, 4096)
	require.NoError(t, r.Register(buf))
	a, _ := blocking(t)
	require.NoError(t, r.ReadFixed(-1, buf, 0, 0, true, 1))
	require.NoError(t, r.SendZC(a, buf, 0, false, 2))
	errs := map[uint64]error{}
	for len(errs) < 2 {
		require.NoError(t, r.Wait(t.Context(), func(c Completion) {
			if !c.Notified {
				errs[c.User] = c.Err
			}
		}))
	}
	require.ErrorIs(t, errs[1], syscall.EBADF)
	require.ErrorIs(t, errs[2], syscall.ECANCELED)
}

func TestWaitEndsWithItsContext(t *testing.T) {
	r := ring(t, 4)
	buf := mapped(t, 4096)
	require.NoError(t, r.Register(buf))
	a, _ := blocking(t)
	require.NoError(t, r.ReadFixed(a, buf, 0, -1, false, 1))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, r.Wait(ctx, func(Completion) { t.Error("nothing can have come") }), context.DeadlineExceeded)
	require.NoError(t, unix.Shutdown(a, unix.SHUT_RDWR))
	require.NoError(t, r.Wait(t.Context(), func(c Completion) { require.Zero(t, c.N); require.NoError(t, c.Err) }))
}

func TestFull(t *testing.T) {
	r := ring(t, 1)
	buf := mapped(t, 4096)
	require.NoError(t, r.ReadFixed(-1, buf, 0, 0, false, 1))
	require.ErrorContains(t, r.ReadFixed(-1, buf, 0, 0, false, 2), "full")
}

// A buffer that is not registered is not touched.
func TestOutsideARegisteredBuffer(t *testing.T) {
	r := ring(t, 2)
	buf := mapped(t, 8192)
	require.NoError(t, r.Register(buf[:4096]))
	a, b := blocking(t)
	_, err := unix.Write(a, make([]byte, 8192))
	require.NoError(t, err)
	require.NoError(t, r.ReadFixed(b, buf, 0, -1, false, 1))
	require.NoError(t, r.Wait(t.Context(), func(c Completion) { require.ErrorIs(t, c.Err, syscall.EFAULT) }))
}

func TestZeroCopyReceiveSaysWhyNot(t *testing.T) {
	require.ErrorContains(t, ZeroCopyReceive("lo"), "zero-copy receive needs")
}
