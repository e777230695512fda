package block

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rpc"
)

// Arguments and answers, little-endian. A block is named by its key; its data
// travels as bulk memory, never in a message. A token is 40 bytes (dpu.Token), zeros
// for none. Writes answer with the server's boot 8.
//
//	block.put     size 4, CRC-32C 4, token, key   with WriteFrom
//	block.part    size 4, offset 4, token, key    with WriteFrom: bytes of a block, see commit
//	block.commit  size 4, CRC-32C 4, token, key   the parts are a block
//	block.abort   token                           the parts are forgotten
//	block.get     key                             with ReadInto; answer: size 4, CRC-32C 4
//	block.read    offset 4, version 8, key        with ReadInto; answer: size 4, CRC-32C 4, version 8
//	block.stat    key                             answer: size 4, CRC-32C 4, version 8
//	block.list    limit 2, key to begin behind; answer: for each size 4, CRC-32C 4, length 1, key
//	block.delete  token, key
//	block.fence   writer 16, epoch 4              agents of the writer below the epoch are refused
//	block.usage   answer: bytes of blocks that the CPU copied 8, of answers 8
const (
	methodPut    = "block.put"
	methodPart   = "block.part"
	methodCommit = "block.commit"
	methodAbort  = "block.abort"
	methodGet    = "block.get"
	methodRead   = "block.read"
	methodStat   = "block.stat"
	methodList   = "block.list"
	methodDelete = "block.delete"
	methodFence  = "block.fence"
	methodUsage  = "block.usage"
)

// service answers block calls from a store.
type service struct {
	s   *Store
	srv *rpc.Server
}

// Register makes srv answer block calls from the store.
func (s *Store) Register(srv *rpc.Server) {
	v := &service{s: s, srv: srv}
	for name, h := range map[string]rpc.Handler{methodPut: v.put, methodPart: v.part, methodCommit: v.commit, methodAbort: v.abort,
		methodGet: v.get, methodRead: v.read, methodStat: v.stat, methodList: v.list, methodDelete: v.delete, methodFence: v.fence, methodUsage: v.usage} {
		srv.Handle(name, func(ctx context.Context, c *rpc.ServerCall) error { return coded(h(ctx, c)) })
	}
}

// Errors of tokens go over the wire as code and text.
var tokenErrors = []struct {
	err  error
	code rpc.Code
	word string
}{
	{dpu.ErrFenced, rpc.Aborted, "fenced"},
	{dpu.ErrStale, rpc.FailedPrecondition, "stale"},
	{dpu.ErrChanged, rpc.Aborted, "changed"},
}

