package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// processor is the time that this process has used of processors.
func processor() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
