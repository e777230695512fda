package rpc

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"net/netip"
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
	d      *qp.Device
	peer   string
	data   []*qp.Conn // fixed once the handshake is done
	epoch  uint32
	local  hello
	remote hello
	owner  owner

	waiting atomic.Int64   // goroutines of tell
	copied  *atomic.Uint64 // of the client or the server: bytes of arguments put into messages
	scratch sync.Pool      // *[]byte: short messages, copied by the post

	mu    sync.Mutex
	ended bool       // guarded by mu
	cause error      // guarded by mu
	ctl   *qp.Conn   // guarded by mu
	all   []*qp.Conn // guarded by mu
	done  chan struct{}
	hello chan hello    // handshake: the peer's
	ready chan readyMsg // handshake: READY frames
}

type readyMsg struct {
	c   *qp.Conn
	mac []byte
}

// owner takes what comes on a session: a client's half or a server's. It runs in
// an engine's goroutine and must not block. m.Buf is the owner's.
type owner interface {
	take(s *session, m qp.Message, msg *message)
	gone(s *session, err error)
}

func newSession(cfg *Config, d *qp.Device) *session {
	s := &session{cfg: cfg, d: d, done: make(chan struct{}), hello: make(chan hello, 1), ready: make(chan readyMsg, maxData+1)}
	s.scratch.New = func() any { b := make([]byte, 0, 256); return &b }
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

// rail is the index of a data queue pair, -1 for the control queue pair.
func (s *session) rail(c *qp.Conn) int {
	for i, d := range s.data {
		if d == c {
			return i
		}
	}
	return -1
}

// onMessage takes a message, in an engine's goroutine.
func (s *session) onMessage(c *qp.Conn, m qp.Message) {
	b, err := m.Buf.Bytes()
	var msg message
	if err == nil {
		err = msg.decode(b)
	}
	if err != nil {
		_ = m.Buf.Release()
		s.end(fmt.Errorf("%w from %s", err, s.peer))
		return
	}
	switch msg.typ {
	case msgHello:
		var h hello
		err := h.decode(msg.body)
		_ = m.Buf.Release()
		if err != nil {
			s.end(err)
			return
		}
		select {
		case s.hello <- h:
		default:
			s.end(errors.New("rpc: a second hello"))
		}
	case msgReady:
		mac := append([]byte(nil), msg.body...)
		_ = m.Buf.Release()
		select {
		case s.ready <- readyMsg{c, mac}:
		default:
			s.end(errors.New("rpc: too many READY"))
		}
	case msgPing:
		_ = m.Buf.Release()
		s.tell(c, &header{typ: msgPong, id: msg.id})
	case msgPong:
		_ = m.Buf.Release()
	case msgClose:
		_ = m.Buf.Release()
		s.end(qp.ErrPeerClosed)
	default:
		s.owner.take(s, m, &msg)
	}
}

func (s *session) onEnd(_ *qp.Conn, err error) { s.end(err) }

// end ends the session, once. Its queue pairs are closed in the background.
func (s *session) end(cause error) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended, s.cause = true, cause
	s.mu.Unlock()
	close(s.done)
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
	for _, c := range s.conns() {
		if err := c.Close(); err != nil {
			s.cfg.Logger.Warn("rpc: closing a queue pair", "peer", s.peer, "err", err)
		}
	}
}

// build puts a message together. The result goes to post as it is: short ones as
// data, which the post copies, others in a buffer of the pool.
func (s *session) build(ctx context.Context, c *qp.Conn, h *header, descs []desc, token, body []byte) (op qp.Op, free func(), err error) {
	n := headerLen + len(descs)*descLen + len(token) + len(body)
	if n > int(s.remote.slot) && s.remote.slot != 0 {
		return op, nil, &Error{Code: ResourceExhausted, Message: fmt.Sprintf("a message of %d bytes; the peer takes %d: send more as bulk data (WriteFrom, ReadInto)", n, s.remote.slot)}
	}
	h.epoch, h.descs, h.inline = s.epoch, uint16(len(descs)), uint32(len(body))
	op.Kind = qp.Send
	var b []byte
	if n <= c.MaxInline() {
		p := s.scratch.Get().(*[]byte)
		b = (*p)[:n]
		op.Data = b
		free = func() { s.scratch.Put(p) }
	} else {
		buf, err := s.d.Pool().Get(ctx, n)
		if err != nil {
			return op, nil, err
		}
		if b, err = buf.Bytes(); err != nil {
			return op, nil, err
		}
		op.Bufs = []mr.Buf{buf}
		free = func() {
			if buf.Err() == nil { // not posted
				_ = buf.Release()
			}
		}
	}
	at := headerLen
	for i := range descs {
		descs[i].put(b[at:])
		at += descLen
	}
	at += copy(b[at:], token)
	copy(b[at:], body)
	if s.copied != nil {
		s.copied.Add(uint64(len(body)))
	}
	h.put(b, n)
	return op, free, nil
}

// send sends a message, waiting for room.
func (s *session) send(ctx context.Context, c *qp.Conn, h *header, descs []desc, token, body []byte, inv verbs.RKey) error {
	op, free, err := s.build(ctx, c, h, descs, token, body)
	if err != nil {
		return err
	}
	defer free()
	op.Invalidate = inv
	return c.Post(ctx, op)
}

