package rc

import "github.com/zrdma/zrdma/internal/provider"

// Gather appends to segs the n bytes at offset off of a list.
func Gather(mem Memory, segs [][]byte, sge []provider.SGE, off, n uint32) ([][]byte, bool) {
	for i := 0; n > 0 && i < len(sge); i++ {
		s := &sge[i]
		if off >= s.Length {
			off -= s.Length
			continue
		}
		k := min(n, s.Length-off)
		b, ok := mem.Local(s.LKey, s.Addr+uint64(off), k, false)
		if !ok {
			return segs, false
		}
		segs = append(segs, b)
		n, off = n-k, 0
	}
	return segs, n == 0
}

// Scatter copies b to offset off of a list. It is false when b does not fit, or
// the memory may not be written; a part may be copied then.
func Scatter(mem Memory, sge []provider.SGE, off uint32, b []byte) bool {
	for i := 0; len(b) > 0 && i < len(sge); i++ {
		s := &sge[i]
		if off >= s.Length {
			off -= s.Length
			continue
		}
		k := min(uint32(len(b)), s.Length-off)
		d, ok := mem.Local(s.LKey, s.Addr+uint64(off), k, true)
		if !ok {
			return false
		}
		copy(d, b)
		b, off = b[k:], 0
	}
	return len(b) == 0
}

// Total is the length of a list, false beyond 2^31.
func Total(sge []provider.SGE) (uint32, bool) {
	var n uint64
	for i := range sge {
		n += uint64(sge[i].Length)
	}
	return uint32(n), n <= 1<<31
}
