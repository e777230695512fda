package compare

import (
	"os"

	"golang.org/x/sys/unix"
)

// memoryFile is a file without a disk.
func memoryFile(name string) (*os.File, string, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, "memory", os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), "memory (memfd_create)", nil
}
