package rpc

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/zrdma/zrdma/qp"
)

// The handshake: see docs/rpc-protocol.md. Both sides have the control queue pair;
// the client speaks first. On an error the caller closes the session.

// greet is the client's side.
func (s *session) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DialTimeout)
	defer cancel()
	err := s.greeting(ctx)
	var end *qp.EndError
	if errors.As(err, &end) {
		// The server may have said why, just before.
		select {
		case <-s.done:
			err = s.err()
		case <-ctx.Done():
		}
	}
	return err
}

func (s *session) greeting(ctx context.Context) error {
	var prepared []*qp.Prepared
	defer func() {
		for _, p := range prepared {
			_ = p.Close()
		}
	}()
	for range s.cfg.DataQPs {
		p, err := s.nic.d.Prepare(netip.Addr{}, s.cfg.conn(s.nic, s.onMessage, s.onEnd))
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
	if len(h.data) < 1 || len(h.data) > len(prepared) {
		return fmt.Errorf("rpc: the peer has %d data queue pairs for %d: %w", len(h.data), len(prepared), errHello)
	}
	if err := s.verify("server", &s.local, &h, h.mac); err != nil {
		return err
	}
	for i, e := range h.data { // the server may take fewer
		c, err := prepared[i].Connect(e)
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
		if err := s.send(ctx, c, &header{typ: msgReady}, parts{body: mac}); err != nil {
			return err
		}
	}
	if _, err = s.waitReady(ctx); err == nil {
		s.firstRail()
	}
	return err
}

// welcome is the server's side. A client that is refused is told why.
func (s *session) welcome(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DialTimeout)
	defer cancel()
	err := s.welcoming(ctx)
	if err != nil {
		s.refuse(err)
	}
	return err
}

func (s *session) welcoming(ctx context.Context) error {
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
	if len(h.data) == 0 {
		return errHello
	}
	for _, e := range h.data[:min(len(h.data), s.maxData)] {
		p, err := s.nic.d.Prepare(netip.Addr{}, s.cfg.conn(s.nic, s.onMessage, s.onEnd))
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
		if err := s.verify("client", &s.remote, &s.local, r.mac); err != nil {
			return err
		}
	}
	// From here on the peer is known: its requests are taken.
	s.firstRail()
	s.open.Store(true)
	return s.send(ctx, s.control(), &header{typ: msgReady}, parts{body: []byte("ready")})
}

// refuse tells the peer why the session ends, and waits a moment until it has it.
func (s *session) refuse(why error) {
	c := s.control()
	if c == nil {
		return
	}
	code, text := CodeOf(why), why.Error()
	var e *Error
	if errors.As(why, &e) && e.Message != "" {
		text = e.Message
	}
	s.closing(c, &header{typ: msgClose, flags: flagError, method: uint32(code)}, []byte(text[:min(len(text), 200)]))
}

// closing sends the last message of a session, and waits a moment until the peer
// has it.
func (s *session) closing(c *qp.Conn, h *header, body []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.send(ctx, c, h, parts{body: body}) == nil {
		_ = c.Flush(ctx)
	}
}

// refusal is what a CLOSE says.
func refusal(m *message) error {
	e := &Error{Code: Code(m.method), Method: "hello", Message: string(m.body)}
	if e.Code == OK {
		e.Code = Unknown
	}
	if e.Code == FailedPrecondition {
		e.Cause = ErrVersion
	}
	return e
}

func (s *session) say(ctx context.Context, h *hello) error {
	return s.send(ctx, s.control(), &header{typ: msgHello}, parts{body: h.encode()})
}

func (s *session) hear(ctx context.Context) (hello, error) {
	select {
	case h := <-s.hello:
		return h.hello, h.err
	case <-s.done:
		return hello{}, s.err()
	case <-ctx.Done():
		return hello{}, fmt.Errorf("rpc: no hello from %s: %w", s.peerName(), ctx.Err())
	}
}

func (s *session) waitReady(ctx context.Context) (readyMsg, error) {
	select {
	case r := <-s.ready:
		return r, nil
	case <-s.done:
		return readyMsg{}, s.err()
	case <-ctx.Done():
		return readyMsg{}, fmt.Errorf("rpc: %s did not get ready: %w", s.peerName(), ctx.Err())
	}
}

// prove is what READY says: never nothing, for an empty message may get lost.
func (s *session) prove(who string, client, server *hello) []byte {
	if len(s.cfg.Secret) == 0 {
		return []byte("ready")
	}
	return sign(s.cfg.Secret, who, client, server)
}

// verify takes the proof of the peer, in constant time.
func (s *session) verify(who string, client, server *hello, mac []byte) error {
	if len(s.cfg.Secret) == 0 || hmac.Equal(mac, sign(s.cfg.Secret, who, client, server)) {
		return nil
	}
	return &Error{Code: Unauthenticated, Method: "hello", Message: "the peer does not know Config.Secret"}
}
