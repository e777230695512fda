package qp

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rdmatest"
)

// Operations that join have one doorbell for many, and arrive as they were when
// they were posted.
func TestJoin(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		a, b := pairOf(t, da, db, Config{}, Config{})
		const callers, each = 16, 20
		got := make(chan uint64, callers*each)
		go func() {
			for range callers * each {
				m, err := b.Recv(t.Context())
				if err != nil {
					t.Error(err)
					close(got)
					return
				}
				p, _ := m.Buf.Bytes()
				got <- binary.LittleEndian.Uint64(p)
				_ = m.Buf.Release()
			}
			close(got)
		}()
		before := a.Stats()
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				var data [16]byte // used again at once: the post has copied it
				for j := range each {
					binary.LittleEndian.PutUint64(data[:], uint64(i*each+j))
					if err := a.Post(t.Context(), Op{Kind: Send, Data: data[:], Join: true}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		last := map[int]int{}
		for v := range got {
			i, j := int(v)/each, int(v)%each
			require.Equal(t, last[i], j, "messages of caller %d in order", i)
			last[i]++
		}
		require.Len(t, last, callers)
		after := a.Stats()
		require.GreaterOrEqual(t, after.Posted-before.Posted, uint64(callers*each))
		require.Less(t, after.Doorbells-before.Doorbells, uint64(callers*each/2))
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

// One that joined and is refused ends the connection; its memory comes back.
func TestJoinRefused(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		a, b := pairOf(t, da, db, Config{}, Config{})
		buf, err := da.Pool().Get(t.Context(), 100)
		require.NoError(t, err)
		require.NoError(t, a.qp.Close()) // behind the connection's back
		require.NoError(t, a.Post(context.Background(), Op{Kind: Send, Bufs: []mr.Buf{buf}, Join: true}), "it counts as posted")
		<-a.Done()
		require.Error(t, a.Err())
		require.Error(t, a.Post(context.Background(), Op{Kind: Send, Data: []byte("x"), Join: true}))
		require.NoError(t, a.Close())
		require.ErrorIs(t, buf.Err(), mr.ErrMoved)
		require.Zero(t, da.Pool().Stats().Leaked)
		require.NoError(t, b.Close())
	})
}
