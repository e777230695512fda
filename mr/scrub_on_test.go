//go:build invariants

package mr

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Released memory is poison, and a write into it is seen when it is handed out again.
func TestPoison(t *testing.T) {
	p := pool(t, small())
	b := get(t, p, 100)
	kept, err := b.Bytes()
	require.NoError(t, err)
	for i := range kept {
		kept[i] = byte(i)
	}
	require.NoError(t, b.Release())
	for _, c := range kept {
		require.EqualValues(t, poison, c, "who kept the slice sees it")
	}
	require.Zero(t, p.Stats().Damaged)
	kept[50] = 1
	require.NoError(t, get(t, p, 100).Release())
	require.EqualValues(t, 1, p.Stats().Damaged)
	require.Contains(t, logs.String(), "memory was written after it was released")
}
