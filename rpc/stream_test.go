package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rdmatest"
)

// object is a server's large object, read and written in parts.
type object struct {
	mu      sync.Mutex
	data    []byte
	written []byte
	valid   bool
	early   bool // a last part came before the others were done
	parts   int
	running int
	most    int // parts at a time
	strict  bool
}

func (o *object) serve(s *Server) {
	s.Handle("read", func(ctx context.Context, c *ServerCall) error {
		o.mu.Lock()
		o.parts++
		o.running++
		o.most = max(o.most, o.running)
		data, strict := o.data, o.strict
		o.mu.Unlock()
		defer func() {
			o.mu.Lock()
			o.running--
			o.mu.Unlock()
		}()
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
		if !c.Stream || string(c.Body) != "name" {
			return Errorf(InvalidArgument, "no part of a stream")
		}
		if c.Offset >= uint64(len(data)) {
			if strict {
				return Errorf(OutOfRange, "behind the end")
			}
			return c.Reply(nil)
		}
		n := min(c.OutLen(), len(data)-int(c.Offset))
		b, err := c.Device().Pool().Get(ctx, n)
		if err != nil {
			return err
		}
		p, err := b.Bytes()
		if err != nil {
			return err
		}
		copy(p, data[c.Offset:])
		return c.Push(ctx, b)
	})
	s.Handle("write", func(ctx context.Context, c *ServerCall) error {
		o.mu.Lock()
		o.parts++
		o.running++
		o.most = max(o.most, o.running)
		o.mu.Unlock()
		defer func() {
			o.mu.Lock()
			o.running--
			o.mu.Unlock()
		}()
		if n := c.InLen(); n > 0 {
			b, err := c.Device().Pool().Get(ctx, n)
			if err != nil {
				return err
			}
			if b, err = c.Pull(ctx, b); err != nil {
				return err
			}
			p, err := b.Bytes()
			if err != nil {
				return err
			}
			o.mu.Lock()
			if need := int(c.Offset) + n; need > len(o.written) {
				o.written = append(o.written, make([]byte, need-len(o.written))...)
			}
			copy(o.written[c.Offset:], p)
			o.mu.Unlock()
			_ = b.Release()
		}
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
		o.mu.Lock()
		defer o.mu.Unlock()
		if !c.More {
			o.valid, o.early = true, o.running > 1
			return c.Reply([]byte("stored"))
		}
		return nil
	})
}

func (o *object) set(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

func content(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestReadStream(t *testing.T) {
	for name, mode := range map[string]BulkMode{"push": Push, "pull": Pull} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *rdmatest.Network) {
				o := &object{}
				b := newBoth(t, net, ServerConfig{}, o.serve)
				c := b.dial(Config{Bulk: mode, DataQPs: 2})
				for _, n := range []int{0, 1, 4096, 4 * 65536, 1<<20 + 3} {
					time.Sleep(10 * time.Millisecond) // parts behind the end are still being handled
					o.set(func() { o.data, o.strict, o.most = content(n), n%2 == 1, 0 })
					r := c.ReadStream(ctxFor(t), "read", []byte("name"), StreamConfig{Part: 65536})
					var got []byte
					for {
						x, err := r.Next()
						if errors.Is(err, io.EOF) {
							break
						}
						require.NoError(t, err)
						p, err := x.Bytes()
						require.NoError(t, err)
						got = append(got, p...)
						require.NoError(t, x.Release())
						require.Equal(t, uint64(len(got)), r.Offset())
					}
					require.True(t, bytes.Equal(o.data, got), n)
					require.NoError(t, r.Close())
					var most int
					o.set(func() { most = o.most })
					require.LessOrEqual(t, most, 4, "the window")
					if n > 65536 {
						require.Greater(t, most, 1, "parts are under way together")
					}
					o.set(func() { o.strict = false })
					r = c.ReadStream(ctxFor(t), "read", []byte("name"), StreamConfig{Part: 4096, Offset: 7, Size: 10000})
					all, err := io.ReadAll(r)
					require.NoError(t, err)
					require.True(t, bytes.Equal(o.data[min(7, n):min(10007, n)], all))
					require.NoError(t, r.Close())
				}
				b.close(c)
			})
		})
	}
}

