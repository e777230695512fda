package rpc

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/rdmatest"
)

// One session more than fits closes the one that has been idle longest; busy ones
// are left alone, and all clients go on working.
func TestMemoryLimit(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, echo)
		cfg := Config{MaxCalls: 16}
		full, err := cfg.withDefaults()
		require.NoError(t, err)
		before := Memory()
		SetMemoryLimit(before.Used + 3*full.memory())
		defer SetMemoryLimit(0)
		var cl []*Client
		call := func(i int) {
			t.Helper()
			r, err := cl[i].Call(ctxFor(t), "echo", []byte("x"))
			require.NoError(t, err)
			r.Release()
			time.Sleep(time.Millisecond)
		}
		for i := range 3 {
			cl = append(cl, b.dial(cfg))
			call(i)
		}
		require.Equal(t, before.Used+3*full.memory(), Memory().Used)
		call(0) // 1 has now been idle longest
		cl = append(cl, b.dial(cfg))
		call(3)
		require.EqualValues(t, 1, Memory().Retired-before.Retired)
		require.Equal(t, before.Used+3*full.memory(), Memory().Used)
		call(0)
		call(2)
		require.EqualValues(t, 1, cl[0].Stats().Sessions)
		require.EqualValues(t, 1, cl[2].Stats().Sessions)
		call(1) // connects again, in the place of 3
		require.EqualValues(t, 2, cl[1].Stats().Sessions)
		// All that fit are busy.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for _, c := range cl[:3] {
			wg.Go(func() {
				if _, err := c.Call(ctx, "block", nil); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		time.Sleep(10 * time.Millisecond)
		_, err = cl[3].Call(ctxFor(t), "echo", nil)
		require.ErrorIs(t, err, ErrBusy)
		require.ErrorIs(t, err, ErrUnavailable)
		wg.Wait()
		time.Sleep(10 * time.Second)
		call(3)
		b.close(cl...)
		require.Equal(t, before.Used, Memory().Used)
	})
}

// A server whose sessions share their receives posts no more than it was told to,
// however many there are, and serves them all; what does not fit is refused.
func TestSharedReceives(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		const fits = 8
		const window = 4
		b := newBoth(t, net, ServerConfig{SharedReceives: fits * 2 * (window + 8), Config: Config{Window: window}}, echo)
		var cl []*Client
		for range fits {
			cl = append(cl, b.dial(Config{MaxCalls: 16}))
		}
		_, err := Dial(ctxFor(t), b.addr, Config{Device: b.cd, Logger: quiet(), NoReconnect: true, DialTimeout: time.Second})
		require.ErrorIs(t, err, ErrUnavailable)
		var wg sync.WaitGroup
		for _, c := range cl {
			for range 40 { // many more than the window
				wg.Go(func() {
					r, err := c.Call(ctxFor(t), "echo", []byte("x"))
					if err != nil {
						t.Error(err)
					}
					r.Release()
				})
			}
			wg.Go(func() {
				r, err := c.Call(ctxFor(t), "get", []byte{1}, ReadInto(b.buf(4096)))
				if err != nil {
					t.Error(err)
				}
				r.Release()
			})
		}
		wg.Wait()
		b.close(cl...)
	})
}

// Stages are measured on both sides, in order.
func TestStages(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		var mu sync.Mutex
		var server []Stages
		b := newBoth(t, net, ServerConfig{OnHandled: func(s *Stages) {
			mu.Lock()
			defer mu.Unlock()
			server = append(server, *s)
		}}, echo)
		var client []Stages
		c := b.dial(Config{OnCall: func(s *Stages) { client = append(client, *s) }})
		net.SetFaults(rdmatest.Faults{Delay: time.Millisecond})
		r, err := c.Call(ctxFor(t), "put", nil, WriteFrom(b.buf(65536)))
		require.NoError(t, err)
		r.Release()
		r, err = c.Call(ctxFor(t), "get", []byte{1}, ReadInto(b.buf(65536)))
		require.NoError(t, err)
		r.Release()
		_, err = c.Call(ctxFor(t), "fail", nil)
		require.Error(t, err)
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, client, 3)
		require.Len(t, server, 3)
		for i, m := range []string{"put", "get", "fail"} {
			s, k := server[i], client[i]
			require.Equal(t, m, k.Method)
			require.Equal(t, m, s.Method)
			require.True(t, 0 < k.Queued && k.Queued <= k.Posted && k.Posted+2*time.Millisecond <= k.Received && k.Received <= k.Completed, "%+v", k)
			require.True(t, 0 < s.Queued && s.Queued <= s.Handled && s.Handled <= s.Completed, "%+v", s)
		}
		require.GreaterOrEqual(t, server[0].Pulled, 2*time.Millisecond)
		require.GreaterOrEqual(t, server[1].Pushed, 2*time.Millisecond)
		require.Zero(t, server[0].Pushed)
		require.Equal(t, NotFound, CodeOf(client[2].Err))
		require.Equal(t, NotFound, CodeOf(server[2].Err))
		b.close(c)
	})
}
