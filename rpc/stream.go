package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/zrdma/zrdma/mr"
)

// StreamConfig says how a large object is cut. The zero value is good.
type StreamConfig struct {
	Part   int // bytes of one transfer; 0: 1 MiB
	Window int // transfers under way, and so buffers held, at a time; 0: 4

	Offset uint64 // where to begin in the object
	// Size ends a read after so many bytes, counted from Offset. 0: where the object
	// ends, which is where a handler pushes less than the caller takes.
	Size uint64
}

func (c StreamConfig) withDefaults() (StreamConfig, error) {
	if c.Part == 0 {
		c.Part = 1 << 20
	}
	if c.Window == 0 {
		c.Window = 4
	}
	if c.Part < 0 || c.Part > math.MaxInt32 || c.Window < 0 || c.Window > 1<<14 || c.Offset > math.MaxInt64 {
		return c, &Error{Code: InvalidArgument, Method: "stream", Message: fmt.Sprintf("parts of %d bytes, %d at a time, from %d", c.Part, c.Window, c.Offset)}
	}
	return c, nil
}

// stream is what readers and writers have in common.
type stream struct {
	c      *Client
	ctx    context.Context
	cancel context.CancelFunc
	method string
	body   []byte
	cfg    StreamConfig
	opts   []Option
	wg     sync.WaitGroup // parts under way
	err    error          // sticky
}

func (s *stream) init(ctx context.Context, c *Client, method string, body []byte, cfg StreamConfig, opts []Option) {
	s.c, s.method, s.body, s.opts = c, method, append([]byte(nil), body...), append([]Option(nil), opts...)
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.cfg, s.err = cfg.withDefaults()
}

// part does the call of one part.
func (s *stream) part(off uint64, more bool, o ...Option) (*Reply, error) {
	return s.c.Call(s.ctx, s.method, s.body, append(append(o, part(off, more)), s.opts...)...)
}

// fail makes err the end of the stream, unless it has one.
func (s *stream) fail(err error) error {
	if s.err == nil {
		s.err = err
		s.cancel()
	}
	return s.err
}

// StreamReader reads a large object in parts, some of them ahead. Its methods are
// for one goroutine.
type StreamReader struct {
	stream
	ahead []chan readPart // parts under way, in order
	next  uint64          // offset of the next one to ask for
	at    uint64          // of the next one to give out
	rest  mr.Buf          // of Read
}

type readPart struct {
	buf  mr.Buf
	want int
	err  error
}

// ReadStream reads an object that is larger than one transfer should be. The
// method is called for each part, with the same body; its handler finds the
// offset in ServerCall.Offset, pushes up to OutLen bytes and replies. It pushes
// less, or nothing, where the object ends. With Idempotent in opts the stream goes
// on after the connection was lost.
//
// Memory comes from the pool of the client's device, a window's worth at most.
func (c *Client) ReadStream(ctx context.Context, method string, body []byte, cfg StreamConfig, opts ...Option) *StreamReader {
	r := &StreamReader{}
	r.init(ctx, c, method, body, cfg, opts)
	r.next, r.at = r.cfg.Offset, r.cfg.Offset
	return r
}

// fill asks for parts until the window is full. The one that is wanted next has a
// buffer whatever it takes; those ahead have one if it is free, so that streams
// which share a pool do not wait for each other.
func (r *StreamReader) fill() error {
	for len(r.ahead) < r.cfg.Window && (r.cfg.Size == 0 || r.next < r.cfg.Offset+r.cfg.Size) {
		n := r.cfg.Part
		if r.cfg.Size > 0 {
			n = int(min(uint64(n), r.cfg.Offset+r.cfg.Size-r.next))
		}
		var b mr.Buf
		var err error
		if len(r.ahead) == 0 {
			b, err = r.c.d.Pool().Get(r.ctx, n)
		} else if b, err = r.c.d.Pool().TryGet(n); errors.Is(err, mr.ErrExhausted) {
			return nil
		}
		if err != nil {
			return err
		}
		ready := make(chan readPart, 1)
		r.ahead = append(r.ahead, ready)
		off := r.next
		r.next += uint64(n)
		r.wg.Add(1)
		go func() {
			defer r.wg.Done()
			ready <- r.read(off, n, b)
		}()
	}
	return nil
}

