package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync/atomic"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rpc"
)

// staging is where files are until they are whole: what has its name is complete.
const staging = ".filecopy"

// receiver keeps what clients copy, below a directory that os.Root confines it to.
type receiver struct {
	root *os.Root
	id   string        // of this process, in the names of staged files that one call makes
	next atomic.Uint64 // number of the next
}

func openReceiver(dir string) (*receiver, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if err := root.MkdirAll(staging, 0o700); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &receiver{root: root, id: rand.Text()}, nil
}

// close removes what files that were not finished have left.
func (r *receiver) close() error {
	return errors.Join(r.root.RemoveAll(staging), r.root.Close())
}

func (r *receiver) register(s *rpc.Server) {
	handle(s, check, r.check)
	handle(s, makeDir, r.makeDir)
	handle(s, setDir, r.setDir)
	handle(s, symlink, r.symlink)
	handle(s, put, r.put)
	handle(s, commit, r.commit)
	s.Handle(methodPart, func(ctx context.Context, c *rpc.ServerCall) error { return coded(r.part(ctx, c)) })
}

func handle[Resp any](s *rpc.Server, m rpc.Method[meta, Resp], h func(context.Context, *rpc.ServerCall, meta) (Resp, error)) {
	m.Handle(s, func(ctx context.Context, c *rpc.ServerCall, q meta) (Resp, error) {
		if err := allowed(q.Path); err != nil {
			var no Resp
			return no, err
		}
		resp, err := h(ctx, c, q)
		return resp, coded(err)
	})
}

func allowed(p string) error {
	if !fs.ValidPath(p) || p == staging || len(p) > len(staging) && p[:len(staging)+1] == staging+"/" {
		return rpc.Errorf(rpc.InvalidArgument, "%q is no path below the directory that is served, or one of the server's own", p)
	}
	return nil
}

// own is a staged file of one call's own: the same call may be under way twice, when
// the connection was lost, or the server started again.
func (r *receiver) own() string { return fmt.Sprintf("%s/%s.%d", staging, r.id, r.next.Add(1)) }

// staged is where the parts of a file are until it is whole. Who writes them twice
// writes the same.
func staged(p string) string {
	h := sha256.Sum256([]byte(p))
	return staging + "/" + hex.EncodeToString(h[:16])
}

func (r *receiver) check(_ context.Context, _ *rpc.ServerCall, q meta) (state, error) {
	in, err := r.root.Lstat(q.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, err
	}
	switch {
	case in.Mode().Type() != q.Mode.Type():
		return state{}, nil
	case q.Mode&fs.ModeSymlink != 0:
		to, err := r.root.Readlink(q.Path)
		return state{to == q.Link}, err
	case q.Mode.IsDir():
		return state{in.Mode() == q.Mode}, nil
	case in.Size() != q.Size:
		return state{}, nil
	case q.Sum == nil:
		return state{in.ModTime().Equal(q.Time) && in.Mode() == q.Mode}, nil
	}
	sum, err := r.sum(q.Path)
	return state{bytes.Equal(sum, q.Sum)}, err
}

func (r *receiver) sum(p string) ([]byte, error) {
	f, err := r.root.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}

func (r *receiver) makeDir(_ context.Context, _ *rpc.ServerCall, q meta) (none, error) {
	if q.Path == "." {
		return none{}, nil
	}
	// Writable, whatever it is in the end: setDir says that.
	err := r.root.Mkdir(q.Path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		in, e := r.root.Lstat(q.Path)
		if e == nil && in.IsDir() {
			return none{}, r.root.Chmod(q.Path, in.Mode().Perm()|0o700)
		}
	}
	return none{}, err
}

func (r *receiver) setDir(_ context.Context, _ *rpc.ServerCall, q meta) (none, error) {
	return none{}, errors.Join(r.root.Chmod(q.Path, q.Mode&settable), r.root.Chtimes(q.Path, q.Time, q.Time))
}

