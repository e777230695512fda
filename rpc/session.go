package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/verbs"
)

// session is a control queue pair and the data queue pairs with one peer, from
// hello to close. It ends whole: what a queue pair of it fails with ends it.
type session struct {
	cfg    *Config
	nics   []*nic
	nic    *nic                    // that the session begins on
	data   []*qp.Conn              // of the handshake
	rails  atomic.Pointer[railSet] // nil until the handshake is nearly done
	epoch  uint32
	local  hello
	remote hello
	owner  owner

	server  bool           // this side's part
	maxData int            // on the server: ServerConfig.MaxDataQPs
	open    atomic.Bool    // the handshake is done, the peer is known
	waiting atomic.Int64   // goroutines of tell
	copied  *atomic.Uint64 // of the client or the server: bytes of arguments put into messages
	drafts  sync.Pool      // *draft

	mu      sync.Mutex
	peer    string     // guarded by mu, as all below
	ended   bool       //
	cause   error      //
	ctl     *qp.Conn   //
	all     []*qp.Conn //
	done    chan struct{}
	hello   chan heard    // handshake: the peer's
	ready   chan readyMsg // handshake: READY frames
	joins   map[int]*join // rails whose queue pairs are being connected, by place
	joining bool          // on the server: one is being answered

	retired sync.WaitGroup // rails lost, whose queue pairs are being closed
}

// heard is the peer's hello, or what is wrong with it.
type heard struct {
	hello
	err error
}

type readyMsg struct {
	c   *qp.Conn
	mac []byte
}

// owner takes what comes on a session: a client's half or a server's. It runs in
// an engine's goroutine and must not block. m.Buf is the owner's.
type owner interface {
	take(s *session, m qp.Message, msg message)
	gone(s *session, err error)
	// railUp, called under session.mu before the rail is used, and railLost when it
	// is not any more hear of rails; railGone when nothing of it is in flight.
	railUp(r *rail)
	railLost(r *rail)
	railGone(r *rail)
}

func newSession(cfg *Config, nics []*nic, first int, peer string) *session {
	s := &session{cfg: cfg, nics: nics, nic: nics[first], peer: peer, joins: map[int]*join{}, done: make(chan struct{}), hello: make(chan heard, 1), ready: make(chan readyMsg, maxData+1)}
	s.drafts.New = func() any { return new(draft) }
	return s
}

// adopt makes c a queue pair of the session; when that has ended, c is closed.
func (s *session) adopt(c *qp.Conn, control bool) error {
	s.mu.Lock()
	ended := s.ended
	if !ended {
		s.all = append(s.all, c)
		if control {
			s.ctl = c
			if s.peer == "" {
				s.peer = c.Peer()
			}
		}
	}
	cause := s.cause
	s.mu.Unlock()
	if !ended {
		return nil
	}
	_ = c.Close()
	return cause
}

// peerName is the peer's address; empty before it is known.
func (s *session) peerName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer
}

// control is the queue pair of hello and of short calls; nil before it is there.
func (s *session) control() *qp.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ctl
}

// conns are the session's queue pairs.
func (s *session) conns() []*qp.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*qp.Conn(nil), s.all...)
}

var errEarly = errors.New("rpc: the peer sent something else before it was ready")

// onMessage takes a message, in an engine's goroutine.
func (s *session) onMessage(c *qp.Conn, m qp.Message) {
	b, err := m.Buf.Bytes()
	var msg message
	if err == nil {
		err = msg.decode(b)
	}
	if err != nil {
		_ = m.Buf.Release()
		if !s.open.Load() { // the handshake says why it refuses
			err = &Error{Code: FailedPrecondition, Method: "hello", Cause: err}
			select {
			case s.hello <- heard{err: err}:
				return
			default:
			}
		}
		s.end(fmt.Errorf("%w from %s", err, s.peerName()))
		return
	}
	switch msg.typ {
	case msgHello:
		var h heard
		h.err = h.decode(msg.body)
		_ = m.Buf.Release()
		if s.open.Load() {
			s.end(errors.New("rpc: a second hello"))
			return
		}
		select {
		case s.hello <- h:
		default:
			s.end(errors.New("rpc: a second hello"))
		}
	case msgReady:
		mac := append([]byte(nil), msg.body[:min(len(msg.body), 64)]...)
		_ = m.Buf.Release()
		if s.open.Load() && s.multi() {
			s.railReady(c, msg.id)
			return
		}
		select {
		case s.ready <- readyMsg{c, mac}:
		default:
			s.end(errors.New("rpc: too many READY"))
		}
	case msgPing:
		_ = m.Buf.Release()
		if s.open.Load() {
			s.tell(c, &header{typ: msgPong, id: msg.id}, nil)
		}
	case msgPong:
		_ = m.Buf.Release()
	case msgClose:
		err := error(qp.ErrPeerClosed)
		if msg.flags&flagError != 0 {
			err = refusal(&msg)
		}
		_ = m.Buf.Release()
		s.end(err)
	case msgJoin, msgJoined, msgRailDown:
		if s.open.Load() && s.multi() && msg.epoch == s.epoch {
			s.railMessage(c, &msg)
			_ = m.Buf.Release()
			return
		}
		_ = m.Buf.Release()
		s.end(fmt.Errorf("rpc: %v from %s, which has no rails", msg.typ, s.peerName()))
	default:
		if s.server && !s.open.Load() { // or a stranger could skip the proof
			_ = m.Buf.Release()
			s.end(errEarly)
			return
		}
		s.owner.take(s, m, msg)
	}
}

