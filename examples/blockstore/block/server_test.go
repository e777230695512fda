package block

import (
	"hash/crc32"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/rpc"
)

// pair is a server and a client of it on a network in memory.
type pair struct {
	t       *testing.T
	s       *Store
	c       Client
	d       *qp.Device
	applied int
}

func newPair(t *testing.T, net *rdmatest.Network) *pair {
	p := &pair{t: t}
	open := func() *qp.Device {
		d, err := qp.Open(qp.DeviceConfig{Context: net.Device(t).Context, Pool: mr.PoolConfig{Canaries: true, RegionSize: 1 << 20, Limit: 16 << 20, Classes: []int{4096, 1 << 20}}})
		require.NoError(t, err)
		return d
	}
	sd := open()
	p.d = open()
	var err error
	p.s, err = Open(t.TempDir(), sd.PD(), StoreConfig{NoSync: true, OnWrite: func(string, dpu.Token) { p.applied++ }})
	require.NoError(t, err)
	srv, err := rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: sd}})
	require.NoError(t, err)
	p.s.Register(srv)
	l, err := srv.Listen(t.Context(), ":0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	p.c.Client, err = rpc.Dial(t.Context(), l.Addr(), rpc.Config{Device: p.d})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, p.c.Close())
		require.NoError(t, srv.Close())
		require.NoError(t, <-served)
		require.NoError(t, p.s.Close())
		for _, d := range []*qp.Device{p.d, sd} {
			require.Zero(t, d.Pool().Stats().Damaged)
			require.NoError(t, d.Close())
		}
	})
	return p
}

func (p *pair) buf(n int, seed uint64) mr.Buf {
	b, err := p.d.Pool().Get(p.t.Context(), n)
	require.NoError(p.t, err)
	m, err := b.Bytes()
	require.NoError(p.t, err)
	Content(m, seed)
	return b
}

// has looks whether a block is of a seed.
func (p *pair) has(key string, n int, seed uint64) {
	p.t.Helper()
	b, err := p.c.Get(p.t.Context(), key, p.buf(1<<20, 0))
	require.NoError(p.t, err)
	m, err := b.Bytes()
	require.NoError(p.t, err)
	want := make([]byte, n)
	Content(want, seed)
	require.True(p.t, string(want) == string(m), "%s is not of seed %d", key, seed)
	require.NoError(p.t, b.Release())
}

func (p *pair) put(key string, n int, seed uint64, tok dpu.Token) error {
	b, _, err := p.c.PutToken(p.t.Context(), key, p.buf(n, seed), nil, tok)
	if err == nil {
		err = b.Release()
	}
	return err
}

func run(t *testing.T, f func(t *testing.T, p *pair)) {
	rdmatest.Run(t, 1, func(t *testing.T, net *rdmatest.Network) { f(t, newPair(t, net)) })
}

