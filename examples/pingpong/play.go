package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// play sends and receives iters messages, in turn. The client has the first word.
func (e *end) play() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watchdog := time.AfterFunc(e.patience, cancel)
	defer watchdog.Stop()

	lead := 0 // how many messages we may be ahead of the peer
	if e.host != "" {
		lead = 1
	}
	fill(e.outB)
	posted, started, sent, received := e.rx, 0, 0, 0
	wc := make([]verbs.WC, 8)
	send := []verbs.SendWR{{ID: sendID, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: []verbs.SGE{e.out}}}
	for sent < e.iters || received < e.iters {
		// Our buffer is the device's until the send has completed.
		if started < e.iters && started == sent && received+lead > started {
			if _, err := e.qp.PostSend(send); err != nil {
				return err
			}
			started++
		}
		n, err := e.completions(ctx, wc)
		if err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("no progress for %v, after %d messages sent and %d received", e.patience, sent, received)
			}
			return err
		}
		watchdog.Reset(e.patience)
		for i := range wc[:n] {
			if err := verbs.WCErr(&wc[i]); err != nil {
				return err
			}
			if wc[i].WRID == sendID {
				sent++
				continue
			}
			received++
			if err := e.validate(int(wc[i].ByteLen)); err != nil {
				return err
			}
			if posted--; posted <= 1 {
				if err := e.postReceives(e.rx - posted); err != nil {
					return err
				}
				posted = e.rx
			}
		}
	}
	return nil
}

// completions waits for at least one completion.
func (e *end) completions(ctx context.Context, wc []verbs.WC) (int, error) {
	for {
		if !e.events {
			n, err := e.cq.PollSpin(wc, 100_000)
			if n > 0 || err != nil || ctx.Err() != nil {
				return n, errors.Join(err, ctx.Err())
			}
			continue
		}
		n, err := e.cq.Poll(wc)
		if n > 0 || err != nil {
			return n, err
		}
		// A completion that comes before the request for an event raises none:
		// ask, poll once more, and only then sleep.
		if !e.armed {
			if err := e.cq.ReqNotify(false); err != nil {
				return 0, err
			}
			e.armed = true
			continue
		}
		if _, err := e.ch.Get(ctx); err != nil {
			return 0, err
		}
		e.armed = false
	}
}

// The content that ibv_rc_pingpong -c sends, and looks for: a zero at the start
// of every page, and this in between.
const (
	page   = 4096
	filler = 0x7b
)

func fill(b []byte) {
	for i := range b {
		b[i] = filler
		if i%page == 0 {
			b[i] = 0
		}
	}
}

// validate looks at all of a message, and clears the buffer so that the next one
// cannot be taken for granted. The peer does not send it before we have answered.
func (e *end) validate(n int) error {
	if n != e.size {
		return fmt.Errorf("the peer sent %d bytes, not %d: give both sides the same -s", n, e.size)
	}
	if !e.check {
		return nil
	}
	if !bytes.Equal(e.inB, e.outB) {
		i := 0
		for e.inB[i] == e.outB[i] {
			i++
		}
		return fmt.Errorf("byte %d of a message is %#02x, not %#02x (both sides need -c)", i, e.inB[i], e.outB[i])
	}
	clear(e.inB)
	return nil
}