func (r *StreamReader) read(off uint64, n int, b mr.Buf) readPart {
	rep, err := r.part(off, false, ReadInto(b))
	if err != nil {
		if off > r.cfg.Offset && CodeOf(err) == OutOfRange { // behind the end
			return readPart{want: n}
		}
		return readPart{err: err}
	}
	b = rep.Buf(0)
	pushed := rep.Pushed
	rep.Release()
	if pushed > b.Len() {
		_ = b.Release()
		return readPart{err: &Error{Code: Internal, Method: r.method, Message: fmt.Sprintf("the server says that it put %d bytes into a buffer of %d", pushed, n)}}
	}
	b, err = b.Narrow(0, pushed)
	return readPart{buf: b, want: n, err: err}
}

// Next is the next part, in order: a buffer that is the caller's to release, cut to
// what it holds. io.EOF after the last.
func (r *StreamReader) Next() (mr.Buf, error) {
	if r.err != nil {
		return mr.Buf{}, r.err
	}
	if err := r.fill(); err != nil {
		return mr.Buf{}, r.fail(err)
	}
	if len(r.ahead) == 0 { // cfg.Size is read
		return mr.Buf{}, r.fail(io.EOF)
	}
	p := <-r.ahead[0] // ends when ctx does
	r.ahead = r.ahead[1:]
	if p.err != nil {
		return mr.Buf{}, r.fail(p.err)
	}
	n := p.buf.Len()
	r.at += uint64(n)
	if n < p.want {
		_ = r.fail(io.EOF) // those behind it are not waited for
	}
	if n == 0 {
		if !p.buf.IsZero() {
			_ = p.buf.Release()
		}
		return mr.Buf{}, r.err
	}
	return p.buf, nil
}

// Offset is where in the object the next part begins.
func (r *StreamReader) Offset() uint64 { return r.at }

// Read copies the object into p, for those who need it there; Next copies nothing.
func (r *StreamReader) Read(p []byte) (int, error) {
	if r.rest.IsZero() {
		b, err := r.Next()
		if err != nil {
			return 0, err
		}
		r.rest = b
	}
	b, err := r.rest.Bytes()
	if err != nil {
		return 0, err
	}
	n := copy(p, b)
	r.c.stats.copied.Add(uint64(n))
	if n == len(b) {
		_ = r.rest.Release()
		r.rest = mr.Buf{}
	} else if r.rest, err = r.rest.Narrow(n, len(b)); err != nil {
		return n, err
	}
	return n, nil
}

// Close ends the stream: what is under way is cancelled, its memory goes back to
// the pool. It must be called.
func (r *StreamReader) Close() error {
	_ = r.fail(ErrClosed)
	r.cancel()
	r.wg.Wait()
	for _, c := range r.ahead {
		if p := <-c; !p.buf.IsZero() {
			_ = p.buf.Release()
		}
	}
	r.ahead = nil
	if !r.rest.IsZero() {
		_ = r.rest.Release()
		r.rest = mr.Buf{}
	}
	return nil
}

// StreamWriter writes a large object in parts, several at a time. Its methods are
// for one goroutine.
type StreamWriter struct {
	stream
	window chan struct{} // a token for each part under way or being filled
	first  chan error    // of a part under way
	at     uint64        // where the next part begins
	last   mr.Buf        // it may be the last: it waits for the next one, or Close
	lastAt uint64
	part1  mr.Buf // of Write: being filled
	filled int
	closed bool
	answer []byte
}

// WriteStream writes an object that is larger than one transfer should be. The
// method is called for each part, with the same body; its handler finds the offset
// in ServerCall.Offset, pulls InLen bytes and replies. Parts come in any order. The
// last one has ServerCall.More false and comes when the server has answered all
// others: there the handler makes the object valid. With Idempotent in opts the
// stream goes on after the connection was lost.
//
// Memory comes from the pool of the client's device, a window's worth at most.
func (c *Client) WriteStream(ctx context.Context, method string, body []byte, cfg StreamConfig, opts ...Option) *StreamWriter {
	w := &StreamWriter{first: make(chan error, 1)}
	w.init(ctx, c, method, body, cfg, opts)
	w.at = w.cfg.Offset
	w.window = make(chan struct{}, max(w.cfg.Window, 1)+1) // and one that may be the last
	return w
}

