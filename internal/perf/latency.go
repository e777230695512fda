package perf

import (
	"context"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// turn posts at most one receive and one send of a queue pair, and waits for
// want completions. Polling, it is one call into the provider.
func (l *lane) turn(ctx context.Context, k *link, send bool, want int) error {
	var sends []verbs.SendWR
	if send {
		k.posted++
		sends = k.sends[:1]
		sends[0].Flags, sends[0].ID = verbs.SendSignaled, sendBit|uint64(k.posted)
	}
	if l.ch == nil {
		return l.exchange(ctx, k, sends, want)
	}
	if err := k.postRecvs(); err != nil {
		return err
	}
	if _, err := k.qp.PostSend(sends); err != nil {
		return err
	}
	for want > 0 {
		n, err := l.wait(ctx)
		if err != nil {
			return err
		}
		for i := range n {
			if err := l.count(&l.wc[i]); err != nil {
				return err
			}
		}
		want -= n
	}
	return nil
}

func (l *lane) exchange(ctx context.Context, k *link, sends []verbs.SendWR, want int) error {
	x := verbs.Exchange{Recv: k.recvs[:k.owed], Send: sends, WC: l.wc[:], Want: want, SpinNS: spinNS}
	for {
		err := k.qp.Exchange(&x)
		k.owed -= x.Recvs
		if err != nil {
			return err
		}
		for i := range x.N {
			if err := l.count(&x.WC[i]); err != nil {
				return err
			}
		}
		if want -= x.N; want <= 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		x.Recv, x.Send, x.Want = nil, nil, want
	}
}

func (l *lane) count(w *verbs.WC) error {
	if err := verbs.WCErr(w); err != nil {
		return err
	}
	k := l.byQPN[w.QPN]
	if w.WRID&sendBit == 0 {
		k.owed++
		l.received.Add(1)
	} else {
		k.done++
		l.sent.Add(1)
	}
	return nil
}

// ping measures one message at a time, on the queue pairs in turn. Operations
// that the peer receives go to and fro, and half of that counts; others count to
// their completion.
func (l *lane) ping(ctx context.Context, g goal) error {
	want, part := 1, time.Duration(1)
	if l.c.Op.receives() {
		want, part = 2, 2
	}
	for start := time.Now(); ; {
		more := false
		for _, k := range l.links {
			if g.reached(k, start) {
				continue
			}
			more = true
			if err := l.turn(ctx, k, true, want); err != nil {
				return err
			}
			end := time.Now()
			l.record(end.Sub(start) / part)
			start = end
		}
		if !more {
			return nil
		}
	}
}

// echo answers every message, until ctx ends.
func (l *lane) echo(ctx context.Context) error {
	for {
		n, err := l.wait(ctx)
		if err != nil {
			return err
		}
		for i := range n {
			w := &l.wc[i]
			if err := l.count(w); err != nil {
				return err
			}
			if w.WRID&sendBit != 0 {
				continue
			}
			k := l.byQPN[w.QPN]
			if err := k.postRecvs(); err != nil {
				return err
			}
			k.posted++
			k.sends[0].Flags, k.sends[0].ID = verbs.SendSignaled, sendBit|uint64(k.posted)
			if _, err := k.qp.PostSend(k.sends[:1]); err != nil {
				return err
			}
		}
	}
}
