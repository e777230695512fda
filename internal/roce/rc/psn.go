package rc

import "github.com/zrdma/zrdma/internal/roce/wire"

// psnBase keeps widened packet numbers positive.
const psnBase = 1 << 24

// widen gives the number nearest to ref whose low 24 bits are psn.
func widen(ref int64, psn uint32) int64 {
	d := int32((psn-uint32(ref))<<8) >> 8
	return ref + int64(d)
}

func narrow(x int64) uint32 { return uint32(x) & wire.PSNMask }

// packets is how many packets n bytes take: an empty message takes one.
func packets(n uint32, mtu int) int64 {
	if n == 0 {
		return 1
	}
	return (int64(n) + int64(mtu) - 1) / int64(mtu)
}

// rnrMicros is the time to wait by the 5-bit code of an RNR NAK.
var rnrMicros = [32]int64{655360, 10, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1920,
	2560, 3840, 5120, 7680, 10240, 15360, 20480, 30720, 40960, 61440, 81920, 122880, 163840, 245760, 327680, 491520}

// ackTimeout is the local ACK timeout in nanoseconds, 0 for endless.
func ackTimeout(code uint8) int64 {
	if code == 0 {
		return 0
	}
	return 4096 << (code & 31)
}

// Syndromes of the ACK extended transport header.
const (
	synAck       = 0x1f // no credits are given
	synRNR       = 0x20
	synSeq       = 0x60
	synInvReq    = 0x61
	synRemAccess = 0x62
	synRemOp     = 0x63
)
