package dpu_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/rdmatest"
)

// zombieRead lets an agent hang with a block on its way into the host's memory, and go
// on after the host has given it up. It returns how many bytes the late writes have
// changed in memory that the host uses for something else by then.
func zombieRead(t *testing.T, net *rdmatest.Network, r uint64, fence bool) (changed int) {
	const size = 200_000
	w := newRig(t, net)
	w.up()
	until := make(chan struct{})
	if !fence {
		w.c.PutOffFences(until)
	}
	require.NoError(t, w.put(dpu.WithPath(t.Context(), dpu.Direct), "k", size, 1))
	at := rng(r, 1).IntN(13) // 13 chunks and a status
	hung, resume := w.stall(at)
	w.agent.SetDeaf(true)
	b := w.buf(size, 50)
	p := w.bytes(b)
	start := time.Now()
	b, err := w.c.Get(dpu.WithPath(t.Context(), dpu.Staged), "k", b)
	select {
	case <-hung:
	default:
		t.Fatal("the agent did not hang")
	}
	if fence {
		require.NoError(t, err)
		same(t, content(size, 1), w.bytes(b), "the read ran again, into the same buffer")
		require.Same(t, &p[0], &w.bytes(b)[0])
		require.EqualValues(t, 1, w.c.Stats().FellBack)
		require.Less(t, time.Since(start), 2*w.ccfg.Lease, "the lease, and the fence")
	} else {
		require.ErrorIs(t, err, dpu.ErrAgentLost)
	}
	// The memory is used for something else, and only then the agent goes on.
	block.Content(p, 77)
	resume()
	time.Sleep(2 * time.Second)
	want := content(size, 77)
	for i := range p {
		if p[i] != want[i] {
			changed++
		}
	}
	if fence {
		require.NoError(t, b.Release())
	} else {
		close(until)
		time.Sleep(time.Second)
	}
	w.down()
	return changed
}

// A zombie's late write does not reach the host's memory; without the fence it does.
func TestZombieWritesLate(t *testing.T) {
	for seed := *simSeed; seed < *simSeed+uint64(*simSeeds); seed++ {
		for _, fence := range []bool{true, false} {
			if raceBuild && !fence {
				continue // the race detector sees what this shows; `make soft` runs it without
			}
			t.Run(fmt.Sprint("seed=", seed, "/fence=", fence), func(t *testing.T) {
				rdmatest.Run(t, seed, func(t *testing.T, net *rdmatest.Network) {
					n := zombieRead(t, net, seed, fence)
					if fence {
						require.Zero(t, n, "bytes changed after they were the program's again")
					} else {
						require.NotZero(t, n, "no late write was seen without a fence: the other case proves nothing")
					}
				})
			})
		}
	}
}

// zombiePut lets an agent hang with a write that it is about to hand to the server, and
// go on after the host has written the block itself.
func zombiePut(t *testing.T, net *rdmatest.Network, tokens bool) []byte {
	w := newRig(t, net)
	if !tokens {
		w.agentUp()
		w.hostUp()
		require.NoError(t, w.c.Close())
		w.ccfg.Direct = struct{ dpu.Blocks }{w.ccfg.Direct} // what has no tokens
		w.hostUp()
	} else {
		w.up()
	}
	hung, over := make(chan struct{}), make(chan struct{})
	w.agent.SetGate(func(point string) {
		if point == "backend" {
			close(hung)
		}
		select {
		case <-hung:
			<-over
		default:
		}
	})
	w.agent.SetDeaf(true)
	err := w.put(dpu.WithPath(t.Context(), dpu.Staged), "k", 10_000, 1)
	<-hung
	if tokens {
		require.NoError(t, err)
		require.EqualValues(t, 1, w.c.Stats().Replayed)
	} else {
		require.ErrorIs(t, err, dpu.ErrIndeterminate)
		require.EqualValues(t, 1, w.c.Stats().Indeterminate)
	}
	require.NoError(t, w.put(dpu.WithPath(t.Context(), dpu.Direct), "k", 10_000, 2))
	close(over)
	time.Sleep(2 * time.Second)
	got, err := w.get(dpu.WithPath(t.Context(), dpu.Direct), "k", 10_000)
	require.NoError(t, err)
	w.down()
	return got
}

