package link

import (
	"container/heap"
	"sync"
	"time"
)

// timeline does things at their instants, one at a time. Under a test's clock no
// two share an instant, so that everything that the first sets off has come to
// rest before the second.
type timeline struct {
	start  time.Time
	epoch  int64 // start, as time.Time counts
	strict bool  // of a test's clock: no two at the same instant, nor with a Class

	mu      sync.Mutex
	due     events
	timer   *time.Timer
	running bool  // an event is under way, and will arm the timer
	last    int64 // instant of the last event
	n       uint64
}

// event is what happens at an instant. At the same one, key decides which is
// first, then the order of adding.
type event struct {
	at  int64
	key uint64
	n   uint64
	do  func()
}

func newTimeline(strict bool) *timeline {
	now := time.Now()
	return &timeline{start: now, epoch: now.UnixNano(), strict: strict}
}

// now is in nanoseconds since the timeline's start.
func (t *timeline) now() int64 { return int64(time.Since(t.start)) }

func (t *timeline) add(at int64, key uint64, do func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
	heap.Push(&t.due, event{at, key, t.n, do})
	if !t.running && t.due[0].n == t.n {
		t.arm()
	}
}

// arm sets the timer for the first event. The caller holds mu.
func (t *timeline) arm() {
	at := max(t.due[0].at, t.last+1)
	if t.strict && (t.epoch+at)%alignStep == 0 {
		at++
	}
	d := time.Duration(at - t.now())
	if t.timer == nil {
		t.timer = time.AfterFunc(d, t.fire)
		return
	}
	t.timer.Reset(d)
}

// fire does the first event when its time has come.
func (t *timeline) fire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running {
		return
	}
	t.running = true
	for now := t.now(); len(t.due) > 0 && t.due[0].at <= now && (t.last < now || !t.strict); {
		e := heap.Pop(&t.due).(event)
		t.last = now
		t.mu.Unlock()
		e.do()
		t.mu.Lock()
	}
	t.running = false
	if len(t.due) > 0 {
		t.arm()
	}
}

// events is a heap.
type events []event

func (h events) Len() int { return len(h) }
func (h events) Less(i, j int) bool {
	a, b := &h[i], &h[j]
	if a.at != b.at {
		return a.at < b.at
	}
	if a.key != b.key {
		return a.key < b.key
	}
	return a.n < b.n
}
func (h events) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *events) Push(x any)   { *h = append(*h, x.(event)) }
func (h *events) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}
