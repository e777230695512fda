package dpu

import (
	"context"
	"errors"
	"fmt"

	"github.com/zrdma/zrdma/dpu/internal/wire"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rpc"
)

var _ Blocks = (*Client)(nil)

// direct is the store's own client.
func (c *Client) direct() Blocks { return c.cfg.Direct }

// Get reads a block into b; see Blocks.
func (c *Client) Get(ctx context.Context, key string, b mr.Buf) (_ mr.Buf, err error) {
	o, s, err := c.begin(ctx, "get", key, b.Len())
	path, n := o.began, 0
	defer func() { o.end(path, n, err) }()
	if err != nil {
		_ = b.Release()
		return mr.Buf{}, err
	}
	if s != nil {
		out := o.offload(ctx, s, wire.Descriptor{Op: wire.OpGet, Key: key}, b)
		switch {
		case out.err == nil && out.st.Code == 0:
			b, err = o.got(&out)
			n = b.Len()
			return b, err
		case out.err == nil && final(&out.st) || !out.gone && o.stays(ctx, &out):
			_ = out.buf.Release()
			return mr.Buf{}, failure("get", &out)
		case out.gone:
			return mr.Buf{}, o.release(&out)
		}
		b = out.buf
		o.fallBack(o.why(&out))
		path = Direct
	}
	b, err = c.direct().Get(ctx, key, b)
	n = b.Len()
	return b, err
}

// got is the part of the buffer that the block fills.
func (o *op) got(out *outcome) (mr.Buf, error) {
	b, err := out.buf.Narrow(0, int(out.st.Size))
	if err == nil && o.c.cfg.Verify {
		var sum uint32
		if sum, err = sumOf(b); err == nil && sum != out.st.Sum {
			err = rpc.Errorf(rpc.DataLoss, "the data of block %q is not what its checksum says", o.key)
		}
	}
	if err != nil {
		_ = out.buf.Release()
		return mr.Buf{}, err
	}
	return b, nil
}

// release ends an operation whose memory is not the caller's any more.
func (o *op) release(out *outcome) error {
	if !out.buf.IsZero() && out.buf.Err() == nil {
		_ = out.buf.Release()
	}
	return out.err
}

// why is the reason of a fall-back, and counts refusals.
func (o *op) why(out *outcome) error {
	if out.refused() {
		o.c.stats.refused.Add(1)
	}
	return failure(o.name, out)
}

// token names a new write.
func (c *Client) token() Token {
	return Token{Writer: c.writer, Seq: c.seq.Add(1), Boot: c.boot.Load()}
}

// Put stores the bytes of b; see Blocks.
func (c *Client) Put(ctx context.Context, key string, b mr.Buf) (_ mr.Buf, err error) {
	o, s, err := c.begin(ctx, "put", key, b.Len())
	path, n := o.began, b.Len()
	defer func() { o.end(path, n, err) }()
	if err != nil {
		_ = b.Release()
		return mr.Buf{}, err
	}
	t := c.token()
	var sum *uint32
	if s != nil {
		d := wire.Descriptor{Op: wire.OpPut, Key: key, Seq: t.Seq, Boot: t.Boot}
		if c.cfg.Verify {
			x, err := sumOf(b)
			if err != nil {
				return mr.Buf{}, err
			}
			sum, d.Sum, d.Flags = &x, x, wire.HasSum
		}
		out := o.offload(ctx, s, d, b)
		done, err := o.written(ctx, s, &out, &t)
		switch {
		case err != nil:
			return mr.Buf{}, err
		case done:
			return out.buf, nil
		}
		b, path = out.buf, Direct
	}
	if c.tokens == nil {
		return c.direct().Put(ctx, key, b)
	}
	if err := c.pay(ctx); err != nil {
		_ = b.Release()
		return mr.Buf{}, o.unpaid(t, err)
	}
	b, boot, err := c.tokens.PutToken(ctx, key, b, sum, t)
	return b, o.wrote(boot, t, err)
}

// Delete removes a block; see Blocks.
func (c *Client) Delete(ctx context.Context, key string) (err error) {
	o, s, err := c.begin(ctx, "delete", key, 0)
	path := o.began
	defer func() { o.end(path, 0, err) }()
	if err != nil {
		return err
	}
	t := c.token()
	if s != nil {
		out := o.offload(ctx, s, wire.Descriptor{Op: wire.OpDelete, Key: key, Seq: t.Seq, Boot: t.Boot}, mr.Buf{})
		if done, err := o.written(ctx, s, &out, &t); done || err != nil {
			return err
		}
		path = Direct
	}
	if c.tokens == nil {
		return c.direct().Delete(ctx, key)
	}
	if err := c.pay(ctx); err != nil {
		return o.unpaid(t, err)
	}
	boot, err := c.tokens.DeleteToken(ctx, key, t)
	return o.wrote(boot, t, err)
}

