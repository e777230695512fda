package mr

import (
	"os"

	"golang.org/x/sys/unix"
)

func mapFile(f *os.File, n int64, cfg FileConfig, writable bool) (*Region, error) {
	prot, flags := unix.PROT_READ, unix.MAP_SHARED
	if writable {
		prot |= unix.PROT_WRITE
	}
	if cfg.Sync {
		flags = unix.MAP_SHARED_VALIDATE | unix.MAP_SYNC
	}
	var b []byte
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if e := rc.Control(func(fd uintptr) { b, err = unix.Mmap(int(fd), cfg.Offset, int(n), prot, flags) }); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	r := &Region{mem: b, unmap: func() error { return unix.Munmap(b) }}
	if cfg.Writable {
		r.flush = func(off, n uint64) error {
			lo := off &^ uint64(pageSize-1)
			return unix.Msync(b[lo:off+n], unix.MS_SYNC)
		}
	}
	return r, nil
}
