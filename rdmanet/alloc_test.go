package rdmanet

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// While the peer makes room in time, Write and Read allocate nothing. (A
// network of rdmatest does, to keep its log.)
func TestNoAllocs(t *testing.T) {
	if raceBuild {
		return // the detector allocates
	}
	a, b := here(t).pair(t, Config{MessageSize: 4096, Window: 256})
	require.NoError(t, a.SetDeadline(time.Now().Add(patience)))
	for _, n := range []int{1, 64, 1000, 16 << 10, 200_000} {
		data, in := make([]byte, n), make([]byte, n)
		got := make(chan error)
		go func() {
			for {
				_, err := io.ReadFull(b, in)
				got <- err
				if err != nil {
					return
				}
			}
		}()
		send := func() {
			if _, err := a.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := <-got; err != nil {
				t.Fatal(err)
			}
		}
		for range 50 { // the pool cuts its memory into buffers at first use
			send()
		}
		per := testing.AllocsPerRun(500, send)
		require.Less(t, per, 0.5, "%d bytes", n)
		require.NoError(t, b.SetReadDeadline(time.Unix(1, 0)))
		require.Error(t, <-got)
		require.NoError(t, b.SetReadDeadline(time.Time{}))
	}
}
