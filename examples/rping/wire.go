package main

import (
	"encoding/binary"
	"fmt"
)

const (
	infoSize = 16
	minSize  = 32 // room for the text that a ping begins with
	maxSize  = 1 << 20
)

// info is the message of the protocol: where memory is. A "go ahead" is one whose
// contents mean nothing.
type info struct {
	addr uint64
	rkey uint32
	size uint32
}

func (i info) encode(b []byte) {
	binary.BigEndian.PutUint64(b, i.addr)
	binary.BigEndian.PutUint32(b[8:], i.rkey)
	binary.BigEndian.PutUint32(b[12:], i.size)
}

func decodeInfo(b []byte) (info, error) {
	if len(b) != infoSize {
		return info{}, fmt.Errorf("the peer sent a message of %d bytes, not %d: it does not speak rping", len(b), infoSize)
	}
	return info{binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])}, nil
}

// check says whether memory that a peer announced can be used for n bytes at most.
func (i info) check(n int) error {
	switch {
	case i.size == 0:
		return fmt.Errorf("the peer announced no memory")
	case uint64(i.size) > uint64(n):
		return fmt.Errorf("the peer announced %d bytes and this side takes %d: start it with -S %d", i.size, n, i.size)
	case i.addr+uint64(i.size) < i.addr:
		return fmt.Errorf("the peer announced memory that wraps around: %#x and %d bytes", i.addr, i.size)
	}
	return nil
}

// fillPing writes ping number n: a text, letters that move with n, and a zero.
func fillPing(b []byte, n int) {
	k := copy(b, fmt.Sprintf("rdma-ping-%d: ", n))
	const first, last = 'A', 'z'
	c := byte(first + n%(last-first+1))
	for i := k; i < len(b); i++ {
		b[i] = c
		if c++; c > last {
			c = first
		}
	}
	b[len(b)-1] = 0
}

// text is the data up to its zero.
func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