// coded gives errors of the store the code that a caller can branch on.
func coded(err error) error {
	for _, e := range tokenErrors {
		if errors.Is(err, e.err) {
			return rpc.Errorf(e.code, "%s: %v", e.word, err)
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return rpc.Errorf(rpc.NotFound, "no such block")
	case errors.Is(err, errSum):
		return rpc.Errorf(rpc.DataLoss, "%v", err)
	}
	return err
}

// args takes fixed bytes, the token and the key off a body.
func args(c *rpc.ServerCall, fixed int) (b []byte, t dpu.Token, key string, err error) {
	b = c.Body
	if n := len(b) - fixed - dpu.TokenLen; n < 1 || n > MaxKey {
		return nil, t, "", rpc.Errorf(rpc.InvalidArgument, "a key has 1 to %d bytes", MaxKey)
	}
	if err := t.UnmarshalBinary(b[fixed : fixed+dpu.TokenLen]); err != nil {
		return nil, t, "", rpc.Errorf(rpc.InvalidArgument, "%v", err)
	}
	t.Replay = t.Replay || c.Replay
	return b, t, string(b[fixed+dpu.TokenLen:]), nil
}

func (v *service) boot(c *rpc.ServerCall, w dpu.Writer) error {
	return c.Reply(binary.LittleEndian.AppendUint64(nil, v.s.ledger.Boot(w)))
}

func (v *service) put(ctx context.Context, c *rpc.ServerCall) error {
	b, t, key, err := args(c, 8)
	if err != nil {
		return err
	}
	in := info{BlockInfo: dpu.BlockInfo{Size: binary.LittleEndian.Uint32(b), Sum: binary.LittleEndian.Uint32(b[4:]), Key: key}}
	if in.Size > MaxBlock || int(in.Size) != c.InLen() {
		return rpc.Errorf(rpc.InvalidArgument, "a block of %d bytes with a buffer of %d; at most %d", in.Size, c.InLen(), MaxBlock)
	}
	if done, err := v.s.check(key, t); err != nil {
		return err
	} else if !done {
		err = v.s.put(in, t,
			func(n int) (mr.Buf, error) { return c.Device().Pool().Get(ctx, n) },
			func(b mr.Buf) (mr.Buf, error) { return c.Pull(ctx, b) })
		if err != nil {
			return err
		}
	}
	return v.boot(c, t.Writer)
}

func (v *service) get(ctx context.Context, c *rpc.ServerCall) error {
	in, b, err := v.s.get(string(c.Body))
	if err != nil {
		return err
	}
	if int(in.Size) > c.OutLen() {
		if !b.IsZero() {
			_ = b.Release()
		}
		return rpc.Errorf(rpc.OutOfRange, "the block has %d bytes, the buffer %d", in.Size, c.OutLen())
	}
	if !b.IsZero() {
		if err := c.Push(ctx, b); err != nil {
			return err
		}
	}
	return c.Reply(appendInfo(nil, in))
}

// read gives a part of a block, as much as the caller takes.
func (v *service) read(ctx context.Context, c *rpc.ServerCall) error {
	if len(c.Body) < 13 || len(c.Body) > 12+MaxKey {
		return rpc.Errorf(rpc.InvalidArgument, "a key has 1 to %d bytes", MaxKey)
	}
	off, version := int(binary.LittleEndian.Uint32(c.Body)), binary.LittleEndian.Uint64(c.Body[4:])
	in, b, err := v.s.get(string(c.Body[12:]))
	if err != nil {
		return err
	}
	size := int(in.Size)
	n := min(c.OutLen(), size-off)
	switch {
	case version != 0 && version != in.Version:
		err = dpu.ErrChanged
	case off > size:
		err = rpc.Errorf(rpc.OutOfRange, "byte %d of a block of %d", off, size)
	case n > 0:
		if b, err = b.Narrow(off, off+n); err == nil {
			err = c.Push(ctx, b)
			b = mr.Buf{}
		}
	}
	if !b.IsZero() {
		_ = b.Release()
	}
	if err != nil {
		return err
	}
	return c.Reply(binary.LittleEndian.AppendUint64(appendInfo(nil, in), in.Version))
}

func appendInfo(b []byte, in info) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, in.Size), in.Sum)
}

func (v *service) stat(_ context.Context, c *rpc.ServerCall) error {
	in, err := v.s.stat(string(c.Body))
	if err != nil {
		return err
	}
	return c.Reply(binary.LittleEndian.AppendUint64(appendInfo(nil, in), in.Version))
}

func (v *service) list(_ context.Context, c *rpc.ServerCall) error {
	if len(c.Body) < 2 {
		return rpc.Errorf(rpc.InvalidArgument, "a list needs a limit")
	}
	var b []byte
	for _, in := range v.s.list(string(c.Body[2:]), int(binary.LittleEndian.Uint16(c.Body))) {
		if len(b)+9+len(in.Key) > 3500 {
			break // the rest with the next call
		}
		b = append(appendInfo(b, in), byte(len(in.Key)))
		b = append(b, in.Key...)
	}
	return c.Reply(b)
}

func (v *service) delete(_ context.Context, c *rpc.ServerCall) error {
	_, t, key, err := args(c, 0)
	if err == nil {
		err = v.s.delete(key, t)
	}
	if err != nil {
		return err
	}
	return v.boot(c, t.Writer)
}

func (v *service) fence(_ context.Context, c *rpc.ServerCall) error {
	if len(c.Body) != 20 {
		return rpc.Errorf(rpc.InvalidArgument, "a fence has 20 bytes, not %d", len(c.Body))
	}
	w, epoch := dpu.Writer(c.Body[:16]), binary.LittleEndian.Uint32(c.Body[16:])
	if _, err := v.s.ledger.Fence(w, epoch); err != nil {
		return rpc.Errorf(rpc.InvalidArgument, "%v", err)
	}
	v.s.dropUploads(func(u upload, _ *parts) bool { return u.writer == w && u.epoch != 0 && u.epoch < epoch })
	return v.boot(c, w)
}

func (v *service) usage(_ context.Context, c *rpc.ServerCall) error {
	b := binary.LittleEndian.AppendUint64(nil, v.s.staged.Load())
	return c.Reply(binary.LittleEndian.AppendUint64(b, v.srv.Stats().Copied))
}
