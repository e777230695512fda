package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/mr"
)

// step does one call, or only holds memory for a while.
func (c *simClient) step(r *rand.Rand) {
	w := c.w
	time.Sleep(time.Duration(r.IntN(20000)) * time.Microsecond)
	if r.IntN(5) == 0 {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		b, err := c.d.Pool().Get(ctx, 1+r.IntN(simBlock))
		cancel()
		if err == nil {
			c.hold(b, r)
		}
		return
	}
	id := w.id.Add(1)
	limit := time.Duration(1+r.IntN(4000)) * time.Millisecond
	if r.IntN(4) == 0 {
		limit = time.Duration(1+r.IntN(5000)) * time.Microsecond
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	ended := make(chan time.Time, 1)
	stop := context.AfterFunc(ctx, func() { ended <- time.Now() })
	if r.IntN(3) == 0 { // given up
		give := time.AfterFunc(time.Duration(r.IntN(5000))*time.Microsecond, cancel)
		defer give.Stop()
	}
	pause := uint32(0)
	if r.IntN(3) == 0 {
		pause = uint32(r.IntN(300_000))
	}
	method, body, opts := c.call(ctx, r, id, pause)
	if method == "" {
		return
	}
	idempotent := r.IntN(3) == 0
	if idempotent {
		opts = append(opts, Idempotent())
	}
	if r.IntN(3) == 0 {
		opts = append(opts, WaitForServer())
	}
	if r.IntN(4) == 0 {
		opts = append(opts, Order(uint32(1+r.IntN(3))))
	}
	var rep *Reply
	var err error
	if r.IntN(2) == 0 {
		rep, err = c.c.Call(ctx, method, body, opts...)
	} else {
		var times atomic.Int32
		ch := make(chan struct{})
		c.c.Go(ctx, method, body, func(x *Reply, e error) {
			if times.Add(1) > 1 {
				w.t.Errorf("call %d ended twice", id)
				return
			}
			rep, err = x, e
			close(ch)
		}, opts...)
		<-ch
	}
	if !stop() {
		if late := time.Since(<-ended); late > time.Second {
			w.t.Errorf("call %d (%s) ended %v after its context: %v", id, method, late, err)
		}
	}
	c.ended(r, id, method, body, idempotent, rep, err)
}

// call makes up a call.
func (c *simClient) call(ctx context.Context, r *rand.Rand, id uint64, pause uint32) (method string, body []byte, opts []Option) {
	w := c.w
	body = w.body(id, pause)
	method = []string{"echo", "echo", "get", "get", "put", "put", "turn", "fail", "panic"}[r.IntN(9)]
	buf := func(fill bool) (mr.Buf, bool) {
		n := 1 + r.IntN(simBlock)
		if r.IntN(2) == 0 {
			n = 1 + r.IntN(4096)
		}
		b, err := c.d.Pool().Get(ctx, n)
		if err != nil {
			return b, false
		}
		p, err := b.Bytes()
		if err != nil {
			w.t.Error(err)
			return b, false
		}
		if fill {
			pattern(p, id)
		} else {
			clear(p)
		}
		return b, true
	}
	switch method {
	case "echo":
		rest := make([]byte, r.IntN(380))
		pattern(rest, id)
		body = append(body, rest...)
	case "get":
		b, ok := buf(false)
		if !ok {
			return "", nil, nil
		}
		opts = append(opts, ReadInto(b))
	case "put":
		b, ok := buf(true)
		if !ok {
			return "", nil, nil
		}
		opts = append(opts, WriteFrom(b))
	case "turn":
		b, ok := buf(true)
		if !ok {
			return "", nil, nil
		}
		into, ok := buf(false)
		if !ok {
			_ = b.Release()
			return "", nil, nil
		}
		opts = append(opts, WriteFrom(b), ReadInto(into))
	}
	return method, body, opts
}

// ended checks how a call ended.
func (c *simClient) ended(r *rand.Rand, id uint64, method string, body []byte, idempotent bool, rep *Reply, err error) {
	w := c.w
	w.mu.Lock()
	done := w.done[id]
	w.mu.Unlock()
	if !idempotent && done > 1 {
		w.t.Errorf("call %d (%s) was done %d times", id, method, done)
	}
	if err != nil {
		w.outcome[min(CodeOf(err), 31)].Add(1)
		if rep != nil {
			w.t.Errorf("call %d (%s): an answer and an error, %v", id, method, err)
		}
		indeterminate := errors.Is(err, ErrIndeterminate)
		if !idempotent && done > 0 && errors.Is(err, ErrUnavailable) && !indeterminate {
			w.t.Errorf("call %d (%s) was done, and its error says that it was not: %v", id, method, err)
		}
		switch code := CodeOf(err); code {
		case Canceled, DeadlineExceeded, Unavailable, ResourceExhausted:
		case NotFound:
			if method != "fail" {
				w.t.Errorf("call %d (%s) has the error of another: %v", id, method, err)
			}
		case Internal:
			if method != "panic" {
				w.t.Errorf("call %d (%s) has the error of another: %v", id, method, err)
			}
		default:
			w.t.Errorf("call %d (%s): %v", id, method, err)
		}
		return
	}
	w.outcome[OK].Add(1)
	if done == 0 {
		w.t.Errorf("call %d (%s) was answered by nobody", id, method)
	}
	if len(rep.Body) < 12 || binary.LittleEndian.Uint64(rep.Body) != id {
		w.t.Errorf("call %d (%s) got the answer %x", id, method, rep.Body)
	}
	if method == "echo" && (len(rep.Body) != len(body) || scan(rep.Body[12:], id) >= 0) {
		w.t.Errorf("call %d: the echo is another's", id)
	}
	for i := range rep.n {
		b := rep.Buf(i)
		p, err := b.Bytes()
		if err != nil {
			w.t.Errorf("call %d (%s): buffer %d: %v", id, method, i, err)
			continue
		}
		if at := scan(p, id); at >= 0 {
			w.t.Errorf("call %d (%s): byte %d of %d in buffer %d is not of this call", id, method, at, len(p), i)
		}
		if r.IntN(2) == 0 {
			c.hold(b, r)
		} else if err := b.Release(); err != nil {
			w.t.Error(err)
		}
	}
	rep.Release()
}

// hold fills memory and looks at random later moments whether it has changed.
func (c *simClient) hold(b mr.Buf, r *rand.Rand) {
	w := c.w
	p, err := b.Bytes()
	if err != nil {
		w.t.Error(err)
		return
	}
	id := r.Uint64()
	pattern(p, id)
	looks := 1 + r.IntN(3)
	pause := time.Duration(1+r.IntN(400_000)) * time.Microsecond
	w.holds.Go(func() {
		for range looks {
			time.Sleep(pause)
			if at := scan(p, id); at >= 0 {
				w.t.Errorf("byte %d of %d of a buffer that was handed back has changed", at, len(p))
				return
			}
		}
		if err := b.Release(); err != nil {
			w.t.Error(err)
		}
	})
}
