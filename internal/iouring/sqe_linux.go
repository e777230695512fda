package iouring

import (
	"unsafe"
)

// Op is an operation of the kernel's interface.
type Op uint8

// Operations, with the first kernel that has them.
const (
	OpReadFixed Op = 4  // 5.1
	OpSendZC    Op = 47 // 6.0
)

// Flags of an SQE and of operations.
const (
	flagLink = 1 << 2 // IOSQE_IO_LINK: the next one begins when this one has succeeded

	fixedBuf    = 1 << 2 // IORING_RECVSEND_FIXED_BUF
	reportUsage = 1 << 3 // IORING_SEND_ZC_REPORT_USAGE, Linux 6.2
)

// sqe is struct io_uring_sqe.
type sqe struct {
	op       Op
	flags    uint8
	ioprio   uint16
	fd       int32
	off      uint64
	addr     uint64
	len      uint32
	opFlags  uint32
	user     uint64
	bufIndex uint16
	_        uint16
	_        int32
	_        [2]uint64
}

// cqe is struct io_uring_cqe.
type cqe struct {
	user  uint64
	res   int32
	flags uint32
}

const (
	cqeMore  = 1 << 1 // a notification follows
	cqeNotif = 1 << 3 // this is one
	// zcCopied in the result of a notification: the kernel copied after all.
	zcCopied = -1 << 31
)

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32
	_                                                                  [3]uint32
	sq                                                                 struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		_                                                           uint64
	}
	cq struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		_                                                           uint64
	}
}

const (
	featSingleMmap = 1 << 0
	featExtArg     = 1 << 8

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	registerBuffers = 0
	registerProbe   = 8

	offSQRing = 0
	offSQEs   = 0x10000000
)

// Layouts that the kernel gives.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(sqe{})-64]
	_ = [1]struct{}{}[unsafe.Sizeof(cqe{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(params{})-120]
)