// written decides what follows from the end of a write at the agent: it is done; or
// it failed, out.buf being released; or it goes on Direct, with t.
func (o *op) written(ctx context.Context, s *hostSession, out *outcome, t *Token) (done bool, err error) {
	defer func() {
		if err != nil {
			_ = o.release(out)
		}
	}()
	st := &out.st
	stale := out.err == nil && out.refused() && rpc.Code(st.Code) == rpc.FailedPrecondition
	if out.err == nil && st.Code == 0 {
		if st.Boot != 0 {
			o.c.boot.Store(st.Boot)
		}
		return true, nil
	}
	switch {
	case out.gone && ctx.Err() != nil:
		return false, ctx.Err()
	case out.gone && out.begun && st.ID == 0:
		return false, fmt.Errorf("%w: %w", ErrIndeterminate, out.err)
	case out.gone && out.begun && st.Flags&wire.NotBegun == 0: // it was done, or may have been
		o.c.owe(s.epoch + 1)
		return false, fmt.Errorf("%w: %w", ErrIndeterminate, out.err)
	case out.gone:
		return false, out.err
	case stale:
	case out.err == nil && final(st), o.stays(ctx, out):
		return false, failure(o.name, out)
	case out.err == nil && !out.refused() && st.Flags&wire.Indeterminate == 0:
		return false, failure(o.name, out)
	}
	why := o.why(out)
	if out.refused() {
		if stale {
			// The server was started again: it must hear of the writer before an agent
			// may write for it.
			if e := o.c.register(ctx, t); e != nil {
				return false, e
			}
		}
		o.fallBack(why)
		return false, nil
	}
	// The agent may have done it, or do it yet. The server takes nothing of it from
	// here on; what it has done it knows by the token.
	if o.c.tokens == nil || t.Boot == 0 {
		return false, fmt.Errorf("%w: %w", ErrIndeterminate, why)
	}
	if e := o.c.fence(ctx, s.epoch+1); e != nil {
		return false, fmt.Errorf("%w: %w: %w", ErrIndeterminate, why, e)
	}
	if !s.dead() {
		// It is well, but fenced: it must begin anew.
		s.giveUp(fmt.Errorf("dpu: the agent does not know what became of a write: %w", why))
	}
	t.Replay = true
	o.c.stats.replayed.Add(1)
	o.fallBack(why)
	return false, nil
}

// unpaid is the end of a write before which an agent could not be fenced.
func (o *op) unpaid(t Token, err error) error {
	if t.Replay {
		return fmt.Errorf("%w: %w", ErrIndeterminate, err)
	}
	return err
}

// register makes a server that was started again know the writer.
func (c *Client) register(ctx context.Context, t *Token) error {
	if c.tokens == nil {
		return nil
	}
	c.mu.Lock()
	epoch := c.epoch
	c.mu.Unlock()
	if err := c.takeFencing(ctx); err != nil {
		return err
	}
	defer func() { c.fencing <- struct{}{} }()
	epoch = max(epoch, c.fenced)
	boot, err := c.tokens.Fence(ctx, c.writer, epoch)
	if err != nil {
		return err
	}
	c.boot.Store(boot)
	c.fenced, c.fencedAt = epoch, boot
	t.Boot = boot
	return nil
}

// wrote is the end of a write with a token.
func (o *op) wrote(boot uint64, t Token, err error) error {
	if err == nil {
		if boot != 0 {
			o.c.boot.Store(boot)
		}
		return nil
	}
	// ErrStale: it was sent twice somewhere, and the server was started between. And
	// what did not reach the server the second time may have the first time.
	if !errors.Is(err, ErrIndeterminate) && (errors.Is(err, ErrStale) || t.Replay && !conclusive(err)) {
		return fmt.Errorf("%w: %w", ErrIndeterminate, err)
	}
	return err
}

// conclusive reports an error of a write that the server looked at: it would know if
// it had done the write before.
func conclusive(err error) bool {
	var e *rpc.Error
	return errors.As(err, &e) && !e.Refused && e.Cause == nil && !unclear(err)
}

// Stat describes a block; see Blocks.
func (c *Client) Stat(ctx context.Context, key string) (in BlockInfo, err error) {
	o, s, err := c.begin(ctx, "stat", key, 0)
	path := o.began
	defer func() { o.end(path, 0, err) }()
	if err != nil {
		return in, err
	}
	if s != nil {
		out := o.offload(ctx, s, wire.Descriptor{Op: wire.OpStat, Key: key}, mr.Buf{})
		switch {
		case out.err == nil && final(&out.st) || !out.gone && o.stays(ctx, &out):
			return BlockInfo{Key: key, Size: out.st.Size, Sum: out.st.Sum, Version: out.st.Version}, failure("stat", &out)
		case out.gone:
			return in, out.err
		}
		o.fallBack(o.why(&out))
		path = Direct
	}
	return c.direct().Stat(ctx, key)
}

// List lists blocks; see Blocks.
func (c *Client) List(ctx context.Context, after string, limit int) (l []BlockInfo, err error) {
	o, s, err := c.begin(ctx, "list", after, 0)
	path := o.began
	defer func() { o.end(path, 0, err) }()
	if err != nil {
		return nil, err
	}
	if s != nil {
		b, err := c.pool.Get(ctx, listBytes)
		if err != nil {
			return nil, err
		}
		out := o.offload(ctx, s, wire.Descriptor{Op: wire.OpList, Key: after}, b)
		switch {
		case out.err == nil && final(&out.st) || !out.gone && o.stays(ctx, &out):
			if err = failure("list", &out); err == nil {
				var p []byte
				if p, err = out.buf.Bytes(); err == nil {
					l, err = parseInfos(p[:min(int(out.st.Size), len(p))], int(out.st.Sum))
				}
			}
			_ = out.buf.Release()
			return l[:min(len(l), max(limit, 0))], err
		case out.gone:
			return nil, o.release(&out)
		}
		_ = out.buf.Release()
		o.fallBack(o.why(&out))
		path = Direct
	}
	return c.direct().List(ctx, after, limit)
}