func (s *session) onEnd(c *qp.Conn, err error) { s.lost(c, err) }

// end ends the session, once. Its queue pairs are closed in the background.
func (s *session) end(cause error) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended, s.cause = true, cause
	var up []*rail
	if t := s.rails.Load(); t != nil {
		up = t.up
	}
	for _, j := range s.joins {
		up = append(up[:len(up):len(up)], j.r)
	}
	s.mu.Unlock()
	close(s.done)
	for _, r := range up {
		r.end(cause)
	}
	s.owner.gone(s, cause)
}

func (s *session) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// close frees the queue pairs; nothing of the session is in flight afterwards. It
// must not run in an engine's goroutine.
func (s *session) close() {
	s.end(ErrClosed)
	s.farewell()
	s.retired.Wait()
	for _, c := range s.conns() {
		if err := c.Close(); err != nil {
			s.cfg.Logger.Warn("rpc: closing a queue pair", "peer", s.peerName(), "err", err)
		}
	}
}

// draft is a message being put together: short ones as data, which the post
// copies, others in a buffer of the pool. They are used again, so that sending
// allocates nothing.
type draft struct {
	small [256]byte
	bufs  [1]mr.Buf
	op    qp.Op
}

// release is for a draft that was posted, or not.
func (s *session) release(d *draft, posted bool) {
	if b := d.bufs[0]; !b.IsZero() && !posted {
		_ = b.Release()
	}
	d.bufs[0], d.op = mr.Buf{}, qp.Op{}
	s.drafts.Put(d)
}

// parts is what a message is made of, behind its header.
type parts struct {
	descs  []desc
	token  []byte
	stream bool
	offset uint64
	body   []byte
	inv    verbs.RKey // taken away from the peer's hands by the message
	fence  bool       // not before the READs posted earlier have ended
	join   bool       // others are about to send: qp.Op.Join
}

// build puts a message together. Without wait it does not wait for memory.
func (s *session) build(ctx context.Context, wait bool, c *qp.Conn, h *header, p *parts) (*draft, error) {
	n := headerLen + len(p.descs)*descLen + len(p.token) + len(p.body)
	if p.stream {
		n += offsetLen
	}
	if n > int(s.remote.slot) && s.remote.slot != 0 {
		return nil, &Error{Code: ResourceExhausted, Cause: ErrTooLong, Message: fmt.Sprintf("a message of %d bytes; the peer takes %d: send more as bulk data (WriteFrom, ReadInto)", n, s.remote.slot)}
	}
	h.epoch, h.descs, h.inline = s.epoch, uint16(len(p.descs)), uint32(len(p.body))
	d := s.drafts.Get().(*draft)
	b := d.small[:]
	if n <= min(c.MaxInline(), len(d.small)) {
		b = b[:n]
		d.op.Data = b
	} else {
		var err error
		if wait {
			d.bufs[0], err = c.Device().Pool().Get(ctx, n)
		} else {
			d.bufs[0], err = c.Device().Pool().TryGet(n)
		}
		if err == nil {
			b, err = d.bufs[0].Bytes()
		}
		if err != nil {
			s.release(d, false)
			return nil, err
		}
		d.op.Bufs = d.bufs[:]
	}
	at := headerLen
	for i := range p.descs {
		p.descs[i].put(b[at:])
		at += descLen
	}
	at += copy(b[at:], p.token)
	if p.stream {
		putOffset(b[at:], p.offset)
		at += offsetLen
	}
	copy(b[at:], p.body)
	if s.copied != nil {
		s.copied.Add(uint64(len(p.body)))
	}
	h.put(b, n)
	d.op.Kind, d.op.Invalidate, d.op.Fence, d.op.Join = qp.Send, p.inv, p.fence, p.join
	return d, nil
}

// send sends a message, waiting for room. After an error it was not sent.
func (s *session) send(ctx context.Context, c *qp.Conn, h *header, p parts) error {
	d, err := s.build(ctx, true, c, h, &p)
	if err != nil {
		return err
	}
	err = c.Post(ctx, d.op)
	s.release(d, err == nil)
	return err
}

// tell sends a message from where nothing may block. When there is no room at once
// a goroutine waits for it, but only so many: a peer that gives no credits and
// goes on asking is not served.
func (s *session) tell(c *qp.Conn, h *header, body []byte) { s.tellAfter(c, h, body, false) }

// tellAfter is tell; with fence the message goes when the READs posted on c before
// have ended.
func (s *session) tellAfter(c *qp.Conn, h *header, body []byte, fence bool) {
	p := parts{body: body, fence: fence}
	d, err := s.build(context.Background(), false, c, h, &p)
	if err == nil {
		err = c.TryPost(d.op)
		s.release(d, err == nil)
	}
	if err == nil || !errors.Is(err, qp.ErrQueueFull) && !errors.Is(err, mr.ErrExhausted) {
		return
	}
	if s.waiting.Add(1) > int64(s.cfg.MaxCalls) {
		s.waiting.Add(-1)
		s.end(fmt.Errorf("rpc: %s takes no answers", s.peerName()))
		return
	}
	again := *h
	p.body = append([]byte(nil), body...)
	go func() {
		defer s.waiting.Add(-1)
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DialTimeout)
		defer cancel()
		_ = s.send(ctx, c, &again, p)
	}()
}