// A zombie's late write is refused by the server: the host's later one stays. Without
// tokens the host is told that it does not know, and the late write is done.
func TestZombiePutsLate(t *testing.T) {
	rdmatest.Run(t, 1, func(t *testing.T, net *rdmatest.Network) {
		same(t, content(10_000, 2), zombiePut(t, net, true))
	})
	rdmatest.Run(t, 2, func(t *testing.T, net *rdmatest.Network) {
		same(t, content(10_000, 1), zombiePut(t, net, false), "the control: without a fence at the server the late write is done")
	})
}

// What happens to writes whose agent dies, by what the server can say of them.
func TestLostWrites(t *testing.T) {
	for name, x := range map[string]struct {
		stall string // where the agent hangs
		n     int
		size  int
	}{
		"before its data was read": {"data", 0, 60_000},
		"between parts":            {"backend", 2, 60_000},
		"before the commit":        {"backend", 4, 60_000},
		"after the commit":         {"status", 0, 60_000},
		"after a small one":        {"status", 0, 500},
	} {
		t.Run(name, func(t *testing.T) {
			rdmatest.Run(t, 9, func(t *testing.T, net *rdmatest.Network) {
				w := newRig(t, net)
				var done atomic.Int64
				w.onWriteRestart(func(string, dpu.Token) { done.Add(1) })
				w.up()
				over := make(chan struct{})
				var mu sync.Mutex
				hung := false // guarded by mu
				n := x.n      // guarded by mu
				w.agent.SetGate(func(point string) {
					mu.Lock()
					if point == "data" && x.stall == "status" && done.Load() > 0 || point == x.stall && n == 0 {
						hung = true
					} else if point == x.stall {
						n--
					}
					wait := hung
					mu.Unlock()
					if wait {
						<-over
					}
				})
				require.NoError(t, w.put(dpu.WithPath(t.Context(), dpu.Staged), "k", x.size, 3))
				mu.Lock()
				require.True(t, hung)
				mu.Unlock()
				require.EqualValues(t, 1, done.Load(), "it was done once")
				st := w.c.Stats()
				require.EqualValues(t, 1, st.FellBack)
				require.EqualValues(t, 1, st.Replayed)
				close(over)
				time.Sleep(time.Second)
				require.EqualValues(t, 1, done.Load())
				got, err := w.get(t.Context(), "k", x.size)
				require.NoError(t, err)
				same(t, content(x.size, 3), got)
				w.down()
			})
		})
	}
}

// A server that was started again does not know whether a write was done, except the
// last one of each block.
func TestLostWritesAndServer(t *testing.T) {
	for _, applied := range []bool{true, false} {
		t.Run(fmt.Sprint("applied=", applied), func(t *testing.T) {
			rdmatest.Run(t, 10, func(t *testing.T, net *rdmatest.Network) {
				w := newRig(t, net)
				var done atomic.Int64
				w.onWriteRestart(func(string, dpu.Token) { done.Add(1) })
				w.up()
				over := make(chan struct{})
				var hung atomic.Bool
				w.agent.SetGate(func(point string) {
					due := point == "backend" && !applied || point == "data" && applied && done.Load() > 0
					if due && hung.CompareAndSwap(false, true) {
						go func() { w.storageDown(); w.storageUp() }()
					}
					if hung.Load() {
						<-over
					}
				})
				err := w.put(dpu.WithPath(t.Context(), dpu.Staged), "k", 500, 3)
				require.True(t, hung.Load())
				if applied {
					require.NoError(t, err)
					require.EqualValues(t, 1, done.Load())
				} else {
					require.ErrorIs(t, err, dpu.ErrIndeterminate)
					require.Zero(t, done.Load())
				}
				close(over)
				time.Sleep(3 * time.Second)
				// From then on all is as before.
				require.NoError(t, w.put(dpu.WithPath(t.Context(), dpu.Staged), "k", 500, 4))
				require.NoError(t, w.put(dpu.WithPath(t.Context(), dpu.Direct), "k", 500, 5))
				got, err := w.get(t.Context(), "k", 500)
				require.NoError(t, err)
				same(t, content(500, 5), got)
				w.down()
			})
		})
	}
}

// onWriteRestart starts the store again with a hook.
func (w *rig) onWriteRestart(f func(string, dpu.Token)) {
	w.storageDown()
	w.onWrite = f
	w.storageUp()
}
