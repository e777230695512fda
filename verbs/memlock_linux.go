package verbs

import "golang.org/x/sys/unix"

// memlockLimit is the soft limit of locked memory in bytes; false when there is none.
func memlockLimit() (uint64, bool) {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r) != nil || r.Cur == unix.RLIM_INFINITY {
		return 0, false
	}
	return r.Cur, true
}
