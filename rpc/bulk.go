package rpc

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/verbs"
)

// InLen is how many bytes the caller gives with WriteFrom, to be pulled.
func (c *ServerCall) InLen() int { return c.length(dirFrom) }

// OutLen is how many bytes the caller takes with ReadInto, to be pushed.
func (c *ServerCall) OutLen() int { return c.length(dirToPeer) }

func (c *ServerCall) length(dir uint16) (n int) {
	for i := range c.descs {
		if c.descs[i].flags == dir {
			n += int(c.descs[i].Len)
		}
	}
	return n
}

// span is bytes lo to hi of a buffer of the handler's and where they are, or go, in
// memory of the caller.
type span struct {
	conn   *qp.Conn
	remote qp.Remote
	lo, hi int
}

// remote finds bytes off to off+n of the caller's memory: one part, or as many as
// stripes, appended to ps.
func (c *ServerCall) remote(dir uint16, off, n int, ps []span) ([]span, error) {
	total, at, found := c.length(dir), 0, false
	if off < 0 || n > total-off {
		return ps, c.outside(dir, off, n)
	}
	for i := range c.descs {
		d := &c.descs[i]
		if d.flags != dir {
			continue
		}
		lo, hi := max(off, at), min(off+n, at+int(d.Len))
		if lo < hi || n == 0 && !found {
			r, err := d.Remote.Slice(uint64(lo-at), hi-lo)
			if err != nil {
				return ps, c.outside(dir, off, n)
			}
			ps = append(ps, span{d.conn, r, lo - off, hi - off})
			found = true
		}
		at += int(d.Len)
	}
	if !found {
		return ps, c.outside(dir, off, n)
	}
	return ps, nil
}

func (c *ServerCall) outside(dir uint16, off, n int) error {
	for i := range c.descs {
		if c.descs[i].flags == dir {
			return Errorf(OutOfRange, "bytes %d to %d of a buffer of %d", off, off+n, c.length(dir))
		}
	}
	what := "WriteFrom"
	if dir == dirToPeer {
		what = "ReadInto"
	}
	return Errorf(InvalidArgument, "the caller gave no buffer with %s", what)
}

// ended notes a transfer that failed because its rail was lost.
func (c *ServerCall) ended(conn *qp.Conn, err error) {
	var end *qp.EndError
	var failed *verbs.CompletionError // of the operation that the queue pair ends by
	if !c.ss.multi() || !errors.As(err, &end) && !errors.As(err, &failed) {
		return
	}
	for i := range c.descs {
		if c.descs[i].conn == conn && conn != c.conn {
			c.lostPlace.Store(int32(c.descs[i].rail>>8) + 1)
		}
	}
	c.ss.lost(conn, err)
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
	var few [1]span
	ps, err := c.remote(dirFrom, off, dst.Len(), few[:0])
	if err == nil && c.replied {
		err = errReplied
	}
	if err != nil {
		_ = dst.Release()
		return mr.Buf{}, err
	}
	if len(ps) == 1 {
		w := newPull()
		if err := c.pull(ctx, &ps[0], dst, w); err != nil {
			_ = dst.Release()
			return mr.Buf{}, err
		}
		return w.wait(ctx, nil)
	}
	var ws []*pull
	for i := range ps {
		var s mr.Buf
		if s, err = dst.Slice(ps[i].lo, ps[i].hi); err != nil {
			break
		}
		w := newPull()
		if err = c.pull(ctx, &ps[i], s, w); err != nil {
			_ = s.Release()
			break
		}
		ws = append(ws, w)
	}
	for _, w := range ws {
		b, e := w.wait(ctx, err)
		if e == nil {
			e = b.Release()
		}
		if err == nil {
			err = e
		}
	}
	if err != nil {
		_ = dst.Release() // of slices that the device has still, each goes when it is done
		return mr.Buf{}, err
	}
	return dst, nil
}

// pull is the wait for a READ.
type pull struct {
	ready chan struct{}
	gone  atomic.Bool // nobody waits, or it has ended: whoever comes second knows
	b     mr.Buf      // written before ready has its token
	err   error
}

func newPull() *pull { return &pull{ready: make(chan struct{}, 1)} }

// wait waits for the READ. When ctx ends, or with quit, nobody waits: the memory
// goes back to its pool when the device is done.
func (w *pull) wait(ctx context.Context, quit error) (mr.Buf, error) {
	if quit == nil {
		select {
		case <-w.ready:
			return w.b, w.err
		case <-ctx.Done():
			quit = ctx.Err()
		}
	}
	if !w.gone.Swap(true) {
		return mr.Buf{}, quit
	}
	<-w.ready
	return w.b, w.err
}

