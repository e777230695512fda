package dpu

import (
	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// writeStatuses puts the ends of operations into the host's ring, as many as have
// come with one doorbell. A WRITE_WITH_IMM is executed behind all WRITEs that the
// operations posted before on this queue pair, so what it announces is there.
//
// Two announcements may be under way: an idle agent answers at once, and what comes
// while two are goes with the next.
func (s *agentSession) writeStatuses() {
	defer s.wg.Done()
	var number uint64
	var batch []wire.Status
	room := newRoom(announcements)
	for {
		batch = batch[:0]
		select {
		case <-room:
		case <-s.life.Done():
			return
		}
		select {
		case st := <-s.statuses:
			batch = append(batch, st)
		case <-s.life.Done():
			return
		}
		// One announcement is of neighbours: up to the end of the ring.
		limit := min(s.a.cfg.Batch, s.slots-int(number%uint64(s.slots)), 4096/wire.EntryLen)
	more:
		for len(batch) < limit {
			select {
			case st := <-s.statuses:
				batch = append(batch, st)
			default:
				break more
			}
		}
		s.mu.Lock()
		s.pending -= len(batch)
		s.mu.Unlock()
		if err := s.announce(batch, number, room); err != nil {
			s.end(err)
			return
		}
		number += uint64(len(batch))
	}
}

func (s *agentSession) announce(batch []wire.Status, number uint64, room chan struct{}) error {
	first := int(number % uint64(s.slots))
	to, err := s.ring.Slice(uint64(first*wire.EntryLen), len(batch)*wire.EntryLen)
	if err != nil {
		return err
	}
	b, err := s.t.dev.Pool().Get(s.life, len(batch)*wire.EntryLen)
	if err != nil {
		return err
	}
	p, err := b.Bytes()
	if err != nil {
		return err
	}
	for i := range batch {
		st := &batch[i]
		st.Number, st.Epoch = number+uint64(i), s.epoch
		st.Put(p[i*wire.EntryLen:])
	}
	s.a.stats.statuses.Add(uint64(len(batch)))
	s.a.stats.doorbells.Add(1)
	err = s.post(qp.Op{Kind: qp.WriteImm, Bufs: []mr.Buf{b}, Remote: to, Imm: wire.Imm(first, len(batch)), Done: func(r qp.Result) {
		r.Release()
		room <- struct{}{}
	}})
	if err != nil && b.Err() == nil {
		_ = b.Release()
	}
	return err
}

// announcements is how many messages with descriptors, or announcements of status
// entries, may be under way on one queue pair.
const announcements = 2

func newRoom(n int) chan struct{} {
	c := make(chan struct{}, n)
	for range n {
		c <- struct{}{}
	}
	return c
}
