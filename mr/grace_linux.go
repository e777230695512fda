package mr

import (
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	membarrierQuery  = 0
	membarrierGlobal = 1
)

// hasGrace reports a kernel with membarrier(2); without it, or with nohz_full
// processors, time has to do.
var hasGrace = sync.OnceValue(func() bool {
	have, _, e := unix.Syscall(unix.SYS_MEMBARRIER, membarrierQuery, 0, 0)
	if e != 0 || have&membarrierGlobal == 0 {
		slog.Warn("mr: the kernel has no membarrier(2): after a fence on a software device memory is kept for a while, which proves less", "err", e)
		return false
	}
	return true
})

// gracePeriod returns when every processor has been through a context switch,
// user code or idle since it was called: the global membarrier is a
// synchronize_rcu. On one processor it returns at once, rightly: who runs is not
// copying.
func gracePeriod() {
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
}
