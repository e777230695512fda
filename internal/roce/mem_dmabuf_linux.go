package roce

import (
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/internal/provider"
)

var _ provider.RareRegistrar = (*pd)(nil)

// RegDmabufMR registers length bytes at offset of a dma-buf, which is mapped: a
// device in software reaches memory by the processor. For tests it may be a memfd,
// too, if it is sealed against shrinking: memory that goes away would end the
// process. Work requests address it from iova on.
//
// Verb: ibv_reg_dmabuf_mr(3).
func (p *pd) RegDmabufMR(offset, length, iova uint64, fd int, access provider.AccessFlags) (provider.MR, error) {
	if err := checkAccess(access); err != nil {
		return nil, err
	}
	page := uint64(os.Getpagesize())
	if length == 0 || offset > math.MaxInt64-length || iova > math.MaxUint64-length || (offset^iova)&(page-1) != 0 {
		return nil, syscall.EINVAL
	}
	if err := checkStays(fd); err != nil {
		return nil, err
	}
	prot := unix.PROT_READ
	if access&provider.AccessLocalWrite != 0 {
		prot |= unix.PROT_WRITE
	}
	from := offset &^ (page - 1)
	b, err := unix.Mmap(fd, int64(from), int(offset+length-from), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	r, err := p.RegMR(uint64(uintptr(unsafe.Pointer(&b[offset-from]))), length, iova, true, access)
	if err != nil {
		_ = unix.Munmap(b)
		return nil, err
	}
	m := r.(*mr)
	m.mapped = b
	return m, nil
}

// checkStays refuses a descriptor whose memory could go away.
func checkStays(fd int) error {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return syscall.EBADF
	}
	if strings.HasPrefix(name, "/dmabuf:") || strings.HasPrefix(name, "anon_inode:dmabuf") {
		return nil
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return syscall.EINVAL
	}
	return nil
}

func unmap(b []byte) { _ = unix.Munmap(b) }

// AllocNullMR is not there.
func (p *pd) AllocNullMR() (provider.MR, error) { return nil, syscall.EOPNOTSUPP }

// AdviseMR is not there: all memory is.
func (p *pd) AdviseMR(provider.AdviseMRAdvice, provider.AdviseMRFlags, []provider.SGE) error {
	return syscall.EOPNOTSUPP
}

// RegDMMR is not there.
func (p *pd) RegDMMR(provider.DM, uint64, uint64, provider.AccessFlags) (provider.MR, error) {
	return nil, syscall.EOPNOTSUPP
}
