package dpu

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rpc"
)

const listBytes = 64 << 10

// op is a call of a Client.
type op struct {
	c     *Client
	name  string
	key   string
	size  int
	began Path
	start time.Time
}

// outcome is how an agent's part of an operation ended.
type outcome struct {
	st  wire.Status
	buf mr.Buf // the caller's memory again, where there was some
	// err is set when the agent was lost, or the memory; then st is nothing.
	err error
	// gone: the memory is not the caller's any more, or its context ended.
	gone  bool
	begun bool // the agent may have heard of it
	late  bool // it was called back, for its time was over
}

// offload gives an operation to the agent and waits for the end. It takes b, if it
// has memory, and outcome.buf is the right to it again: the agent's is gone then.
func (o *op) offload(ctx context.Context, s *hostSession, d wire.Descriptor, b mr.Buf) outcome {
	if dl, ok := ctx.Deadline(); ok {
		d.Timeout = uint32(min(max(time.Until(dl)/time.Microsecond, 1), 1<<32-1))
	}
	h, err := s.place(ctx, d)
	if err != nil {
		return outcome{buf: b, err: err, gone: ctx.Err() != nil}
	}
	var g *mr.Grant
	if d.Op.HasMemory() {
		dir := mr.DeviceWrites
		if d.Op == wire.OpPut {
			dir = mr.DeviceReads
		}
		g, err = o.c.granter.Start(ctx, s.data, b, dir)
		if err != nil {
			s.leave(h, true) // the agent has not heard of it
			return outcome{buf: b, err: err, gone: b.Err() != nil || ctx.Err() != nil}
		}
		r := g.Remote()
		h.d.Addr, h.d.Len, h.d.RKey = r.Addr, r.Len, uint32(r.RKey)
	}
	out := o.await(ctx, s, h, g)
	if out.err == nil {
		o.c.policy.ended(o.c.now(), !out.late && rpc.Code(out.st.Code) != rpc.Unavailable)
	}
	return out
}

// await submits an operation and waits for its end.
func (o *op) await(ctx context.Context, s *hostSession, h *hostOp, g *mr.Grant) outcome {
	s.submit(h)
	deadline := time.NewTimer(o.c.cfg.Deadline)
	defer deadline.Stop()
	select {
	case st := <-h.status:
		return o.answered(s, h, g, st)
	case <-s.lost:
		return o.lost(s, h, g)
	case <-ctx.Done():
		// The caller goes; the memory stays until the agent cannot touch it.
		go func() {
			if out := o.recall(s, h, g); !out.buf.IsZero() {
				_ = out.buf.Release()
			}
		}()
		return outcome{err: ctx.Err(), gone: true, begun: true}
	case <-deadline.C:
		out := o.recall(s, h, g)
		if out.err == nil && out.st.Code != 0 {
			out.late = true
			out.st.Text = fmt.Sprintf("called back after %v: %s", o.c.cfg.Deadline, out.st.Text)
		}
		return out
	}
}

// recall calls an operation back and waits for the agent's word, or its loss.
func (o *op) recall(s *hostSession, h *hostOp, g *mr.Grant) outcome {
	s.callBack(h)
	wait := time.NewTimer(o.c.cfg.Lease)
	defer wait.Stop()
	select {
	case st := <-h.status:
		return o.answered(s, h, g, st)
	case <-s.lost:
	case <-wait.C:
		s.giveUp(fmt.Errorf("%w: it does not give an operation back that it was asked for", ErrAgentLost))
	}
	return o.lost(s, h, g)
}

// answered takes the right away from the agent, whose word has come on the queue
// pair of the grant: its accesses are over. Only then is anything reported.
func (o *op) answered(s *hostSession, h *hostOp, g *mr.Grant, st wire.Status) outcome {
	out := outcome{st: st, begun: true}
	if g != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 4*greetTime)
		defer cancel()
		if out.buf, out.err = g.Finish(ctx); out.err != nil {
			out.gone = true
			out.err = fmt.Errorf("dpu: taking memory back from the agent: %w", out.err)
		} else {
			g.Recycle()
		}
	}
	s.leave(h, true)
	return out
}

// lost fences the memory of an operation whose agent was given up.
func (o *op) lost(s *hostSession, h *hostOp, g *mr.Grant) outcome {
	err := s.cause
	if !errors.Is(err, ErrAgentLost) {
		err = fmt.Errorf("%w: %w", ErrAgentLost, err)
	}
	if until := o.c.unfenced; until != nil {
		go func() {
			<-until
			if out := o.fence(s, h, g, err); !out.buf.IsZero() {
				_ = out.buf.Release()
			}
		}()
		return outcome{err: err, gone: true, begun: true}
	}
	return o.fence(s, h, g, err)
}

