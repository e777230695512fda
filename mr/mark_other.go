//go:build !linux

package mr

func pageLocked(uintptr) bool { return false }
func lockPages(span) bool     { return false }
func unlockPages(span)        {}
