package main

import (
	"encoding/binary"
	"fmt"

	"github.com/zrdma/zrdma/verbs"
)

// lay puts canaries round where the peer will write in its next round.
func (m *mixer) lay() {
	if m.peerRound == m.peerRounds {
		return
	}
	first, end := m.span(m.peerRound)
	m.expect = first
	for i := first; i < end; i++ {
		if p := m.o.plan(m.o.other, i); p.writes() {
			fence(m.win.Bytes(), m.place(m.win, i, &p), p.n)
		}
	}
}

// onRecv takes what a receive was used for.
func (m *mixer) onRecv(w *verbs.WC) error {
	imm := uint32(0)
	if w.Flags&verbs.WCWithImm != 0 {
		imm = w.Imm()
	}
	if imm>>24 < tagOK || w.Opcode != verbs.WCRecv {
		return m.arrived(w, imm)
	}
	if w.ByteLen != 0 {
		return fmt.Errorf("a control message %#x of %d bytes", imm, w.ByteLen)
	}
	n := uint64(imm & 0xffffff)
	switch imm >> 24 {
	case tagEnd:
		return m.endRound(n)
	case tagOK:
		if n != m.round&0xffffff || m.ok {
			return fmt.Errorf("a confirmation of round %d", n)
		}
		m.ok = true
		return nil
	case tagFin:
		if m.peerRound != m.peerRounds {
			return fmt.Errorf("the peer ends after round %d of %d", m.peerRound, m.peerRounds)
		}
		m.peerFin = true
		return nil
	}
	return fmt.Errorf("a control message %#x", imm)
}

// arrived holds a message against what the plan has next.
func (m *mixer) arrived(w *verbs.WC, imm uint32) error {
	_, end := m.span(m.peerRound)
	i := m.expect
	p := m.o.plan(m.o.other, i)
	for ; i < end && !p.arrives(); p = m.o.plan(m.o.other, i) {
		i++
	}
	if i >= end {
		return fmt.Errorf("a message too much: %d bytes, immediate %#x", w.ByteLen, imm)
	}
	m.expect = i + 1
	m.sum.Messages++
	var wantImm uint32
	op, flags := verbs.WCRecv, verbs.WCFlags(0)
	switch p.kind {
	case opSendImm:
		wantImm, flags = tagged(tagSend, i), verbs.WCWithImm
	case opWriteImm:
		wantImm, flags, op = tagged(tagWrite, i), verbs.WCWithImm, verbs.WCRecvRDMAWithImm
	}
	if w.Opcode != op || w.Flags&verbs.WCWithImm != flags || imm != wantImm || int(w.ByteLen) != p.n {
		return fmt.Errorf("operation %d came as %v with %d bytes, flags %v, immediate %#x; want %v, %d bytes, immediate %#x",
			i, w.Opcode, w.ByteLen, w.Flags, imm, op, p.n, wantImm)
	}
	if p.kind == opWriteImm {
		at := m.place(m.win, i, &p)
		return same("WRITE_IMM", i, m.win.Bytes()[at:at+p.n], p.key, 0)
	}
	return same("SEND", i, m.received(w), p.key, 0)
}

// endRound checks what the peer did to our memory.
func (m *mixer) endRound(n uint64) error {
	if n != m.peerRound&0xffffff {
		return fmt.Errorf("the end of round %d", n)
	}
	first, end := m.span(m.peerRound)
	for i := first; i < end; i++ {
		p := m.o.plan(m.o.other, i)
		if p.arrives() && i >= m.expect {
			return fmt.Errorf("operation %d did not arrive", i)
		}
		if p.writes() {
			at := m.place(m.win, i, &p)
			if err := same("WRITE", i, m.win.Bytes()[at:at+p.n], p.key, 0); err != nil {
				return err
			}
			if err := fenced("WRITE", i, m.win.Bytes(), at, p.n); err != nil {
				return err
			}
		}
		switch {
		case p.kind == opFetchAdd:
			m.peerModel[p.counter] += p.value
		case p.kind == opCompareSwap && !p.miss:
			m.peerModel[p.counter] = p.value
		}
		if p.kind != opRead {
			m.sum.ReceivedBytes += uint64(p.n)
		}
	}
	for k, want := range m.peerModel {
		if got := binary.NativeEndian.Uint64(m.atm.Bytes()[8*k:]); got != want {
			return fmt.Errorf("counter %d is %#x, not %#x", k, got, want)
		}
	}
	m.peerRound++
	m.lay()
	m.owe = true
	return nil
}

// reply confirms a round, once its receives are posted again.
func (m *mixer) reply() error {
	if !m.owe {
		return nil
	}
	m.owe = false
	return m.control(tagged(tagOK, m.peerRound-1))
}