func TestWriteStream(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		o := &object{}
		b := newBoth(t, net, ServerConfig{}, o.serve)
		c := b.dial(Config{DataQPs: 2})
		for _, n := range []int{0, 1, 4096, 4 * 4096, 300_001} {
			o.set(func() { o.written, o.valid, o.most = nil, false, 0 })
			data := content(n)
			w := c.WriteStream(ctxFor(t), "write", []byte("name"), StreamConfig{Part: 4096, Window: 3})
			k, err := w.Write(data)
			require.NoError(t, err)
			require.Equal(t, n, k)
			require.NoError(t, w.Close())
			require.Equal(t, "stored", string(w.Answer()))
			o.set(func() {
				require.True(t, o.valid)
				require.False(t, o.early, "the last part comes when the others are done")
				require.True(t, bytes.Equal(data, o.written), n)
				require.LessOrEqual(t, o.most, 4)
				if n > 5*4096 {
					require.Greater(t, o.most, 1)
				}
			})
		}
		// Buffers of the caller's, nothing copied.
		before := c.Stats().Copied
		data := content(3 << 20)
		w := c.WriteStream(ctxFor(t), "write", []byte("name"), StreamConfig{})
		for i := range 3 {
			x, err := w.Buf()
			require.NoError(t, err)
			p, err := x.Bytes()
			require.NoError(t, err)
			copy(p, data[i<<20:])
			require.NoError(t, w.Send(x))
		}
		require.NoError(t, w.Close())
		o.set(func() { require.True(t, bytes.Equal(data, o.written[:3<<20])) })
		require.Less(t, c.Stats().Copied-before, uint64(100))
		b.close(c)
	})
}

// Streams go on over a connection that is lost, when their calls may be done twice.
func TestStreamsResume(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		o := &object{data: content(8 << 20)}
		b := newBoth(t, net, ServerConfig{}, o.serve)
		c := b.dial(Config{DeadAfter: 300 * time.Millisecond})
		net.SetFaults(rdmatest.Faults{Bandwidth: 50 << 20})
		cut := func() {
			time.Sleep(30 * time.Millisecond)
			net.Partition(b.rs, b.rc)
			time.Sleep(2 * time.Second)
			net.Heal(b.rs, b.rc)
		}
		go cut()
		r := c.ReadStream(ctxFor(t), "read", []byte("name"), StreamConfig{Part: 65536}, Idempotent())
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.Equal(o.data, got))
		require.NoError(t, r.Close())
		require.Greater(t, c.Stats().Sessions, uint64(1))
		require.NotZero(t, c.Stats().Replays)

		go cut()
		w := c.WriteStream(ctxFor(t), "write", []byte("name"), StreamConfig{Part: 65536}, Idempotent())
		_, err = w.Write(o.data)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		o.set(func() { require.True(t, bytes.Equal(o.data, o.written)) })
		b.close(c)
	})
}

// A stream that is given up leaves nothing, at any moment.
func TestStreamsGivenUp(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		o := &object{data: content(1 << 20)}
		b := newBoth(t, net, ServerConfig{}, o.serve)
		c := b.dial(Config{})
		net.SetFaults(rdmatest.Faults{Bandwidth: 200 << 20})
		for i := range 12 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*700*time.Microsecond)
			r := c.ReadStream(ctx, "read", []byte("name"), StreamConfig{Part: 65536})
			for range i {
				x, err := r.Next()
				if err != nil {
					break
				}
				_ = x.Release()
			}
			require.NoError(t, r.Close())
			o.mu.Lock()
			o.valid = false
			o.mu.Unlock()
			w := c.WriteStream(ctx, "write", []byte("name"), StreamConfig{Part: 65536})
			_, _ = w.Write(o.data)
			w.Cancel()
			require.Error(t, w.Close())
			require.Error(t, w.Close(), "and again")
			o.mu.Lock()
			require.False(t, o.valid, "a stream that was given up is not made valid")
			o.mu.Unlock()
			cancel()
		}
		time.Sleep(5 * time.Second)
		b.rest()
		b.close(c)
	})
}

// Streams that share a small pool all get to their end.
func TestStreamsShareAPool(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		o := &object{data: content(1 << 20)}
		b := newBoth(t, net, ServerConfig{}, o.serve)
		c := b.dial(Config{})
		var held []mr.Buf // all but a few
		for {
			x, err := b.cd.Pool().TryGet(65536)
			if err != nil {
				break
			}
			held = append(held, x)
		}
		for range 5 {
			_ = held[len(held)-1].Release()
			held = held[:len(held)-1]
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				r := c.ReadStream(ctxFor(t), "read", []byte("name"), StreamConfig{Part: 65536, Window: 8})
				defer r.Close()
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, o.data) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, x := range held {
			_ = x.Release()
		}
		b.close(c)
	})
}
