package rpc

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/rdmatest"
)

// A call waits for no other's handler, however many come at once; the goroutines
// that handled them are used again, and end with the server.
func TestHandlersMayBlock(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		const calls = maxIdle + 40
		var all sync.WaitGroup
		b := newBoth(t, net, ServerConfig{}, func(s *Server) {
			s.Handle("meet", func(ctx context.Context, c *ServerCall) error {
				all.Done()
				all.Wait() // until the others are here
				return c.Reply(c.Body)
			})
		})
		c := b.dial(Config{})
		for range 3 {
			all.Add(calls)
			var wg sync.WaitGroup
			for i := range calls {
				wg.Go(func() {
					r, err := c.Call(ctxFor(t), "meet", []byte{byte(i)})
					if err != nil {
						t.Error(err)
						return
					}
					require.Equal(t, []byte{byte(i)}, r.Body)
					r.Release()
				})
			}
			wg.Wait()
		}
		synctest.Wait()
		w := &b.s.workers
		w.mu.Lock()
		require.LessOrEqual(t, len(w.idle), maxIdle)
		require.False(t, w.coming)
		require.Nil(t, w.first)
		w.mu.Unlock()
		b.close(c)
	})
}
