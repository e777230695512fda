package rpc

import (
	"context"

	"github.com/zrdma/zrdma/mr"
)

// Option changes one call.
type Option struct {
	kind optKind
	buf  mr.Buf
	n    uint64
}

type optKind uint8

const (
	optRead optKind = 1 + iota
	optWrite
	optIdempotent
	optOrder
	optWait
	optOffset
)

// ReadInto gives the call a buffer that the server fills, by ServerCall.Push. The
// CPU copies nothing. The call takes b; Reply.Buf is the new right to it.
func ReadInto(b mr.Buf) Option { return Option{kind: optRead, buf: b} }

// WriteFrom gives the call a buffer that the server reads, by ServerCall.Pull. The
// call takes b; Reply.Buf is the new right to it.
func WriteFrom(b mr.Buf) Option { return Option{kind: optWrite, buf: b} }

// Idempotent says that the call may be done twice: when the connection ends before
// the answer it is sent again over the next one.
func Idempotent() Option { return Option{kind: optIdempotent} }

// Order makes calls with equal keys, not 0, be handled one after the other, in the
// order they were sent. Calls under way at the same time, Go's among them, are
// sent in any order.
func Order(key uint32) Option { return Option{kind: optOrder, n: uint64(key)} }

// WaitForServer makes the call wait for a connection until its context ends, where
// one failed attempt to connect would end it.
func WaitForServer() Option { return Option{kind: optWait} }

// part makes the call one of a stream: its data begins at off.
func part(off uint64, more bool) Option {
	o := Option{kind: optOffset, n: off << 1}
	if more {
		o.n |= 1
	}
	return o
}

// Reply is the answer to a call. It must not be used after Release: the next call
// has it then.
type Reply struct {
	// Body is what the handler gave to Reply: lent, until Release.
	Body []byte
	// Pushed is how many bytes the handler put into the ReadInto buffer, up to the
	// end of the last of them.
	Pushed int

	c    *Client
	msg  mr.Buf
	bufs [2]mr.Buf
	n    int
}

// Release gives back the memory of the answer, and the buffers of the call that
// were not taken by Buf.
func (r *Reply) Release() {
	if r == nil || r.c == nil {
		return
	}
	if !r.msg.IsZero() {
		_ = r.msg.Release()
	}
	for i := range r.n {
		if !r.bufs[i].IsZero() {
			_ = r.bufs[i].Release()
		}
	}
	c := r.c
	*r = Reply{}
	c.replies.Put(r)
}

// Buf takes the i-th buffer that was given to the call out of the reply: it is the
// caller's to release. Zero when it was taken before. In Pull mode a ReadInto
// buffer is cut to what the server gave.
func (r *Reply) Buf(i int) mr.Buf {
	if r == nil || i < 0 || i >= r.n {
		return mr.Buf{}
	}
	b := r.bufs[i]
	r.bufs[i] = mr.Buf{}
	return b
}

// Invoker does a call; see ClientInterceptor.
type Invoker func(ctx context.Context, method string, body []byte, opts []Option) (*Reply, error)

// ClientInterceptor is put around every call. One that does not call next must
// release the buffers that the call was given: ReleaseAll does.
type ClientInterceptor func(ctx context.Context, method string, body []byte, opts []Option, next Invoker) (*Reply, error)

// ReleaseAll releases the buffers in opts.
func ReleaseAll(opts []Option) {
	for _, o := range opts {
		if !o.buf.IsZero() && o.buf.Err() == nil {
			_ = o.buf.Release()
		}
	}
}

func chain(l []ClientInterceptor, last Invoker) Invoker {
	for i := len(l) - 1; i >= 0; i-- {
		f, next := l[i], last
		last = func(ctx context.Context, method string, body []byte, opts []Option) (*Reply, error) {
			return f(ctx, method, body, opts, next)
		}
	}
	return last
}
