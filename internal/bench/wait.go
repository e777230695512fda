package bench

import (
	"context"
	"fmt"

	"github.com/zrdma/zrdma/internal/netpoll"
	"github.com/zrdma/zrdma/verbs"
)

// Waits are the ways of waiting that were measured against each other.
var Waits = []string{exchange, "spin", "poll", "events", "nap", "park", "naive"}

// exchange posts and polls in one call where there is something of both.
const exchange = "exchange"

func usesEvents(w string) bool { return w != exchange && w != "spin" && w != "poll" }

// wait fills wc with at least one completion.
type wait func(ctx context.Context, q *verbs.CQ, wc []verbs.WC) (int, error)

func waiter(name string) (wait, error) {
	switch name {
	case "spin", exchange: // polling inside C, a crossing a millisecond
		return func(ctx context.Context, q *verbs.CQ, wc []verbs.WC) (int, error) {
			for ctx.Err() == nil {
				if n, err := q.PollSpin(wc, 1_000_000); n > 0 || err != nil {
					return n, err
				}
			}
			return 0, ctx.Err()
		}, nil
	case "poll": // a crossing for each look
		return func(ctx context.Context, q *verbs.CQ, wc []verbs.WC) (int, error) {
			for {
				if n, err := q.Poll(wc); n > 0 || err != nil {
					return n, err
				}
			}
		}, nil
	case "events": // the default: adaptive spin, nap, park
		return func(ctx context.Context, q *verbs.CQ, wc []verbs.WC) (int, error) {
			return q.Wait(ctx, wc, verbs.SpinAdaptive)
		}, nil
	case "nap": // no spin: sleep on the thread first, then park
		return func(ctx context.Context, q *verbs.CQ, wc []verbs.WC) (int, error) { return q.Wait(ctx, wc, 0) }, nil
	case "park": // no spin, no nap: one crossing, then the network poller
		netpoll.Nap = 0
		return func(ctx context.Context, q *verbs.CQ, wc []verbs.WC) (int, error) { return q.Wait(ctx, wc, 0) }, nil
	case "naive": // a crossing a step, the network poller
		return naive, nil
	}
	return nil, fmt.Errorf("no way of waiting %q; have %v", name, Waits)
}

func naive(ctx context.Context, q *verbs.CQ, wc []verbs.WC) (int, error) {
	for {
		if n, err := q.Poll(wc); n > 0 || err != nil {
			return n, err
		}
		if err := q.ReqNotify(false); err != nil {
			return 0, err
		}
		if n, err := q.Poll(wc); n > 0 || err != nil {
			return n, err
		}
		if _, err := q.Channel().Get(ctx); err != nil {
			return 0, err
		}
	}
}
