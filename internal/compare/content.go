package compare

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// content fills b with bytes that only this block has.
func content(b []byte, block int) {
	x := uint64(block)*0x9e3779b97f4a7c15 + 0xd1b54a32d192ed03
	for ; len(b) >= 8; b = b[8:] {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b, x)
	}
}
