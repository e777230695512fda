//go:build !linux

package roce

// osYield would let other threads run.
func osYield() {}