// check hears of parts that failed.
func (w *StreamWriter) check() error {
	if w.closed && w.err == nil {
		return ErrClosed
	}
	select {
	case err := <-w.first:
		return w.fail(err)
	default:
		return w.err
	}
}

// Buf is a buffer of StreamConfig.Part bytes for the next part: fill it and Send
// it, or what Narrow makes of it. It waits while the window is full.
func (w *StreamWriter) Buf() (mr.Buf, error) {
	if err := w.check(); err != nil {
		return mr.Buf{}, err
	}
	select {
	case w.window <- struct{}{}:
	case err := <-w.first:
		return mr.Buf{}, w.fail(err)
	case <-w.ctx.Done():
		return mr.Buf{}, w.fail(w.ctx.Err())
	}
	<-w.window // Send takes it
	b, err := w.c.d.Pool().Get(w.ctx, w.cfg.Part)
	if err != nil {
		return mr.Buf{}, w.fail(err)
	}
	return b, nil
}

// Send makes b the next part. It takes b, error or not. Parts may be of any length
// but 0, and of any memory that is registered with the client's device.
func (w *StreamWriter) Send(b mr.Buf) error {
	err := w.check()
	if err == nil {
		err = w.c.usable(b)
	}
	if err == nil && !w.last.IsZero() {
		err = w.issue()
	}
	if err != nil {
		if b.Err() == nil {
			_ = b.Release()
		}
		return w.fail(err)
	}
	w.last, w.lastAt = b, w.at
	w.at += uint64(b.Len())
	return nil
}

// issue sends the part that turned out not to be the last.
func (w *StreamWriter) issue() error {
	select {
	case w.window <- struct{}{}:
	case err := <-w.first:
		return w.fail(err)
	case <-w.ctx.Done():
		return w.fail(w.ctx.Err())
	}
	b, off := w.last, w.lastAt
	w.last = mr.Buf{}
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		rep, err := w.stream.part(off, true, WriteFrom(b))
		rep.Release()
		if err != nil {
			select {
			case w.first <- err:
			default:
			}
		}
		<-w.window
	}()
	return nil
}

// Write copies p into parts, for those who have it elsewhere; Buf and Send copy
// nothing.
func (w *StreamWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if w.part1.IsZero() {
			b, err := w.Buf()
			if err != nil {
				return done, err
			}
			w.part1, w.filled = b, 0
		}
		b, err := w.part1.Bytes()
		if err != nil {
			return done, err
		}
		n := copy(b[w.filled:], p[done:])
		w.c.stats.copied.Add(uint64(n))
		w.filled += n
		done += n
		if w.filled == len(b) {
			if err := w.flush(); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

func (w *StreamWriter) flush() error {
	if w.part1.IsZero() {
		return nil
	}
	b, err := w.part1.Narrow(0, w.filled)
	w.part1 = mr.Buf{}
	if err != nil {
		return err
	}
	return w.Send(b)
}

// Close waits until the server has answered all parts, then sends the last and
// waits for its answer. Nil says that the handler of the last part has returned
// nil. After an error, or Cancel, it only frees what is left.
func (w *StreamWriter) Close() error {
	if w.closed {
		return w.err
	}
	err := w.flush()
	w.wg.Wait()
	if err == nil {
		err = w.check()
	}
	w.closed = true
	defer w.cancel()
	if err != nil {
		w.drop()
		return w.fail(err)
	}
	var o []Option
	if !w.last.IsZero() {
		o = append(o, WriteFrom(w.last))
	} else {
		w.lastAt = w.at
	}
	w.last = mr.Buf{}
	rep, err := w.stream.part(w.lastAt, false, o...)
	if err != nil {
		return w.fail(err)
	}
	w.answer = append([]byte(nil), rep.Body...)
	rep.Release()
	return nil
}

// Cancel gives the stream up: no last part is sent. Call Close too.
func (w *StreamWriter) Cancel() { _ = w.fail(context.Canceled) }

// Answer is what the handler of the last part replied; nil before Close.
func (w *StreamWriter) Answer() []byte { return w.answer }

func (w *StreamWriter) drop() {
	for _, b := range []*mr.Buf{&w.last, &w.part1} {
		if !b.IsZero() {
			_ = b.Release()
			*b = mr.Buf{}
		}
	}
}
