package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/verbs"
)

// mixer runs rounds: at most depth operations under way at once, each in a slot
// of its own, and a control message behind them, which the peer answers when all
// is in place.
type mixer struct {
	*conn
	sum   *summary
	depth uint64

	round, rounds    uint64 // ours
	done, total      int    // completions of our round, its end included
	posted, ok       bool
	finSent, finDone bool
	model            [counters]uint64 // the peer's counters
	old              [64]uint64       // what an atomic must return, by slot

	peerRound, peerRounds uint64
	expect                uint64           // the operation of the peer's that may arrive next
	peerFin, owe          bool             // owe: a round is to be confirmed
	peerModel             [counters]uint64 // our counters
}

func mix(ctx context.Context, o *options, sum *summary, by connector) error {
	s := shape{recvs: o.depth + 4, firstRecvs: o.depth + 4, slots: o.depth, sends: o.depth + 16, rnrRetry: 7}
	c, err := by.open(ctx, s)
	if err != nil {
		return err
	}
	m := &mixer{conn: c, sum: sum, depth: uint64(o.depth)}
	rounds := (o.n + m.depth - 1) / m.depth
	if o.acts[o.me] {
		m.rounds = rounds
	}
	if o.acts[o.other] {
		m.peerRounds = rounds
	}
	m.lay()
	if err := c.hello(ctx, sum); err != nil {
		return errors.Join(err, c.free())
	}
	if err := m.run(ctx); err != nil {
		return errors.Join(fmt.Errorf("round %d of ours, %d of the peer's: %w", m.round, m.peerRound, err), c.free())
	}
	return c.finish(ctx)
}

func (m *mixer) run(ctx context.Context) error {
	if err := m.advance(); err != nil {
		return err
	}
	for !m.peerFin || !(m.finDone || m.goneIsFine() && m.finSent) {
		w, err := m.next(ctx)
		if err != nil {
			return err
		}
		if err := verbs.WCErr(&w); err != nil {
			return err
		}
		switch idKind(w.WRID) {
		case idRecv:
			err = errors.Join(m.onRecv(&w), m.again(&w))
		case idOp:
			err = m.completed(idNumber(w.WRID))
			m.done++
		case idControl:
			switch idNumber(w.WRID) >> 24 {
			case tagEnd:
				m.done++
			case tagFin:
				m.finDone = true
			}
		}
		if err := errors.Join(err, m.reply()); err != nil {
			return err
		}
		if err := m.advance(); err != nil {
			return err
		}
	}
	return nil
}

func (m *mixer) span(round uint64) (first, end uint64) {
	return round * m.depth, min((round+1)*m.depth, m.o.n)
}

// place is where the data of an operation is, with a canary on both sides.
func (m *mixer) place(mr *verbs.MR, i uint64, p *op) (at int) {
	return int(i%m.depth)*m.slot + margin + p.off
}

func fence(b []byte, at, n int) {
	for k := range canary {
		b[at-1-k], b[at+n+k] = 0xa5, 0xa5
	}
}

func fenced(what string, i uint64, b []byte, at, n int) error {
	for k := range canary {
		if b[at-1-k] != 0xa5 || b[at+n+k] != 0xa5 {
			return fmt.Errorf("%s %d of %d bytes: wrote outside of it, %d away", what, i, n, k+1)
		}
	}
	return nil
}

func same(what string, i uint64, b []byte, key, from uint64) error {
	if at := differs(b, key, from); at >= 0 {
		return fmt.Errorf("%s %d of %d bytes: wrong from byte %d on", what, i, len(b), at)
	}
	return nil
}

func (m *mixer) readAt(p *op, there uint64) uint64 { return p.at % (there - uint64(p.n) + 1) }

func (m *mixer) pieces(at int, p *op) []verbs.SGE {
	if p.n == 0 {
		return nil
	}
	a, b := p.n/3, p.n-p.n/4
	switch p.pieces {
	case 2:
		return []verbs.SGE{m.src.SGE(at, a), m.src.SGE(at+a, p.n-a)}
	case 3:
		return []verbs.SGE{m.src.SGE(at, a), m.src.SGE(at+a, b-a), m.src.SGE(at+b, p.n-b)}
	}
	return []verbs.SGE{m.src.SGE(at, p.n)}
}

func (m *mixer) begin(i uint64) error {
	p := m.o.plan(m.o.me, i)
	at := m.place(m.src, i, &p)
	buf := m.src.Bytes()
	wr := verbs.SendWR{
		ID: id(idOp, i), Flags: verbs.SendSignaled, SGList: m.pieces(at, &p),
		RemoteAddr: m.peer.win + (i%m.depth)*uint64(m.slot) + margin + uint64(p.off), RKey: m.peer.winKey,
	}
	if p.kind <= opWriteImm {
		fill(buf[at:at+p.n], p.key, 0)
	}
	was := &m.model[p.counter]
	switch p.kind {
	case opSend:
		wr.Opcode = verbs.WRSend
	case opSendImm:
		wr.Opcode, wr.Imm = verbs.WRSendWithImm, tagged(tagSend, i)
	case opWrite:
		wr.Opcode = verbs.WRRDMAWrite
	case opWriteImm:
		wr.Opcode, wr.Imm = verbs.WRRDMAWriteWithImm, tagged(tagWrite, i)
	case opRead:
		wr.Opcode, wr.RemoteAddr, wr.RKey = verbs.WRRDMARead, m.peer.ro+m.readAt(&p, m.peer.roLen), m.peer.roKey
		fence(buf, at, p.n)
	case opFetchAdd, opCompareSwap:
		wr.RemoteAddr, wr.RKey = m.peer.atm+8*uint64(p.counter), m.peer.atmKey
		m.old[i%m.depth] = *was
		if p.kind == opFetchAdd {
			wr.Opcode, wr.CompareAdd = verbs.WRAtomicFetchAndAdd, p.value
			*was += p.value
			break
		}
		wr.Opcode, wr.CompareAdd, wr.Swap = verbs.WRAtomicCmpAndSwp, *was, p.value
		if p.miss {
			wr.CompareAdd ^= 1
		} else {
			*was = p.value
		}
	}
	m.sum.Ops++
	m.sum.SentBytes += uint64(p.n)
	return m.post(wr)
}

func (m *mixer) completed(i uint64) error {
	p := m.o.plan(m.o.me, i)
	at := m.place(m.src, i, &p)
	b := m.src.Bytes()
	switch {
	case p.kind == opRead:
		return errors.Join(
			same("READ", i, b[at:at+p.n], m.o.draw(m.o.other, 0, fieldReadable), m.readAt(&p, m.peer.roLen)),
			fenced("READ", i, b, at, p.n))
	case p.atomic():
		if got, want := binary.NativeEndian.Uint64(b[at:]), m.old[i%m.depth]; got != want {
			return fmt.Errorf("atomic %d: counter %d was %#x, not %#x", i, p.counter, got, want)
		}
	}
	return nil
}

// advance begins the next round of ours when the last one is over.
func (m *mixer) advance() error {
	if m.posted && m.ok && m.done == m.total {
		m.posted, m.ok, m.done = false, false, 0
		m.round++
	}
	if !m.posted && m.round < m.rounds {
		first, end := m.span(m.round)
		for i := first; i < end; i++ {
			if err := m.begin(i); err != nil {
				return err
			}
		}
		m.total, m.posted = int(end-first)+1, true
		return m.control(tagged(tagEnd, m.round))
	}
	if m.round == m.rounds && !m.finSent {
		m.finSent = true
		return m.control(tagged(tagFin, 0))
	}
	return nil
}
