package dpu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rpc"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	maxDescMessage = 4096
	maxList        = 256 // entries of one list
)

// agentOp is an operation under way.
type agentOp struct {
	s      *agentSession
	d      wire.Descriptor
	be     Backend
	remote mr.Remote
	ctx    context.Context
	cancel context.CancelFunc
	sent   bool // a write has been handed to the backend, or may have been
}

// refusal is an error of an operation that nothing was done of.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refuse(c rpc.Code, format string, a ...any) error { return refusal{rpc.Errorf(c, format, a...)} }

// begin begins the operation of a descriptor, in the engine's goroutine. bad is what
// the decoder found. An error ends the session.
func (s *agentSession) begin(d *wire.Descriptor, bad error) error {
	s.mu.Lock()
	n := s.pending
	_, twice := s.ops[d.ID]
	full := n >= s.slots
	if !full && !twice {
		s.pending++
	}
	s.mu.Unlock()
	if full || twice {
		return rpc.Errorf(rpc.InvalidArgument, "operation %#x: %d are under way, the ring has %d entries, and ids must differ", d.ID, n, s.slots)
	}
	o := &agentOp{s: s, d: *d}
	err := s.admit(o, bad)
	if err == nil {
		if d.Timeout > 0 {
			o.ctx, o.cancel = context.WithTimeout(s.life, time.Duration(d.Timeout)*time.Microsecond)
		} else {
			o.ctx, o.cancel = context.WithCancel(s.life)
		}
	}
	// A refused one takes an entry of the ring too.
	s.mu.Lock()
	s.ops[d.ID] = o
	s.mu.Unlock()
	if err != nil {
		s.a.stats.refused.Add(1)
		s.finish(o, o.status(BlockInfo{}, 0, err))
		return nil
	}
	s.a.stats.ops.Add(1)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer o.cancel()
		in, boot, err := o.run()
		s.t.give(int64(d.Len))
		if err != nil {
			s.a.stats.failed.Add(1)
		}
		s.finish(o, o.status(in, boot, err))
	}()
	return nil
}

// admit decides about an operation before anything is done for it.
func (s *agentSession) admit(o *agentOp, bad error) error {
	d := &o.d
	switch {
	case errors.Is(bad, wire.ErrVersion):
		return refuse(rpc.Unimplemented, "%v", bad)
	case bad != nil:
		return refuse(rpc.InvalidArgument, "%v", bad)
	case d.Epoch != s.epoch:
		return refuse(rpc.FailedPrecondition, "a descriptor of epoch %d; this session has %d", d.Epoch, s.epoch)
	case d.Op.HasMemory() && int64(d.Len) > int64(s.a.cfg.MaxBlock):
		return refuse(rpc.InvalidArgument, "%d bytes; the agent takes blocks of up to %d", d.Len, s.a.cfg.MaxBlock)
	case d.Op == wire.OpPut && d.Len == 0:
		return refuse(rpc.InvalidArgument, "a block of 0 bytes")
	case !s.t.mayUse(d.Backend) || s.a.cfg.Backends[d.Backend] == nil:
		return refuse(rpc.PermissionDenied, "tenant %q may not use backend %d", s.t.name, d.Backend)
	}
	if err := s.t.take(int64(d.Len)); err != nil {
		return refuse(rpc.ResourceExhausted, "%v", err)
	}
	o.be = s.a.cfg.Backends[d.Backend]
	o.remote.Addr, o.remote.Len = d.Addr, d.Len
	o.remote.RKey = keyOf(d.RKey)
	return nil
}

// finish hands the status on. There is a place in the channel for every operation.
func (s *agentSession) finish(o *agentOp, st wire.Status) {
	s.mu.Lock()
	delete(s.ops, o.d.ID)
	s.mu.Unlock()
	select {
	case s.statuses <- st:
	case <-s.life.Done():
	}
}

// cancel gives an operation up. One that is over has its status on the way.
func (s *agentSession) cancel(body []byte) {
	s.mu.Lock()
	o := s.ops[binary.LittleEndian.Uint64(body)]
	s.mu.Unlock()
	if o != nil && o.cancel != nil {
		s.a.stats.cancelled.Add(1)
		o.cancel()
	}
}

// status is how the operation ended, as the host is told.
func (o *agentOp) status(in BlockInfo, boot uint64, err error) wire.Status {
	st := wire.Status{ID: o.d.ID, Size: in.Size, Sum: in.Sum, Version: in.Version, Boot: boot}
	if err == nil {
		return st
	}
	st.Code, st.Text = uint16(codeOf(err)), text(err)
	switch {
	case errors.As(err, new(refusal)):
		st.Flags = wire.NotBegun
	case !o.d.Op.Writes():
	case !o.sent:
		st.Flags = wire.NotBegun
	case errors.Is(err, rpc.ErrIndeterminate), o.token().Epoch == 0 && errors.Is(err, ErrStale):
		// Stale without an epoch: it was sent twice, and the server started between.
		st.Flags = wire.Indeterminate
	case undone(err):
		st.Flags = wire.NotBegun
	case unclear(err):
		st.Flags = wire.Indeterminate
	}
	return st
}

