package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"unsafe"

	"github.com/zrdma/zrdma/mr"
)

// Call calls a method with body as its arguments, and waits for the answer. Blocks
// of data go as buffers: ReadInto and WriteFrom.
//
// When ctx ends, Call returns at once with its error. The peer is told; buffers of
// the call stay with the library until neither side's device can touch them, and
// are then released. So they are after every error.
func (c *Client) Call(ctx context.Context, method string, body []byte, opts ...Option) (*Reply, error) {
	if c.invoke == nil {
		return c.call(ctx, method, body, opts)
	}
	// A copy: what interceptors may keep must not make the callers' slices escape.
	return c.invoke(ctx, method, append([]byte(nil), body...), append([]Option(nil), opts...))
}

// Go is Call that does not wait: done gets the result, in a goroutine of its own.
func (c *Client) Go(ctx context.Context, method string, body []byte, done func(*Reply, error), opts ...Option) {
	opts = append([]Option(nil), opts...)
	go func() { done(c.Call(ctx, method, body, opts...)) }()
}

// MethodID is the number of a method on the wire: the CRC-32C of its name.
func MethodID(name string) uint32 {
	return crc32.Checksum(unsafe.Slice(unsafe.StringData(name), len(name)), crcTable)
}

// request is a call as it is sent.
type request struct {
	method     string
	body       []byte
	bufs       [2]mr.Buf
	dirs       [2]mr.Direction
	cut        [2]bool // slices of the buffer were taken, and not it
	n          int
	idempotent bool
	wait       bool
	stream     bool
	more       bool
	offset     uint64
	order      uint32
	token      [tokenLen]byte
	trace      *Stages
	push       *nicBudget // a token of its pushes is the call's
}

// outLen is how many bytes the server may give.
func (r *request) outLen() (n int) {
	for i := range r.n {
		if r.dirs[i] == mr.DeviceWrites {
			n += r.bufs[i].Len()
		}
	}
	return n
}

// parse takes the options; the buffers are the request's, error or not.
func (r *request) parse(c *Client, opts []Option) (err error) {
	for _, o := range opts {
		switch o.kind {
		case optRead, optWrite:
			if r.n == len(r.bufs) {
				err = &Error{Code: InvalidArgument, Message: fmt.Sprintf("at most %d buffers", len(r.bufs))}
				_ = o.buf.Release()
				continue
			}
			r.bufs[r.n], r.dirs[r.n] = o.buf, mr.DeviceWrites
			if o.kind == optWrite {
				r.dirs[r.n] = mr.DeviceReads
			}
			r.n++
		case optIdempotent:
			r.idempotent = true
		case optOrder:
			r.order = uint32(o.n)
		case optWait:
			r.wait = true
		case optOffset:
			r.stream, r.offset, r.more = true, o.n>>1, o.n&1 != 0
		}
	}
	for i := range r.n {
		if e := c.usable(r.bufs[i]); e != nil && err == nil {
			err = e
		}
	}
	if r.n == 2 && r.dirs[0] == r.dirs[1] && err == nil {
		err = &Error{Code: InvalidArgument, Message: "two buffers of one direction: one ReadInto and one WriteFrom at most"}
	}
	return err
}

// usable says what is wrong with a buffer for a call.
func (c *Client) usable(b mr.Buf) error {
	switch err := b.Err(); {
	case err != nil:
		return &Error{Code: InvalidArgument, Message: "a buffer that is not the caller's to give", Cause: err}
	case b.Len() == 0:
		return &Error{Code: InvalidArgument, Message: "a buffer of no bytes"}
	case b.Region().MR(c.nics[0].d.PD()) == nil:
		return &Error{Code: InvalidArgument, Message: "a buffer", Cause: ErrForeignBuffer}
	}
	return nil
}

// release gives up the buffers that are still the request's: what was granted
// comes back by itself.
func (r *request) release() {
	for i := range r.n {
		if b := r.bufs[i]; !b.IsZero() && (r.cut[i] || b.Err() == nil) {
			_ = b.Release()
		}
	}
}

func (c *Client) call(ctx context.Context, method string, body []byte, opts []Option) (*Reply, error) {
	r := request{method: method, body: body}
	err := r.parse(c, opts)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && !c.gate.enter() {
		err = ErrClosed
	} else if err == nil {
		defer c.gate.leave()
	}
	c.stats.calls.Add(1)
	if err == nil {
		if f := c.cfg.OnCall; f != nil {
			r.trace = startStages(method)
			defer func() { r.trace.finish(f) }()
		}
		if r.idempotent {
			binary.LittleEndian.PutUint64(r.token[:], c.bootID)
			binary.LittleEndian.PutUint64(r.token[8:], c.token.Add(1))
		}
		var rep *Reply
		rep, err = c.try(ctx, &r)
		if r.push != nil {
			r.push.pushes.give()
		}
		if err == nil {
			return rep, nil
		}
	}
	r.release()
	c.stats.failed.Add(1)
	if r.trace != nil {
		r.trace.Err = err
	}
	var e *Error
	if !errors.As(err, &e) {
		return nil, &Error{Code: CodeOf(err), Method: method, Cause: err}
	}
	if e.Method == "" {
		e.Method = method
	}
	return nil, err
}

// try sends the call until it is answered, or may not be sent again.
func (c *Client) try(ctx context.Context, r *request) (*Reply, error) {
	sent := false // it may have been done
	for replay := false; ; replay = true {
		cs, err := c.session(ctx, r.wait || replay && r.idempotent)
		if err != nil {
			if sent {
				err = fmt.Errorf("%w: %w", ErrIndeterminate, err)
			}
			return nil, err
		}
		rep, err := cs.do(ctx, r, sent)
		if err == nil {
			return rep, nil
		}
		var lost *lostError
		if !errors.As(err, &lost) {
			return nil, err
		}
		sent = sent || lost.sent
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case sent && !r.idempotent, sent && c.isClosed(), lost.memory != nil:
			if !sent {
				return nil, fmt.Errorf("%w: %w", ErrUnavailable, lost.memory)
			}
			return nil, fmt.Errorf("%w: %w", ErrIndeterminate, lost.cause)
		}
		c.stats.replays.Add(1)
	}
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// lostError: the session ended under a call.
type lostError struct {
	sent   bool
	memory error // its buffers are not back, so it cannot be sent again
	cause  error
}

func (e *lostError) Error() string { return "rpc: session ended: " + e.cause.Error() }
func (e *lostError) Unwrap() error { return e.cause }
