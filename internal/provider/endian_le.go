//go:build !(armbe || arm64be || m68k || mips || mips64 || mips64p32 || ppc || ppc64 || s390 || s390x || shbe || sparc || sparc64)

package provider

import "math/bits"

// bswap turns host order into network order.
func bswap(v uint32) uint32 { return bits.ReverseBytes32(v) }

// BE64 turns a big-endian field, loaded as a host word, into host order.
func BE64(v uint64) uint64 { return bits.ReverseBytes64(v) }
