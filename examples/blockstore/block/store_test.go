package block

import (
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
)

// fixture is a store on a device in memory.
type fixture struct {
	*Store
	t    *testing.T
	d    *qp.Device
	path string
}

func newFixture(t *testing.T, cache int64) *fixture {
	net := rdmatest.NewNetwork(t, 1)
	d, err := qp.Open(qp.DeviceConfig{Context: net.Device(t).Context, Pool: mr.PoolConfig{Canaries: true, RegionSize: 1 << 20, Limit: 16 << 20, Classes: []int{4096, 1 << 20}}})
	require.NoError(t, err)
	f := &fixture{t: t, d: d, path: t.TempDir()}
	f.open(cache)
	t.Cleanup(func() {
		require.NoError(t, f.Close())
		require.NoError(t, d.Close())
	})
	return f
}

// open opens the directory, as a server that starts does.
func (f *fixture) open(cache int64) {
	s, err := Open(f.path, f.d.PD(), StoreConfig{Cache: cache})
	require.NoError(f.t, err)
	f.Store = s
}

// write puts a block whose data is of seed.
func (f *fixture) write(key string, n int, seed uint64) error {
	data := make([]byte, n)
	Content(data, seed)
	return f.writeBytes(key, data, crc32.Checksum(data, castagnoli))
}

func (f *fixture) writeBytes(key string, data []byte, sum uint32) error {
	return f.put(info{BlockInfo: dpu.BlockInfo{Key: key, Size: uint32(len(data)), Sum: sum}}, dpu.Token{},
		func(n int) (mr.Buf, error) { return f.d.Pool().Get(f.t.Context(), n) },
		func(b mr.Buf) (mr.Buf, error) {
			p, err := b.Bytes()
			copy(p, data)
			return b, err
		})
}

// check reads a block, which must be of one of seeds.
func (f *fixture) check(key string, seeds ...uint64) {
	in, b, err := f.get(key)
	require.NoError(f.t, err)
	f.verify(in, b, seeds...)
	if !b.IsZero() {
		require.NoError(f.t, b.Release())
	}
}

func (f *fixture) verify(in info, b mr.Buf, seeds ...uint64) {
	var p []byte
	if !b.IsZero() {
		var err error
		p, err = b.Bytes()
		require.NoError(f.t, err)
	}
	require.Len(f.t, p, int(in.Size))
	require.Equal(f.t, in.Sum, crc32.Checksum(p, castagnoli), "block %q: data and checksum are of different writes", in.Key)
	want := make([]byte, len(p))
	for _, s := range seeds {
		Content(want, s)
		if string(want) == string(p) {
			return
		}
	}
	f.t.Fatalf("block %q is of none of %v", in.Key, seeds)
}

func (f *fixture) files() (names []string) {
	l, err := os.ReadDir(f.path)
	require.NoError(f.t, err)
	for _, e := range l {
		names = append(names, e.Name())
	}
	return names
}

func TestStoreKeeps(t *testing.T) {
	f := newFixture(t, 1<<20)
	keys := []string{"a", "../../etc/passwd", "\x00\xff", strings.Repeat("k", MaxKey), "a.part", "empty"}
	for i, k := range keys {
		n := 1 + 5000*i
		if k == "empty" {
			n = 0
		}
		require.NoError(t, f.write(k, n, uint64(i)))
	}
	again := func() {
		for i, k := range keys {
			f.check(k, uint64(i))
		}
		require.Len(t, f.list("", 100), len(keys))
		require.Len(t, f.list("", 2), 2)
		l := f.list("a", 100)
		require.Equal(t, "a.part", l[0].Key)
	}
	again()
	require.NoError(t, f.Close())
	f.open(1 << 20)
	again()
	require.Len(t, f.files(), len(keys), "nothing but blocks is left")
}

// What a crash leaves behind is no block, and does no harm.
func TestStoreAfterCrash(t *testing.T) {
	f := newFixture(t, 1<<20)
	require.NoError(t, f.write("good", 9000, 1))
	require.NoError(t, f.write("cut", 9000, 2))
	require.NoError(t, f.write("head", 9000, 3))
	require.NoError(t, f.Close())
	require.NoError(t, os.WriteFile(filepath.Join(f.path, "1-1"+unfinished), make([]byte, 10000), 0o644))
	require.NoError(t, os.Truncate(f.Store.path("cut"), headerSize+100))
	require.NoError(t, os.Truncate(f.Store.path("head"), 10))
	require.NoError(t, os.WriteFile(filepath.Join(f.path, "stray"+suffix), make([]byte, 10000), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(f.path, "README"), []byte("keep me"), 0o644))
	f.open(1 << 20)
	f.check("good", 1)
	require.Len(t, f.list("", 10), 1)
	_, _, err := f.get("cut")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotContains(t, f.files(), "1-1"+unfinished)
	require.Contains(t, f.files(), "README")
	require.NoError(t, f.write("cut", 500, 4)) // takes the place of what is broken
	f.check("cut", 4)
}

