package hub

import (
	"container/heap"
	"time"
)

// delayed is a heap of frames on their way, the next due first; frames due at
// the same time keep their order.
type delayed []delayedFrame

type delayedFrame struct {
	due      time.Time
	seq      uint64
	from, to int
	frame    []byte
}

func (d delayed) Len() int { return len(d) }
func (d delayed) Less(i, j int) bool {
	if d[i].due.Equal(d[j].due) {
		return d[i].seq < d[j].seq
	}
	return d[i].due.Before(d[j].due)
}
func (d delayed) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *delayed) Push(x any)   { *d = append(*d, x.(delayedFrame)) }
func (d *delayed) Pop() any {
	old := *d
	x := old[len(old)-1]
	old[len(old)-1] = delayedFrame{}
	*d = old[:len(old)-1]
	return x
}

func (d *delayed) add(f delayedFrame) { heap.Push(d, f) }
func (d *delayed) pop() delayedFrame  { return heap.Pop(d).(delayedFrame) }
