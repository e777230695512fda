package qp

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

// work does operations until it has done n batches or the connection ends.
func (s *side) work(ctx context.Context, r *rand.Rand, w int, peer *side, n int) {
	for range n {
		if err := s.step(ctx, r, w, peer); err != nil {
			var end *EndError
			if !errors.As(err, &end) {
				s.t.Error(err)
				s.c.end(err)
			}
			return
		}
	}
}

// step posts a random batch. Every one reports its end exactly once.
func (s *side) step(ctx context.Context, r *rand.Rand, w int, peer *side) error {
	n := 1 + r.IntN(min(4, s.c.cfg.SendDepth, s.c.MaxBatch()))
	ops := make([]Op, 0, n)
	at := make([]int, n) // where a Read reads
	for i := range n {
		op, err := s.op(ctx, r, w, peer, &at[i])
		if err != nil {
			for _, o := range ops {
				release(o.Bufs)
			}
			release(op.Bufs)
			return err
		}
		ops = append(ops, op)
	}
	if n == 1 && r.IntN(3) == 0 { // synchronous, sometimes impatient
		op := ops[0]
		op.Done = nil
		c, cancel := ctx, context.CancelFunc(func() {})
		if len(op.Bufs) > 0 && r.IntN(2) == 0 { // they tell whether it was posted
			c, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(3000))*time.Microsecond)
		}
		bufs, err := s.c.Do(c, op)
		cancel()
		s.back(op.Kind, bufs, at[0], err)
		switch {
		case err == nil:
			s.count(op, w)
		case errors.Is(err, context.DeadlineExceeded):
			if bufs == nil { // it was posted, and will be done
				s.count(op, w)
			}
			return nil
		default: // the end came: the peer may have it or not
			s.count(op, w)
		}
		var ce *verbs.CompletionError
		if errors.As(err, &ce) {
			if s.c.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			return s.c.Err() // it says why, as the others will
		}
		return err
	}
	ended := make([]atomic.Bool, len(ops))
	for i := range ops {
		ops[i].Done = func(res Result) {
			if ended[i].Swap(true) {
				s.t.Errorf("%v ended twice", res.Kind)
			}
			s.ended.Add(1)
			s.back(res.Kind, res.Bufs, at[i], res.Err)
		}
	}
	s.posted.Add(int64(len(ops)))
	for i := range ops { // before the peer can have it
		s.count(ops[i], w)
	}
	err := s.c.Post(ctx, ops...)
	if err != nil { // those that were not posted are the caller's still
		for i := range ops {
			if ended[i].Load() {
				continue
			}
			mine := len(ops[i].Bufs) == 0
			for _, b := range ops[i].Bufs {
				if b.Err() == nil {
					mine = true
					if err := b.Release(); err != nil {
						return err
					}
				}
			}
			if mine {
				s.posted.Add(-1)
			}
		}
	}
	return err
}

// count notes an operation that was posted, or is about to be.
func (s *side) count(op Op, w int) {
	switch op.Kind {
	case Send:
		s.sent.Add(1)
	case FetchAdd:
		s.adds.Add(1)
	case WriteImm, Write:
		if op.Kind == WriteImm {
			s.sent.Add(1)
		}
		if n := int(op.Token >> 32); n > 0 {
			s.last[w] = lastWrite{n, uint32(op.Token)}
		}
	}
}

func release(bufs []mr.Buf) {
	for _, b := range bufs {
		_ = b.Release()
	}
}

// back takes the buffers of an operation that has ended: what was read is what is
// there, and what was sent is overwritten, so that a device that still reads it
// sends nonsense.
func (s *side) back(k Kind, bufs []mr.Buf, at int, err error) {
	for _, b := range bufs {
		p, e := b.Bytes()
		if e != nil {
			s.t.Error(e)
			continue
		}
		if k == Read && err == nil {
			for i, x := range p {
				if x != readPattern(at+i) {
					s.t.Errorf("read %#x at %d, not %#x", x, at+i, readPattern(at+i))
					break
				}
			}
			at += len(p)
		} else if k <= WriteImm {
			for i := range p {
				p[i] = 0xdd
			}
		}
		if err := b.Release(); err != nil {
			s.t.Error(err)
		}
	}
}

// op makes a random operation.
func (s *side) op(ctx context.Context, r *rand.Rand, w int, peer *side, at *int) (Op, error) {
	k := Kind(1 + r.IntN(6))
	for *kindMask>>k&1 == 0 {
		k = Kind(1 + r.IntN(6))
	}
	op := Op{Kind: k, Fence: r.IntN(8) == 0 && *kindMask&1 == 0}
	bytes := 1 + r.IntN(areaSize)
	switch k {
	case Send:
		bytes = 1 + r.IntN(s.c.peer.maxMessage)
	case Write, WriteImm:
		op.Remote = peer.write.Remote()
		op.Remote.Addr += uint64(w * areaSize)
		op.Remote.Len = areaSize
		op.Imm = uint32(r.IntN(1 << 20))
	case Read:
		*at = r.IntN(readSize - areaSize)
		op.Remote = peer.read.Remote()
		op.Remote.Addr += uint64(*at)
		op.Remote.Len = areaSize
	case CompareAndSwap, FetchAdd:
		op.Add, op.Remote = 1, Remote{Addr: peer.word.Addr(), Len: 8, RKey: peer.word.RKey()}
		if k == CompareAndSwap {
			op.Remote.Addr += 8
		}
		b, err := s.h.d.Pool().Get(ctx, 8)
		op.Bufs = []mr.Buf{b}
		return op, err
	}
	seed := r.Uint32()
	if k <= WriteImm && r.IntN(4) == 0 {
		op.Data = make([]byte, 1+r.IntN(s.c.MaxInline()))
		fill(op.Data, seed)
		op.Token = uint64(len(op.Data))<<32 | uint64(seed)
		return op, nil
	}
	// Parts of a message: the pattern goes on through all of them.
	parts := 1 + r.IntN(s.c.cfg.MaxSGE)
	whole := make([]byte, max(1, bytes/parts)*parts)
	if k == Send && len(whole) > s.c.peer.maxMessage {
		whole, parts = whole[:bytes], 1
	}
	fill(whole, seed)
	op.Token = uint64(len(whole))<<32 | uint64(seed)
	each := len(whole) / parts
	for i := range parts {
		b, err := s.h.d.Pool().Get(ctx, each)
		if err != nil {
			return op, err
		}
		p, err := b.Bytes()
		if err != nil {
			return op, err
		}
		if k != Read {
			copy(p, whole[i*each:])
		}
		op.Bufs = append(op.Bufs, b)
	}
	return op, nil
}
