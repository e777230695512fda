package dpu

import (
	"context"
	"errors"
	"hash/crc32"

	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
	"github.com/zrdma/zrdma/verbs"
)

func keyOf(k uint32) verbs.RKey { return verbs.RKey(k) }

// chunk is a piece of a block on its way through the agent's memory.
type chunk struct {
	off int
	in  BlockInfo
	b   mr.Buf
	err error
}

// depth is how many chunks of one operation are in memory at a time.
func (o *agentOp) depth() int { return max(o.s.a.cfg.BytesInFlight/o.s.a.cfg.Chunk, 1) }

// window is the chunks of an operation that are on their way into the agent's memory,
// in order.
type window struct {
	o          *agentOp
	next, size int
	q          []chan chunk
}

// fill begins as many chunks as there is memory for. It waits for memory only while
// it has nothing that could give some back: else two operations could wait for each
// other.
func (w *window) fill(bring func(off int, b mr.Buf) chunk) error {
	for w.next < w.size && len(w.q) < w.o.depth() {
		n := min(w.o.s.a.cfg.Chunk, w.size-w.next)
		b, err := w.o.s.t.pool.TryGet(n)
		if errors.Is(err, mr.ErrExhausted) {
			if len(w.q) > 0 {
				return nil
			}
			b, err = w.o.s.t.pool.Get(w.o.ctx, n)
		}
		if err != nil {
			return err
		}
		off, ch := w.next, make(chan chunk, 1)
		w.next += n
		w.q = append(w.q, ch)
		go func() { ch <- bring(off, b) }()
	}
	return nil
}

// take is the next chunk.
func (w *window) take() chunk {
	c := <-w.q[0]
	w.q = w.q[1:]
	return c
}

// drop waits for what was begun and throws it away.
func (w *window) drop() {
	for len(w.q) > 0 {
		if c := w.take(); c.err == nil {
			_ = c.b.Release()
		}
	}
}

// get moves a block from the backend to the host: several chunks on their way from
// the backend, checked in order, and several on their way to the host.
func (o *agentOp) get() (in BlockInfo, err error) {
	read := func(off int, b mr.Buf) chunk {
		got, b, err := o.be.ReadAt(o.ctx, o.d.Key, off, in.Version, b)
		return chunk{off, got, b, err}
	}
	// The first chunk says how large the block is.
	w := window{o: o, size: min(int(o.d.Len), o.s.a.cfg.Chunk)}
	defer w.drop()
	if err := w.fill(read); err != nil {
		return in, err
	}
	c := w.take()
	if c.err != nil {
		return in, c.err
	}
	in = c.in
	if in.Size > o.d.Len {
		_ = c.b.Release()
		return in, rpc.Errorf(rpc.OutOfRange, "the block has %d bytes, the buffer %d", in.Size, o.d.Len)
	}
	w.size = int(in.Size)
	sent := make(chan struct{}, o.depth()) // a token for each chunk on its way to the host
	sum := uint32(0)
	for at := 0; ; {
		p, err := c.b.Bytes()
		if err != nil {
			return in, err
		}
		if n := min(o.s.a.cfg.Chunk, w.size-at); c.off != at || len(p) != n {
			_ = c.b.Release()
			return in, rpc.Errorf(rpc.DataLoss, "the server gave %d bytes at %d of a block of %d, and not %d", len(p), c.off, w.size, n)
		}
		at += len(p)
		sum = crc32.Update(sum, castagnoli, p)
		if len(p) == 0 {
			_ = c.b.Release()
		} else if err := o.write(c.b, c.off, sent); err != nil {
			return in, err
		}
		if at == w.size {
			break
		}
		if err := w.fill(read); err != nil {
			return in, err
		}
		if c = w.take(); c.err != nil {
			return in, c.err
		}
	}
	if sum != in.Sum {
		return in, rpc.Errorf(rpc.DataLoss, "the data of block %q is not what its checksum says", o.d.Key)
	}
	return in, nil
}

// write posts a WRITE of b into the host's memory. It takes b and does not wait for
// the end: the status comes behind it on the same queue pair. sent bounds how many
// are on their way.
func (o *agentOp) write(b mr.Buf, off int, sent chan struct{}) error {
	to, err := o.remote.Slice(uint64(off), b.Len())
	if err == nil && sent != nil {
		select {
		case sent <- struct{}{}:
		case <-o.ctx.Done():
			err = o.ctx.Err()
		}
	}
	if err != nil {
		_ = b.Release()
		return err
	}
	n := b.Len()
	err = o.s.post(qp.Op{Kind: qp.Write, Bufs: []mr.Buf{b}, Remote: to, Done: func(r qp.Result) {
		r.Release()
		if sent != nil {
			<-sent
		}
	}})
	if err != nil {
		if b.Err() == nil {
			_ = b.Release()
		}
		return err
	}
	o.s.a.stats.toHost.Add(uint64(n))
	return nil
}

