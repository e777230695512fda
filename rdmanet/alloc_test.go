package rdmanet

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// In the steady state Write and Read allocate nothing. (A
// network of rdmatest does, to keep its log.)
func TestNoAllocs(t *testing.T) {
	if raceBuild || testDevice() != "" {
		return // the detector allocates, and so does waking from a kernel device's event
	}
	a, b := here(t).pair(t, Config{})
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
		per := testing.AllocsPerRun(200, func() {
			if _, err := a.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := <-got; err != nil {
				t.Fatal(err)
			}
		})
		require.Less(t, per, 0.5, "%d bytes", n)
		require.NoError(t, b.SetReadDeadline(time.Unix(1, 0)))
		require.Error(t, <-got)
		require.NoError(t, b.SetReadDeadline(time.Time{}))
	}
}