func TestStoreRefusesWrongData(t *testing.T) {
	f := newFixture(t, 1<<20)
	require.NoError(t, f.write("k", 5000, 1))
	for _, direct := range []bool{true, false} {
		f.direct.Store(direct)
		require.ErrorIs(t, f.writeBytes("k", make([]byte, 5000), 1), errSum)
		gone := errors.New("the caller is gone")
		err := f.put(info{BlockInfo: dpu.BlockInfo{Key: "k", Size: 5000}}, dpu.Token{}, func(n int) (mr.Buf, error) { return f.d.Pool().Get(t.Context(), n) },
			func(b mr.Buf) (mr.Buf, error) { return b, gone })
		require.ErrorIs(t, err, gone)
		f.check("k", 1)
		require.Len(t, f.files(), 1, "nothing unfinished is left")
	}
}

// A write whose caller gave up, and that ends late, does not undo later ones.
func TestStoreLateWrite(t *testing.T) {
	f := newFixture(t, 1<<20)
	late := func(during func()) {
		data := make([]byte, 5000)
		Content(data, 1)
		require.NoError(t, f.put(info{BlockInfo: dpu.BlockInfo{Key: "k", Size: 5000, Sum: crc32.Checksum(data, castagnoli)}}, dpu.Token{},
			func(n int) (mr.Buf, error) { return f.d.Pool().Get(t.Context(), n) },
			func(b mr.Buf) (mr.Buf, error) {
				during()
				p, err := b.Bytes()
				copy(p, data)
				return b, err
			}))
		require.Empty(t, f.begun)
	}
	late(func() { require.NoError(t, f.write("k", 5000, 2)) })
	f.check("k", 2)
	late(func() { require.NoError(t, f.delete("k", dpu.Token{})) })
	_, err := f.stat("k")
	require.ErrorIs(t, err, fs.ErrNotExist)
	late(func() {
		require.NoError(t, f.write("k", 5000, 3))
		require.NoError(t, f.delete("k", dpu.Token{}))
	})
	_, err = f.stat("k")
	require.ErrorIs(t, err, fs.ErrNotExist)
	late(func() {})
	f.check("k", 1)
	require.Len(t, f.files(), 1, "nothing unfinished is left")
}

func TestStoreReplaceAndDeleteWhileRead(t *testing.T) {
	f := newFixture(t, 1<<20)
	require.NoError(t, f.write("k", 70000, 1))
	old, b1, err := f.get("k")
	require.NoError(t, err)
	require.NoError(t, f.write("k", 30000, 2))
	mid, b2, err := f.get("k")
	require.NoError(t, err)
	require.NoError(t, f.delete("k", dpu.Token{}))
	require.ErrorIs(t, f.delete("k", dpu.Token{}), fs.ErrNotExist)
	_, _, err = f.get("k")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = f.stat("k")
	require.ErrorIs(t, err, fs.ErrNotExist)
	// Those who read go on with what they have.
	f.verify(old, b1, 1)
	f.verify(mid, b2, 2)
	require.Len(t, f.stale, 2)
	require.ErrorIs(t, f.Close(), mr.ErrInUse)
	require.NoError(t, b1.Release())
	require.NoError(t, b2.Release())
	require.NoError(t, f.write("other", 100, 3))
	f.check("other", 3) // a new mapping, which sweeps
	require.Empty(t, f.stale)
}

func TestStoreForgetsTheLeastUsed(t *testing.T) {
	const n = 10000
	f := newFixture(t, 3*n)
	keys := []string{"a", "b", "c", "d", "e"}
	for i, k := range keys {
		require.NoError(t, f.write(k, n, uint64(i)))
	}
	for i, k := range keys {
		f.check(k, uint64(i))
		f.check("a", 0)
		require.LessOrEqual(t, f.bytes, f.limit)
	}
	require.Contains(t, f.mapped, "a", "it was read between the others")
	require.Contains(t, f.mapped, "e")
	require.NotContains(t, f.mapped, "b")
	// What is being read stays, limit or not.
	var held []mr.Buf
	for _, k := range keys {
		_, b, err := f.get(k)
		require.NoError(t, err)
		held = append(held, b)
	}
	require.Len(t, f.mapped, 5)
	for _, b := range held {
		require.NoError(t, b.Release())
	}
	require.NoError(t, f.write("f", n, 9))
	f.check("f", 9)
	require.LessOrEqual(t, f.bytes, f.limit)
}

func TestStoreThroughABuffer(t *testing.T) {
	f := newFixture(t, 1<<20)
	f.direct.Store(false)
	require.NoError(t, f.write("k", 20000, 1))
	require.Equal(t, uint64(20000), f.staged.Load())
	f.check("k", 1)
}

// Several write and read one block: what is read is of one write.
func TestStoreWritersOfOneBlock(t *testing.T) {
	f := newFixture(t, 1<<20)
	require.NoError(t, f.write("k", 5000, 100))
	seeds := []uint64{100}
	var wg sync.WaitGroup
	for w := range uint64(4) {
		seeds = append(seeds, w)
		wg.Go(func() {
			for range 20 {
				if err := f.write("k", 3000+100*int(w), w); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 100 {
		f.check("k", seeds...)
	}
	wg.Wait()
	f.check("k", seeds...)
	require.NoError(t, f.Close())
	f.open(1 << 20)
	f.check("k", seeds...)
}
