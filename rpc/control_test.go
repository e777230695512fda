//go:build !race

package rpc

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
)

// TestStormWithoutFence is the control of TestStorm: it touches the memory as soon
// as the call has returned, as it would be without fences, and must see writes that
// come after that. (The race detector sees them as well, so this is not for it.)
func TestStormWithoutFence(t *testing.T) {
	w := newStorm(t, Config{DataQPs: 2})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var calls, late atomic.Int64
	var wg sync.WaitGroup
	for i := range *stormWorkers {
		r := rand.New(rand.NewPCG(9, uint64(i)))
		wg.Go(func() {
			own, err := mr.Alloc(stormBlock, mr.Config{Huge: mr.HugeOff}, w.cd.PD())
			if err != nil {
				t.Error(err)
				return
			}
			from := source{w: w, own: own}
			for ctx.Err() == nil && late.Load() < 20 {
				b, err := from.get(ctx, stormBlock)
				if ctx.Err() != nil {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				p, err := b.Bytes()
				if err != nil {
					t.Error(err)
					return
				}
				call, stop := context.WithTimeout(ctx, time.Duration(r.Int64N(2*w.usual.Load())))
				start := time.Now()
				id := uint64(w.id.Add(1))
				rep, err := w.c.Call(call, "get", []byte{byte(id), byte(id >> 8), byte(id >> 16), 0, 0, 0, 0, 0}, ReadInto(b))
				stop()
				calls.Add(1)
				if err == nil {
					w.usual.Store((7*w.usual.Load() + int64(time.Since(start))) / 8)
					rep.Release()
					continue
				}
				poison := r.Uint64()
				pattern(p, poison)
				time.Sleep(2 * time.Millisecond)
				if scan(p, poison) >= 0 {
					late.Add(1)
				}
			}
			last, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			b, err := from.get(last, 1) // it is back
			if err == nil {
				err = b.Release()
			}
			if err == nil {
				err = own.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("without a fence: %d late writes in %d calls", late.Load(), calls.Load())
	require.NotZero(t, late.Load(), "no late write without a fence: TestStorm proves nothing here")
	w.close()
}
