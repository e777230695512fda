//go:build !linux

package main

import "time"

// The times of process and machine are known on Linux only.
func processor() time.Duration   { return 0 }
func machineTime() time.Duration { return 0 }
