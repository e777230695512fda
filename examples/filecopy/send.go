package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// sender copies a tree to a server.
type sender struct {
	c      *rpc.Client
	d      *qp.Device
	src    string
	jobs   int
	resume bool // leave out what is there, by size and time
	verify bool // copy nothing: look whether all is there, by checksums

	files, dirs, links, skipped atomic.Int64
	bytes                       atomic.Int64 // of files copied, or verified
	failed                      atomic.Int64
	onError                     func(path string, err error) // of a file; nil: nobody is told
	mu                          sync.Mutex                   // serialises onError
}

// errFailed: single files could not be copied; onError has been told of each.
var errFailed = errors.New("not everything was copied")

// run copies the tree. Errors of files cost these only; errFailed says that there were.
func (s *sender) run(ctx context.Context) error {
	var err error
	if s.src, err = filepath.EvalSymlinks(s.src); err != nil {
		return err
	}
	in, err := os.Stat(s.src)
	if err != nil {
		return err
	}
	if !in.IsDir() {
		return fmt.Errorf("%s is no directory", s.src)
	}
	type job struct {
		path string
		in   fs.FileInfo
	}
	jobs := make(chan job)
	var wg sync.WaitGroup
	for range s.jobs {
		wg.Go(func() {
			for j := range jobs {
				if err := s.one(ctx, j.path, j.in); err != nil {
					s.fail(j.path, err)
				}
			}
		})
	}
	var dirs []meta
	err = filepath.WalkDir(s.src, func(at string, e fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(s.src, at)
		if relErr != nil {
			return relErr
		}
		rel = filepath.ToSlash(rel)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if rel == staging {
			s.fail(rel, errors.New("not copied: the server uses this name for what is not whole yet"))
			if e != nil && e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		var in fs.FileInfo
		if err == nil {
			in, err = e.Info()
		}
		if err != nil { // it cannot be read, or went away
			s.fail(rel, err)
			if e != nil && e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !in.IsDir() {
			select {
			case jobs <- job{rel, in}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		m := describe(rel, in)
		if err := s.dir(ctx, m); err != nil {
			s.fail(rel, fmt.Errorf("%w; nothing below it is copied", err))
			return fs.SkipDir
		}
		s.dirs.Add(1)
		dirs = append(dirs, m)
		return nil
	})
	close(jobs)
	wg.Wait()
	if err != nil {
		return err
	}
	if !s.verify {
		slices.Reverse(dirs) // what is below first: it changes the time of what is above
		for _, m := range dirs {
			if _, err := setDir.Call(ctx, s.c, m, again...); err != nil {
				s.fail(m.Path, err)
			}
		}
	}
	if s.failed.Load() > 0 {
		return errFailed
	}
	return ctx.Err()
}

func describe(rel string, in fs.FileInfo) meta {
	return meta{Path: rel, Mode: in.Mode(), Size: in.Size(), Time: in.ModTime()}
}

// again: all calls may be done twice, and wait for a server that is away.
var again = []rpc.Option{rpc.Idempotent(), rpc.WaitForServer()}

func (s *sender) fail(p string, err error) {
	s.failed.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.onError != nil {
		s.onError(p, err)
	}
}

func (s *sender) dir(ctx context.Context, m meta) error {
	if s.verify {
		return s.same(ctx, m)
	}
	_, err := makeDir.Call(ctx, s.c, m, again...)
	return err
}

var errDiffers = errors.New("missing at the server, or not the same there")

func (s *sender) same(ctx context.Context, m meta) error {
	st, err := check.Call(ctx, s.c, m, again...)
	if err == nil && !st.Have {
		err = errDiffers
	}
	return err
}

// one copies a file, or a symbolic link.
func (s *sender) one(ctx context.Context, rel string, in fs.FileInfo) (err error) {
	m := describe(rel, in)
	at := filepath.Join(s.src, filepath.FromSlash(rel))
	switch {
	case in.Mode()&fs.ModeSymlink != 0:
		if m.Link, err = os.Readlink(at); err != nil {
			return err
		}
		s.links.Add(1)
		if s.verify {
			return s.same(ctx, m)
		}
		_, err = symlink.Call(ctx, s.c, m, again...)
		return err
	case !in.Mode().IsRegular():
		return fmt.Errorf("not copied: %s", kindOf(in.Mode()))
	}
	if s.resume {
		st, err := check.Call(ctx, s.c, m, again...)
		if err != nil {
			return err
		}
		if st.Have {
			s.skipped.Add(1)
			return nil
		}
	}
	f, err := os.Open(at)
	if err != nil {
		return err
	}
	defer f.Close()
	switch {
	case s.verify:
		err = s.verifyFile(ctx, m, f)
	case m.Size <= partSize:
		err = s.small(ctx, m, f)
	default:
		err = s.large(ctx, m, f)
	}
	if err != nil {
		return err
	}
	s.files.Add(1)
	return nil
}

func kindOf(m fs.FileMode) string {
	for _, k := range []struct {
		bit  fs.FileMode
		name string
	}{{fs.ModeNamedPipe, "a pipe"}, {fs.ModeSocket, "a socket"}, {fs.ModeDevice, "a device"}} {
		if m&k.bit != 0 {
			return k.name
		}
	}
	return "neither a file, nor a directory, nor a symbolic link"
}

func (s *sender) verifyFile(ctx context.Context, m meta, f *os.File) error {
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	m.Size, m.Sum = n, h.Sum(nil)
	s.bytes.Add(n)
	return s.same(ctx, m)
}

var errChanged = errors.New("it changed while it was copied")

// small sends a file in one call: it is read into memory that the server fetches it
// from.
func (s *sender) small(ctx context.Context, m meta, f *os.File) error {
	opts := append([]rpc.Option(nil), again...)
	if m.Size == 0 {
		sum := sha256.Sum256(nil)
		m.Sum = sum[:]
		if _, err := f.Read(make([]byte, 1)); err != io.EOF {
			return errors.Join(err, errChanged)
		}
	} else {
		b, err := s.d.Pool().Get(ctx, int(m.Size))
		if err != nil {
			return err
		}
		if m.Sum, err = fill(b, f); err != nil {
			_ = b.Release()
			return err
		}
		opts = append(opts, rpc.WriteFrom(b))
	}
	if _, err := put.Call(ctx, s.c, m, opts...); err != nil {
		return err
	}
	s.bytes.Add(m.Size)
	return nil
}

// fill reads all of a file that b has the size of.
func fill(b mr.Buf, f *os.File) ([]byte, error) {
	p, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(f, p); err != nil {
		return nil, shorter(err)
	}
	if n, _ := f.Read(make([]byte, 1)); n > 0 {
		return nil, errChanged
	}
	sum := sha256.Sum256(p)
	return sum[:], nil
}

func shorter(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errChanged
	}
	return err
}

// large sends a file as a stream: each part is read into memory that the server
// fetches it from, while those before it are under way.
func (s *sender) large(ctx context.Context, m meta, f *os.File) error {
	w := s.c.WriteStream(ctx, methodPart, []byte(m.Path), rpc.StreamConfig{Part: partSize}, again...)
	h := sha256.New()
	for left := m.Size; left > 0; {
		b, err := w.Buf()
		if err == nil {
			b, err = b.Narrow(0, int(min(left, partSize)))
		}
		if err != nil {
			return errors.Join(err, w.Close())
		}
		p, err := b.Bytes()
		if err == nil {
			_, err = io.ReadFull(f, p)
		}
		if err != nil {
			_ = b.Release()
			w.Cancel()
			_ = w.Close()
			return shorter(err)
		}
		h.Write(p)
		left -= int64(len(p))
		n := int64(len(p)) // p is the device's when it is sent
		if err := w.Send(b); err != nil {
			_ = w.Close()
			return err
		}
		s.bytes.Add(n)
	}
	if err := w.Close(); err != nil {
		return err
	}
	if n, _ := f.Read(make([]byte, 1)); n > 0 {
		return errChanged
	}
	m.Sum = h.Sum(nil)
	_, err := commit.Call(ctx, s.c, m, again...)
	return err
}

// summary says what was done.
func (s *sender) summary(w io.Writer, took, cpu time.Duration) {
	n := s.bytes.Load()
	what := "copied"
	if s.verify {
		what = "verified"
	}
	fmt.Fprintf(w, "%s %d files, %d directories, %d links, %.1f MB in %v: %.1f MB/s, %.0f files/s, %v of processor time\n", what,
		s.files.Load(), s.dirs.Load(), s.links.Load(), float64(n)/1e6, took.Round(time.Millisecond),
		float64(n)/1e6/took.Seconds(), float64(s.files.Load())/took.Seconds(), cpu.Round(time.Millisecond))
	if k := s.skipped.Load(); k > 0 {
		fmt.Fprintf(w, "%d files were there already\n", k)
	}
	if k := s.failed.Load(); k > 0 {
		fmt.Fprintf(w, "%d FAILED\n", k)
	}
}
