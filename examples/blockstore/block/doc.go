// Package block is the block store of examples/blockstore: its files (Store), the
// calls that serve them (Register), and a client of them (Client). It is a package of
// its own because the agent of a DPU (package dpu) talks to such a server too: Client
// is what dpu calls Blocks, TokenBlocks and Backend.
//
// A write may carry a token (dpu.Token): the server does it once, and refuses agents
// that were fenced. Tokens are kept in memory, and the last one of each block in its
// file.
//
// Ownership: calls take the buffers they are given and return new rights to them.
//
// Concurrency: everything may be called from any goroutine.
//
// Blocking: calls of a Client wait for the server, until their context ends; those of
// a Store for the disk.
//
// Cleanup: the server, then its Store, then the device.
package block

import "encoding/binary"

// Content fills p with bytes that only the block of this seed has: for demonstrations
// and tests.
func Content(p []byte, seed uint64) {
	x := seed*0x9e3779b97f4a7c15 + 1
	for len(p) >= 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p, x)
		p = p[8:]
	}
	for i := range p {
		p[i] = byte(x >> (8 * i))
	}
}
