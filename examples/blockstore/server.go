package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rpc"
)

// Arguments and answers, little-endian. A block is named by its key; its data
// travels as bulk memory, never in a message.
//
//	block.put     size 4, CRC-32C 4, key   with WriteFrom
//	block.get     key                      with ReadInto; answer: size 4, CRC-32C 4
//	block.stat    key                      answer: size 4, CRC-32C 4
//	block.list    limit 2, key to begin behind; answer: for each size 4, CRC-32C 4, length 1, key
//	block.delete  key
//	block.usage   answer: bytes of blocks that the CPU copied 8, of answers 8
const (
	methodPut    = "block.put"
	methodGet    = "block.get"
	methodStat   = "block.stat"
	methodList   = "block.list"
	methodDelete = "block.delete"
	methodUsage  = "block.usage"
)

// service answers block calls from a store.
type service struct {
	s   *store
	srv *rpc.Server
}

func (v *service) register(srv *rpc.Server) {
	v.srv = srv
	for name, h := range map[string]rpc.Handler{methodPut: v.put, methodGet: v.get, methodStat: v.stat,
		methodList: v.list, methodDelete: v.delete, methodUsage: v.usage} {
		srv.Handle(name, func(ctx context.Context, c *rpc.ServerCall) error { return coded(h(ctx, c)) })
	}
}

// coded gives errors of the store the code that a caller can branch on.
func coded(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return rpc.Errorf(rpc.NotFound, "no such block")
	case errors.Is(err, errSum):
		return rpc.Errorf(rpc.DataLoss, "%v", err)
	}
	return err
}

func (v *service) put(ctx context.Context, c *rpc.ServerCall) error {
	if len(c.Body) < 9 || len(c.Body) > 8+maxKey {
		return rpc.Errorf(rpc.InvalidArgument, "a key has 1 to %d bytes", maxKey)
	}
	in := info{Size: binary.LittleEndian.Uint32(c.Body), Sum: binary.LittleEndian.Uint32(c.Body[4:]), Key: string(c.Body[8:])}
	if in.Size > maxBlock || int(in.Size) != c.InLen() {
		return rpc.Errorf(rpc.InvalidArgument, "a block of %d bytes with a buffer of %d; at most %d", in.Size, c.InLen(), maxBlock)
	}
	return v.s.put(in,
		func(n int) (mr.Buf, error) { return c.Device().Pool().Get(ctx, n) },
		func(b mr.Buf) (mr.Buf, error) { return c.Pull(ctx, b) })
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

func appendInfo(b []byte, in info) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, in.Size), in.Sum)
}

func (v *service) stat(_ context.Context, c *rpc.ServerCall) error {
	in, err := v.s.stat(string(c.Body))
	if err != nil {
		return err
	}
	return c.Reply(appendInfo(nil, in))
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
	return v.s.delete(string(c.Body))
}

func (v *service) usage(_ context.Context, c *rpc.ServerCall) error {
	b := binary.LittleEndian.AppendUint64(nil, v.s.staged.Load())
	return c.Reply(binary.LittleEndian.AppendUint64(b, v.srv.Stats().Copied))
}
