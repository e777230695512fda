package compare

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// readWrite is what most programs do.
var readWrite = way{
	name: "read-write", title: "read and write",
	how:   "read(2) from the file into a buffer, write(2) to TCP; read(2) from TCP",
	serve: serveStream(newReadWriter),
	fetch: fetchStream(newReader),
}

func serveStream[S sender](f func(*env) (S, error)) func(context.Context, *env) (part, error) {
	return func(_ context.Context, e *env) (part, error) {
		s, err := f(e)
		if err != nil {
			return nil, err
		}
		return &streamServer{e, s}, nil
	}
}

func fetchStream[R receiver](f func(*env) (R, error)) func(context.Context, *env) (part, error) {
	return func(_ context.Context, e *env) (part, error) {
		r, err := f(e)
		if err != nil {
			return nil, err
		}
		return &streamClient{e, r}, nil
	}
}

type readWriter struct {
	e   *env
	buf []byte
}

func newReadWriter(e *env) (*readWriter, error) {
	buf, err := anonymous(e.job.Block)
	return &readWriter{e, buf}, err
}

func (s *readWriter) send(block uint64) error {
	off := s.e.src.offset(block)
	for got := 0; got < len(s.buf); {
		s.e.m.call()
		n, err := unix.Pread(int(s.e.src.f.Fd()), s.buf[got:], off+int64(got))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("reading the blocks: %w", err)
		}
		got += n
	}
	return s.e.conn.writeAll(s.buf)
}

func (s *readWriter) close() error { return unix.Munmap(s.buf) }

// reader reads a block into its place.
type reader struct {
	e *env
	places
}

func newReader(e *env) (*reader, error) {
	p, err := newPlaces(e.job)
	return &reader{e, p}, err
}

func (r *reader) receive(place int) ([]byte, error) {
	b := r.at(place)
	return b, r.e.conn.readFull(b)
}

func (r *reader) close() error { return r.unmap() }
