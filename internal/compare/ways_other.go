//go:build !linux

package compare

import (
	"errors"
	"fmt"
)

var errNotHere = fmt.Errorf("not on this system: it is built for Linux: %w", errors.ErrUnsupported)

// kernelWays are of Linux.
func kernelWays() []way {
	no := func() error { return errNotHere }
	return []way{
		{name: "io_uring", title: uringTitle, how: uringHow, can: no},
		{name: "mmap-zerocopy", title: mmapTitle, how: mmapHow, can: no},
		{name: "sendfile", title: sendfileTitle, how: sendfileHow, can: no},
		{name: "splice", title: spliceTitle, how: spliceHow, can: no},
	}
}
