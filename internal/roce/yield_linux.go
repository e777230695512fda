package roce

import "golang.org/x/sys/unix"

// osYield lets other threads run that want this processor: on a busy machine the
// peer may be among them, and who spins for its answer keeps it from giving one.
func osYield() { _, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
