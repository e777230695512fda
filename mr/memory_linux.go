package mr

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

var pageSize = os.Getpagesize()

// hugeSize is the default huge page size, 0 where the kernel has none.
var hugeSize = sync.OnceValue(func() int { return hugePageSize(readMeminfo()) })

func readMeminfo() string {
	b, _ := os.ReadFile("/proc/meminfo")
	return string(b)
}

// meminfo finds a field of /proc/meminfo; kB become bytes.
func meminfo(text, field string) (int, bool) {
	for line := range strings.Lines(text) {
		name, v, ok := strings.Cut(line, ":")
		if !ok || name != field {
			continue
		}
		f := strings.Fields(v)
		if len(f) == 0 {
			return 0, false
		}
		n, err := strconv.Atoi(f[0])
		if len(f) > 1 && f[1] == "kB" {
			n *= 1024
		}
		return n, err == nil
	}
	return 0, false
}

func hugePageSize(text string) int {
	n, _ := meminfo(text, "Hugepagesize")
	return n
}

// sayOnce logs the first shortage of huge pages; the rest would be noise.
var sayOnce sync.Once

func noHuge(size int, why string) {
	sayOnce.Do(func() {
		slog.Warn("mr: no huge pages: using smaller ones, the device keeps a longer translation table", "bytes", size, "why", why,
			"help", fmt.Sprintf("echo %d > /proc/sys/vm/nr_hugepages, or HugeOff to be silent", (size+hugeSize()-1)/max(hugeSize(), 1)))
	})
}

func mapAnon(size int, huge HugePages, node int) (mapping, error) {
	if raceBuild && huge != HugeOnly {
		return goMemory(size), nil // the race detector does not see mapped memory
	}
	hs := hugeSize()
	why := "the kernel has none"
	if huge != HugeOff && hs > 0 && (huge == HugeOnly || size >= hs) {
		m, err := mapPages(roundUp(size, hs), unix.MAP_HUGETLB, node)
		if err == nil {
			m.backing = ReservedHuge
			return m, nil
		}
		free, _ := meminfo(readMeminfo(), "HugePages_Free")
		why = fmt.Sprintf("%d of %d reserved pages of %d KiB are free: %v", free, roundUp(size, hs)/hs, hs>>10, err)
	}
	if huge == HugeOnly {
		return mapping{}, fmt.Errorf("mr: %d bytes of reserved huge pages: %s; reserve more in /proc/sys/vm/nr_hugepages, or use HugeAuto: %w", size, why, unix.ENOMEM)
	}
	m, err := mapPages(roundUp(size, pageSize), 0, node)
	if err != nil {
		return m, fmt.Errorf("mr: mapping %d bytes: %w", size, err)
	}
	if huge == HugeAuto && hs > 0 && size >= hs {
		if err := unix.Madvise(m.mem, unix.MADV_HUGEPAGE); err != nil {
			noHuge(size, why+"; transparent ones: "+err.Error())
		} else {
			m.backing = TransparentHuge
			noHuge(size, why+"; asked for transparent ones")
		}
	}
	return m, nil
}

func mapPages(size, flags, node int) (mapping, error) {
	// Populating fails here, not with SIGBUS at the first touch, when huge pages run out.
	if flags&unix.MAP_HUGETLB != 0 && node < 0 {
		flags |= unix.MAP_POPULATE
	}
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|flags)
	if err != nil {
		return mapping{}, err
	}
	if node >= 0 {
		preferNode(b, node)
	}
	return mapping{mem: b, unmap: func() error { return unix.Munmap(b) }}, nil
}

var sayNode sync.Once

// preferNode asks for pages of one NUMA node. It is a hint: failure is logged once.
func preferNode(b []byte, node int) {
	const prefer = 1 // MPOL_PREFERRED
	mask := make([]uint64, node/64+1)
	mask[node/64] = 1 << (node % 64)
	_, _, e := unix.Syscall6(unix.SYS_MBIND, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), prefer,
		uintptr(unsafe.Pointer(unsafe.SliceData(mask))), uintptr(len(mask)*64+1), 0)
	if e != 0 {
		sayNode.Do(func() { slog.Warn("mr: memory cannot be bound to a NUMA node", "node", node, "err", e) })
	}
}
