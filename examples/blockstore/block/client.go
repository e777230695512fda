package block

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rpc"
)

var _ dpu.Backend = Client{}

// Client is a block store of another host.
type Client struct {
	*rpc.Client
	// Patient calls wait for a server that is away, as long as their context lets
	// them; others fail at once.
	Patient bool
}

func (c Client) call(ctx context.Context, method string, body []byte, opts ...rpc.Option) (*rpc.Reply, error) {
	if c.Patient {
		opts = append(opts, rpc.WaitForServer())
	}
	r, err := c.Call(ctx, method, body, opts...)
	if err == nil {
		return r, nil
	}
	var e *rpc.Error
	if errors.As(err, &e) {
		for _, x := range tokenErrors {
			if e.Code == x.code && strings.HasPrefix(e.Message, x.word+":") {
				return nil, fmt.Errorf("%w (%w)", x.err, err)
			}
		}
	}
	return nil, err
}

// once is the options of a write. What an agent sends is sent once: whoever gave it the
// work decides what follows.
func once(t dpu.Token, opts ...rpc.Option) []rpc.Option {
	if t.Epoch == 0 {
		opts = append(opts, rpc.Idempotent())
	}
	return opts
}

func writeArgs(x, y uint32, t dpu.Token, key string) []byte {
	b := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, x), y)
	b, _ = t.AppendBinary(b)
	return append(b, key...)
}

func bootOf(r *rpc.Reply) (uint64, error) {
	defer r.Release()
	if len(r.Body) < 8 {
		return 0, errors.New("an answer that is too short")
	}
	return binary.LittleEndian.Uint64(r.Body), nil
}

// Put stores the bytes of b under key. It takes b, and returns the new right to
// it; a zero Buf after an error.
func (c Client) Put(ctx context.Context, key string, b mr.Buf) (mr.Buf, error) {
	b, _, err := c.PutToken(ctx, key, b, nil, dpu.Token{})
	return b, err
}

// PutToken is Put of the write t; see dpu.TokenBlocks.
func (c Client) PutToken(ctx context.Context, key string, b mr.Buf, sum *uint32, t dpu.Token) (mr.Buf, uint64, error) {
	if sum == nil {
		p, err := b.Bytes()
		if err != nil {
			return mr.Buf{}, 0, err
		}
		x := crc32.Checksum(p, castagnoli)
		sum = &x
	}
	r, err := c.call(ctx, methodPut, writeArgs(uint32(b.Len()), *sum, t, key), once(t, rpc.WriteFrom(b))...)
	if err != nil {
		return mr.Buf{}, 0, err
	}
	b = r.Buf(0)
	boot, err := bootOf(r)
	return b, boot, err
}

// PutPart brings a part of a block; see dpu.Backend.
func (c Client) PutPart(ctx context.Context, key string, size, off int, b mr.Buf, t dpu.Token) (mr.Buf, error) {
	r, err := c.call(ctx, methodPart, writeArgs(uint32(size), uint32(off), t, key), rpc.WriteFrom(b), rpc.Idempotent())
	if err != nil {
		return mr.Buf{}, err
	}
	b = r.Buf(0)
	r.Release()
	return b, nil
}

// Commit makes a block of parts; see dpu.Backend.
func (c Client) Commit(ctx context.Context, key string, size int, sum uint32, t dpu.Token) (uint64, error) {
	r, err := c.call(ctx, methodCommit, writeArgs(uint32(size), sum, t, key), once(t)...)
	if err != nil {
		return 0, err
	}
	return bootOf(r)
}

// Abort forgets parts; see dpu.Backend.
func (c Client) Abort(ctx context.Context, t dpu.Token) {
	b, _ := t.AppendBinary(nil)
	r, err := c.Call(ctx, methodAbort, b, rpc.Idempotent())
	if err == nil {
		r.Release()
	}
}

// Get reads a block into b and verifies it. It takes b and returns the part of it
// that the block fills; a zero Buf after an error.
func (c Client) Get(ctx context.Context, key string, b mr.Buf) (mr.Buf, error) {
	r, err := c.call(ctx, methodGet, []byte(key), rpc.ReadInto(b), rpc.Idempotent())
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
		err = rpc.Errorf(rpc.DataLoss, "block %q: %v", key, errSum)
	}
	if err != nil {
		_ = b.Release()
		return mr.Buf{}, err
	}
	return b, nil
}

