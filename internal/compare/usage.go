package compare

import "golang.org/x/sys/unix"

// usage is what this process has used since it began.
type usage struct {
	user, system      float64 // seconds
	voluntary, forced int64   // context switches
	machine           float64 // seconds that processors of the machine were busy
	allCalls          int64   // system calls; -1: nobody counts
}

func readUsage() usage {
	u := usage{machine: machineBusy(), allCalls: allCalls()}
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil {
		u.user, u.system = float64(r.Utime.Nano())/1e9, float64(r.Stime.Nano())/1e9
		u.voluntary, u.forced = int64(r.Nvcsw), int64(r.Nivcsw)
	}
	return u
}
