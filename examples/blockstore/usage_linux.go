package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// processorOf is the processor time that a process has used, 0 when it is not known.
func processorOf(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is the command in parentheses and may contain spaces.
	_, rest, _ := strings.Cut(string(b), ") ")
	var user, sys int64
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	fmt.Sscan(f[11], &user)
	fmt.Sscan(f[12], &sys)
	return time.Duration(user+sys) * (time.Second / 100)
}
