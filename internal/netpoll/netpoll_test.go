//go:build linux

package netpoll

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const limit = 10 * time.Second

// eventfd stands for the descriptor that a C library owns.
func eventfd(t *testing.T) (*FD, int) {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	require.NoError(t, err)
	x, err := New(fd, "eventfd")
	require.NoError(t, err)
	t.Cleanup(func() {
		x.Close()
		unix.Close(fd)
	})
	return x, fd
}

func ring(t *testing.T, fd int) {
	t.Helper()
	_, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	require.NoError(t, err)
}

// read is a try function: it takes what the descriptor has, as C code would.
func read(fd int, got *int) func() syscall.Errno {
	return func() syscall.Errno {
		var b [8]byte
		if _, err := unix.Read(fd, b[:]); err != nil {
			return err.(syscall.Errno)
		}
		*got += int(b[0])
		return 0
	}
}

func soon(t *testing.T, what string, ch <-chan error) error {
	t.Helper()
	select {
	case err := <-ch:
		return err
	case <-time.After(limit):
		t.Fatalf("%s: still waiting after %v", what, limit)
		return nil
	}
}

func waiting(ctx context.Context, x *FD, try func() syscall.Errno) <-chan error {
	ch := make(chan error, 1)
	go func() { ch <- x.Wait(ctx, try) }()
	return ch
}

func TestWaitReturnsWhatIsThere(t *testing.T) {
	x, fd := eventfd(t)
	var n int
	ring(t, fd)
	require.NoError(t, x.Wait(t.Context(), read(fd, &n)))
	ch := waiting(t.Context(), x, read(fd, &n))
	time.Sleep(10 * time.Millisecond)
	ring(t, fd)
	require.NoError(t, soon(t, "wait", ch))
	require.Equal(t, 2, n)
}

func TestWaitPassesTheErrorOfTry(t *testing.T) {
	x, _ := eventfd(t)
	require.Equal(t, syscall.EIO, x.Wait(t.Context(), func() syscall.Errno { return syscall.EIO }))
}

func TestNewRefusesWhatCannotBePolled(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer f.Close()
	_, err = New(int(f.Fd()), "a regular file")
	require.Error(t, err, "a file that has no deadlines would never be cancelled")
	_, err = New(-1, "none")
	require.ErrorIs(t, err, syscall.EBADF)
}

func TestContextEndsWait(t *testing.T) {
	x, fd := eventfd(t)
	var n int
	done, stop := context.WithCancel(t.Context())
	stop()
	require.ErrorIs(t, x.Wait(done, read(fd, &n)), context.Canceled)

	ctx, cancel := context.WithCancel(t.Context())
	ch := waiting(ctx, x, read(fd, &n))
	time.Sleep(10 * time.Millisecond)
	cancel()
	require.ErrorIs(t, soon(t, "cancel", ch), context.Canceled)

	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, x.Wait(ctx, read(fd, &n)), context.DeadlineExceeded)

	ring(t, fd)
	require.NoError(t, x.Wait(t.Context(), read(fd, &n)), "a cancelled wait must leave no deadline behind")
	require.Equal(t, 1, n)
}

// A waiter whose context ends at the moment its event comes must not end the
// waiter after it.
func TestLateCancelDoesNotHitTheNextWaiter(t *testing.T) {
	x, fd := eventfd(t)
	for range 3000 {
		var n int
		ctx, cancel := context.WithCancel(t.Context())
		first := waiting(ctx, x, read(fd, &n))
		go cancel()
		ring(t, fd)
		if err := soon(t, "first", first); err != nil {
			require.ErrorIs(t, err, context.Canceled)
			require.NoError(t, x.Wait(t.Context(), read(fd, &n)))
		} else {
			second := waiting(t.Context(), x, read(fd, &n))
			ring(t, fd)
			require.NoError(t, soon(t, "second", second))
		}
		cancel()
	}
}

