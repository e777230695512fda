package roce

import (
	"time"

	"github.com/zrdma/zrdma/internal/roce/link"
)

// timers is a heap of queue pairs by the time they want to be looked at. A
// deadline that moved on is left where it is and found out when it comes up, so
// that a packet which restarts a timer costs nothing.
type timers struct {
	heap  []*qp // by q.at; q.slot is the place, plus one
	timer *time.Timer
	armed int64 // when timer fires, 0: not set
}

// follow takes note of q's deadline.
func (t *timers) follow(q *qp) {
	d := q.eng.deadline()
	switch {
	case d == 0 || q.closed:
	case q.slot == 0:
		q.at = d
		t.heap = append(t.heap, q)
		q.slot = len(t.heap)
		t.up(q.slot - 1)
	case d < q.at:
		q.at = d
		t.up(q.slot - 1)
	}
}

// remove forgets q.
func (t *timers) remove(q *qp) {
	if q.slot == 0 {
		return
	}
	i, last := q.slot-1, len(t.heap)-1
	t.swap(i, last)
	t.heap[last] = nil
	t.heap = t.heap[:last]
	q.slot = 0
	if i < last {
		t.up(i)
		t.down(i)
	}
}

func (t *timers) swap(i, j int) {
	h := t.heap
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i+1, j+1
}

func (t *timers) up(i int) {
	for p := (i - 1) / 2; i > 0 && t.heap[i].at < t.heap[p].at; i, p = p, (p-1)/2 {
		t.swap(i, p)
	}
}

func (t *timers) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(t.heap) {
			return
		}
		if c+1 < len(t.heap) && t.heap[c+1].at < t.heap[c].at {
			c++
		}
		if t.heap[i].at <= t.heap[c].at {
			return
		}
		t.swap(i, c)
		i = c
	}
}

// arm sets the timer for what comes next: at once when sending was cut short.
func (n *node) arm(now int64) {
	t := &n.timers
	var next int64
	switch {
	case n.run.n > 0 && n.nStuck == 0:
		next = now
	case len(t.heap) > 0:
		next = t.heap[0].at
	}
	if len(n.owed) > 0 && (next == 0 || next > n.owedAt+ackWait) {
		next = n.owedAt + ackWait
	}
	if next == 0 {
		return
	}
	if t.armed != 0 && t.armed <= next {
		return
	}
	t.armed = next
	wait := time.Duration(max(next-now, 0))
	if n.net != nil && n.net.Virtual() {
		wait = link.Align(wait, link.TimerWait)
	}
	if t.timer == nil {
		t.timer = time.AfterFunc(wait, n.onTimer)
	} else {
		t.timer.Reset(wait)
	}
}

// drainRounds bounds what onTimer reads.
const drainRounds = 16

// onTimer acts on the deadlines that have come and goes on sending. What has
// arrived counts first: on a busy machine answers lie in the socket while the
// timer that waits for them runs out, and sending all again makes it no better.
func (n *node) onTimer() {
	for range drainRounds {
		if n.progress() == 0 {
			break
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &n.timers
	t.armed = 0
	if !n.open {
		return
	}
	now := n.now()
	for len(t.heap) > 0 && t.heap[0].at <= now {
		q := t.heap[0]
		t.remove(q)
		if d := q.eng.deadline(); d != 0 && d <= now {
			q.eng.tick(now) // leaves no deadline that has passed
			n.schedule(q)
		}
		t.follow(q)
	}
	if len(n.owed) > 0 {
		if now-n.owedAt < ackWait {
			n.pumpAll(now, pumpBudget)
			n.flush()
			n.arm(now)
			return
		}
		n.eager = eagerFor
	}
	n.pump(now, pumpBudget)
	n.arm(now)
}
