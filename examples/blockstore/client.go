package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rpc"
)

// client is a block store of another host. Its calls wait for a server that is
// away, as long as their context lets them.
type client struct{ *rpc.Client }

// put stores the bytes of b under key. It takes b, and returns the new right to
// it; a zero Buf after an error.
func (c client) put(ctx context.Context, key string, b mr.Buf) (mr.Buf, error) {
	p, err := b.Bytes()
	if err != nil {
		return mr.Buf{}, err
	}
	arg := appendInfo(nil, info{Size: uint32(len(p)), Sum: crc32.Checksum(p, castagnoli)})
	r, err := c.Call(ctx, methodPut, append(arg, key...), rpc.WriteFrom(b), rpc.Idempotent(), rpc.WaitForServer())
	if err != nil {
		return mr.Buf{}, err
	}
	b = r.Buf(0)
	r.Release()
	return b, nil
}

// get reads a block into b and verifies it. It takes b and returns the part of it
// that the block fills; a zero Buf after an error.
func (c client) get(ctx context.Context, key string, b mr.Buf) (mr.Buf, error) {
	r, err := c.Call(ctx, methodGet, []byte(key), rpc.ReadInto(b), rpc.Idempotent(), rpc.WaitForServer())
	if err != nil {
		return mr.Buf{}, err
	}
	in, err := parseInfo(r.Body)
	b = r.Buf(0)
	r.Release()
	if err == nil {
		b, err = b.Narrow(0, int(in.Size))
	}
	var p []byte
	if err == nil {
		p, err = b.Bytes()
	}
	if err == nil && crc32.Checksum(p, castagnoli) != in.Sum {
		err = fmt.Errorf("block %q: %w", key, errSum)
	}
	if err != nil {
		_ = b.Release()
		return mr.Buf{}, err
	}
	return b, nil
}

func parseInfo(b []byte) (info, error) {
	if len(b) < 8 {
		return info{}, errors.New("an answer that is too short")
	}
	return info{Size: binary.LittleEndian.Uint32(b), Sum: binary.LittleEndian.Uint32(b[4:])}, nil
}

func (c client) stat(ctx context.Context, key string) (info, error) {
	r, err := c.Call(ctx, methodStat, []byte(key), rpc.Idempotent(), rpc.WaitForServer())
	if err != nil {
		return info{}, err
	}
	defer r.Release()
	in, err := parseInfo(r.Body)
	in.Key = key
	return in, err
}

// list calls each for every block.
func (c client) list(ctx context.Context, each func(info) error) error {
	for after := ""; ; {
		r, err := c.Call(ctx, methodList, append([]byte{100, 0}, after...), rpc.Idempotent(), rpc.WaitForServer())
		if err != nil {
			return err
		}
		b := r.Body
		if len(b) == 0 {
			r.Release()
			return nil
		}
		for len(b) > 0 {
			in, err := parseInfo(b)
			if err != nil || len(b) < 9 || len(b) < 9+int(b[8]) {
				r.Release()
				return errors.New("a list that makes no sense")
			}
			in.Key = string(b[9 : 9+int(b[8])])
			b = b[9+int(b[8]):]
			after = in.Key
			if err := each(in); err != nil {
				r.Release()
				return err
			}
		}
		r.Release()
	}
}

func (c client) delete(ctx context.Context, key string) error {
	r, err := c.Call(ctx, methodDelete, []byte(key))
	r.Release()
	return err
}

// copied is how many bytes the server's CPU has copied, of blocks and of answers.
func (c client) copied(ctx context.Context) (blocks, answers uint64, err error) {
	r, err := c.Call(ctx, methodUsage, nil)
	if err != nil {
		return 0, 0, err
	}
	defer r.Release()
	if len(r.Body) < 16 {
		return 0, 0, errors.New("an answer that is too short")
	}
	return binary.LittleEndian.Uint64(r.Body), binary.LittleEndian.Uint64(r.Body[8:]), nil
}