// Calls with bad arguments, as another client could send them.
func TestBadCalls(t *testing.T) {
	run(t, func(t *testing.T, p *pair) {
		tok := func(x dpu.Token) []byte { b, _ := x.AppendBinary(nil); return b }
		some := dpu.Token{Writer: dpu.NewWriter(), Seq: 1}
		arg := func(size, sum uint32, t dpu.Token, key string) []byte { return writeArgs(size, sum, t, key) }
		for name, x := range map[string]struct {
			method string
			body   []byte
			in     int // bytes of WriteFrom; 0: ReadInto
			code   rpc.Code
		}{
			"no arguments":        {methodPut, nil, 10, rpc.InvalidArgument},
			"no key":              {methodPut, arg(10, 0, dpu.Token{}, ""), 10, rpc.InvalidArgument},
			"long key":            {methodPut, arg(10, 0, dpu.Token{}, strings.Repeat("k", MaxKey+1)), 10, rpc.InvalidArgument},
			"another size":        {methodPut, arg(11, 0, dpu.Token{}, "k"), 10, rpc.InvalidArgument},
			"too large":           {methodPut, arg(MaxBlock+1, 0, dpu.Token{}, "k"), 10, rpc.InvalidArgument},
			"wrong checksum":      {methodPut, arg(10, 1, dpu.Token{}, "k"), 10, rpc.DataLoss},
			"token":               {methodPut, append(append(make([]byte, 8), append(make([]byte, 36), 9, 0, 0, 0)...), 'k'), 10, rpc.InvalidArgument},
			"nothing there":       {methodGet, []byte("k"), 0, rpc.NotFound},
			"read nothing":        {methodRead, append(make([]byte, 12), 'k'), 0, rpc.NotFound},
			"read without key":    {methodRead, make([]byte, 12), 0, rpc.InvalidArgument},
			"list without":        {methodList, nil, 0, rpc.InvalidArgument},
			"no such method":      {"block.eat", nil, 0, rpc.Unimplemented},
			"delete of nothing":   {methodDelete, append(tok(dpu.Token{}), 'k'), 0, rpc.NotFound},
			"fence too short":     {methodFence, make([]byte, 19), 0, rpc.InvalidArgument},
			"fence of nobody":     {methodFence, make([]byte, 20), 0, rpc.InvalidArgument},
			"part without token":  {methodPart, arg(100, 0, dpu.Token{}, "k"), 10, rpc.InvalidArgument},
			"part behind the end": {methodPart, arg(100, 95, some, "k"), 10, rpc.InvalidArgument},
			"part far behind":     {methodPart, arg(100, 1<<32-1, some, "k"), 10, rpc.InvalidArgument},
			"part too large":      {methodPart, arg(1<<32-1, 0, some, "k"), 10, rpc.InvalidArgument},
			"part of nothing":     {methodPart, arg(0, 0, some, "k"), 10, rpc.InvalidArgument},
			"commit of nothing":   {methodCommit, arg(100, 0, some, "k"), 0, rpc.NotFound},
			"abort too short":     {methodAbort, make([]byte, 39), 0, rpc.InvalidArgument},
		} {
			opt := rpc.ReadInto(p.buf(10, 0))
			if x.in > 0 {
				rpc.ReleaseAll([]rpc.Option{opt})
				opt = rpc.WriteFrom(p.buf(x.in, 0))
			}
			r, err := p.c.Call(t.Context(), x.method, x.body, opt)
			require.Equal(t, x.code, rpc.CodeOf(err), "%s: %v", name, err)
			require.Nil(t, r)
		}
		require.NoError(t, p.put("k", 5000, 1, dpu.Token{}))
		_, err := p.c.Get(t.Context(), "k", p.buf(4999, 0))
		require.Equal(t, rpc.OutOfRange, rpc.CodeOf(err), "a buffer that is too small: %v", err)
		p.has("k", 5000, 1) // one that is larger is cut
		require.Empty(t, p.s.uploads)
	})
}

func TestReadAt(t *testing.T) {
	run(t, func(t *testing.T, p *pair) {
		require.NoError(t, p.put("k", 10_000, 3, dpu.Token{}))
		want := make([]byte, 10_000)
		Content(want, 3)
		read := func(off, n int, version uint64) (dpu.BlockInfo, string, error) {
			in, b, err := p.c.ReadAt(t.Context(), "k", off, version, p.buf(n, 0))
			if err != nil {
				require.True(t, b.IsZero())
				return in, "", err
			}
			m, err := b.Bytes()
			require.NoError(t, err)
			s := string(m)
			require.NoError(t, b.Release())
			return in, s, nil
		}
		in, got, err := read(100, 500, 0)
		require.NoError(t, err)
		require.Equal(t, string(want[100:600]), got)
		require.EqualValues(t, 10_000, in.Size)
		_, got, err = read(9_000, 4_000, in.Version)
		require.NoError(t, err)
		require.Equal(t, string(want[9_000:]), got)
		_, got, err = read(10_000, 10, in.Version)
		require.NoError(t, err)
		require.Empty(t, got)
		_, _, err = read(10_001, 10, in.Version)
		require.Equal(t, rpc.OutOfRange, rpc.CodeOf(err))
		require.NoError(t, p.put("k", 10_000, 3, dpu.Token{}))
		_, _, err = read(0, 10, in.Version)
		require.ErrorIs(t, err, dpu.ErrChanged)
	})
}

// Writes with tokens are done once, and not for agents that were fenced.
func TestTokens(t *testing.T) {
	run(t, func(t *testing.T, p *pair) {
		ctx := t.Context()
		w := dpu.NewWriter()
		boot, err := p.c.Fence(ctx, w, 2)
		require.NoError(t, err)
		tok := dpu.Token{Writer: w, Seq: 1, Boot: boot, Epoch: 2}
		require.NoError(t, p.put("k", 5000, 1, tok))
		require.NoError(t, p.put("k", 5000, 2, dpu.Token{Writer: w, Seq: 2, Boot: boot}))
		require.NoError(t, p.put("k", 5000, 1, tok), "again: it is done already")
		p.has("k", 5000, 2)
		require.Equal(t, 2, p.applied)
		_, err = p.c.Fence(ctx, w, 3)
		require.NoError(t, err)
		tok.Seq = 3
		require.ErrorIs(t, p.put("k", 5000, 9, tok), dpu.ErrFenced)
		_, err = p.c.DeleteToken(ctx, "k", tok)
		require.ErrorIs(t, err, dpu.ErrFenced)
		_, err = p.c.PutPart(ctx, "k", 8000, 0, p.buf(4000, 1), tok)
		require.ErrorIs(t, err, dpu.ErrFenced)
		tok.Boot++
		tok.Epoch = 3
		require.ErrorIs(t, p.put("k", 5000, 9, tok), dpu.ErrStale)
		p.has("k", 5000, 2)
		del := dpu.Token{Writer: w, Seq: 7, Boot: boot}
		_, err = p.c.DeleteToken(ctx, "k", del)
		require.NoError(t, err)
		require.NoError(t, p.put("k", 100, 4, dpu.Token{Writer: w, Seq: 8, Boot: boot}))
		_, err = p.c.DeleteToken(ctx, "k", del)
		require.NoError(t, err, "the deletion was done before")
		p.has("k", 100, 4)
		require.Equal(t, 4, p.applied)
	})
}

