package qp

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/zrdma/zrdma/mr"
)

// call is a synchronous caller's wait for one operation.
type call struct {
	c     *Conn
	state atomic.Int32 // waiting, or what ended it
	ready chan struct{}
	err   error    // valid once ready
	bufs  []mr.Buf // valid once ready
	in    [1]mr.Buf
}

const (
	callWaiting int32 = iota
	callAnswered
	callAbandoned
)

// newCall takes one that is free. The pool is the connection's: a channel must not
// wander between the bubbles of testing/synctest.
func (c *Conn) newCall() *call {
	k, _ := c.calls.Get().(*call)
	if k == nil {
		k = &call{c: c, ready: make(chan struct{}, 1)}
	}
	k.state.Store(callWaiting)
	k.err, k.bufs = nil, k.bufs[:0]
	return k
}

func (k *call) free() {
	clear(k.bufs)
	k.c.calls.Put(k)
}

// finish is called by who completes the operation. A caller that has gone away
// gets nothing: the memory goes back to where it came from.
func (k *call) finish(flights []flight, err error) {
	if !k.state.CompareAndSwap(callWaiting, callAnswered) {
		for _, x := range flights {
			x.Release()
		}
		k.free()
		return
	}
	k.err = err
	for _, x := range flights {
		k.bufs = append(k.bufs, x.Complete())
	}
	k.ready <- struct{}{}
}

// Do posts one operation and waits until it has completed; Done and Token are
// not used. The Bufs that come back are new rights to the same memory.
//
// When ctx ends the wait ends, not the operation: the library keeps the buffers
// until the device is done with them, then releases them, and returns none. An
// operation that was not posted leaves its buffers with the caller and returns
// them too.
func (c *Conn) Do(ctx context.Context, op Op) ([]mr.Buf, error) {
	k := c.newCall()
	if err := c.await(ctx, op, k); err != nil {
		if err == errAbandoned {
			return nil, ctx.Err()
		}
		if len(k.bufs) == 0 {
			k.free()
			return op.Bufs, err
		}
		bufs := append([]mr.Buf(nil), k.bufs...)
		k.free()
		return bufs, err
	}
	bufs := append([]mr.Buf(nil), k.bufs...)
	k.free()
	return bufs, nil
}

var errAbandoned = fmt.Errorf("qp: the wait was abandoned")

// await posts op for k. errAbandoned: k belongs to the completion.
func (c *Conn) await(ctx context.Context, op Op, k *call) error {
	op.Done = nil
	one := [1]Op{op}
	if err := c.post(ctx, one[:], k, true); err != nil {
		return err
	}
	select {
	case <-k.ready:
	case <-ctx.Done():
		if k.state.CompareAndSwap(callWaiting, callAbandoned) {
			c.stats.abandoned.Add(1)
			return errAbandoned
		}
		<-k.ready
	}
	return k.err
}

// one does an operation with one buffer.
func (c *Conn) one(ctx context.Context, op Op, b mr.Buf) (mr.Buf, error) {
	k := c.newCall()
	k.in[0] = b
	op.Bufs = k.in[:]
	err := c.await(ctx, op, k)
	if err == errAbandoned {
		return mr.Buf{}, fmt.Errorf("qp: %v: %w", op.Kind, ctx.Err())
	}
	if len(k.bufs) == 1 {
		b = k.bufs[0]
	}
	k.free()
	return b, err
}

// Send sends b as one message and waits until the peer's device has it. It takes
// b in any case, error or not, and releases it when the device is done.
//
// Verb: ibv_post_send(3).
func (c *Conn) Send(ctx context.Context, b mr.Buf) error {
	b, err := c.one(ctx, Op{Kind: Send}, b)
	if !b.IsZero() {
		_ = b.Release()
	}
	return err
}

// SendBytes sends a copy of data: in its work request when it is short, else in a
// buffer of the device's pool.
//
// Verb: ibv_post_send(3).
func (c *Conn) SendBytes(ctx context.Context, data []byte) error {
	if len(data) <= c.inline && len(data) > 0 {
		k := c.newCall()
		err := c.await(ctx, Op{Kind: Send, Data: data}, k)
		if err == errAbandoned {
			return ctx.Err()
		}
		k.free()
		return err
	}
	b, err := c.dev.pool.Get(ctx, len(data))
	if err != nil {
		return err
	}
	p, err := b.Bytes()
	if err != nil {
		return err
	}
	copy(p, data)
	c.stats.copied.Add(uint64(len(data)))
	return c.Send(ctx, b)
}

// Write puts b into memory of the peer and waits until it is there. It returns b
// as a new right; a zero Buf when ctx ended first (see Do).
//
// Verb: ibv_post_send(3).
func (c *Conn) Write(ctx context.Context, b mr.Buf, to Remote) (mr.Buf, error) {
	return c.one(ctx, Op{Kind: Write, Remote: to}, b)
}

// WriteImm is Write that also gives the peer a Message with an immediate.
//
// Verb: ibv_post_send(3).
func (c *Conn) WriteImm(ctx context.Context, b mr.Buf, to Remote, imm uint32) (mr.Buf, error) {
	return c.one(ctx, Op{Kind: WriteImm, Remote: to, Imm: imm, HasImm: true}, b)
}

// Read fills b from memory of the peer.
//
// Verb: ibv_post_send(3).
func (c *Conn) Read(ctx context.Context, b mr.Buf, from Remote) (mr.Buf, error) {
	return c.one(ctx, Op{Kind: Read, Remote: from}, b)
}

// CompareAndSwap puts swap into 8 bytes of the peer's memory if they hold
// compare, in one atomic step as far as the peer's device goes, and returns what
// they held. Values are in the peer's byte order.
//
// Verb: ibv_post_send(3).
func (c *Conn) CompareAndSwap(ctx context.Context, at Remote, compare, swap uint64) (uint64, error) {
	return c.atomic(ctx, Op{Kind: CompareAndSwap, Remote: at, Compare: compare, Swap: swap})
}

// FetchAdd adds to 8 bytes of the peer's memory and returns what they held.
//
// Verb: ibv_post_send(3).
func (c *Conn) FetchAdd(ctx context.Context, at Remote, add uint64) (uint64, error) {
	return c.atomic(ctx, Op{Kind: FetchAdd, Remote: at, Add: add})
}

func (c *Conn) atomic(ctx context.Context, op Op) (uint64, error) {
	b, err := c.dev.pool.Get(ctx, 8)
	if err != nil {
		return 0, err
	}
	b, err = c.one(ctx, op, b)
	if b.IsZero() {
		return 0, err
	}
	defer b.Release()
	if err != nil {
		return 0, err
	}
	p, err := b.Bytes()
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(p), nil
}

// Flush waits until everything posted before has completed.
func (c *Conn) Flush(ctx context.Context) error {
	if err := c.slots.take(ctx, c.cfg.SendDepth); err != nil {
		return err
	}
	c.slots.give(c.cfg.SendDepth)
	return nil
}
