package main

import (
	"encoding/binary"
	"math/bits"
)

const (
	margin   = 64 // of a slot, before and behind the data
	canary   = 32
	counters = 16
)

type kind int

const (
	opSend kind = iota
	opSendImm
	opWrite
	opWriteImm
	opRead
	opFetchAdd
	opCompareSwap
)

// kinds is how often each operation is drawn.
var kinds = [20]kind{
	opSend, opSend, opSend, opSend, opSendImm, opSendImm, opSendImm, opWrite, opWrite, opWrite, opWrite,
	opWriteImm, opWriteImm, opWriteImm, opRead, opRead, opRead, opFetchAdd, opFetchAdd, opCompareSwap,
}

// What draw is asked for.
const (
	fieldKind = iota
	fieldClass
	fieldLength
	fieldOffset
	fieldPieces
	fieldCounter
	fieldKey
	fieldValue
	fieldReadAt
	fieldMiss
	fieldReadable // pattern of the memory that may be read
	fieldStreamLen
	fieldStreamKey
	fieldRNRKey
	fieldWindowLen
	fieldWindowKey
)

// op is one operation of the plan.
type op struct {
	kind       kind
	n          int // bytes
	off        int // of the data in its slot, behind the margin
	pieces     int // of the local gather or scatter list
	counter    int
	key, value uint64
	at         uint64 // where a READ begins: reduced modulo what there is
	miss       bool   // a compare-and-swap that must not match
}

func (p op) atomic() bool { return p.kind == opFetchAdd || p.kind == opCompareSwap }
func (p op) writes() bool { return p.kind == opWrite || p.kind == opWriteImm }

// arrives says whether the peer's receive queue gives a request for it.
func (p op) arrives() bool { return p.kind == opSend || p.kind == opSendImm || p.kind == opWriteImm }

func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// draw is a number that both ends know: of a side, its operation i and a field.
func (o *options) draw(side int, i uint64, field int) uint64 {
	return scramble(scramble(scramble(o.seed)^uint64(side*64+field)) + i)
}

func (o *options) length(class, v uint64) int {
	var n uint64
	switch class % 16 {
	case 0:
		return int(o.min)
	case 1:
		return int(max(o.min, 1))
	case 2, 3: // about the end of a packet
		n = (256<<(v%5))*(1+(v>>8)%4) + (v>>16)%3 - 1
	case 4:
		return int(o.max)
	default:
		n = (v >> 8) & (2<<(v%uint64(bits.Len(o.max))) - 1)
	}
	return int(min(max(n, uint64(o.min)), uint64(o.max)))
}

func (o *options) plan(side int, i uint64) op {
	d := func(field int) uint64 { return o.draw(side, i, field) }
	p := op{
		kind: kinds[d(fieldKind)%20], n: o.length(d(fieldClass), d(fieldLength)), off: int(d(fieldOffset) % canary),
		pieces: 1 + int(d(fieldPieces)%3), counter: int(d(fieldCounter) % counters),
		key: d(fieldKey), value: d(fieldValue), at: d(fieldReadAt), miss: d(fieldMiss)%4 == 0,
	}
	if p.atomic() {
		p.n, p.off, p.pieces = 8, 0, 1
	}
	if p.n < 3 {
		p.pieces = 1
	}
	return p
}

// walk calls f with what b must be from the byte `from` of a pattern on, a word
// at a time.
func walk(b []byte, key, from uint64, f func(got, want []byte) bool) {
	var w [8]byte
	for len(b) > 0 {
		x := key + (from/8+1)*0x9e3779b97f4a7c15
		x ^= x >> 29
		x *= 0xbf58476d1ce4e5b9
		binary.LittleEndian.PutUint64(w[:], x^x>>32)
		want := w[from%8:]
		n := min(len(want), len(b))
		if !f(b[:n], want[:n]) {
			return
		}
		b, from = b[n:], from+uint64(n)
	}
}

func fill(b []byte, key, from uint64) {
	walk(b, key, from, func(got, want []byte) bool { copy(got, want); return true })
}

// differs is the index of the word that is wrong, or -1.
func differs(b []byte, key, from uint64) int {
	at, bad := 0, -1
	walk(b, key, from, func(got, want []byte) bool {
		if string(got) != string(want) {
			bad = at
			return false
		}
		at += len(got)
		return true
	})
	return bad
}
