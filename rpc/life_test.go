package rpc

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rdmatest"
)

// rest requires that nothing of any call is left on the server.
func (b *both) rest() {
	b.t.Helper()
	time.Sleep(100 * time.Millisecond) // acknowledgements are under way
	synctest.Wait()
	require.Equal(b.t, b.s.cfg.MaxBytes, b.s.bytes.left.Load(), "bytes of calls that have ended")
	require.Zero(b.t, b.s.nics[0].granter.Stats().Open, "offers of calls that have ended")
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	for ss := range b.s.sessions {
		ss.mu.Lock()
		require.Empty(b.t, ss.calls)
		require.Empty(b.t, ss.orders)
		ss.mu.Unlock()
	}
}

func (b *both) buf(n int) mr.Buf {
	b.t.Helper()
	x, err := b.cd.Pool().Get(ctxFor(b.t), n)
	require.NoError(b.t, err)
	return x
}

// However a call of Pull mode ends, what the server showed is taken back.
func TestOffersAlwaysEnd(t *testing.T) {
	offer := func(ctx context.Context, c *ServerCall) error {
		x, err := c.Device().Pool().Get(ctx, c.OutLen())
		if err != nil {
			return err
		}
		return c.Push(ctx, x)
	}
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, func(s *Server) {
			s.Handle("slow after the reply", func(ctx context.Context, c *ServerCall) error {
				if err := offer(ctx, c); err != nil {
					return err
				}
				err := c.Reply(nil)
				time.Sleep(100 * time.Millisecond)
				return err
			})
			s.Handle("error after the offer", func(ctx context.Context, c *ServerCall) error {
				if err := offer(ctx, c); err != nil {
					return err
				}
				return Errorf(Aborted, "no")
			})
			s.Handle("stuck", func(ctx context.Context, c *ServerCall) error {
				if err := offer(ctx, c); err != nil {
					return err
				}
				<-ctx.Done()
				return c.Reply(nil)
			})
			s.Handle("stuck after the reply", func(ctx context.Context, c *ServerCall) error {
				if err := offer(ctx, c); err != nil {
					return err
				}
				err := c.Reply(nil)
				<-ctx.Done()
				return err
			})
		})
		c := b.dial(Config{Bulk: Pull})
		r, err := c.Call(ctxFor(t), "slow after the reply", nil, ReadInto(b.buf(4096)))
		require.NoError(t, err)
		r.Release()
		_, err = c.Call(ctxFor(t), "error after the offer", nil, ReadInto(b.buf(4096)))
		require.Equal(t, Aborted, CodeOf(err))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err = c.Call(ctx, "stuck", nil, ReadInto(b.buf(4096)))
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Second)
		b.rest()
		// The session ends under the handler.
		r, err = c.Call(ctxFor(t), "stuck after the reply", nil, ReadInto(b.buf(4096)))
		require.NoError(t, err)
		r.Release()
		require.NoError(t, c.Close())
		time.Sleep(10 * time.Second)
		b.rest()
		b.close()
	})
}

// A read of the result that is given up does not leave the server waiting, and
// costs no connection.
func TestReadGivenUp(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, echo)
		c := b.dial(Config{Bulk: Pull})
		net.SetFaults(rdmatest.Faults{Bandwidth: 100 << 20})
		for _, d := range []time.Duration{2, 4, 6, 8, 10, 12, 15, 20} {
			ctx, cancel := context.WithTimeout(t.Context(), d*time.Millisecond)
			r, err := c.Call(ctx, "get", []byte{1}, ReadInto(b.buf(1<<20)))
			if err == nil {
				r.Release()
			} else {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			cancel()
		}
		time.Sleep(5 * time.Second)
		b.rest()
		require.EqualValues(t, 1, c.Stats().Sessions)
		b.close(c)
	})
}

// A call that waits for its turn and is cancelled is over at once; the order of
// the others stays.
func TestCancelledBeforeItsTurn(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		var running, seen atomic.Int32
		b := newBoth(t, net, ServerConfig{}, func(s *Server) {
			s.Handle("slow", func(context.Context, *ServerCall) error {
				if running.Add(1) > 1 {
					t.Error("two at a time")
				}
				time.Sleep(time.Second)
				running.Add(-1)
				seen.Add(1)
				return nil
			})
		})
		c := b.dial(Config{Grace: 10 * time.Second})
		res := make(chan error, 2)
		call := func() {
			r, err := c.Call(ctxFor(t), "slow", nil, Order(7))
			r.Release()
			res <- err
		}
		go call()
		time.Sleep(10 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := c.Call(ctx, "slow", nil, Order(7), ReadInto(b.buf(4096)))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		go call()
		time.Sleep(100 * time.Millisecond)
		require.EqualValues(t, 1, c.Stats().FencedByAck, "long before the handler before it returns")
		require.NoError(t, <-res)
		require.NoError(t, <-res)
		require.EqualValues(t, 2, seen.Load())
		time.Sleep(time.Second)
		b.rest()
		b.close(c)
	})
}

