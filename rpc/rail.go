package rpc

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zrdma/zrdma/qp"
)

// rail is a pair of devices that a session uses, from when its queue pairs are
// ready until it is lost. The same devices later are another rail, of the same
// place.
type rail struct {
	place int
	gen   uint32 // of those of one place; the client counts
	nic   *nic
	ctl   *qp.Conn // for short calls
	data  []*qp.Conn
	since time.Time
	done  chan struct{} // closed when it is lost, or the session has ended
	once  sync.Once     // closes done
	why   error         // written before done is closed

	calls, bytes *atomic.Uint64 // of a client's RailStats
}

func (r *rail) end(why error) {
	r.once.Do(func() {
		r.why = why
		close(r.done)
	})
}

func (r *rail) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (r *rail) has(c *qp.Conn) bool {
	if r.ctl == c {
		return true
	}
	for _, d := range r.data {
		if d == c {
			return true
		}
	}
	return false
}

func (r *rail) conns() []*qp.Conn {
	l := append([]*qp.Conn(nil), r.data...)
	if len(l) == 0 || r.ctl != l[0] {
		l = append(l, r.ctl)
	}
	return l
}

// path is a data queue pair.
type path struct {
	conn *qp.Conn
	rail *rail
	num  uint16 // in descriptors: place of the rail in the upper half, number in the lower
}

const noPath = 0xffff // the number of a queue pair that is none for data

// railSet is the rails that are up. It never changes.
type railSet struct {
	up    []*rail // by place; never empty
	order *rail   // that calls with an order key take: it changes only when it is lost
	eager path
	paths []path // of all rails, one rail after the other
}

func newRailSet(up []*rail, order *rail) *railSet {
	t := &railSet{up: up, order: order}
	if order == nil || order.over() {
		t.order = up[0]
	}
	t.eager = path{up[0].ctl, up[0], noPath}
	for i := 0; ; i++ {
		more := false
		for _, r := range up { // calls in turn take turns between rails
			if i < len(r.data) {
				t.paths = append(t.paths, path{r.data[i], r, uint16(r.place<<8 | i)})
				more = true
			}
		}
		if !more {
			return t
		}
	}
}

// ordered is the path of calls with an order key.
func (t *railSet) ordered(key uint32) path {
	i := key % uint32(len(t.order.data))
	return path{t.order.data[i], t.order, uint16(t.order.place<<8) | uint16(i)}
}

// byNumber is the queue pair that a descriptor names, nil for none.
func (t *railSet) byNumber(n uint16) *qp.Conn {
	for i := range t.paths {
		if t.paths[i].num == n {
			return t.paths[i].conn
		}
	}
	return nil
}

// number is the inverse; noPath for a queue pair that is none for data.
func (t *railSet) number(c *qp.Conn) uint16 {
	for i := range t.paths {
		if t.paths[i].conn == c {
			return t.paths[i].num
		}
	}
	return noPath
}

func (t *railSet) of(c *qp.Conn) *rail {
	for _, r := range t.up {
		if r.has(c) {
			return r
		}
	}
	return nil
}

func (t *railSet) at(place int) *rail {
	for _, r := range t.up {
		if r.place == place {
			return r
		}
	}
	return nil
}

// multi reports a session that can have several rails: both sides have said so.
func (s *session) multi() bool { return s.places() > 1 }

// places is how many rails the session can have.
func (s *session) places() int { return int(max(min(s.local.rails, s.remote.rails), 1)) }

// firstRail makes the queue pairs of the handshake the rail of place 0.
func (s *session) firstRail() {
	r := &rail{nic: s.nic, ctl: s.control(), data: s.data, since: time.Now(), done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		r.end(s.cause)
	}
	s.owner.railUp(r)
	s.rails.Store(newRailSet([]*rail{r}, nil))
}

// install makes r one of the rails; false when the session, or r, has ended.
func (s *session) install(r *rail) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || r.over() {
		return false
	}
	old := s.rails.Load()
	var up []*rail
	for _, x := range old.up {
		if x.place == r.place {
			return false
		}
		if x.place > r.place && (len(up) == 0 || up[len(up)-1].place < r.place) {
			up = append(up, r)
		}
		up = append(up, x)
	}
	if up[len(up)-1].place < r.place {
		up = append(up, r)
	}
	r.since = time.Now()
	s.owner.railUp(r)
	s.rails.Store(newRailSet(up, old.order))
	return true
}

// lost hears that a queue pair has ended. With the last rail the session ends.
func (s *session) lost(c *qp.Conn, cause error) {
	t := s.rails.Load()
	if t == nil || !s.multi() {
		s.end(cause)
		return
	}
	s.mu.Lock()
	for _, j := range s.joins {
		if j.r.has(c) {
			s.mu.Unlock()
			s.abandon(j, cause)
			return
		}
	}
	t = s.rails.Load()
	r := t.of(c)
	s.mu.Unlock()
	if r != nil {
		s.lose(r, cause, true)
	} // else it was of a rail that was lost before
}

// lose takes a rail out of use, once; tell: the peer is told. Its queue pairs are
// closed in the background.
func (s *session) lose(r *rail, cause error, tell bool) {
	s.mu.Lock()
	t := s.rails.Load()
	if s.ended || t.at(r.place) != r {
		s.mu.Unlock()
		return
	}
	if len(t.up) == 1 {
		s.mu.Unlock()
		s.end(cause)
		return
	}
	r.end(cause)
	var up []*rail
	for _, x := range t.up {
		if x != r {
			up = append(up, x)
		}
	}
	t = newRailSet(up, t.order)
	s.rails.Store(t)
	s.retired.Add(1)
	s.mu.Unlock()
	s.cfg.Logger.Warn("rpc: a rail is lost", "peer", s.peerName(), "device", r.nic.d.Context().Name(), "err", cause)
	// This also finds out, within DeadAfter, whether the others live.
	for _, x := range t.up {
		if tell {
			s.tell(x.ctl, &header{typ: msgRailDown, id: railID(r.place, r.gen)}, nil)
		} else {
			s.tell(x.ctl, &header{typ: msgPing}, nil)
		}
	}
	s.owner.railLost(r)
	go func() {
		defer s.retired.Done()
		s.discard(r)
		s.owner.railGone(r)
	}()
}

// discard closes the queue pairs of a rail that is not used any more.
func (s *session) discard(r *rail) {
	for _, c := range r.conns() {
		if err := c.Close(); err != nil {
			s.cfg.Logger.Warn("rpc: closing a queue pair", "peer", s.peerName(), "err", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*qp.Conn
	for _, c := range s.all {
		if !r.has(c) {
			all = append(all, c)
		}
	}
	s.all = all
}

// farewell tells the peer that the session has ended, on every rail: the bootstrap
// connection, whose end says so else, ends with its rail only.
func (s *session) farewell() {
	t := s.rails.Load()
	if t == nil || !s.multi() || errors.Is(s.err(), qp.ErrPeerClosed) {
		return
	}
	var wg sync.WaitGroup
	for _, r := range t.up {
		if r.ctl.Err() == nil {
			wg.Go(func() { s.closing(r.ctl, &header{typ: msgClose}, nil) })
		}
	}
	wg.Wait()
}

func railID(place int, gen uint32) uint64 { return uint64(gen)<<32 | uint64(uint32(place)) }
