package dpu_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/rpc"
)

// The calls do the same over both paths.
func TestOffloadSameCalls(t *testing.T) {
	for _, verify := range []bool{false, true} {
		t.Run(fmt.Sprint("verify=", verify), func(t *testing.T) {
			rdmatest.Run(t, 1, func(t *testing.T, net *rdmatest.Network) {
				w := newRig(t, net)
				w.ccfg.Verify = verify
				w.up()
				for _, p := range []dpu.Path{dpu.Staged, dpu.Direct} {
					ctx := dpu.WithPath(t.Context(), p)
					for i, n := range []int{1, 7, 4096, 16<<10 - 1, 16 << 10, 16<<10 + 1, 5*16<<10 + 3, 1 << 20} {
						k := key(i)
						require.NoError(t, w.put(ctx, k, n, uint64(i)), "%v %d", p, n)
						got, err := w.get(ctx, k, 1<<20)
						require.NoError(t, err, "%v %d", p, n)
						same(t, content(n, uint64(i)), got)
						in, err := w.c.Stat(ctx, k)
						require.NoError(t, err)
						require.Equal(t, uint32(n), in.Size)
						require.Equal(t, k, in.Key)
						_, err = w.get(ctx, k, n)
						require.NoError(t, err)
						if n > 1 {
							_, err = w.get(ctx, k, n-1)
							require.Equal(t, rpc.OutOfRange, rpc.CodeOf(err), "%v", err)
						}
					}
					l, err := w.c.List(ctx, "", 100)
					require.NoError(t, err)
					require.Len(t, l, 8)
					require.Equal(t, "block-0", l[0].Key)
					l, err = w.c.List(ctx, l[6].Key, 100)
					require.NoError(t, err)
					require.Len(t, l, 1)
					l, err = w.c.List(ctx, l[0].Key, 100)
					require.NoError(t, err)
					require.Empty(t, l)
					require.NoError(t, w.c.Delete(ctx, key(3)))
					for what, err := range map[string]error{"delete": w.c.Delete(ctx, key(3)), "stat": second(w.c.Stat(ctx, key(3))), "get": second(w.get(ctx, key(3), 10))} {
						require.Equal(t, rpc.NotFound, rpc.CodeOf(err), "%s: %v", what, err)
					}
				}
				st := w.c.Stats()
				require.Zero(t, st.FellBack)
				require.Equal(t, st.Direct, st.Staged, "each path did the same")
				require.EqualValues(t, 8*4+3+1, st.Direct)
				w.down()
			})
		})
	}
}

func second[T any](_ T, err error) error { return err }

// Many at a time: descriptors and status entries share doorbells.
func TestOffloadBatches(t *testing.T) {
	rdmatest.Run(t, 2, func(t *testing.T, net *rdmatest.Network) {
		w := newRig(t, net)
		w.ccfg.Depth = 24 // less than workers: some wait, and the ring turns round often
		w.up()
		net.SetFaults(rdmatest.Faults{Delay: 200 * time.Microsecond})
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				for j := range 8 {
					n := 1000 + 1000*i
					if err := w.put(dpu.WithPath(t.Context(), dpu.Staged), key(i), n, uint64(i*100+j)); err != nil {
						t.Error(err)
						return
					}
					got, err := w.get(dpu.WithPath(t.Context(), dpu.Staged), key(i), n)
					if err != nil || string(got) != string(content(n, uint64(i*100+j))) {
						t.Error(i, j, err)
						return
					}
				}
			})
		}
		wg.Wait()
		st := w.c.Stats()
		require.EqualValues(t, 640, st.Staged)
		require.EqualValues(t, 640, st.Descriptors)
		require.EqualValues(t, 640, st.Statuses)
		t.Logf("640 operations: %d doorbells with descriptors, %d announcements of status entries", st.Doorbells, st.StatusWrites)
		require.Less(t, st.Doorbells, uint64(400))
		require.Less(t, st.StatusWrites, uint64(400))
		require.Zero(t, st.Depth)
		w.down()
	})
}

// Without an agent, or with one that comes later, nothing fails.
func TestOffloadAgentComesLater(t *testing.T) {
	rdmatest.Run(t, 3, func(t *testing.T, net *rdmatest.Network) {
		w := newRig(t, net)
		w.hostUp()
		require.False(t, w.c.Stats().Up)
		require.NoError(t, w.put(t.Context(), "k", 100_000, 1))
		err := w.put(dpu.WithPath(t.Context(), dpu.Staged), "k", 100_000, 2)
		require.ErrorIs(t, err, dpu.ErrNoAgent)
		err = w.put(dpu.WithPath(t.Context(), dpu.CrossGVMI), "k", 100_000, 2)
		require.Error(t, err)
		require.NotZero(t, w.count(dpu.AgentAway))
		w.agentUp()
		time.Sleep(3 * time.Second)
		require.True(t, w.c.Stats().Up)
		got, err := w.get(t.Context(), "k", 100_000)
		require.NoError(t, err)
		same(t, content(100_000, 1), got)
		require.EqualValues(t, 1, w.c.Stats().Staged)
		if err := w.put(dpu.WithPath(t.Context(), dpu.CrossGVMI), "k", 100_000, 2); !errors.Is(err, errors.ErrUnsupported) {
			t.Error("cross-GVMI is not built in:", err)
		}
		w.down()
	})
}

// An agent that is asked to end finishes what it has; nothing fails, nothing is lost.
func TestOffloadDrain(t *testing.T) {
	rdmatest.Run(t, 4, func(t *testing.T, net *rdmatest.Network) {
		w := newRig(t, net)
		w.up()
		net.SetFaults(rdmatest.Faults{Delay: time.Millisecond})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 20 {
					if err := w.put(t.Context(), key(i), 50_000, uint64(j)); err != nil {
						t.Error(err)
					}
					if got, err := w.get(t.Context(), key(i), 50_000); err != nil || string(got) != string(content(50_000, uint64(j))) {
						t.Error(err)
					}
				}
			})
		}
		time.Sleep(30 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.NoError(t, w.agent.Shutdown(ctx))
		require.NoError(t, <-w.aserved)
		wg.Wait()
		st := w.c.Stats()
		t.Logf("%+v", st)
		require.NotZero(t, st.Staged)
		require.NotZero(t, st.Direct)
		require.Zero(t, st.Lost)
		require.Zero(t, st.Fences)
		require.EqualValues(t, 1, w.count(dpu.AgentDrains))
		w.aserved = make(chan error, 1)
		w.aserved <- nil
		w.down()
	})
}

// A call whose context ends returns at once; its memory comes back when the agent is
// done with it, and not before.
func TestOffloadCancelled(t *testing.T) {
	rdmatest.Run(t, 5, func(t *testing.T, net *rdmatest.Network) {
		w := newRig(t, net)
		w.up()
		require.NoError(t, w.put(t.Context(), "k", 500_000, 1))
		net.SetFaults(rdmatest.Faults{Delay: 2 * time.Millisecond})
		r := rng(5, 5)
		for range 60 {
			d := time.Duration(r.IntN(20000)) * time.Microsecond
			ctx, cancel := context.WithTimeout(dpu.WithPath(t.Context(), dpu.Staged), d)
			start := time.Now()
			_, err := w.get(ctx, "k", 500_000)
			if err != nil {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Less(t, time.Since(start), d+time.Millisecond)
			}
			cancel()
		}
		time.Sleep(time.Second)
		st := w.c.Stats()
		require.Zero(t, st.Lost, "cancelling costs no agent")
		require.Zero(t, st.Depth)
		require.NotZero(t, w.agent.Stats().Cancelled)
		w.down()
	})
}
