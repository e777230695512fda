package rdmanet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/rdmatest"
)

// slowWriter takes what it is given only when it is let go.
type slowWriter struct{ in, out chan struct{} }

func (w *slowWriter) Write(p []byte) (int, error) {
	w.in <- struct{}{}
	<-w.out
	return len(p), nil
}

// Close does not wait for a reader that is away in a Writer, and the reader's memory
// comes back when it returns.
func TestCloseBesideWriteTo(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		a, b := p.pair(t, Config{})
		w := &slowWriter{make(chan struct{}), make(chan struct{})}
		done := make(chan error, 1)
		go func() {
			_, err := a.WriteTo(w)
			done <- err
		}()
		_, err := b.Write(make([]byte, 5000))
		require.NoError(t, err)
		<-w.in
		require.NoError(t, a.Close())
		close(w.out)
		require.Error(t, <-done)
		require.True(t, a.cur.IsZero())
	})
}

// What was written and is lost with the connection is told: by Close, when no call
// did before.
func TestCloseTellsOfLoss(t *testing.T) {
	inVirtual(t, func(t *testing.T, n *rdmatest.Network, da, db *rdmatest.Device, a, b *Conn) {
		n.Partition(da, db)
		_, err := a.Write([]byte("precious"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Error(t, a.QP().Err())
		require.ErrorIs(t, a.Close(), ErrUndelivered)
	})
}