// pull posts the READ of a part. After an error dst is the caller's still.
func (c *ServerCall) pull(ctx context.Context, p *span, dst mr.Buf, w *pull) error {
	n := c.ss.nicOf(p.conn)
	if err := n.reach(dst); err != nil {
		return err
	}
	if err := n.budget.reads.take(ctx, c.ss.session.done); err != nil {
		return err
	}
	conn := p.conn
	c.ops.Add(1)
	c.early.Add(1)
	err := conn.Post(ctx, qp.Op{Kind: qp.Read, Bufs: []mr.Buf{dst}, Remote: p.remote, Done: func(r qp.Result) {
		n.budget.reads.give()
		c.trace.mark(pulled)
		if r.Err != nil {
			c.ended(conn, r.Err)
		}
		if late := w.gone.Swap(true); late || r.Err != nil {
			r.Release()
			w.err = r.Err
		} else {
			w.b = r.Bufs[0]
		}
		w.ready <- struct{}{}
		c.early.Add(-1)
		c.opDone()
	}})
	if err != nil {
		n.budget.reads.give()
		c.ended(conn, err)
		c.early.Add(-1)
		c.opDone()
	}
	return err
}

// Push puts src into the caller's ReadInto buffer, at its beginning or, with
// PushAt, at an offset. It takes src, error or not, and releases it when the
// caller has it. It does not wait for that: Reply comes after it in any case.
func (c *ServerCall) Push(ctx context.Context, src mr.Buf) error { return c.PushAt(ctx, 0, src) }

// PushAt is Push at an offset in bytes.
func (c *ServerCall) PushAt(ctx context.Context, off int, src mr.Buf) error {
	var few [1]span
	n := src.Len()
	ps, err := c.remote(dirToPeer, off, n, few[:0])
	if err == nil && c.replied {
		err = errReplied
	}
	switch {
	case err != nil:
	case ps[0].remote.RKey == 0, c.h.flags&flagPull != 0 && n == c.OutLen():
		// The caller fetches it; where it has shown a window too, only what is all of it.
		err = c.offer(ctx, off, src)
	case len(ps) == 1:
		err = c.push(ctx, &ps[0], src)
	default:
		for i := range ps {
			var s mr.Buf
			if s, err = src.Slice(ps[i].lo, ps[i].hi); err != nil {
				break
			}
			if err = c.push(ctx, &ps[i], s); err != nil {
				_ = s.Release()
				break
			}
		}
		_ = src.Release() // the slices fly on
		if err != nil {
			return err
		}
	}
	if err != nil {
		if src.Err() == nil {
			_ = src.Release()
		}
		return err
	}
	c.extent = max(c.extent, uint32(off+n))
	return nil
}

// push posts the WRITE of a part. After an error src is the caller's still.
func (c *ServerCall) push(ctx context.Context, p *span, src mr.Buf) error {
	if err := c.ss.nicOf(p.conn).reach(src); err != nil {
		return err
	}
	conn, early := p.conn, p.conn != c.conn
	c.ops.Add(1)
	if early {
		c.early.Add(1)
	}
	err := conn.Post(ctx, qp.Op{Kind: qp.Write, Bufs: []mr.Buf{src}, Remote: p.remote, Done: func(r qp.Result) {
		if r.Err != nil {
			err := r.Err
			c.ended(conn, err)
			c.failed.Store(&err)
		}
		r.Release()
		c.trace.mark(pushed)
		if early {
			c.early.Add(-1)
		}
		c.opDone()
	}})
	if err != nil {
		c.ended(conn, err)
		if early {
			c.early.Add(-1)
		}
		c.opDone()
	}
	return err
}

// offer shows src to the caller, who reads it after the answer. After an error src
// is the caller's still.
func (c *ServerCall) offer(ctx context.Context, off int, src mr.Buf) error {
	if c.ss.remote.minor == 0 && (off != 0 || len(c.offers) > 0) {
		return Errorf(Unimplemented, "the caller, which is of an older version, reads the result itself: it must be one piece from the beginning")
	}
	if len(c.offers) == maxDescs {
		return Errorf(Unimplemented, "the caller reads the result itself: it must be at most %d pieces", maxDescs)
	}
	n := c.ss.nicOf(c.conn)
	if err := n.reach(src); err != nil {
		return err
	}
	g, err := n.granter.Start(ctx, c.conn, src, mr.DeviceReads)
	if err != nil {
		return err
	}
	c.offers = append(c.offers, g)
	c.offered = append(c.offered, desc{Remote: g.Remote(), rail: c.ss.rails.Load().number(c.conn), flags: dirFrom, nonce: uint32(off)})
	return nil
}

// nicOf is the device that a queue pair is on.
func (s *session) nicOf(c *qp.Conn) *nic {
	for _, n := range s.nics {
		if n.d == c.Device() {
			return n
		}
	}
	return s.nic
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