// undone reports an error of a write that says that it was not done.
func undone(err error) bool {
	var e *rpc.Error
	return errors.Is(err, ErrStale) || errors.Is(err, ErrFenced) || errors.Is(err, rpc.ErrUnavailable) || errors.Is(err, rpc.ErrBusy) ||
		errors.As(err, &e) && e.Refused
}

// unclear reports an error of a write that leaves open whether it was done.
func unclear(err error) bool {
	if errors.Is(err, rpc.ErrIndeterminate) {
		return true
	}
	switch codeOf(err) {
	case rpc.Canceled, rpc.DeadlineExceeded, rpc.Unknown, rpc.Internal, rpc.Unavailable:
		return true
	}
	return false
}

// codeOf is the code of an error of a backend.
func codeOf(err error) rpc.Code {
	switch {
	case errors.Is(err, ErrFenced), errors.Is(err, ErrChanged):
		return rpc.Aborted
	case errors.Is(err, ErrStale):
		return rpc.FailedPrecondition
	case errors.Is(err, mr.ErrExhausted):
		return rpc.ResourceExhausted
	}
	if c := rpc.CodeOf(err); c != rpc.OK {
		return c
	}
	return rpc.Unknown
}

func text(err error) string {
	var e *rpc.Error
	if errors.As(err, &e) && e.Message != "" {
		return e.Message
	}
	return err.Error()
}

// token is of the host's write. Of a host that cannot do it again, for its direct way
// knows no tokens, it is the agent's own.
func (o *agentOp) token() Token {
	if o.s.writer == (Writer{}) {
		return Token{Writer: o.s.own, Seq: o.d.ID}
	}
	return Token{Writer: o.s.writer, Seq: o.d.Seq, Boot: o.d.Boot, Epoch: o.s.epoch, Replay: o.d.Flags&wire.Replay != 0}
}

func (o *agentOp) run() (in BlockInfo, boot uint64, err error) {
	switch o.d.Op {
	case wire.OpGet:
		for range 3 { // a block may be replaced while it is read
			if in, err = o.get(); !errors.Is(err, ErrChanged) {
				break
			}
		}
		return in, 0, err
	case wire.OpPut:
		return o.put()
	case wire.OpStat:
		in, err = o.be.Stat(o.ctx, o.d.Key)
		return in, 0, err
	case wire.OpList:
		in, err = o.list()
		return in, 0, err
	case wire.OpDelete:
		o.sent = true
		o.s.a.pass("backend")
		boot, err = o.be.DeleteToken(o.backend(), o.d.Key, o.token())
		return in, boot, err
	}
	return in, 0, fmt.Errorf("dpu: operation %v", o.d.Op)
}

// list puts what the backend lists into the host's memory: Sum is how many.
func (o *agentOp) list() (in BlockInfo, err error) {
	l, err := o.be.List(o.ctx, o.d.Key, maxList)
	if err != nil {
		return in, err
	}
	b, err := o.s.t.pool.Get(o.ctx, min(o.s.t.pool.MaxLen(), int(o.d.Len)))
	if err != nil {
		return in, err
	}
	p, err := b.Bytes()
	if err != nil {
		return in, err
	}
	out := p[:0]
	for i := range l {
		if len(out)+infoLen(&l[i]) > len(p) {
			break
		}
		out = appendInfo(out, &l[i])
		in.Sum++
	}
	if len(l) > 0 && in.Sum == 0 {
		_ = b.Release()
		return in, rpc.Errorf(rpc.OutOfRange, "the memory has no room for one entry")
	}
	in.Size = uint32(len(out))
	if len(out) == 0 {
		return in, b.Release()
	}
	if b, err = b.Narrow(0, len(out)); err != nil {
		return in, err
	}
	return in, o.write(b, 0, nil)
}

func infoLen(in *BlockInfo) int { return 17 + len(in.Key) }

func appendInfo(b []byte, in *BlockInfo) []byte {
	b = binary.LittleEndian.AppendUint32(b, in.Size)
	b = binary.LittleEndian.AppendUint32(b, in.Sum)
	b = binary.LittleEndian.AppendUint64(b, in.Version)
	b = append(b, byte(len(in.Key)))
	return append(b, in.Key...)
}

func parseInfos(b []byte, n int) (l []BlockInfo, err error) {
	for range n {
		if len(b) < 17 || len(b) < 17+int(b[16]) {
			return nil, errors.New("dpu: a list that makes no sense")
		}
		l = append(l, BlockInfo{Size: binary.LittleEndian.Uint32(b), Sum: binary.LittleEndian.Uint32(b[4:]), Version: binary.LittleEndian.Uint64(b[8:]),
			Key: string(b[17 : 17+int(b[16])])})
		b = b[17+int(b[16]):]
	}
	return l, nil
}
