package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/zrdma/zrdma/qp"
)

// join is a rail whose queue pairs are being connected, by messages over one that
// is up: the client says JOIN with its endpoints, the server JOINED with its own,
// then READY goes both ways over each new queue pair.
type join struct {
	r     *rail
	ready []*qp.Conn    // those that READY came on; guarded by session.mu
	said  chan joined   // of the client
	up    chan struct{} // of the client: closed when the rail is installed
	timer *time.Timer   // of the server: gives it up
}

// joined is the answer to JOIN.
type joined struct {
	data []qp.Endpoint
	err  error
}

// joinBody is what JOIN and JOINED say: the devices that are joined, by the number
// that either side has given them, and the endpoints of the sender.
func joinBody(client, server uint16, l []qp.Endpoint) []byte {
	b := binary.LittleEndian.AppendUint16(nil, client)
	b = binary.LittleEndian.AppendUint16(b, server)
	for _, e := range l {
		p, _ := e.MarshalBinary()
		b = append(b, p...)
	}
	return b
}

func parseJoin(b []byte) (client, server uint16, l []qp.Endpoint, err error) {
	if len(b) < 4+qp.EndpointLen || (len(b)-4)%qp.EndpointLen != 0 || (len(b)-4)/qp.EndpointLen > maxData {
		return 0, 0, nil, errJoin
	}
	client, server = binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:])
	for b = b[4:]; len(b) > 0; b = b[qp.EndpointLen:] {
		var e qp.Endpoint
		if err := e.UnmarshalBinary(b[:qp.EndpointLen]); err != nil {
			return 0, 0, nil, err
		}
		l = append(l, e)
	}
	return client, server, l, nil
}

var errJoin = errors.New("rpc: a JOIN that makes no sense")

// fits is how many endpoints a message of the peer's slot size holds.
func (s *session) fits() int {
	return max(1, (int(s.remote.slot)-headerLen-4)/qp.EndpointLen)
}

// device is the number, on this side, of the device for a place.
func (s *session) device(h *hello, place int) int { return (int(h.first) + place) % int(h.rails) }

// prepareRail makes the queue pairs of a rail that is to be.
func (s *session) prepareRail(n *nic, count int) (l []*qp.Prepared, err error) {
	for range count {
		p, err := n.d.Prepare(netip.Addr{}, s.cfg.conn(n, s.onMessage, s.onEnd))
		if err != nil {
			drop(l)
			return nil, err
		}
		l = append(l, p)
	}
	return l, nil
}

func drop(l []*qp.Prepared) {
	for _, p := range l {
		_ = p.Close()
	}
}

func endpoints(l []*qp.Prepared) (out []qp.Endpoint) {
	for _, p := range l {
		out = append(out, p.Local())
	}
	return out
}

// connect connects the queue pairs of j.r to the peer's, and makes them the session's.
func (s *session) connect(j *join, l []*qp.Prepared, to []qp.Endpoint) error {
	for i, e := range to {
		c, err := l[i].Connect(e)
		if err != nil {
			return err
		}
		s.mu.Lock()
		if !s.ended && !j.r.over() {
			j.r.data = append(j.r.data, c)
			j.r.ctl = j.r.data[0]
			s.all = append(s.all, c)
			s.mu.Unlock()
			continue
		}
		s.mu.Unlock()
		_ = c.Close()
		return fmt.Errorf("rpc: the session, or the rail, has ended: %w", ErrUnavailable)
	}
	return nil
}

// abandon gives up a rail that is being connected.
func (s *session) abandon(j *join, cause error) {
	s.mu.Lock()
	if s.joins[j.r.place] != j {
		s.mu.Unlock()
		return
	}
	delete(s.joins, j.r.place)
	j.r.end(cause)
	if s.ended { // close does the rest
		s.mu.Unlock()
		return
	}
	s.retired.Add(1)
	s.mu.Unlock()
	if j.timer != nil {
		j.timer.Stop()
	}
	go func() {
		defer s.retired.Done()
		if j.r.ctl != nil {
			s.discard(j.r)
		}
	}()
}

