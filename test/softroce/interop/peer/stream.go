package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/verbs"
)

// The receiver of a stream answers every credit messages; window is how far a
// sender may be ahead, in messages. The last request of a batch is signaled.
const (
	window = 1024
	credit = 256
	batch  = 64
)

type streamer struct {
	*conn
	sum *summary

	total, sent, taken, completed uint64 // ours: to send, posted, credited, completed
	expected, got                 uint64 // the peer's: to come, taken
	finSent, finDone, peerFin     bool
	wrs                           [batch]verbs.SendWR
	sge                           [batch][1]verbs.SGE
}

func stream(ctx context.Context, o *options, sum *summary, by connector) error {
	if o.max < 8 {
		return errors.New("-max of a stream is at least 8")
	}
	c, err := by.open(ctx, shape{recvs: window + 16, firstRecvs: window + 16, slots: window, sends: window + 32, rnrRetry: 7})
	if err != nil {
		return err
	}
	s := &streamer{conn: c, sum: sum}
	if o.acts[o.me] {
		s.total = o.n
	}
	if o.acts[o.other] {
		s.expected = o.n
	}
	err = c.hello(ctx, sum)
	if err == nil {
		err = s.run(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("after %d sent, %d received: %w", s.sent, s.got, err), c.free())
	}
	return c.finish(ctx)
}

func (s *streamer) run(ctx context.Context) error {
	for !s.peerFin || !(s.finDone || s.goneIsFine() && s.finSent) {
		if err := s.send(); err != nil {
			return err
		}
		w, err := s.next(ctx)
		if err != nil {
			return err
		}
		if err := verbs.WCErr(&w); err != nil {
			return err
		}
		switch idKind(w.WRID) {
		case idRecv:
			err = s.onRecv(&w)
		case idOp:
			s.completed = idNumber(w.WRID) + 1
		case idControl:
			s.finDone = s.finDone || idNumber(w.WRID)>>24 == tagFin
		}
		if err != nil {
			return err
		}
	}
	if s.sent != s.total || s.got != s.expected {
		return errors.New("not all was sent or received")
	}
	return nil
}

func (s *streamer) size(side int, i uint64) int {
	return 8 + int(s.o.draw(side, i, fieldStreamLen)%uint64(s.o.max-7))
}

// send posts batches while there is room for one. Every other one goes inline
// where it fits.
func (s *streamer) send() error {
	for s.sent < s.total {
		n := min(batch, s.total-s.sent)
		if window-(s.sent-min(s.taken, s.completed)) < n {
			return nil
		}
		for k := range n {
			i := s.sent + k
			at, size := int(i%window)*s.slot, s.size(s.o.me, i)
			b := s.src.Bytes()[at : at+size]
			binary.BigEndian.PutUint64(b, i)
			fill(b[8:], s.o.draw(s.o.me, i, fieldStreamKey), 0)
			w := verbs.SendWR{ID: id(idOp, i), Opcode: verbs.WRSend}
			if i/batch%2 == 1 && size <= 64 {
				w.Inline = b
			} else {
				s.sge[k][0] = s.src.SGE(at, size)
				w.SGList = s.sge[k][:]
			}
			if k+1 == n {
				w.Flags = verbs.SendSignaled
			}
			s.wrs[k] = w
			s.sum.SentBytes += uint64(size)
		}
		if err := s.post(s.wrs[:n]...); err != nil {
			return err
		}
		s.sent += n
		s.sum.Ops += n
	}
	if s.finSent {
		return nil
	}
	s.finSent = true
	return s.control(tagged(tagFin, 0))
}

func (s *streamer) onRecv(w *verbs.WC) error {
	if w.Flags&verbs.WCWithImm != 0 {
		imm := w.Imm()
		n := uint64(imm & 0xffffff)
		switch imm >> 24 {
		case tagCredit:
			if n != s.taken/credit+1 {
				return fmt.Errorf("credit %d after %d", n, s.taken/credit)
			}
			s.taken += credit
		case tagFin:
			if s.got != s.expected {
				return fmt.Errorf("the peer ends after %d of %d messages", s.got, s.expected)
			}
			s.peerFin = true
		default:
			return fmt.Errorf("a control message %#x", imm)
		}
		return s.again(w)
	}
	i, b := s.got, s.received(w)
	if len(b) < 8 || binary.BigEndian.Uint64(b) != i {
		return fmt.Errorf("message %d begins with %x", i, b[:min(8, len(b))])
	}
	if want := s.size(s.o.other, i); len(b) != want {
		return fmt.Errorf("message %d: %d bytes, not %d", i, len(b), want)
	}
	if differs(b[8:], s.o.draw(s.o.other, i, fieldStreamKey), 0) >= 0 {
		return fmt.Errorf("message %d is damaged", i)
	}
	s.got++
	s.sum.Messages++
	s.sum.ReceivedBytes += uint64(len(b))
	if err := s.again(w); err != nil {
		return err
	}
	if s.got%credit == 0 {
		return s.control(tagged(tagCredit, s.got/credit))
	}
	return nil
}
