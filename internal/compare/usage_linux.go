package compare

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// machineBusy is the time of all processors but idle and waiting for disks, from
// /proc/stat, whose ticks are 10 ms.
func machineBusy() float64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var ticks float64
	for i, f := range strings.Fields(strings.TrimPrefix(line, "cpu")) {
		if i == 3 || i == 4 || i > 7 { // idle, iowait; guests are counted in user
			continue
		}
		v, _ := strconv.ParseFloat(f, 64)
		ticks += v
	}
	return ticks / 100
}

// loadAverage is that of the last minute.
func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(b)); len(f) > 0 {
		return f[0]
	}
	return "?"
}

func kernelName() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "Linux"
	}
	return fmt.Sprintf("Linux %s", strings.TrimSpace(string(b)))
}
