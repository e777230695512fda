package verbs

import (
	"math"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// AdviseMRAdvice is what AdviseMR tells the device.
//
// Source: enum ibv_advise_mr_advice.
type AdviseMRAdvice = provider.AdviseMRAdvice

// Values of AdviseMRAdvice.
const (
	AdviseMRPrefetch        = provider.AdviseMRPrefetch
	AdviseMRPrefetchWrite   = provider.AdviseMRPrefetchWrite
	AdviseMRPrefetchNoFault = provider.AdviseMRPrefetchNoFault
)

// AdviseMRFlags modify an advice.
//
// Source: enum ibv_advise_mr_flag.
type AdviseMRFlags = provider.AdviseMRFlags

// AdviseMRFlagFlush waits until the advice was carried out.
const AdviseMRFlagFlush = provider.AdviseMRFlagFlush

// AdviseMR tells the device what will happen to memory of on-demand regions
// (AccessOnDemand) of this domain: prefetch it for reading or for writing. With
// AdviseMRFlagFlush it returns when that is done, else it is a hint.
//
// Verb: ibv_advise_mr(3).
func (d *PD) AdviseMR(advice AdviseMRAdvice, flags AdviseMRFlags, sgl []SGE) error {
	const verb = "ibv_advise_mr"
	if len(sgl) == 0 {
		return &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "no memory was named"}
	}
	return doRare(&d.h, verb, d.p, func(i provider.RareRegistrar) error { return i.AdviseMR(advice, flags, sgl) })
}

// AllocNullMR makes a region without memory: what is written to it vanishes,
// what is read is zero. Its LKey fits any local address and length.
//
// Verb: ibv_alloc_null_mr(3).
func (d *PD) AllocNullMR() (*MR, error) {
	const verb = "ibv_alloc_null_mr"
	p, err := createRare(&d.h, verb, d.p, provider.RareRegistrar.AllocNullMR)
	if err != nil {
		return nil, err
	}
	return (&MR{d: d, length: math.MaxUint64}).init(p, verb)
}

// RegDmabufMR registers length bytes at offset of a dma-buf, for instance memory
// of a GPU. Work requests address its byte i as iova+i; the low bits of iova and
// offset must agree, within the page size. fd may be closed when it returns.
//
// Verb: ibv_reg_dmabuf_mr(3).
func (d *PD) RegDmabufMR(fd int, offset, length, iova uint64, access AccessFlags) (*MR, error) {
	const verb = "ibv_reg_dmabuf_mr"
	if length == 0 || fd < 0 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "a dma-buf and a length are required"}
	}
	p, err := createRare(&d.h, verb, d.p, func(i provider.RareRegistrar) (provider.MR, error) {
		return i.RegDmabufMR(offset, length, iova, fd, access)
	})
	if err != nil {
		return nil, regHint(verb, err, length)
	}
	return (&MR{d: d, addr: iova, iova: iova, length: length}).init(p, verb)
}
