package rpc

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rdmatest"
)

func TestTokens(t *testing.T) {
	virtual(t, func(t *testing.T, _ *rdmatest.Network) {
		var k tokens
		k.resize(2)
		require.True(t, k.try())
		require.True(t, k.try())
		require.False(t, k.try())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, k.take(ctx, nil), context.DeadlineExceeded)
		over := make(chan struct{})
		close(over)
		require.ErrorIs(t, k.take(t.Context(), over), ErrUnavailable)
		var order []int
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				if k.take(t.Context(), nil) == nil {
					order = append(order, i)
					time.Sleep(time.Millisecond)
					k.give()
				}
			})
			time.Sleep(time.Microsecond)
		}
		require.False(t, k.try())
		k.resize(1) // with two out
		k.give()
		require.False(t, k.try())
		k.give()
		wg.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4}, order, "in the order they came")
		out, waits := k.used()
		require.Zero(t, out)
		require.EqualValues(t, 7, waits)
	})
}

// However many calls there are, no more than DeviceReads are read at a time, and no
// more than DevicePushes pushed: the others are fetched. All end well, and all
// tokens come back.
func TestDeviceBudget(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		var pushed, offered atomic.Int32
		b := newBoth(t, net, ServerConfig{Config: Config{DeviceReads: 3}}, func(s *Server) {
			echo(s)
			get := s.methods[MethodID("get")].h
			s.Handle("look", func(ctx context.Context, c *ServerCall) error {
				err := get(ctx, c)
				if len(c.offers) > 0 {
					offered.Add(1)
				} else {
					pushed.Add(1)
				}
				return err
			})
			s.Handle("pieces", func(ctx context.Context, c *ServerCall) error {
				n := c.OutLen()
				for off := n - n/2; off >= 0; off -= n / 2 { // from the end
					p, err := c.Device().Pool().Get(ctx, n/2)
					if err != nil {
						return err
					}
					q, err := p.Bytes()
					if err != nil {
						return err
					}
					for i := range q {
						q[i] = byte(off + i)
					}
					if err := c.PushAt(ctx, off, p); err != nil {
						return err
					}
				}
				return c.Reply(nil)
			})
		})
		c := b.dial(Config{DeviceReads: 2, DevicePushes: 4})
		budget := c.nics[0].budget
		stop := make(chan struct{})
		watched := make(chan int)
		go func() {
			most := 0
			for {
				for _, k := range []struct {
					t     *tokens
					limit int
				}{{&budget.reads, 2}, {&budget.pushes, 4}, {&b.s.nics[0].budget.reads, 3}} {
					out, _ := k.t.used()
					most = max(most, out)
					if out > k.limit {
						t.Errorf("%d of %d tokens are out", out, k.limit)
					}
				}
				select {
				case <-stop:
					watched <- most
					return
				case <-time.After(10 * time.Microsecond):
				}
			}
		}()
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				buf, err := b.cd.Pool().Get(ctxFor(t), 100_000)
				require.NoError(t, err)
				method, o := "look", ReadInto(buf)
				if i%3 == 0 {
					method, o = "put", WriteFrom(buf)
				}
				r, err := c.Call(ctxFor(t), method, []byte{1}, o)
				if err != nil {
					t.Error(method, err)
					return
				}
				if method == "look" {
					require.Equal(t, 100_000, r.Pushed)
					buf = r.Buf(0)
					p, err := buf.Bytes()
					require.NoError(t, err)
					require.Len(t, p, 100_000)
					for j := range p {
						if p[j] != 1+byte(j) {
							t.Errorf("byte %d is wrong", j)
							break
						}
					}
					_ = buf.Release()
				}
				r.Release()
			})
		}
		wg.Wait()
		close(stop)
		require.GreaterOrEqual(t, <-watched, 2)
		require.NotZero(t, pushed.Load())
		require.NotZero(t, offered.Load(), "beyond DevicePushes results are fetched")
		require.EqualValues(t, 20, pushed.Load()+offered.Load())
		require.NotZero(t, c.Rails()[0].ReadWaits)

		// A result in pieces: forced to be fetched, or with no token left.
		for name, cfg := range map[string]Config{"pull": {Bulk: Pull}, "auto": {}} {
			p := b.dial(cfg)
			var held int
			for budget.pushes.try() {
				held++
			}
			buf, err := b.cd.Pool().Get(ctxFor(t), 100_000)
			require.NoError(t, err)
			r, err := p.Call(ctxFor(t), "pieces", nil, ReadInto(buf))
			require.NoError(t, err, name)
			require.Equal(t, 100_000, r.Pushed)
			buf = r.Buf(0)
			q, err := buf.Bytes()
			require.NoError(t, err)
			for j := range q {
				if q[j] != byte(j) {
					t.Fatalf("%s: byte %d is wrong", name, j)
				}
			}
			r.Release()
			require.NoError(t, buf.Release())
			for range held {
				budget.pushes.give()
			}
			require.NoError(t, p.Close())
		}
		for _, k := range []*tokens{&budget.reads, &budget.pushes, &b.s.nics[0].budget.reads} {
			out, _ := k.used()
			require.Zero(t, out)
		}
		b.close(c)
		nicBudgets.Lock()
		defer nicBudgets.Unlock()
		require.NotContains(t, nicBudgets.of, b.cd, "a budget of nobody")
	})
}

// Memory that is registered with the first device alone is registered with the
// others when it is used there.
func TestRailsRegister(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		r := newRailed(t, net, ServerConfig{}, false)
		c := r.dial(Config{})
		r.await(c, RailUp, RailUp)
		reg, err := mr.Alloc(1<<20, mr.Config{}, r.cds[0].PD())
		require.NoError(t, err)
		buf, err := reg.Buf(0, 1<<20)
		require.NoError(t, err)
		rep, err := c.Call(ctxFor(t), "get", []byte{0}, ReadInto(buf))
		require.NoError(t, err)
		require.Len(t, reg.Domains(), 2)
		buf = rep.Buf(0)
		rep.Release()
		require.NoError(t, buf.Release())
		require.NoError(t, reg.Close())
		other, err := mr.Alloc(4096, mr.Config{}, r.cds[1].PD()) // and not the other way round
		require.NoError(t, err)
		buf, err = other.Buf(0, 4096)
		require.NoError(t, err)
		_, err = c.Call(ctxFor(t), "get", []byte{0}, ReadInto(buf))
		require.True(t, errors.Is(err, ErrForeignBuffer), err)
		require.NoError(t, other.Close())
		r.close(c)
	})
}
