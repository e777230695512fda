package roce

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
)

// virtualRun works over a bad network in virtual time and gives what passed on it.
func virtualRun(t *testing.T, seed uint64) (log string, took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := link.Faulty(link.Memory(seed, link.MemOptions{Virtual: true}), seed)
		f.SetAll(link.Rules{Drop: .05, Reorder: .05, Duplicate: .05})
		var b strings.Builder
		f.Observe(func(s *link.Seen) { fmt.Fprintln(&b, s.String()) })
		x, y := connected(newEnd(t, f, 0), newEnd(t, f, 1), provider.QPTRC)
		for i := range uint64(30) {
			n := int(i*i*13) + 1
			y.postRecv(i, y.sge(1<<20, 1<<20))
			x.post(provider.WR{ID: i, Opcode: provider.WRSend}, x.sge(0, n))
			require.Equal(t, uint32(n), ok(t, y.recv, i).ByteLen)
			ok(t, x.send, i)
		}
		require.NoError(t, x.qp.Close())
		require.NoError(t, y.qp.Close())
		log, took = b.String(), time.Since(start)
	})
	return log, took
}

func TestVirtualTimeRepeats(t *testing.T) {
	log, took := virtualRun(t, 1)
	require.NotEmpty(t, log)
	for range 3 {
		again, took2 := virtualRun(t, 1)
		require.Equal(t, log, again)
		require.Equal(t, took, took2)
	}
	other, _ := virtualRun(t, 2)
	require.NotEqual(t, log, other)
}
