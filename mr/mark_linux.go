package mr

import "golang.org/x/sys/unix"

// pageLocked asks whether the mapping of a page is locked: msync refuses to
// invalidate such a one with EBUSY, and does nothing otherwise.
func pageLocked(page uintptr) bool {
	_, _, e := unix.Syscall(unix.SYS_MSYNC, page, uintptr(pageSize), unix.MS_INVALIDATE)
	return e == unix.EBUSY
}

func lockPages(at span) bool {
	_, _, e := unix.Syscall(unix.SYS_MLOCK, at.lo, at.hi-at.lo, 0)
	return e == 0
}

// unlockPages fails when the range is not mapped any more; there is nothing to undo then.
func unlockPages(at span) {
	_, _, _ = unix.Syscall(unix.SYS_MUNLOCK, at.lo, at.hi-at.lo, 0)
}