// railMessage takes JOIN, JOINED and RAIL_DOWN, in an engine's goroutine.
func (s *session) railMessage(c *qp.Conn, m *message) {
	place, gen := int(uint32(m.id)), uint32(m.id>>32)
	if place >= s.places() {
		s.end(fmt.Errorf("rpc: %v for rail %d of %d from %s", m.typ, place, s.places(), s.peerName()))
		return
	}
	s.mu.Lock()
	j := s.joins[place]
	if j != nil && j.r.gen != gen {
		j = nil
	}
	s.mu.Unlock()
	switch m.typ {
	case msgRailDown:
		err := fmt.Errorf("rpc: the peer has lost the rail: %w", ErrUnavailable)
		if j != nil {
			s.abandon(j, err)
		} else if r := s.rails.Load().at(place); r != nil && r.gen == gen {
			s.lose(r, err, false)
		}
	case msgJoined:
		if s.server || j == nil {
			return // given up
		}
		var a joined
		if m.flags&flagError != 0 {
			a.err = &Error{Code: Code(m.method), Method: "join", Message: string(m.body)}
		} else {
			_, _, a.data, a.err = parseJoin(m.body)
		}
		select {
		case j.said <- a:
		default:
		}
	case msgJoin:
		if !s.server {
			s.end(fmt.Errorf("rpc: JOIN from the server %s", s.peerName()))
			return
		}
		s.admitRail(c, place, gen, append([]byte(nil), m.body...))
	}
}

// admitRail answers JOIN, in a goroutine; one of a session at a time.
func (s *session) admitRail(c *qp.Conn, place int, gen uint32, body []byte) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	busy := s.joining
	s.joining = true
	if !busy {
		s.retired.Add(1)
	}
	s.mu.Unlock()
	id := railID(place, gen)
	no := func(code Code, err error) {
		s.tell(c, &header{typ: msgJoined, id: id, flags: flagError, method: uint32(code)}, []byte(err.Error()[:min(len(err.Error()), 200)]))
	}
	if busy {
		no(ResourceExhausted, errors.New("another rail is being joined"))
		return
	}
	go func() {
		defer s.retired.Done()
		err := s.joinRail(c, place, gen, body)
		s.mu.Lock()
		s.joining = false
		s.mu.Unlock()
		if err != nil {
			no(CodeOf(err), err)
		}
	}()
}

// joinRail is the server's part, up to JOINED.
func (s *session) joinRail(c *qp.Conn, place int, gen uint32, body []byte) error {
	theirs, ours, to, err := parseJoin(body)
	if err != nil {
		return &Error{Code: InvalidArgument, Method: "join", Cause: err}
	}
	if int(ours) != s.device(&s.local, place) || int(theirs) != s.device(&s.remote, place) {
		return &Error{Code: InvalidArgument, Method: "join", Message: fmt.Sprintf("devices %d and %d for rail %d", theirs, ours, place)}
	}
	// The client has lost what it joins anew, and knows best.
	if r := s.rails.Load().at(place); r != nil {
		s.lose(r, fmt.Errorf("rpc: the client joins the rail anew: %w", ErrUnavailable), false)
		if s.rails.Load().at(place) != nil {
			return &Error{Code: FailedPrecondition, Method: "join", Message: "the rail is the only one"}
		}
	}
	s.mu.Lock()
	old := s.joins[place]
	s.mu.Unlock()
	if old != nil {
		s.abandon(old, errJoin)
	}
	n := s.nics[ours]
	to = to[:min(len(to), s.maxData, s.fits())]
	l, err := s.prepareRail(n, len(to))
	if err != nil {
		return err
	}
	defer drop(l)
	local := endpoints(l)
	j := &join{r: &rail{place: place, gen: gen, nic: n, done: make(chan struct{})}}
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return ErrClosed
	}
	s.joins[place] = j
	s.mu.Unlock()
	if err := s.connect(j, l, to); err != nil {
		s.abandon(j, err)
		return err
	}
	t := time.AfterFunc(s.patience(), func() { s.abandon(j, context.DeadlineExceeded) })
	s.mu.Lock()
	j.timer = t
	s.mu.Unlock()
	s.tell(c, &header{typ: msgJoined, id: railID(place, gen)}, joinBody(theirs, ours, local))
	return nil
}

