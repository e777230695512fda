package pingpong

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zrdma/zrdma/verbs"
)

// Probe is a path MTU that was tried.
type Probe struct {
	MTU verbs.MTU
	RTT time.Duration
	Err error // nil: messages of one packet of that size pass
	// Where says on which way they are lost, as far as that can be told.
	Where string
}

// probeTime is how long a message is waited for, longer than a hasty queue pair
// tries.
const probeTime = 2 * time.Second

// DiscoverMTU tries path MTUs from the ports' on down, each with a message that
// fills one packet, until one passes; dial makes a session with the MTU and size of
// its Options. tried hears of each. The error is of what is no loss: there is no
// server, for instance.
func (d *Device) DiscoverMTU(ctx context.Context, dial func(Options) (*Client, error), tried func(Probe)) (verbs.MTU, error) {
	for m := d.Attr().ActiveMTU; m >= verbs.MTU256; m-- {
		p := Probe{MTU: m}
		c, err := dial(Options{Size: 128 << m, MTU: m, Hasty: true})
		if err != nil {
			return 0, err
		}
		if used := c.mtu(); used < m {
			m = used // the peer's port has less
			if err := c.Close(); err != nil {
				return 0, err
			}
			m++
			continue
		}
		pctx, cancel := context.WithTimeoutCause(ctx, probeTime, fmt.Errorf("nothing came back within %v", probeTime))
		p.RTT, p.Err = c.Ping(pctx)
		cancel()
		p.Where = where(p.Err)
		if err := c.Close(); err != nil {
			return 0, err
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		tried(p)
		if p.Err == nil {
			return m, nil
		}
	}
	return 0, errors.New("not even packets with 256 bytes pass: the way is not only narrow but closed")
}

// mtu is what the session uses.
func (c *Client) mtu() verbs.MTU { return min(c.e.o.MTU, c.peer) }

func where(err error) string {
	var ce *verbs.CompletionError
	var u *unanswered
	switch {
	case err == nil:
		return ""
	case errors.As(err, &u):
		return "it arrived there, the answer did not come back: lost on the way back"
	case errors.As(err, &ce) && ce.Status == verbs.WCRetryExcErr:
		return "nobody acknowledged it: lost on the way there"
	}
	return "it did not come back"
}
