//go:build !linux

package guest

// Main exists on Linux only.
func Main() { panic("guest: runs on Linux only") }
