package rpc

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
)

// InLen is how many bytes the caller gives with WriteFrom, to be pulled.
func (c *ServerCall) InLen() int { return c.length(dirFrom) }

// OutLen is how many bytes the caller takes with ReadInto, to be pushed.
func (c *ServerCall) OutLen() int { return c.length(dirToPeer) }

func (c *ServerCall) length(dir uint16) int {
	if d := c.find(dir); d != nil {
		return int(d.Len)
	}
	return 0
}

func (c *ServerCall) find(dir uint16) *desc {
	for i := range c.n {
		if c.descs[i].flags == dir {
			return &c.descs[i]
		}
	}
	return nil
}

// remote is a part of the caller's memory.
func (c *ServerCall) remote(dir uint16, off, n int) (qp.Remote, error) {
	d := c.find(dir)
	if d == nil {
		what := "WriteFrom"
		if dir == dirToPeer {
			what = "ReadInto"
		}
		return qp.Remote{}, Errorf(InvalidArgument, "the caller gave no buffer with %s", what)
	}
	r, err := d.Remote.Slice(uint64(max(off, 0)), n)
	if err != nil || off < 0 {
		return r, Errorf(OutOfRange, "bytes %d to %d of a buffer of %d", off, off+n, d.Len)
	}
	return r, nil
}

// Pull reads the caller's bulk data into dst, from its beginning or, with PullAt,
// from an offset. It takes dst and returns the new right to it. After an error
// there is none: the memory goes back to its pool, when ctx ended as soon as the
// device is done.
func (c *ServerCall) Pull(ctx context.Context, dst mr.Buf) (mr.Buf, error) {
	return c.PullAt(ctx, 0, dst)
}

// PullAt is Pull from an offset in bytes.
func (c *ServerCall) PullAt(ctx context.Context, off int, dst mr.Buf) (mr.Buf, error) {
	from, err := c.remote(dirFrom, off, dst.Len())
	if err == nil && c.replied {
		err = errReplied
	}
	if err != nil {
		_ = dst.Release()
		return mr.Buf{}, err
	}
	type result struct {
		b   mr.Buf
		err error
	}
	ready := make(chan result, 1)
	var gone atomic.Bool
	c.ops.Add(1)
	c.pulls.Add(1)
	err = c.conn.Post(ctx, qp.Op{Kind: qp.Read, Bufs: []mr.Buf{dst}, Remote: from, Done: func(r qp.Result) {
		c.trace.mark(pulled)
		switch {
		case gone.Swap(true):
			_ = r.Bufs[0].Release()
		case r.Err != nil:
			_ = r.Bufs[0].Release()
			ready <- result{err: r.Err}
		default:
			ready <- result{b: r.Bufs[0]}
		}
		c.pulls.Add(-1)
		c.opDone()
	}})
	if err != nil {
		_ = dst.Release()
		c.pulls.Add(-1)
		c.opDone()
		return mr.Buf{}, err
	}
	select {
	case r := <-ready:
		return r.b, r.err
	case <-ctx.Done():
		if !gone.Swap(true) {
			return mr.Buf{}, ctx.Err()
		}
		r := <-ready
		return r.b, r.err
	}
}

// Push puts src into the caller's ReadInto buffer, at its beginning or, with
// PushAt, at an offset. It takes src, error or not, and releases it when the
// caller has it. It does not wait for that: Reply comes after it in any case.
func (c *ServerCall) Push(ctx context.Context, src mr.Buf) error { return c.PushAt(ctx, 0, src) }

// PushAt is Push at an offset in bytes.
func (c *ServerCall) PushAt(ctx context.Context, off int, src mr.Buf) error {
	to, err := c.remote(dirToPeer, off, src.Len())
	if err == nil && c.replied {
		err = errReplied
	}
	if err != nil {
		_ = src.Release()
		return err
	}
	if c.h.flags&flagPull != 0 {
		err = c.offer(ctx, off, src)
	} else {
		c.ops.Add(1)
		err = c.conn.Post(ctx, qp.Op{Kind: qp.Write, Bufs: []mr.Buf{src}, Remote: to, Done: func(r qp.Result) {
			if r.Err != nil {
				err := r.Err
				c.failed.Store(&err)
			}
			_ = r.Bufs[0].Release()
			c.trace.mark(pushed)
			c.opDone()
		}})
		if err != nil {
			c.opDone()
		}
	}
	if err != nil {
		if src.Err() == nil {
			_ = src.Release()
		}
		return err
	}
	c.extent = max(c.extent, uint32(off+src.Len()))
	return nil
}

// offer shows src to the caller, who reads it after the answer. After an error src
// is the caller's still.
func (c *ServerCall) offer(ctx context.Context, off int, src mr.Buf) error {
	if off != 0 || len(c.offers) > 0 {
		return Errorf(Unimplemented, "the caller reads the result itself: it must be one piece from the beginning")
	}
	g, err := c.ss.s.granter.Start(ctx, c.conn, src, mr.DeviceReads)
	if err != nil {
		return err
	}
	c.offers = append(c.offers, g)
	c.offered = append(c.offered, desc{Remote: g.Remote(), rail: uint16(c.ss.rail(c.conn)), flags: dirFrom})
	return nil
}

// revokeOffers takes back what was shown. taken: the caller said that it is done.
func (c *ServerCall) revokeOffers(taken bool) {
	for _, g := range c.offers {
		end := g.Revoke
		if taken {
			end = g.Finish
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if b, err := end(ctx); err == nil {
			_ = b.Release()
		}
		cancel()
	}
}
