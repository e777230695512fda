package mr

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/zrdma/zrdma/verbs"
)

// FileConfig says how a file is mapped. The zero value maps it for reading.
type FileConfig struct {
	Offset   int64             // of the first byte; a multiple of the page size
	Length   int64             // bytes; 0: to the end of the file
	Writable bool              // the device, a peer or the program may write; the file must be open for it
	Access   verbs.AccessFlags // 0: DefaultAccess, without AccessLocalWrite unless Writable
	Sync     bool              // MAP_SYNC: on DAX storage written data is durable without msync, once it left the caches; fails elsewhere
}

// MapFile maps a part of a file and registers it: the device reads the page
// cache, or on DAX the storage itself, without a copy, and for Writable writes
// into it. Region.Buf hands out its ranges. f may be closed afterwards.
//
// Before Linux 6.2 a file that is only read must be open for writing too. From
// then on no window is bound to pages that are mapped read-only, so ranges of
// such a file are granted ByRegion.
//
// A file that is truncated below the mapping breaks it: the CPU gets SIGBUS,
// and the device keeps the old pages. Kernels refuse a writable mapping that
// lives long on most file systems but tmpfs and hugetlbfs, since writes by a
// device bypass their bookkeeping; the error says so.
func MapFile(f *os.File, cfg FileConfig, domains ...*verbs.PD) (*Region, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	n := cfg.Length
	if n == 0 {
		n = fi.Size() - cfg.Offset
	}
	switch {
	case cfg.Offset < 0 || cfg.Offset%int64(pageSize) != 0:
		return nil, fmt.Errorf("mr: MapFile: offset %d is not a multiple of the page size, %d: %w", cfg.Offset, pageSize, syscall.EINVAL)
	case n <= 0 || fi.Mode().IsRegular() && cfg.Offset+n > fi.Size():
		return nil, fmt.Errorf("mr: MapFile: %d bytes at %d of a file of %d: grow it with Truncate first: %w", n, cfg.Offset, fi.Size(), syscall.EINVAL)
	case !cfg.Writable && cfg.Access&(verbs.AccessLocalWrite|verbs.AccessRemoteWrite|verbs.AccessRemoteAtomic) != 0:
		return nil, fmt.Errorf("mr: MapFile: %v needs Writable: %w", cfg.Access, syscall.EINVAL)
	}
	r, err := registerFile(f, n, cfg, cfg.Writable, domains)
	if err != nil && !cfg.Writable && errors.Is(err, syscall.EFAULT) {
		// Linux before 6.2 pins shared pages only where they are mapped writable.
		// The device gets no right to write all the same.
		r, e := registerFile(f, n, cfg, true, domains)
		if e == nil {
			return r, nil
		}
		if errors.Is(e, syscall.EACCES) {
			return nil, fmt.Errorf("%w (%s: Linux before 6.2 registers a file only if it is open for reading and writing: open it with os.O_RDWR)", err, f.Name())
		}
		err = e
	}
	if err != nil && cfg.Writable {
		return nil, fmt.Errorf("%w (%s: many file systems refuse to be written by a device; tmpfs, hugetlbfs and DAX take it, and anonymous memory with a write(2) always works)", err, f.Name())
	}
	return r, err
}

// registerFile maps and registers. prot says that the mapping is writable, which
// cfg.Writable alone makes a right.
func registerFile(f *os.File, n int64, cfg FileConfig, prot bool, domains []*verbs.PD) (*Region, error) {
	r, err := mapFile(f, n, cfg, prot)
	if err != nil {
		return nil, fmt.Errorf("mr: mapping %d bytes of %s: %w", n, f.Name(), err)
	}
	r.size, r.backing, r.readOnly = uint64(n), FilePages, !cfg.Writable
	return r.register(cfg.Access, domains)
}

// Sync writes n bytes at off back to the file and waits until they are stored.
// What a device has written is seen by it when its operation has completed.
// errors.ErrUnsupported for a region that is not a writable file mapping.
func (r *Region) Sync(off uint64, n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != regionOpen {
		return ErrClosed
	}
	if r.flush == nil {
		return fmt.Errorf("mr: Sync of %v: %w", r.backing, syscall.EOPNOTSUPP)
	}
	if n < 0 || off > r.size || uint64(n) > r.size-off {
		return fmt.Errorf("mr: Sync of bytes [%d, %d+%d) of a region of %d: %w", off, off, n, r.size, syscall.ERANGE)
	}
	return r.flush(off, uint64(n))
}