// read fills b from the host's memory and waits until it is there, whatever becomes
// of the operation: no READ may be under way when its status is sent.
func (o *agentOp) read(b mr.Buf, off int) (mr.Buf, error) {
	from, err := o.remote.Slice(uint64(off), b.Len())
	if err != nil {
		_ = b.Release()
		return mr.Buf{}, err
	}
	type result struct {
		b   mr.Buf
		err error
	}
	ready := make(chan result, 1)
	err = o.s.post(qp.Op{Kind: qp.Read, Bufs: []mr.Buf{b}, Remote: from, Done: func(r qp.Result) {
		x := result{err: r.Err}
		if len(r.Bufs) > 0 { // it was not leaked
			x.b = r.Bufs[0]
		}
		ready <- x
	}})
	if err != nil {
		if b.Err() == nil {
			_ = b.Release()
		}
		return mr.Buf{}, err
	}
	r := <-ready // a queue pair that dies flushes it
	if r.err != nil {
		_ = r.b.Release()
		return mr.Buf{}, r.err
	}
	o.s.a.stats.fromHost.Add(uint64(r.b.Len()))
	return r.b, nil
}

// backend is the context of a write at the backend. A deaf agent, in tests, does not
// hear of the end of the operation either.
func (o *agentOp) backend() context.Context {
	if o.s.a.deaf.Load() {
		return context.WithoutCancel(o.ctx)
	}
	return o.ctx
}

// put moves a block from the host to the backend: one that is a single chunk with one
// call, a longer one in parts, several under way, that the last call makes valid.
func (o *agentOp) put() (in BlockInfo, boot uint64, err error) {
	size := int(o.d.Len)
	in.Size = o.d.Len
	grab := func(off int, b mr.Buf) chunk {
		b, err := o.read(b, off)
		return chunk{off: off, b: b, err: err}
	}
	w := window{o: o, size: size}
	defer w.drop()
	parts := make(chan error, o.depth()) // ends of PutPart
	begun, sum, brought := 0, uint32(0), false
	wait := func() {
		if e := <-parts; err == nil {
			err = e
		}
		begun--
	}
	for at := 0; at < size && err == nil; {
		if err = w.fill(grab); err != nil {
			break
		}
		c := w.take()
		var p []byte
		if err = c.err; err == nil {
			p, err = c.b.Bytes()
		}
		if err != nil {
			break
		}
		at += len(p)
		sum = crc32.Update(sum, castagnoli, p)
		if size <= o.s.a.cfg.Chunk {
			in.Sum = sum
			return o.putWhole(in, c.b)
		}
		begun++
		brought = true
		go func() {
			o.s.a.pass("backend")
			b, err := o.be.PutPart(o.backend(), o.d.Key, size, c.off, c.b, o.token())
			if err == nil {
				_ = b.Release()
			}
			parts <- err
		}()
		if begun == cap(parts) {
			wait()
		}
	}
	for begun > 0 {
		wait()
	}
	if err == nil {
		err = o.checkSum(sum)
	}
	if err != nil {
		if brought {
			// The host waits for the status, and not for a backend that may be away.
			o.s.wg.Go(o.abort)
		}
		return in, 0, err
	}
	in.Sum, o.sent = sum, true
	o.s.a.pass("backend")
	boot, err = o.be.Commit(o.backend(), o.d.Key, size, sum, o.token())
	return in, boot, err
}

func (o *agentOp) putWhole(in BlockInfo, b mr.Buf) (BlockInfo, uint64, error) {
	if err := o.checkSum(in.Sum); err != nil {
		_ = b.Release()
		return in, 0, err
	}
	o.sent = true
	o.s.a.pass("backend")
	b, boot, err := o.be.PutToken(o.backend(), o.d.Key, b, &in.Sum, o.token())
	if err == nil {
		_ = b.Release()
	}
	return in, boot, err
}

func (o *agentOp) checkSum(sum uint32) error {
	if o.d.Flags&wire.HasSum != 0 && sum != o.d.Sum {
		return rpc.Errorf(rpc.DataLoss, "the data of block %q is not what the host's checksum says", o.d.Key)
	}
	return nil
}

// abort lets the backend forget the parts that it has.
func (o *agentOp) abort() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(o.ctx), greetTime)
	defer cancel()
	o.be.Abort(ctx, o.token())
}
