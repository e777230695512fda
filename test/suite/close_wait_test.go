package suite_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// TestCloseWakesWait: a queue that closes ends a Wait parked on its channel, and
// leaves the channel usable.
func TestCloseWakesWait(t *testing.T) {
	e := newEnv(t, testDevice(t))
	ch := e.channel()
	q, err := e.ctx.CreateCQ(16, &verbs.CQConfig{Channel: ch})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := q.Wait(context.Background(), make([]verbs.WC, 1), 0)
		done <- err
	}()
	time.Sleep(50 * time.Millisecond) // let it park; when it has not, the test is only weaker
	require.NoError(t, q.Close())
	select {
	case err := <-done:
		require.ErrorIs(t, err, verbs.ErrClosed)
	case <-time.After(waitLimit):
		t.Fatal("Wait did not notice that its queue closed")
	}

	// The channel still serves another queue.
	q2 := e.cq(16, &verbs.CQConfig{Channel: ch})
	p := e.pair(verbs.QPConfig{SendCQ: q2}, link{})
	m := e.mr(64, verbs.AccessLocalWrite)
	e.recv(p.b, verbs.RecvWR{ID: 1, SGList: sgl(m.SGE(0, 64))})
	e.send(p.a, verbs.SendWR{ID: 2, Opcode: verbs.WRSend, SGList: sgl(m.SGE(0, 8))})
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	n, err := q2.Wait(ctx, make([]verbs.WC, 4), 0)
	require.NoError(t, err)
	require.NotZero(t, n)
}
