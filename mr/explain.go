package mr

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/zrdma/zrdma/verbs"
)

// explain says what to do about a registration that failed. verbs has named the
// locked-memory limit already, where there is one.
func explain(err error, size uint64, access verbs.AccessFlags) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.ENOMEM):
		hint = "the locked-memory limit (ulimit -l, LimitMEMLOCK=, docker --ulimit memlock=-1) counts all regions of the process together; without a limit the device or the kernel has no room for the translation table: use huge pages or fewer, larger regions"
	case errors.Is(err, syscall.EFAULT):
		hint = "the memory is not mapped, or mapped read-only while the device is to write: leave out AccessLocalWrite"
	case errors.Is(err, syscall.EINVAL) && access&verbs.AccessLocalWrite == 0 && access != 0:
		hint = "remote write and atomic access need AccessLocalWrite"
	case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, errors.ErrUnsupported):
		hint = "this device cannot register that kind of memory"
	default:
		return fmt.Errorf("mr: registering %d bytes: %w", size, err)
	}
	return fmt.Errorf("mr: registering %d bytes: %w: %s", size, err, hint)
}
