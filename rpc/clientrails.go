package rpc

import (
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// RailState says whether a rail of a client is used.
type RailState uint8

// Values of RailState.
const (
	RailUnused  RailState = iota // there is no session, or the server has no device for it
	RailUp                       // it has calls
	RailJoining                  // its queue pairs are being connected
	RailPaused                   // it was lost, or could not be joined: it is tried again at Retry
)

var railStates = [...]string{"unused", "up", "joining", "paused"}

// String is the state in a word.
func (s RailState) String() string { return railStates[min(int(s), len(railStates)-1)] }

// RailStats is what a client knows of one of its devices.
type RailStats struct {
	Device string // its name
	State  RailState
	Retry  time.Time // RailPaused: when it is tried again
	Err    error     // why it was lost or not joined, the last time; nil: never

	Calls         uint64 // that were sent over it
	Bytes         uint64 // of bulk data that these calls gave or took, in both directions
	Joined, Lost  uint64
	Reads, Pushes int    // of Config.DeviceReads and DevicePushes, under way now, of all users of the device
	ReadWaits     uint64 // waits for one of DeviceReads
}

// railCounts is RailStats as it grows.
type railCounts struct {
	calls, bytes, joined, lost atomic.Uint64

	mu    sync.Mutex
	state RailState // guarded by mu, as all below
	retry time.Time
	err   error
	owner *clientSession // whose rail it is
}

func (x *railCounts) set(cs *clientSession, s RailState, retry time.Time, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.state, x.retry, x.owner = s, retry, cs
	if err != nil {
		x.err = err
	}
}

// Rails reads the state of the client's devices, Config.Device first.
func (c *Client) Rails() []RailStats {
	out := make([]RailStats, len(c.nics))
	for i, n := range c.nics {
		x := &c.rails[i]
		o := &out[i]
		o.Device = n.d.Context().Name()
		o.Calls, o.Bytes, o.Joined, o.Lost = x.calls.Load(), x.bytes.Load(), x.joined.Load(), x.lost.Load()
		o.Reads, o.ReadWaits = n.budget.reads.used()
		o.Pushes, _ = n.budget.pushes.used()
		x.mu.Lock()
		o.State, o.Retry, o.Err = x.state, x.retry, x.err
		x.mu.Unlock()
	}
	return out
}

// count counts a call that was sent. What a stripe carries counts for the rail of
// its request.
func (r *rail) count(q *request) {
	if r.calls == nil {
		return
	}
	r.calls.Add(1)
	for i := range q.n {
		r.bytes.Add(uint64(q.bufs[i].Len()))
	}
}

// counts are those of the device that rail r uses.
func (cs *clientSession) counts(place int) *railCounts {
	if cs.local.rails == 0 {
		return &cs.c.rails[0]
	}
	return &cs.c.rails[cs.device(&cs.local, place)]
}

func (cs *clientSession) railUp(r *rail) {
	x := cs.counts(r.place)
	r.calls, r.bytes = &x.calls, &x.bytes
	x.joined.Add(1)
	x.set(cs, RailUp, time.Time{}, nil)
}

// railLost tells the calls of the rail, and wakes who joins it again.
func (cs *clientSession) railLost(r *rail) {
	cs.mu.Lock()
	for i := range cs.slots {
		if k := cs.slots[i].call; cs.slots[i].busy && k.rail == r && !k.answered {
			k.answered, k.lost = true, true
			k.ready <- struct{}{}
		}
	}
	cs.mu.Unlock()
	x := cs.counts(r.place)
	x.lost.Add(1)
	x.set(cs, RailPaused, time.Time{}, r.why)
	select {
	case cs.look <- struct{}{}:
	default:
	}
}

func (cs *clientSession) railGone(*rail) {}

// railsOver says that the session has none any more.
func (cs *clientSession) railsOver() {
	for i := range cs.c.rails {
		x := &cs.c.rails[i]
		x.mu.Lock()
		if x.owner == cs {
			x.state, x.owner = RailUnused, nil
		}
		x.mu.Unlock()
	}
}

// firstPause is how long a rail that was lost is left alone. One that is lost again
// soon, or cannot be joined, is left alone for longer each time.
const (
	firstPause = 100 * time.Millisecond
	steady     = 10 * time.Second
)

// keepRails joins the rails that the session lacks, one after the other, as long as
// it lives.
func (cs *clientSession) keepRails() {
	defer cs.c.wg.Done()
	type plan struct {
		at    time.Time
		pause time.Duration
		was   *rail
	}
	plans := make([]plan, cs.places())
	gen := uint32(0)
	for {
		next := time.Hour
		for place := range plans {
			p := &plans[place]
			if r := cs.rails.Load().at(place); r != nil {
				p.was = r
				continue
			}
			if w := p.was; w != nil { // it was lost
				p.was = nil
				if time.Since(w.since) > steady {
					p.pause = 0
				}
				cs.postpone(place, &p.at, &p.pause, w.why)
			}
			if wait := time.Until(p.at); wait > 0 {
				next = min(next, wait)
				continue
			}
			gen++
			cs.counts(place).set(cs, RailJoining, time.Time{}, nil)
			if err := cs.dialRail(cs.c.life, place, gen); err != nil {
				select {
				case <-cs.done:
					return
				default:
				}
				cs.cfg.Logger.Debug("rpc: a rail is not joined", "peer", cs.peerName(), "rail", place, "err", err)
				cs.postpone(place, &p.at, &p.pause, err)
				next = min(next, time.Until(p.at))
				continue
			}
			p.was = cs.rails.Load().at(place) // nil: it is lost already, and look has a token
			if p.was == nil {
				cs.postpone(place, &p.at, &p.pause, nil)
				next = min(next, time.Until(p.at))
			}
		}
		timer := time.NewTimer(max(next, time.Microsecond))
		select {
		case <-cs.done:
			timer.Stop()
			return
		case <-cs.look:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// postpone leaves a rail alone for a while.
func (cs *clientSession) postpone(place int, at *time.Time, pause *time.Duration, err error) {
	*pause = min(max(2**pause, firstPause), max(cs.cfg.MaxBackoff, firstPause))
	*at = time.Now().Add(*pause/2 + rand.N(*pause))
	cs.counts(place).set(cs, RailPaused, *at, err)
}

// route is the device and the address of the next dial. Several addresses, with
// commas between, are those of the server over the first device, the second, ...;
// one that failed is followed by the next.
func (c *Client) route() (first int, addr string) {
	l := strings.Split(c.addr, ",")
	c.mu.Lock()
	i := c.way % len(l)
	c.mu.Unlock()
	return i % len(c.nics), strings.TrimSpace(l[i])
}

// mode is how a result of n bytes comes: by Push or Pull or, with Auto, by Push into
// a window that the server need not use if it can offer the memory instead.
func (cs *clientSession) mode(r *request, n *nic, size int) BulkMode {
	switch cs.cfg.Bulk {
	case Pull:
		return Pull
	case Auto:
		if size >= largePush && cs.remote.minor >= 1 {
			if r.push == nil && !n.budget.pushes.try() {
				return Auto
			}
			if r.push == nil {
				r.push = n.budget
			}
		}
	}
	return Push
}
