package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processor is the time that this process has used.
func processor() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// machineTime is the time that the processors of this machine were busy, interrupts
// included: where the kernel does the work of a NIC that is the larger part.
func machineTime() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var user, nice, system, idle, iowait, irq, softirq int64
	if n, _ := fmt.Sscanf(strings.TrimPrefix(line, "cpu "), "%d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq); n != 7 {
		return 0
	}
	return time.Duration(user+nice+system+irq+softirq) * (time.Second / 100)
}