func TestWaitersTakeTurns(t *testing.T) {
	x, fd := eventfd(t)
	var mu sync.Mutex
	inside, got := 0, 0
	try := func() syscall.Errno {
		mu.Lock()
		inside++
		mu.Unlock()
		e := read(fd, &got)()
		mu.Lock()
		defer mu.Unlock()
		if inside--; inside != 0 {
			return syscall.EDEADLK
		}
		return e
	}
	const waiters = 20
	all := make(chan error, waiters)
	for range waiters {
		go func() { all <- x.Wait(t.Context(), try) }()
	}
	for range waiters {
		ring(t, fd)
		require.NoError(t, soon(t, "a waiter", all))
	}
	require.Equal(t, waiters, got)
}

func TestInterruptEndsAllAndResumeRevives(t *testing.T) {
	x, fd := eventfd(t)
	var n int
	all := make(chan error, 10)
	for range 10 {
		go func() { all <- x.Wait(t.Context(), read(fd, &n)) }()
	}
	time.Sleep(10 * time.Millisecond)
	x.Interrupt()
	for range 10 {
		require.Equal(t, syscall.ECANCELED, soon(t, "an interrupted waiter", all))
	}
	ring(t, fd)
	require.Equal(t, syscall.ECANCELED, x.Wait(t.Context(), read(fd, &n)), "later waits end too")
	require.Zero(t, n)
	x.Resume()
	require.NoError(t, x.Wait(t.Context(), read(fd, &n)))
}

// When Interrupt returns no try is running: the caller frees what try uses.
func TestNoTryAfterInterrupt(t *testing.T) {
	for range 200 {
		x, fd := eventfd(t)
		alive := 1
		ch := waiting(t.Context(), x, func() syscall.Errno {
			if alive == 0 {
				return syscall.EFAULT
			}
			var b [8]byte
			unix.Read(fd, b[:])
			return syscall.EAGAIN
		})
		for range 5 {
			ring(t, fd)
		}
		x.Interrupt()
		alive = 0 // a race report here means that a try ran on
		require.Equal(t, syscall.ECANCELED, soon(t, "wait", ch))
		require.NoError(t, x.Close())
	}
}

func TestCloseKeepsTheOriginal(t *testing.T) {
	x, fd := eventfd(t)
	ch := waiting(t.Context(), x, read(fd, new(int)))
	time.Sleep(5 * time.Millisecond)
	require.NoError(t, x.Close())
	require.Equal(t, syscall.ECANCELED, soon(t, "wait", ch))
	require.Equal(t, syscall.ECANCELED, x.Wait(t.Context(), read(fd, new(int))))
	ring(t, fd) // the library's own descriptor works on
	require.Error(t, x.Close())
}

func TestWaitersHoldNoThread(t *testing.T) {
	const waiters = 300
	var fds []*FD
	ctx, cancel := context.WithCancel(t.Context())
	all := make(chan error, waiters)
	for range waiters {
		x, fd := eventfd(t)
		fds = append(fds, x)
		go func() { all <- x.Wait(ctx, read(fd, new(int))) }()
	}
	before := threads(t)
	time.Sleep(50 * time.Millisecond)
	require.Less(t, threads(t), before+20)
	cancel()
	for range fds {
		if err := soon(t, "a waiter", all); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
}

func threads(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, "Threads:"); ok {
			n := 0
			for _, c := range strings.TrimSpace(v) {
				n = n*10 + int(c-'0')
			}
			return n
		}
	}
	t.Fatal("no Threads line")
	return 0
}

// Kicks that come together, or while one is answered, are kicks and nothing else.
func TestKicksTogether(t *testing.T) {
	x, _ := eventfd(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done := make(chan struct{})
	var kickers sync.WaitGroup
	for range 4 {
		kickers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					x.Kick()
				}
			}
		})
	}
	for range 20000 {
		if err := x.Wait(ctx, func() syscall.Errno { return syscall.EAGAIN }); err != syscall.EAGAIN {
			t.Errorf("a kicked Wait returned %v", err)
			break
		}
	}
	close(done)
	kickers.Wait()
}