// A call that was never sent, without a deadline, does not wait for ever for a
// server that is gone.
func TestUnsentCallEnds(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{Config: Config{MaxCalls: 1}}, echo)
		c := b.dial(Config{DialTimeout: time.Second})
		res := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := c.Call(context.Background(), "block", nil)
				res <- err
			}()
		}
		time.Sleep(10 * time.Millisecond)
		require.NoError(t, b.s.Close())
		var lost, unsent int
		for range 2 {
			switch err := <-res; {
			case errors.Is(err, ErrIndeterminate):
				lost++
			case errors.Is(err, ErrUnavailable):
				unsent++
			case CodeOf(err) == Canceled: // the handler was quicker than the end
				lost++
			default:
				t.Error(err)
			}
		}
		require.Equal(t, []int{1, 1}, []int{lost, unsent})
		b.close(c)
	})
}

// What was sent and can not be sent again may have been done, idempotent or not.
func TestSentAndNotAgain(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, echo)
		c := b.dial(Config{NoReconnect: true})
		net.Partition(b.rs, b.rc)
		_, err := c.Call(ctxFor(t), "get", []byte{1}, ReadInto(b.buf(4096)), Idempotent())
		require.ErrorIs(t, err, ErrIndeterminate)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		net.Heal(b.rs, b.rc)
		b.close(c)
	})
}

// Close waits for what it must and leaves nothing, whatever goes on: calls,
// cancellations, dials.
func TestCloseUnderLoad(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		for i := range 3 {
			b := newBoth(t, net, ServerConfig{}, echo)
			c := b.dial(Config{Bulk: BulkMode(i % 3), DataQPs: 2, DeadAfter: 25 * time.Millisecond})
			stop := make(chan struct{})
			done := make(chan struct{}, 4)
			for g := range 4 {
				go func() {
					defer func() { done <- struct{}{} }()
					for k := 0; ; k++ {
						select {
						case <-stop:
							return
						default:
						}
						ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+(g*7+k*3)%40)*100*time.Microsecond)
						x, err := b.cd.Pool().Get(ctx, 16384)
						if err != nil {
							cancel()
							continue
						}
						m, o := "get", ReadInto(x)
						if (g+k)%2 == 0 {
							m, o = "put", WriteFrom(x)
						}
						if r, err := c.Call(ctx, m, []byte{1}, o); err == nil {
							r.Release()
						} else if errors.Is(err, ErrClosed) {
							time.Sleep(time.Millisecond)
						}
						cancel()
					}
				}()
			}
			time.Sleep(time.Duration(i) * 1500 * time.Microsecond)
			if i%4 == 3 {
				net.Partition(b.rs, b.rc)
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				net.Heal(b.rs, b.rc)
			}
			if i%3 == 0 {
				require.NoError(t, b.s.Close())
			}
			require.NoError(t, c.Close())
			require.Zero(t, c.nics[0].granter.Stats().Open)
			close(stop)
			for range 4 {
				<-done
			}
			b.close()
		}
	})
}

// A Close while another is under way waits for it: devices are closed after.
func TestCloseTwiceAtOnce(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		let := make(chan struct{})
		b := newBoth(t, net, ServerConfig{}, func(s *Server) {
			s.Handle("wait", func(context.Context, *ServerCall) error {
				<-let
				return nil
			})
		})
		cl := b.dial(Config{})
		go func() { _, _ = cl.Call(ctxFor(t), "wait", nil) }() // the server ends it
		time.Sleep(time.Millisecond)
		var ended atomic.Int32
		for range 2 {
			go func() {
				_ = b.s.Close()
				ended.Add(1)
			}()
		}
		time.Sleep(time.Second)
		require.Zero(t, ended.Load(), "a handler is under way")
		close(let)
		time.Sleep(time.Second)
		require.EqualValues(t, 2, ended.Load())
		b.close(cl)
	})
}
