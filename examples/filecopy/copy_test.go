package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// pair is a server and a client in this process.
type pair struct {
	t    *testing.T
	dst  string
	r    *receiver
	srv  *rpc.Server
	c    *rpc.Client
	d    *qp.Device
	addr string
	end  func()
}

// loopback is an address of this host that other tests do not take.
func loopback(n int) string {
	return fmt.Sprintf("127.%d.%d.%d", 190+os.Getpid()%60, os.Getpid()/60%256, n)
}

func newPair(t *testing.T) *pair {
	t.Setenv("ZRDMA_DEVICE", "soft:"+loopback(1))
	sd, err := openDevice()
	require.NoError(t, err)
	t.Setenv("ZRDMA_DEVICE", "soft:"+loopback(2))
	cd, err := openDevice()
	require.NoError(t, err)
	p := &pair{t: t, dst: filepath.Join(t.TempDir(), "copy"), d: cd}
	p.r, err = openReceiver(p.dst)
	require.NoError(t, err)
	p.srv, err = rpc.NewServer(rpc.ServerConfig{Config: rpc.Config{Device: sd, SlotSize: slotSize}})
	require.NoError(t, err)
	p.r.register(p.srv)
	l, err := p.srv.Listen(t.Context(), loopback(1)+":0")
	require.NoError(t, err)
	p.addr = l.Addr()
	served := make(chan error, 1)
	go func() { served <- p.srv.Serve(l) }()
	p.c, err = dial(t.Context(), p.addr, cd, 20*time.Second)
	require.NoError(t, err)
	p.end = func() {
		require.NoError(t, p.c.Close())
		require.NoError(t, p.srv.Close())
		require.NoError(t, <-served)
		require.NoError(t, p.r.close())
		require.NoError(t, cd.Close())
		require.NoError(t, sd.Close())
	}
	return p
}

// sender copies from src; what fails is in the map.
func (p *pair) sender(src string) (*sender, map[string]string) {
	bad := map[string]string{}
	return &sender{c: p.c, d: p.d, src: src, jobs: 4, onError: func(path string, err error) { bad[path] = err.Error() }}, bad
}

// plant makes a tree of all that there is to copy.
func plant(t *testing.T, dir string) {
	r := rand.New(rand.NewPCG(1, 2))
	for i, n := range []int{0, 1, 4096, 4097, 100_000, partSize - 1, partSize, partSize + 1, 5*partSize + 77} {
		b := make([]byte, n)
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		at := filepath.Join(dir, fmt.Sprintf("a/b%d/file %d \"ä", i%3, n))
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.WriteFile(at, b, 0o640))
		when := time.Unix(1_000_000_000+int64(i), 123456789)
		require.NoError(t, os.Chtimes(at, when, when))
	}
	require.NoError(t, os.Symlink("../nowhere", filepath.Join(dir, "a/link")))
	require.NoError(t, os.Symlink("/etc", filepath.Join(dir, "a/out")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "empty"), 0o711))
	require.NoError(t, os.Chmod(filepath.Join(dir, "a/b1"), 0o555))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "a/b1"), 0o755) })
	require.NoError(t, os.Chmod(filepath.Join(dir, "a/b2"), fs.ModeSticky|0o777))
}

// tree is all that is below a directory, with what must be the same in a copy.
func tree(t *testing.T, dir string) (out []string) {
	require.NoError(t, filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
		require.NoError(t, err)
		rel, err := filepath.Rel(dir, at)
		require.NoError(t, err)
		if rel == staging {
			return fs.SkipDir
		}
		in, err := e.Info()
		require.NoError(t, err)
		s := fmt.Sprintf("%s %v", rel, in.Mode())
		switch {
		case in.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(at)
			require.NoError(t, err)
			s += " -> " + to
		case in.Mode().IsRegular():
			b, err := os.ReadFile(at)
			require.NoError(t, err)
			s += fmt.Sprintf(" %d %x %v", in.Size(), sha256.Sum256(b), in.ModTime().UnixNano())
		case rel != ".":
			s += fmt.Sprint(" ", in.ModTime().UnixNano())
		}
		out = append(out, s)
		return nil
	}))
	return out
}

