package block

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rpc"
)

const (
	maxUploads  = 256
	uploadIdle  = time.Minute
	maxUploaded = 256 << 20 // bytes of all
)

// upload names the parts of one block.
type upload struct {
	writer dpu.Writer
	seq    uint64
	epoch  uint32
}

// parts is a block of which some bytes are there, in memory.
type parts struct {
	key  string
	buf  mr.Buf // all of it; its slices are in the hands of who brings parts
	size int

	mu   sync.Mutex
	have map[int]int // bytes that are there, by offset; guarded by mu, as all below
	busy int         // parts on their way
	gone bool        // no more; the last one frees it
	last time.Time
}

// begin finds the upload of a part, or begins it.
func (s *Store) begin(ctx context.Context, pool *mr.Pool, u upload, key string, size int) (*parts, error) {
	now := time.Now()
	s.dropUploads(func(_ upload, p *parts) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.busy == 0 && now.Sub(p.last) > uploadIdle
	})
	s.upMu.Lock()
	defer s.upMu.Unlock()
	p := s.uploads[u]
	if p == nil {
		all := size
		for _, x := range s.uploads {
			all += x.size
		}
		if len(s.uploads) >= maxUploads || all > maxUploaded {
			return nil, rpc.Errorf(rpc.ResourceExhausted, "%d blocks are being put in parts, %d bytes with this one", len(s.uploads), all)
		}
		b, err := pool.TryGet(size)
		if err != nil {
			return nil, rpc.Errorf(rpc.ResourceExhausted, "no memory for a block of %d bytes: %v", size, err)
		}
		p = &parts{key: key, buf: b, size: size, have: map[int]int{}}
		s.uploads[u] = p
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key != key || p.size != size {
		return nil, rpc.Errorf(rpc.InvalidArgument, "a part of block %q of %d bytes; others with this token are of %q of %d", key, size, p.key, p.size)
	}
	p.busy++
	p.last = now
	return p, nil
}

// end ends one use of p.
func (p *parts) end() {
	p.mu.Lock()
	p.busy--
	free := p.gone && p.busy == 0
	p.mu.Unlock()
	if free {
		_ = p.buf.Release()
	}
}

// dropUploads forgets those that which picks.
func (s *Store) dropUploads(which func(upload, *parts) bool) {
	s.upMu.Lock()
	defer s.upMu.Unlock()
	for u, p := range s.uploads {
		if which(u, p) {
			delete(s.uploads, u)
			p.drop()
		}
	}
}

func (p *parts) drop() {
	p.mu.Lock()
	p.gone = true
	free := p.busy == 0
	p.mu.Unlock()
	if free {
		_ = p.buf.Release()
	}
}

// part takes bytes of a block that is put in parts.
func (v *service) part(ctx context.Context, c *rpc.ServerCall) error {
	b, t, key, err := args(c, 8)
	if err != nil {
		return err
	}
	size, off, n := int(binary.LittleEndian.Uint32(b)), int(binary.LittleEndian.Uint32(b[4:])), c.InLen()
	switch {
	case t.IsZero():
		return rpc.Errorf(rpc.InvalidArgument, "parts need a token")
	case size < 1 || size > MaxBlock || off < 0 || n < 1 || off > size-n:
		return rpc.Errorf(rpc.InvalidArgument, "bytes %d to %d of a block of %d; at most %d", off, off+n, size, MaxBlock)
	}
	if done, err := v.s.check(key, t); err != nil {
		return err
	} else if done {
		return v.boot(c, t.Writer)
	}
	p, err := v.s.begin(ctx, c.Device().Pool(), upload{t.Writer, t.Seq, t.Epoch}, key, size)
	if err != nil {
		return err
	}
	defer p.end()
	into, err := p.buf.Slice(off, off+n)
	if err != nil {
		return err
	}
	if into, err = c.Pull(ctx, into); err != nil {
		return err
	}
	if err := into.Release(); err != nil {
		return err
	}
	p.mu.Lock()
	p.have[off] = max(p.have[off], n)
	p.mu.Unlock()
	return v.boot(c, t.Writer)
}

// commit makes a block of parts that are all there.
func (v *service) commit(ctx context.Context, c *rpc.ServerCall) error {
	b, t, key, err := args(c, 8)
	if err != nil {
		return err
	}
	if done, err := v.s.check(key, t); err != nil {
		return err
	} else if done {
		return v.boot(c, t.Writer)
	}
	u := upload{t.Writer, t.Seq, t.Epoch}
	v.s.upMu.Lock()
	p := v.s.uploads[u]
	delete(v.s.uploads, u)
	v.s.upMu.Unlock()
	if p == nil {
		return rpc.Errorf(rpc.NotFound, "there are no parts with this token")
	}
	in := info{BlockInfo: dpu.BlockInfo{Key: key, Size: binary.LittleEndian.Uint32(b), Sum: binary.LittleEndian.Uint32(b[4:])}}
	p.mu.Lock()
	busy, at := p.busy, 0
	for p.have[at] > 0 {
		at += p.have[at]
	}
	p.mu.Unlock()
	if busy > 0 || at != p.size || p.key != key || int(in.Size) != p.size {
		p.drop()
		return rpc.Errorf(rpc.FailedPrecondition, "%d of %d bytes are there, %d parts are on their way", at, in.Size, busy)
	}
	if err := v.s.putMemory(in, t, p.buf); err != nil {
		return err
	}
	return v.boot(c, t.Writer)
}

// putMemory is put of data that is in memory. It takes b.
func (s *Store) putMemory(in info, t dpu.Token, b mr.Buf) error {
	took := false
	err := s.put(in, t, func(int) (mr.Buf, error) { took = true; return b, nil }, nil)
	if !took {
		_ = b.Release()
	}
	return err
}

func (v *service) abort(_ context.Context, c *rpc.ServerCall) error {
	var t dpu.Token
	if err := t.UnmarshalBinary(c.Body); err != nil {
		return rpc.Errorf(rpc.InvalidArgument, "%v", err)
	}
	v.s.dropUploads(func(u upload, _ *parts) bool { return u == upload{t.Writer, t.Seq, t.Epoch} })
	return nil
}
