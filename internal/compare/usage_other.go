//go:build !linux

package compare

import "runtime"

func machineBusy() float64 { return 0 }
func loadAverage() string  { return "?" }
func kernelName() string   { return runtime.GOOS }
func allCalls() int64      { return -1 }

// CountAllCalls is of Linux.
func CountAllCalls() error { return errNotHere }
