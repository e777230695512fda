package link

import "net/netip"

// mix is a hash of 64 bits (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// dirSeed is the seed of what happens to packets from src to dst.
func dirSeed(seed uint64, src, dst netip.Addr) uint64 {
	x := mix(seed)
	for _, a := range [2]netip.Addr{src, dst} {
		for _, b := range a.As16() {
			x = mix(x ^ uint64(b))
		}
	}
	return x
}

// draw is the random number of a purpose for the i-th packet of a direction.
func draw(dir, i, purpose uint64) uint64 { return mix(dir ^ mix(i<<4|purpose)) }

// unit makes a number in [0, 1) of x.
func unit(x uint64) float64 { return float64(x>>11) / (1 << 53) }
