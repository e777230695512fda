package dpu

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// place takes a place for one more operation, and counts it in wg. The error wraps
// ErrNoAgent when the session takes none any more.
func (s *hostSession) place(ctx context.Context, d wire.Descriptor) (*hostOp, error) {
	select {
	case <-s.free:
	case <-s.lost:
		return nil, fmt.Errorf("%w: %w", ErrNoAgent, s.cause)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.draining {
		s.free <- struct{}{}
		return nil, fmt.Errorf("%w that takes anything new", ErrNoAgent)
	}
	s.next++
	d.ID, d.Epoch, d.Backend = s.next, s.epoch, s.c.cfg.Backend
	o := &hostOp{d: d, status: make(chan wire.Status, 1)}
	s.ops[d.ID] = o
	s.busy++
	if d.Op.Writes() {
		s.writes++
	}
	s.wg.Add(1)
	s.c.policy.begin(1)
	return o, nil
}

// leave gives the place back. answered: the status has come, so the ring has room.
func (s *hostSession) leave(o *hostOp, answered bool) {
	s.mu.Lock()
	delete(s.ops, o.d.ID)
	s.busy--
	if o.d.Op.Writes() {
		s.writes--
	}
	last := s.draining && s.busy == 0
	s.mu.Unlock()
	if answered {
		s.free <- struct{}{}
	}
	s.c.policy.end(1)
	if last {
		s.giveUp(ErrClosed)
	}
	s.wg.Done()
}

// submit queues the descriptor. There is room: two for each place.
func (s *hostSession) submit(o *hostOp) {
	select {
	case s.queue <- o:
	case <-s.lost:
	}
}

// callBack asks the agent to give the operation up; its status tells when it has.
func (s *hostSession) callBack(o *hostOp) { s.submit(&hostOp{d: o.d, cancel: true}) }

// send posts descriptors, as many as have come with one doorbell. Two messages may be
// under way: an idle client sends at once, and what comes while two are goes with the
// next.
func (s *hostSession) send() {
	defer s.wg.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.lost:
		case <-ctx.Done():
		}
		cancel()
	}()
	var held *hostOp // did not fit into the last message
	room := newRoom(announcements)
	for {
		select {
		case <-room:
		case <-s.lost:
			return
		}
		o := held
		held = nil
		if o == nil {
			select {
			case o = <-s.queue:
			case <-s.lost:
				return
			}
		}
		m := wire.Header{Type: wire.Descriptors, Epoch: s.epoch}.Append(make([]byte, 0, 256))
		n := 0
		if o.cancel {
			m = wire.Header{Type: wire.Cancel, Epoch: s.epoch}.Append(m[:0])
			m = binary.LittleEndian.AppendUint64(m, o.d.ID)
		} else {
			m = o.d.Append(m)
			n = 1
		more:
			for n < s.c.cfg.Batch {
				select {
				case x := <-s.queue:
					if x.cancel || len(m)+x.d.Size() > maxDescMessage {
						held = x
						break more
					}
					m = x.d.Append(m)
					n++
				default:
					break more
				}
			}
			binary.LittleEndian.PutUint16(m[8:], uint16(n))
		}
		s.c.stats.descriptors.Add(uint64(n))
		s.c.stats.doorbells.Add(1)
		if err := s.post(ctx, wire.Seal(m), room); err != nil {
			s.giveUp(fmt.Errorf("%w: %w", ErrAgentLost, err))
			return
		}
	}
}

func (s *hostSession) post(ctx context.Context, m []byte, room chan struct{}) error {
	if len(m) <= s.data.MaxInline() {
		return s.data.Post(ctx, qp.Op{Kind: qp.Send, Data: m, Done: func(qp.Result) { room <- struct{}{} }})
	}
	b, err := s.c.pool.Get(ctx, len(m))
	if err != nil {
		return err
	}
	p, err := b.Bytes()
	if err != nil {
		return err
	}
	copy(p, m)
	err = s.data.Post(ctx, qp.Op{Kind: qp.Send, Bufs: []mr.Buf{b}, Done: func(r qp.Result) {
		r.Release()
		room <- struct{}{}
	}})
	if err != nil && b.Err() == nil {
		_ = b.Release()
	}
	return err
}

// onData takes announcements of the agent, in the engine's goroutine.
func (s *hostSession) onData(_ *qp.Conn, m qp.Message) {
	if !m.Buf.IsZero() {
		_ = m.Buf.Release()
	}
	if !m.HasImm || !m.Buf.IsZero() {
		s.giveUp(fmt.Errorf("%w: a message from the agent where only status entries are due", wire.ErrMalformed))
		return
	}
	s.heard.Store(time.Now().UnixNano())
	slots := uint64(len(s.ring) / wire.EntryLen)
	first, n := wire.ParseImm(m.Imm)
	if slots == 0 || n < 1 || uint64(first) != s.head%slots || uint64(first+n) > slots || m.Written != n*wire.EntryLen {
		s.giveUp(fmt.Errorf("%w: %d status entries at %d, %d bytes; the next is %d of %d", wire.ErrMalformed, n, first, m.Written, s.head%max(slots, 1), slots))
		return
	}
	s.c.stats.announcements.Add(1)
	s.c.stats.statuses.Add(uint64(n))
	for i := first; i < first+n; i++ {
		var st wire.Status
		err := st.Get(s.ring[i*wire.EntryLen:])
		if err == nil && st.Number != s.head {
			err = fmt.Errorf("%w: status entry %d where %d is due", wire.ErrMalformed, st.Number, s.head)
		}
		if err == nil && st.Epoch != s.epoch {
			err = fmt.Errorf("%w: a status of epoch %d in a session of %d", wire.ErrMalformed, st.Epoch, s.epoch)
		}
		if err != nil {
			s.giveUp(err)
			return
		}
		s.head++
		s.mu.Lock()
		o := s.ops[st.ID]
		delete(s.ops, st.ID)
		s.mu.Unlock()
		if o == nil {
			s.giveUp(fmt.Errorf("%w: a status of operation %#x, which is not under way", wire.ErrMalformed, st.ID))
			return
		}
		o.status <- st
	}
}
