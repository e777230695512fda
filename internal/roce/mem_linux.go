package roce

import (
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canPopulate says whether the kernel has MADV_POPULATE_READ (5.14).
var canPopulate = sync.OnceValue(func() bool {
	var b [1]byte
	return madvise(uint64(uintptr(unsafe.Pointer(&b))), 1, unix.MADV_POPULATE_READ) == 0
})

// madvise takes the pages that hold length bytes at addr.
func madvise(addr, length uint64, advice uintptr) syscall.Errno {
	page := uint64(os.Getpagesize())
	from := addr &^ (page - 1)
	_, _, e := unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(addr+length-from), advice)
	return e
}

// checkMapped brings memory in, as pinning it does, and fails with EFAULT where
// the process has none with the rights needed: a fault while a packet is copied
// would end the process. On old kernels it looks only whether there is memory.
func checkMapped(addr, length uint64, write bool) error {
	if !canPopulate() {
		return checkResident(addr, length)
	}
	advice := uintptr(unix.MADV_POPULATE_READ)
	if write {
		advice = unix.MADV_POPULATE_WRITE
	}
	for {
		switch e := madvise(addr, length, advice); e {
		case 0:
			return nil
		case unix.EINTR:
		case unix.ENOMEM, unix.EAGAIN:
			if err := checkResident(addr, length); err != nil {
				return err
			}
			return syscall.ENOMEM // mapped, and no memory left for it
		default:
			return syscall.EFAULT
		}
	}
}

// checkResident walks the range with mincore, which fails on what is not mapped.
func checkResident(addr, length uint64) error {
	page := uint64(os.Getpagesize())
	from := addr &^ (page - 1)
	var vec [1024]byte
	for end := addr + length; from < end; from += page * uint64(len(vec)) {
		n := min(end-from, page*uint64(len(vec)))
		if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(from), uintptr(n), uintptr(unsafe.Pointer(&vec))); e != 0 {
			return syscall.EFAULT
		}
	}
	return nil
}