func (o *op) fence(s *hostSession, h *hostOp, g *mr.Grant, err error) (out outcome) {
	defer s.leave(h, false)
	out.begun = true
	if g != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 6*greetTime)
		defer cancel()
		o.c.stats.fences.Add(1)
		start := time.Now()
		b, e := g.Revoke(ctx)
		o.c.stats.fenceTime.Add(uint64(time.Since(start)))
		if e != nil {
			return outcome{err: fmt.Errorf("dpu: the memory is not back: %w (%w)", e, err), gone: true, begun: true}
		}
		out.buf = b
	}
	select {
	case st := <-h.status: // it came at the last moment, and says what it always does
		out.st = st
	default:
		out.err = err
	}
	return out
}

// dead reports a session that was given up.
func (s *hostSession) dead() bool {
	select {
	case <-s.lost:
		return true
	default:
		return s.data.Err() != nil
	}
}

// begin chooses the path of a call that moves size bytes.
func (c *Client) begin(ctx context.Context, name, key string, size int) (*op, *hostSession, error) {
	o := &op{c: c, name: name, key: key, size: size, start: time.Now()}
	asked := pathOf(ctx)
	p, err := c.policy.choose(c.now(), size, asked)
	if err == nil && p == CrossGVMI {
		err = errCrossGVMI
	}
	o.began = p
	if err != nil {
		return o, nil, err
	}
	if p == Direct {
		return o, nil, nil
	}
	s := c.session()
	explicit := asked != Auto || c.cfg.Policy.Path != Auto
	switch {
	case len(key) > wire.MaxKey && explicit:
		return o, nil, rpc.Errorf(rpc.InvalidArgument, "a key of %d bytes; an agent takes at most %d", len(key), wire.MaxKey)
	case s == nil && explicit:
		return o, nil, ErrNoAgent
	case s == nil || len(key) > wire.MaxKey || !explicit && (int64(size) > int64(s.maxBlock) || uint64(size) > s.maxBytes):
		o.began = Direct
		return o, nil, nil
	}
	return o, s, nil
}

// end counts a call and tells of it. n is the bytes that it moved.
func (o *op) end(path Path, n int, err error) {
	x := &o.c.stats
	switch {
	case err != nil:
		x.failed.Add(1)
	case path == Direct:
		x.direct.Add(1)
		x.directBytes.Add(uint64(n))
	default:
		x.staged.Add(1)
		x.stagedBytes.Add(uint64(n))
	}
	if errors.Is(err, ErrIndeterminate) {
		x.indeterminate.Add(1)
		o.tell(Indeterminate, path, err)
	}
	o.tell(Done, path, err)
}

func (o *op) tell(k EventKind, path Path, err error) {
	if o.c.cfg.OnEvent != nil {
		o.c.tell(Event{Kind: k, Op: o.name, Key: o.key, Size: o.size, Path: path, Began: o.began, Err: err, Took: time.Since(o.start)})
	}
}

// fallBack says why an operation goes Direct.
func (o *op) fallBack(err error) {
	o.c.stats.fellBack.Add(1)
	o.tell(FellBack, Direct, err)
}

// failure is what the agent reported.
func failure(name string, out *outcome) error {
	st := &out.st
	if out.err != nil || st.Code == 0 {
		return out.err
	}
	e := &rpc.Error{Code: rpc.Code(st.Code), Method: "agent." + name, Message: st.Text, Refused: st.Flags&wire.NotBegun != 0}
	if e.Refused && e.Code == rpc.ResourceExhausted {
		e.Cause = rpc.ErrBusy
	}
	return e
}

// refused reports an operation that the agent did nothing for.
func (out *outcome) refused() bool {
	return !out.begun || out.err == nil && out.st.Flags&wire.NotBegun != 0
}

// final reports an answer that the direct way would give too.
func final(st *wire.Status) bool {
	if st.Flags&wire.NotBegun != 0 { // the agent's own, who may know no better
		return false
	}
	switch rpc.Code(st.Code) {
	case rpc.OK, rpc.NotFound, rpc.AlreadyExists, rpc.OutOfRange, rpc.InvalidArgument, rpc.PermissionDenied, rpc.Unauthenticated:
		return true
	}
	return false
}

// stays reports a call that the agent refused and that must not go Direct: the agent
// was asked for by name.
func (o *op) stays(ctx context.Context, out *outcome) bool {
	p := pathOf(ctx)
	if p == Auto {
		p = o.c.cfg.Policy.Path
	}
	return p != Auto && out.refused()
}

func sumOf(b mr.Buf) (uint32, error) {
	p, err := b.Bytes()
	return crc32.Checksum(p, castagnoli), err
}