const settable = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

func (r *receiver) symlink(_ context.Context, _ *rpc.ServerCall, q meta) (none, error) {
	tmp := r.own()
	if err := r.root.Symlink(q.Link, tmp); err != nil {
		return none{}, err
	}
	err := r.root.Rename(tmp, q.Path)
	if err != nil {
		_ = r.root.Remove(tmp)
	}
	return none{}, err
}

// put takes a file of one part.
func (r *receiver) put(ctx context.Context, c *rpc.ServerCall, q meta) (none, error) {
	if int64(c.InLen()) != q.Size {
		return none{}, rpc.Errorf(rpc.InvalidArgument, "%d bytes for a file of %d", c.InLen(), q.Size)
	}
	tmp := r.own()
	f, err := r.root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return none{}, err
	}
	var sum []byte
	err = pull(ctx, c, func(p []byte) error {
		h := sha256.Sum256(p)
		sum = h[:]
		_, err := f.Write(p)
		return err
	})
	if err == nil && q.Size == 0 {
		h := sha256.Sum256(nil)
		sum = h[:]
	}
	if err = errors.Join(err, f.Close()); err == nil && !bytes.Equal(sum, q.Sum) {
		err = errSum
	}
	return none{}, r.place(tmp, q, err)
}

var errSum = rpc.Errorf(rpc.DataLoss, "what arrived has another checksum than what was sent")

// part takes a part of a larger file.
func (r *receiver) part(ctx context.Context, c *rpc.ServerCall) error {
	if err := allowed(string(c.Body)); err != nil {
		return err
	}
	f, err := r.root.OpenFile(staged(string(c.Body)), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = pull(ctx, c, func(p []byte) error {
		_, err := f.WriteAt(p, int64(c.Offset))
		return err
	})
	return errors.Join(err, f.Close())
}

// pull lends the caller's bytes to f.
func pull(ctx context.Context, c *rpc.ServerCall, f func([]byte) error) error {
	if c.InLen() == 0 {
		return nil
	}
	if c.InLen() > partSize {
		return rpc.Errorf(rpc.InvalidArgument, "a part of %d bytes; at most %d", c.InLen(), partSize)
	}
	var b mr.Buf
	b, err := c.Device().Pool().Get(ctx, c.InLen())
	if err != nil {
		return err
	}
	if b, err = c.Pull(ctx, b); err != nil {
		return err
	}
	defer b.Release()
	p, err := b.Bytes()
	if err != nil {
		return err
	}
	return f(p)
}

// commit looks whether the parts are the file that was sent, as they are read back
// from the file system, and gives it its name. Done twice, even at the same time,
// it has been done.
func (r *receiver) commit(_ context.Context, _ *rpc.ServerCall, q meta) (none, error) {
	tmp := staged(q.Path)
	err := r.truncate(tmp, q.Size) // what was broken off before may have been longer
	var sum []byte
	if err == nil {
		sum, err = r.sum(tmp)
	}
	if err == nil && !bytes.Equal(sum, q.Sum) {
		err = errSum
	}
	err = r.place(tmp, q, err)
	if errors.Is(err, fs.ErrNotExist) {
		if sum, e := r.sum(q.Path); e == nil && bytes.Equal(sum, q.Sum) {
			return none{}, nil
		}
	}
	return none{}, err
}

func (r *receiver) truncate(p string, size int64) error {
	f, err := r.root.OpenFile(p, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// place gives a staged file its name, or removes it.
func (r *receiver) place(tmp string, q meta, err error) error {
	if err == nil {
		err = errors.Join(r.root.Chmod(tmp, q.Mode&settable), r.root.Chtimes(tmp, q.Time, q.Time))
	}
	if err == nil {
		if err = r.root.Rename(tmp, q.Path); err == nil {
			return nil
		}
	}
	if e := r.root.Remove(tmp); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return fmt.Errorf("%s: %w", path.Base(q.Path), err)
}