// The token of the write that made a block is in its file: another process knows it.
func TestTokenSurvives(t *testing.T) {
	f := newFixture(t, 1<<20)
	tok := dpu.Token{Writer: dpu.NewWriter(), Seq: 5, Boot: f.ledger.Boot(dpu.Writer{})}
	data := make([]byte, 100)
	in := info{BlockInfo: dpu.BlockInfo{Key: "k", Size: 100, Sum: crc32.Checksum(data, castagnoli)}}
	require.NoError(t, f.put(in, tok, func(n int) (mr.Buf, error) { return f.d.Pool().Get(t.Context(), n) }, func(b mr.Buf) (mr.Buf, error) {
		p, err := b.Bytes()
		clear(p)
		return b, err
	}))
	require.NoError(t, f.Close())
	f.open(1 << 20)
	tok.Replay = true
	done, err := f.Store.check("k", tok)
	require.NoError(t, err)
	require.True(t, done)
	tok.Seq++
	_, err = f.Store.check("k", tok)
	require.ErrorIs(t, err, dpu.ErrStale)
}

// Parts come in any order and become a block when they are all there.
func TestParts(t *testing.T) {
	run(t, func(t *testing.T, p *pair) {
		ctx := t.Context()
		w := dpu.NewWriter()
		boot, err := p.c.Fence(ctx, w, 1)
		require.NoError(t, err)
		data := make([]byte, 10_000)
		Content(data, 6)
		sum := crc32.Checksum(data, castagnoli)
		part := func(tok dpu.Token, off, n int) {
			b := p.buf(n, 0)
			m, err := b.Bytes()
			require.NoError(t, err)
			copy(m, data[off:])
			b, err = p.c.PutPart(ctx, "k", len(data), off, b, tok)
			require.NoError(t, err)
			require.NoError(t, b.Release())
		}
		tok := dpu.Token{Writer: w, Seq: 1, Boot: boot, Epoch: 1}
		part(tok, 4096, 4096)
		_, err = p.c.Commit(ctx, "k", len(data), sum, tok)
		require.Equal(t, rpc.FailedPrecondition, rpc.CodeOf(err), "bytes are missing: %v", err)
		require.NotErrorIs(t, err, dpu.ErrStale)
		for _, off := range []int{8192, 0, 4096} {
			part(tok, off, min(4096, len(data)-off))
		}
		_, err = p.c.Commit(ctx, "k", len(data), sum+1, tok)
		require.Equal(t, rpc.DataLoss, rpc.CodeOf(err))
		for _, off := range []int{8192, 0, 4096} {
			part(tok, off, min(4096, len(data)-off))
		}
		got, err := p.c.Commit(ctx, "k", len(data), sum, tok)
		require.NoError(t, err)
		require.Equal(t, boot, got)
		p.has("k", len(data), 6)
		_, err = p.c.Commit(ctx, "k", len(data), sum, tok)
		require.NoError(t, err, "it is done")
		require.Equal(t, 1, p.applied)
		// What is given up, or fenced, leaves nothing.
		tok.Seq = 2
		part(tok, 0, 4096)
		require.Len(t, p.s.uploads, 1)
		_, err = p.c.PutPart(ctx, "k", len(data)+1, 0, p.buf(10, 0), tok)
		require.Equal(t, rpc.InvalidArgument, rpc.CodeOf(err), "another length")
		p.c.Abort(ctx, tok)
		require.Empty(t, p.s.uploads)
		tok.Seq = 3
		part(tok, 0, 4096)
		_, err = p.c.Fence(ctx, w, 2)
		require.NoError(t, err)
		require.Empty(t, p.s.uploads)
		_, err = p.c.Commit(ctx, "k", len(data), sum, tok)
		require.ErrorIs(t, err, dpu.ErrFenced)
	})
}
