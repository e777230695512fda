package cm

import "time"

// timerHeap orders connections by deadline; slot is a connection's place plus
// one, 0 when it is not there.
type timerHeap []*conn

func (h timerHeap) less(i, j int) bool { return h[i].deadline.Before(h[j].deadline) }

func (h timerHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i+1, j+1
}

func (h timerHeap) up(i int) {
	for i > 0 && h.less(i, (i-1)/2) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h timerHeap) down(i int) {
	for {
		k := 2*i + 1
		if k >= len(h) {
			return
		}
		if k+1 < len(h) && h.less(k+1, k) {
			k++
		}
		if !h.less(k, i) {
			return
		}
		h.swap(i, k)
		i = k
	}
}

func (h *timerHeap) set(c *conn, at time.Time) {
	h.remove(c)
	c.deadline = at
	*h = append(*h, c)
	c.slot = len(*h)
	h.up(c.slot - 1)
}

func (h *timerHeap) remove(c *conn) {
	if c.slot == 0 {
		return
	}
	i, last := c.slot-1, len(*h)-1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	c.slot, c.deadline = 0, time.Time{}
	if i < last {
		h.up(i)
		h.down(i)
	}
}
