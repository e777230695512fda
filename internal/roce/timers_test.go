package roce

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// clockEngine is an engine that has nothing but a deadline.
type clockEngine struct {
	engine
	at int64
}

func (c *clockEngine) deadline() int64 { return c.at }

// TestTimersModel holds the heap against a list: a deadline never passes unseen.
func TestTimersModel(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	var heap timers
	qps := make([]*qp, 50)
	clocks := make([]*clockEngine, len(qps))
	for i := range qps {
		clocks[i] = &clockEngine{}
		qps[i] = &qp{eng: clocks[i]}
	}
	for now := int64(1); now < 5000; now++ {
		i := r.IntN(len(qps))
		switch r.IntN(4) {
		case 0:
			heap.remove(qps[i])
			clocks[i].at = 0
		case 1:
			clocks[i].at = 0
			heap.follow(qps[i])
		default:
			clocks[i].at = now + r.Int64N(200)
			heap.follow(qps[i])
		}
		for len(heap.heap) > 0 && heap.heap[0].at <= now { // as onTimer does
			q := heap.heap[0]
			c := q.eng.(*clockEngine)
			heap.remove(q)
			if c.at != 0 && c.at <= now {
				c.at = 0
			}
			heap.follow(q)
		}
		for i, c := range clocks {
			require.False(t, c.at != 0 && c.at <= now, "the deadline of %d passed", i)
			q := qps[i]
			if q.slot == 0 {
				require.Zero(t, c.at)
				continue
			}
			require.Same(t, q, heap.heap[q.slot-1])
			require.True(t, c.at == 0 || q.at <= c.at)
		}
		require.True(t, len(heap.heap) == 0 || heap.heap[0].at == slices.MinFunc(heap.heap, func(a, b *qp) int { return int(a.at - b.at) }).at)
	}
}

func TestRunQueue(t *testing.T) {
	var r runQueue
	var want []*qp
	for i := range 3000 {
		if i%3 != 2 {
			q := &qp{}
			r.push(q)
			want = append(want, q)
			continue
		}
		require.Same(t, want[0], r.pop())
		want = want[1:]
	}
	require.Equal(t, len(want), r.n)
}