// patience is how long the parts of a join may take.
func (s *session) patience() time.Duration { return max(2*s.cfg.DeadAfter, time.Second) }

// railReady takes READY on a queue pair of a rail that is being connected. The
// rail is up when it has come on all of them; the server answers each, the last
// when it takes calls there.
func (s *session) railReady(c *qp.Conn, id uint64) {
	s.mu.Lock()
	var j *join
	for _, x := range s.joins {
		if x.r.has(c) {
			j = x
		}
	}
	if j == nil || railID(j.r.place, j.r.gen) != id {
		s.mu.Unlock()
		return
	}
	if !slices.Contains(j.ready, c) {
		j.ready = append(j.ready, c)
	}
	all := len(j.ready) == len(j.r.data)
	if all {
		delete(s.joins, j.r.place)
		if j.timer != nil {
			j.timer.Stop()
		}
	}
	s.mu.Unlock()
	if all && !s.install(j.r) {
		return
	}
	if s.server {
		s.tell(c, &header{typ: msgReady, id: id}, []byte("ready"))
	} else if all {
		close(j.up)
	}
}

// dialRail is the client's part: it returns when the rail is up.
func (s *session) dialRail(ctx context.Context, place int, gen uint32) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience())
	defer cancel()
	ours, theirs := s.device(&s.local, place), s.device(&s.remote, place)
	n := s.nics[ours]
	l, err := s.prepareRail(n, min(s.cfg.DataQPs, s.fits()))
	if err != nil {
		return err
	}
	defer drop(l)
	j := &join{r: &rail{place: place, gen: gen, nic: n, done: make(chan struct{})}, said: make(chan joined, 1), up: make(chan struct{})}
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return ErrClosed
	}
	s.joins[place] = j
	s.mu.Unlock()
	if err = s.ask(ctx, j, l, joinBody(uint16(ours), uint16(theirs), endpoints(l))); err == nil {
		return nil
	}
	s.abandon(j, err)
	s.tell(s.rails.Load().eager.conn, &header{typ: msgRailDown, id: railID(place, gen)}, nil)
	return err
}

func (s *session) ask(ctx context.Context, j *join, l []*qp.Prepared, body []byte) error {
	id := railID(j.r.place, j.r.gen)
	if err := s.send(ctx, s.rails.Load().eager.conn, &header{typ: msgJoin, id: id}, parts{body: body}); err != nil {
		return fmt.Errorf("rpc: sending JOIN: %w", err)
	}
	var a joined
	select {
	case a = <-j.said:
	case <-j.r.done:
		return j.r.why
	case <-ctx.Done():
		return fmt.Errorf("rpc: no answer to JOIN: %w", ctx.Err())
	}
	if a.err == nil && len(a.data) > len(l) {
		a.err = errJoin
	}
	if a.err != nil {
		return a.err
	}
	if err := s.connect(j, l, a.data); err != nil {
		return err
	}
	for _, c := range j.r.conns() {
		if err := s.send(ctx, c, &header{typ: msgReady, id: id}, parts{body: []byte("ready")}); err != nil {
			return fmt.Errorf("rpc: sending READY: %w", err)
		}
	}
	select {
	case <-j.up:
		return nil
	case <-j.r.done:
		return j.r.why
	case <-ctx.Done():
		return fmt.Errorf("rpc: the new rail carries nothing: %w", ctx.Err())
	}
}
