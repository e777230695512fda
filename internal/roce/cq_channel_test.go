package roce

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
)

type getResult struct {
	cookie uint64
	err    error
}

func get(ctx context.Context, ch *compChannel) chan getResult {
	r := make(chan getResult, 1)
	go func() {
		c, err := ch.Get(ctx)
		r <- getResult{c, err}
	}()
	return r
}

func result(t *testing.T, r chan getResult) getResult {
	t.Helper()
	select {
	case x := <-r:
		return x
	case <-time.After(20 * time.Second):
		t.Fatal("Get hangs")
		panic("unreachable")
	}
}

func TestChannelEnds(t *testing.T) {
	bg := context.Background()
	ch := newCompChannel(&node{})
	_, err := ch.TryGet()
	require.Equal(t, syscall.EAGAIN, err)

	ctx, cancel := context.WithCancel(bg)
	r := get(ctx, ch)
	cancel()
	require.ErrorIs(t, result(t, r).err, context.Canceled)
	_, err = ch.Get(ctx)
	require.ErrorIs(t, err, context.Canceled, "at once")
	ctx, cancel = context.WithTimeout(bg, time.Millisecond)
	defer cancel()
	_, err = ch.Get(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	ch.Kick()
	_, err = ch.Get(bg)
	require.Equal(t, syscall.EAGAIN, err, "the next one, when none is under way")
	r = get(bg, ch)
	for len(ch.turn) == 0 {
		time.Sleep(100 * time.Microsecond)
	}
	ch.Kick()
	require.Equal(t, syscall.EAGAIN, result(t, r).err, "the one under way")

	// Three wait, two of them for their turn.
	var rs []chan getResult
	for range 3 {
		rs = append(rs, get(bg, ch))
	}
	ch.Interrupt()
	for _, r := range rs {
		require.Equal(t, syscall.ECANCELED, result(t, r).err)
	}
	_, err = ch.Get(bg)
	require.Equal(t, syscall.ECANCELED, err)
	_, err = ch.TryGet()
	require.Equal(t, syscall.ECANCELED, err)
	require.NoError(t, ch.Close())
}

// One that waits for its turn honours its context, and events go to whoever waits.
func TestChannelTurns(t *testing.T) {
	ch := newCompChannel(&node{})
	q := newCQ(t, objects(false), provider.CQInit{CQE: 64, Cookie: 9, Channel: ch})
	first := get(context.Background(), ch)
	for len(ch.turn) == 0 {
		time.Sleep(100 * time.Microsecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	second := get(ctx, ch)
	cancel()
	require.ErrorIs(t, result(t, second).err, context.Canceled)
	third := get(context.Background(), ch)
	for range 2 {
		require.NoError(t, q.ReqNotify(false))
		q.add(1, 1)
	}
	require.Equal(t, getResult{9, nil}, result(t, first))
	require.Equal(t, getResult{9, nil}, result(t, third))
}

// Events of a queue that closed are gone, those of others stay in order.
func TestChannelForgets(t *testing.T) {
	c := objects(false)
	ch := newCompChannel(&node{})
	var qs [3]*cq
	for i := range qs {
		qs[i] = newCQ(t, c, provider.CQInit{CQE: 8, Cookie: uint64(i), Channel: ch})
	}
	for range 2 {
		for _, q := range qs {
			require.NoError(t, q.ReqNotify(false))
			q.add(1, 1)
		}
	}
	first, err := ch.TryGet()
	require.NoError(t, err)
	require.Zero(t, first)
	require.NoError(t, qs[1].ReqNotify(false))
	require.NoError(t, qs[1].Close())
	qs[1].add(2, 1)
	var got []uint64
	for {
		k, err := ch.TryGet()
		if err != nil {
			require.Equal(t, syscall.EAGAIN, err)
			break
		}
		got = append(got, k)
	}
	require.Equal(t, []uint64{2, 0, 2}, got)

	// Long queues of events, taken while they grow.
	want, next := uint64(0), uint64(0)
	for i := range 3000 {
		for range 1 + i%3 {
			q := newCQ(t, c, provider.CQInit{CQE: 1, Cookie: next, Channel: ch})
			next++
			require.NoError(t, q.ReqNotify(false))
			q.add(1, 1)
		}
		k, err := ch.TryGet()
		require.NoError(t, err)
		require.Equal(t, want, k)
		want++
	}
	for ; want < next; want++ {
		k, err := ch.TryGet()
		require.NoError(t, err)
		require.Equal(t, want, k)
	}
	require.Empty(t, ch.events)
}

// Queues close while completions come and somebody waits.
func TestChannelCloseRace(t *testing.T) {
	c := objects(false)
	ch := newCompChannel(&node{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if _, err := ch.Get(context.Background()); errors.Is(err, syscall.ECANCELED) {
				return
			}
		}
	})
	for i := range uint64(500) {
		q := newCQ(t, c, provider.CQInit{CQE: 8, Cookie: i, Channel: ch})
		var in sync.WaitGroup
		in.Go(func() {
			for range 5 {
				_ = q.ReqNotify(false)
				q.add(1, 1)
			}
		})
		require.NoError(t, q.Close())
		in.Wait()
		ch.mu.Lock()
		require.NotContains(t, ch.events, q)
		ch.mu.Unlock()
		ch.Kick()
	}
	ch.Interrupt()
	wg.Wait()
	require.NoError(t, ch.Close())
}