// tell sends a message from where nothing may block. When there is no room at once
// a goroutine waits for it, but only so many: a peer that gives no credits and
// goes on asking is not served.
func (s *session) tell(c *qp.Conn, h *header, body ...byte) {
	op, free, err := s.build(s.life(), c, h, nil, nil, body)
	if err != nil {
		return
	}
	err = c.TryPost(op)
	free()
	if !errors.Is(err, qp.ErrQueueFull) {
		return
	}
	if s.waiting.Add(1) > int64(s.cfg.MaxCalls) {
		s.waiting.Add(-1)
		s.end(fmt.Errorf("rpc: %s takes no answers", s.peer))
		return
	}
	again := *h
	body = append([]byte(nil), body...)
	go func() {
		defer s.waiting.Add(-1)
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DialTimeout)
		defer cancel()
		_ = s.send(ctx, c, &again, nil, nil, body, 0)
	}()
}

func (s *session) life() context.Context { return context.Background() }

// handshake: see docs/rpc-protocol.md. Both sides have the control queue pair; the
// client speaks first. On an error the caller closes the session.

func (s *session) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DialTimeout)
	defer cancel()
	var prepared []*qp.Prepared
	defer func() {
		for _, p := range prepared {
			_ = p.Close()
		}
	}()
	for range s.cfg.DataQPs {
		p, err := s.d.Prepare(netip.Addr{}, s.cfg.conn(s.onMessage, s.onEnd))
		if err != nil {
			return err
		}
		prepared = append(prepared, p)
		s.local.data = append(s.local.data, p.Local())
	}
	if err := s.say(ctx, &s.local); err != nil {
		return err
	}
	h, err := s.hear(ctx)
	if err != nil {
		return err
	}
	if len(h.data) != len(prepared) {
		return fmt.Errorf("rpc: the peer has %d data queue pairs for %d: %w", len(h.data), len(prepared), errHello)
	}
	if err := s.verify("server", &s.local, &h); err != nil {
		return err
	}
	for i, p := range prepared {
		c, err := p.Connect(h.data[i])
		if err != nil {
			return err
		}
		if err := s.adopt(c, false); err != nil {
			return err
		}
		s.data = append(s.data, c)
	}
	s.remote = h
	// A READY on each queue pair, which is not empty, and one back.
	mac := s.prove("client", &s.local, &s.remote)
	for _, c := range s.conns() {
		if err := s.send(ctx, c, &header{typ: msgReady}, nil, nil, mac, 0); err != nil {
			return err
		}
	}
	_, err = s.waitReady(ctx)
	return err
}

func (s *session) welcome(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DialTimeout)
	defer cancel()
	h, err := s.hear(ctx)
	if err != nil {
		return err
	}
	s.epoch = h.epoch
	s.local.epoch = h.epoch
	s.remote = h
	var prepared []*qp.Prepared
	defer func() {
		for _, p := range prepared {
			_ = p.Close()
		}
	}()
	for _, e := range h.data {
		p, err := s.d.Prepare(netip.Addr{}, s.cfg.conn(s.onMessage, s.onEnd))
		if err != nil {
			return err
		}
		prepared = append(prepared, p)
		s.local.data = append(s.local.data, p.Local())
		c, err := p.Connect(e)
		if err != nil {
			return err
		}
		if err := s.adopt(c, false); err != nil {
			return err
		}
		s.data = append(s.data, c)
	}
	if len(s.cfg.Secret) > 0 {
		s.local.mac = sign(s.cfg.Secret, "server", &s.remote, &s.local)
	}
	if err := s.say(ctx, &s.local); err != nil {
		return err
	}
	for range len(s.data) + 1 {
		r, err := s.waitReady(ctx)
		if err != nil {
			return err
		}
		if err := s.verifyMAC("client", &s.remote, &s.local, r.mac); err != nil {
			return err
		}
	}
	return s.send(ctx, s.control(), &header{typ: msgReady}, nil, nil, []byte("ready"), 0)
}

func (s *session) say(ctx context.Context, h *hello) error {
	return s.send(ctx, s.control(), &header{typ: msgHello}, nil, nil, h.encode(), 0)
}

func (s *session) hear(ctx context.Context) (hello, error) {
	select {
	case h := <-s.hello:
		return h, nil
	case <-s.done:
		return hello{}, s.err()
	case <-ctx.Done():
		return hello{}, fmt.Errorf("rpc: no hello from %s: %w", s.peer, ctx.Err())
	}
}

func (s *session) waitReady(ctx context.Context) (readyMsg, error) {
	select {
	case r := <-s.ready:
		return r, nil
	case <-s.done:
		return readyMsg{}, s.err()
	case <-ctx.Done():
		return readyMsg{}, fmt.Errorf("rpc: %s did not get ready: %w", s.peer, ctx.Err())
	}
}

// prove is what READY says: never nothing, for an empty message may get lost.
func (s *session) prove(who string, client, server *hello) []byte {
	if len(s.cfg.Secret) == 0 {
		return []byte("ready")
	}
	return sign(s.cfg.Secret, who, client, server)
}

func (s *session) verify(who string, client, server *hello) error {
	return s.verifyMAC(who, client, server, server.mac)
}

func (s *session) verifyMAC(who string, client, server *hello, mac []byte) error {
	if len(s.cfg.Secret) == 0 || hmac.Equal(mac, sign(s.cfg.Secret, who, client, server)) {
		return nil
	}
	return &Error{Code: Unauthenticated, Method: "hello", Message: "the peer does not know Config.Secret"}
}
