package perf

import (
	"context"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// goal says how far a lane sends.
type goal struct {
	count int             // messages of each queue pair; 0: until end
	end   time.Time       // zero: none
	stop  context.Context // ends the sending
}

func (g *goal) reached(k *link, now time.Time) bool {
	if g.count > 0 {
		return k.posted >= g.count || g.stop.Err() != nil
	}
	return g.stop.Err() != nil || !g.end.IsZero() && now.After(g.end)
}

// source keeps as many messages under way as the depth, until the goal is
// reached and all have completed. Messages of the peer are received meanwhile.
func (l *lane) source(ctx context.Context, g goal) error {
	for {
		now := time.Now()
		open := false // more is to be sent
		under := 0
		for _, k := range l.links {
			if !g.reached(k, now) {
				open = true
				if err := l.fill(k, &g, now); err != nil {
					return err
				}
			}
			// The goal may have been reached in the middle of fill.
			if err := l.flush(k); err != nil {
				return err
			}
			under += k.posted - k.done
		}
		if under == 0 {
			if !open {
				return nil
			}
			continue // nothing would come
		}
		if err := l.take(ctx); err != nil {
			return err
		}
	}
}

// fill posts requests while there is room for a batch.
func (l *lane) fill(k *link, g *goal, now time.Time) error {
	if err := k.postRecvs(); err != nil {
		return err
	}
	for !g.reached(k, now) {
		n := l.c.Batch
		if g.count > 0 {
			n = min(n, g.count-k.posted)
		}
		if k.posted-k.done+n > l.c.Depth {
			return nil
		}
		for i := range n {
			at := k.posted + i + 1
			w := &k.sends[i]
			w.Flags, w.ID = 0, sendBit|uint64(at)
			// The last one before a batch that does not fit asks too, or there would
			// never be room again.
			if at%l.c.Signal == 0 || at == g.count || i == n-1 && at-k.done+l.c.Batch > l.c.Depth {
				w.Flags = verbs.SendSignaled
				k.stamps[(k.first+k.under)%len(k.stamps)] = now
				k.under++
			}
		}
		m, err := k.qp.PostSend(k.sends[:n])
		k.posted += m
		if err != nil {
			return err
		}
	}
	return nil
}

// flush asks for a completion of the last request when nobody has: a goal that
// is a time is reached anywhere between two signals.
func (l *lane) flush(k *link) error {
	if k.posted == k.done || k.under > 0 {
		return k.postRecvs()
	}
	w := &k.sends[0]
	w.Flags, w.ID = verbs.SendSignaled, sendBit|uint64(k.posted+1)
	k.stamps[(k.first+k.under)%len(k.stamps)] = time.Now()
	k.under++
	n, err := k.qp.PostSend(k.sends[:1])
	k.posted += n
	return err
}

// take waits for completions and counts them.
func (l *lane) take(ctx context.Context) error {
	n, err := l.wait(ctx)
	if err != nil {
		return err
	}
	var now time.Time
	received := int64(0)
	for i := range n {
		w := &l.wc[i]
		if err := verbs.WCErr(w); err != nil {
			return err
		}
		k := l.byQPN[w.QPN]
		if w.WRID&sendBit == 0 {
			k.owed++
			received++
			continue
		}
		if now.IsZero() {
			now = time.Now()
		}
		at := int(w.WRID &^ sendBit)
		l.sent.Add(int64(at - k.done))
		k.done = at
		l.record(now.Sub(k.stamps[k.first]))
		k.first = (k.first + 1) % len(k.stamps)
		k.under--
	}
	if received > 0 {
		l.received.Add(received)
	}
	return nil
}

// record counts a latency; one beyond the range counts as its end.
func (l *lane) record(d time.Duration) {
	_ = l.hist.RecordValue(min(max(int64(d), 1), int64(time.Minute)))
}

// sink receives, until ctx ends.
func (l *lane) sink(ctx context.Context) error {
	for {
		for _, k := range l.links {
			if k.owed >= min(pollBatch, k.rx/2) {
				if err := k.postRecvs(); err != nil {
					return err
				}
			}
		}
		if err := l.take(ctx); err != nil {
			return err
		}
	}
}