func TestCopy(t *testing.T) {
	p := newPair(t)
	src := t.TempDir()
	plant(t, src)
	s, bad := p.sender(src)
	require.NoError(t, s.run(t.Context()), bad)
	require.Equal(t, tree(t, src), tree(t, p.dst))
	require.EqualValues(t, 9, s.files.Load())
	require.EqualValues(t, 2, s.links.Load())

	v, bad := p.sender(src)
	v.verify = true
	require.NoError(t, v.run(t.Context()), bad)

	// Once more, onto what is there; and only what is not.
	s, bad = p.sender(src)
	require.NoError(t, s.run(t.Context()), bad)
	require.Equal(t, tree(t, src), tree(t, p.dst))
	changed := filepath.Join(p.dst, "a/b2/file 4096 \"ä")
	require.NoError(t, os.Remove(filepath.Join(p.dst, "a/b1/file 1 \"ä")))
	require.NoError(t, os.WriteFile(changed, []byte("x"), 0o600))
	s, bad = p.sender(src)
	s.resume = true
	require.NoError(t, s.run(t.Context()), bad)
	require.EqualValues(t, 2, s.files.Load())
	require.EqualValues(t, 7, s.skipped.Load())
	require.Equal(t, tree(t, src), tree(t, p.dst))

	// What differs in a single bit is found, though size and time are the same.
	b, err := os.ReadFile(changed)
	require.NoError(t, err)
	in, err := os.Stat(changed)
	require.NoError(t, err)
	b[100] ^= 1
	require.NoError(t, os.WriteFile(changed, b, 0o600))
	require.NoError(t, os.Chtimes(changed, in.ModTime(), in.ModTime()))
	v, bad = p.sender(src)
	v.verify = true
	require.ErrorIs(t, v.run(t.Context()), errFailed)
	require.Len(t, bad, 1)
	require.Contains(t, bad["a/b2/file 4096 \"ä"], errDiffers.Error())
	p.end()
	_, err = os.Stat(filepath.Join(p.dst, staging))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// A file that cannot be copied costs itself only, and is named.
func TestSingleFilesFail(t *testing.T) {
	p := newPair(t)
	src := t.TempDir()
	for i := range 20 {
		require.NoError(t, os.WriteFile(filepath.Join(src, fmt.Sprint(i)), bytes.Repeat([]byte{byte(i)}, 5000), 0o644))
	}
	require.NoError(t, unix.Mkfifo(filepath.Join(src, "pipe"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(src, staging), []byte("x"), 0o644))
	// In the way at the server: a directory where a file goes, a file where a directory does.
	require.NoError(t, os.MkdirAll(filepath.Join(p.dst, "7/full"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(p.dst, "sub"), nil, 0o644))
	require.NoError(t, os.MkdirAll(filepath.Join(src, "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(src, "sub/x"), nil, 0o644))
	s, bad := p.sender(src)
	require.ErrorIs(t, s.run(t.Context()), errFailed)
	var names []string
	for n := range bad {
		names = append(names, n)
	}
	slices.Sort(names)
	require.Equal(t, []string{staging, "7", "pipe", "sub"}, names, bad)
	require.Contains(t, bad["pipe"], "a pipe")
	require.EqualValues(t, 4, s.failed.Load())
	require.EqualValues(t, 19, s.files.Load())
	var out strings.Builder
	s.summary(&out, time.Second, 0)
	require.Contains(t, out.String(), "19 files")
	require.Contains(t, out.String(), "4 FAILED")
	left, err := os.ReadDir(filepath.Join(p.dst, staging))
	require.NoError(t, err)
	require.Empty(t, left, "what failed leaves nothing")
	p.end()
}

// The server writes below its directory only, and nothing that is not what was sent.
func TestBadRequests(t *testing.T) {
	p := newPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sum := sha256.Sum256([]byte("data"))
	file := func(path string) meta { return meta{Path: path, Mode: 0o644, Size: 4, Sum: sum[:], Time: time.Now()} }
	send := func(m meta, data string) error {
		b, err := p.d.Pool().Get(ctx, len(data))
		require.NoError(t, err)
		q, err := b.Bytes()
		require.NoError(t, err)
		copy(q, data)
		_, err = put.Call(ctx, p.c, m, rpc.WriteFrom(b))
		return err
	}
	require.NoError(t, send(file("good"), "data"))
	outside := t.TempDir()
	_, err := symlink.Call(ctx, p.c, meta{Path: "exit", Link: outside})
	require.NoError(t, err)
	for path, code := range map[string]rpc.Code{"../x": rpc.InvalidArgument, "/etc/x": rpc.InvalidArgument, "a/../../x": rpc.InvalidArgument, "": rpc.InvalidArgument,
		staging + "/x": rpc.InvalidArgument, staging: rpc.InvalidArgument, "exit/x": rpc.FailedPrecondition, "no/such/dir": rpc.NotFound} {
		err := send(file(path), "data")
		require.Equal(t, code, rpc.CodeOf(err), "%s: %v", path, err)
		w := p.c.WriteStream(ctx, methodPart, []byte(path), rpc.StreamConfig{})
		_, err = w.Write([]byte("data"))
		require.NoError(t, err)
		if err = w.Close(); code == rpc.InvalidArgument {
			require.Equal(t, code, rpc.CodeOf(err), "%s: %v", path, err)
		} else { // it goes to the staging first
			require.NoError(t, err)
			_, err = commit.Call(ctx, p.c, file(path))
			require.Equal(t, code, rpc.CodeOf(err), "%s: %v", path, err)
		}
	}
	require.Equal(t, rpc.DataLoss, rpc.CodeOf(send(file("good"), "dato")))
	require.Equal(t, rpc.InvalidArgument, rpc.CodeOf(send(file("good"), "longer")))
	_, err = commit.Call(ctx, p.c, file("never"))
	require.Equal(t, rpc.NotFound, rpc.CodeOf(err), err)
	b, err := os.ReadFile(filepath.Join(p.dst, "good"))
	require.NoError(t, err)
	require.Equal(t, "data", string(b), "a file is replaced by a whole one only")
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, left)
	p.end()
}