// ReadAt reads a part of a block and verifies nothing; see dpu.Backend.
func (c Client) ReadAt(ctx context.Context, key string, off int, version uint64, b mr.Buf) (dpu.BlockInfo, mr.Buf, error) {
	arg := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(nil, uint32(off)), version)
	r, err := c.call(ctx, methodRead, append(arg, key...), rpc.ReadInto(b), rpc.Idempotent())
	if err != nil {
		return dpu.BlockInfo{}, mr.Buf{}, err
	}
	in, err := parseLong(r.Body)
	in.Key = key
	n := min(r.Pushed, b.Len())
	b = r.Buf(0)
	r.Release()
	if err == nil {
		b, err = b.Narrow(0, n)
	}
	if err != nil {
		_ = b.Release()
		return in, mr.Buf{}, err
	}
	return in, b, nil
}

func parseInfo(b []byte) (dpu.BlockInfo, error) {
	if len(b) < 8 {
		return dpu.BlockInfo{}, errors.New("an answer that is too short")
	}
	return dpu.BlockInfo{Size: binary.LittleEndian.Uint32(b), Sum: binary.LittleEndian.Uint32(b[4:])}, nil
}

func parseLong(b []byte) (dpu.BlockInfo, error) {
	in, err := parseInfo(b)
	if err == nil && len(b) < 16 {
		err = errors.New("an answer that is too short")
	}
	if err == nil {
		in.Version = binary.LittleEndian.Uint64(b[8:])
	}
	return in, err
}

// Stat describes a block.
func (c Client) Stat(ctx context.Context, key string) (dpu.BlockInfo, error) {
	r, err := c.call(ctx, methodStat, []byte(key), rpc.Idempotent())
	if err != nil {
		return dpu.BlockInfo{}, err
	}
	defer r.Release()
	in, err := parseLong(r.Body)
	in.Key = key
	return in, err
}

// List is up to limit blocks behind a key, in order; none at the end.
func (c Client) List(ctx context.Context, after string, limit int) (l []dpu.BlockInfo, err error) {
	arg := binary.LittleEndian.AppendUint16(nil, uint16(min(max(limit, 0), 1000)))
	r, err := c.call(ctx, methodList, append(arg, after...), rpc.Idempotent())
	if err != nil {
		return nil, err
	}
	defer r.Release()
	for b := r.Body; len(b) > 0; {
		in, err := parseInfo(b)
		if err != nil || len(b) < 9 || len(b) < 9+int(b[8]) {
			return nil, errors.New("a list that makes no sense")
		}
		in.Key = string(b[9 : 9+int(b[8])])
		b = b[9+int(b[8]):]
		l = append(l, in)
	}
	return l, nil
}

// Each calls f for every block.
func (c Client) Each(ctx context.Context, f func(dpu.BlockInfo) error) error {
	for after := ""; ; {
		l, err := c.List(ctx, after, 100)
		if err != nil || len(l) == 0 {
			return err
		}
		for _, in := range l {
			if err := f(in); err != nil {
				return err
			}
		}
		after = l[len(l)-1].Key
	}
}

// Delete removes a block. It is sent once: see DeleteToken.
func (c Client) Delete(ctx context.Context, key string) error {
	b, _ := dpu.Token{}.AppendBinary(nil)
	r, err := c.Call(ctx, methodDelete, append(b, key...))
	r.Release()
	return err
}

// DeleteToken is Delete of the write t; see dpu.TokenBlocks.
func (c Client) DeleteToken(ctx context.Context, key string, t dpu.Token) (uint64, error) {
	b, _ := t.AppendBinary(nil)
	r, err := c.call(ctx, methodDelete, append(b, key...), once(t)...)
	if err != nil {
		return 0, err
	}
	return bootOf(r)
}

// Fence makes the server refuse agents of w with epochs below epoch.
func (c Client) Fence(ctx context.Context, w dpu.Writer, epoch uint32) (uint64, error) {
	r, err := c.call(ctx, methodFence, binary.LittleEndian.AppendUint32(w[:], epoch), rpc.Idempotent())
	if err != nil {
		return 0, err
	}
	return bootOf(r)
}

// Copied is how many bytes the server's CPU has copied, of blocks and of answers.
func (c Client) Copied(ctx context.Context) (blocks, answers uint64, err error) {
	r, err := c.Call(ctx, methodUsage, nil, rpc.Idempotent())
	if err != nil {
		return 0, 0, err
	}
	defer r.Release()
	if len(r.Body) < 16 {
		return 0, 0, errors.New("an answer that is too short")
	}
	return binary.LittleEndian.Uint64(r.Body), binary.LittleEndian.Uint64(r.Body[8:]), nil
}
