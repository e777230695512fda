package compare

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// allFDs are counters of the kernel, one for each thread that was there when
// counting began; threads that these make count in theirs.
var (
	allMu  sync.Mutex
	allFDs []int // guarded by allMu
)

// inheritThread is attr.inherit_thread: threads inherit a counter, processes do
// not. Linux 5.13.
const inheritThread = 1 << 35

// CountAllCalls has the kernel count all system calls of this process from now on,
// those of the Go runtime too, by a trace point. It needs tracefs to be mounted and
// the right to use it (root, or kernel.perf_event_paranoid of -1); the error says
// what is missing. The count costs some tens of nanoseconds a call. It must be called
// early: a thread that starts while it is at work may be counted twice.
func CountAllCalls() error {
	allMu.Lock()
	defer allMu.Unlock()
	if allFDs != nil {
		return nil
	}
	id, err := tracePoint("raw_syscalls/sys_enter")
	if err != nil {
		return err
	}
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Bits: unix.PerfBitInherit | inheritThread}
	attr.Size = uint32(unsafe.Sizeof(attr))
	seen := map[int]bool{}
	for again := true; again; { // a thread may come while the others are looked at
		again = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || seen[tid] {
				continue
			}
			fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
			if errors.Is(err, unix.ESRCH) {
				continue
			}
			if err != nil {
				for _, fd := range allFDs {
					unix.Close(fd)
				}
				allFDs = nil
				return fmt.Errorf("counting system calls: perf_event_open: %w", err)
			}
			seen[tid], again = true, true
			allFDs = append(allFDs, fd)
		}
	}
	return nil
}

func tracePoint(name string) (uint64, error) {
	var errs []error
	for _, dir := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		b, err := os.ReadFile(dir + "/events/" + name + "/id")
		if err == nil {
			return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		}
		errs = append(errs, err)
	}
	return 0, fmt.Errorf("counting system calls: %w (mount -t tracefs none /sys/kernel/tracing)", errs[0])
}

// allCalls is the count so far, -1 when the kernel does not count.
func allCalls() int64 {
	allMu.Lock()
	defer allMu.Unlock()
	if allFDs == nil {
		return -1
	}
	var sum int64
	for _, fd := range allFDs {
		var b [8]byte
		if n, err := unix.Read(fd, b[:]); err == nil && n == len(b) {
			sum += int64(binary.NativeEndian.Uint64(b[:]))
		}
	}
	return sum
}
