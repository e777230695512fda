package bench

import (
	"context"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

const spinNS = 1_000_000 // of a call; the context is looked at between calls

// turn does one exchange and goes on polling until want completions are there.
func (e *end) turn(ctx context.Context, x *verbs.Exchange, want int) error {
	x.Want, x.SpinNS = want, spinNS
	for done := 0; ; {
		if err := e.qp.Exchange(x); err != nil {
			return err
		}
		for i := range x.N {
			if err := verbs.WCErr(&x.WC[i]); err != nil {
				return err
			}
		}
		if done += x.N; done >= want {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		x.Recv, x.Send, x.Want = nil, nil, want-done
	}
}

// turns is pingpong with one call for a turn: it posts the receive that was
// used up and the message, and takes its completion and that of the answer.
func (e *end) turns(ctx context.Context) (time.Duration, error) {
	if _, err := e.qp.PostRecv(e.recvs(e.cfg.RxDepth)); err != nil {
		return 0, err
	}
	if err := e.barrier(); err != nil {
		return 0, err
	}
	recv := e.recvs(1)
	send := []verbs.SendWR{{Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: []verbs.SGE{e.mr.SGE(0, e.cfg.Size)}}}
	x := verbs.Exchange{WC: make([]verbs.WC, 2)}
	start := e.lat.start(e.cfg.Iters)
	if e.cfg.Server { // the first message
		if err := e.turn(ctx, &x, 1); err != nil {
			return 0, err
		}
		x.Recv = recv
	}
	for i := range e.cfg.Iters {
		e.lat.turn(i)
		want := 2
		if e.cfg.Server && i == e.cfg.Iters-1 {
			want = 1 // the last message has no answer
		}
		x.Send = send
		if err := e.turn(ctx, &x, want); err != nil {
			return 0, err
		}
		x.Recv = recv
	}
	return time.Since(start), nil
}

// sinkTurns is sink with one call for the receives and the poll.
func (e *end) sinkTurns(ctx context.Context) error {
	if _, err := e.qp.PostRecv(e.recvs(e.cfg.RxDepth)); err != nil {
		return err
	}
	if err := e.barrier(); err != nil {
		return err
	}
	recv := e.recvs(pollBatch)
	x := verbs.Exchange{WC: make([]verbs.WC, pollBatch)}
	for got := 0; got < e.cfg.Iters; {
		if err := e.turn(ctx, &x, 1); err != nil {
			return err
		}
		got += x.N
		x.Recv = recv[:x.N]
	}
	return nil
}
