package rpc

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
)

// stranger speaks the protocol by hand, as a client or as a server, so that it can
// say what package rpc never would.
type stranger struct {
	t    testing.TB
	c    *qp.Conn
	more []*qp.Prepared
	data []*qp.Conn
	self hello
}

func strangeConfig() qp.Config { return qp.Config{Logger: quiet()} }

// stranger dials the server and has its hello ready.
func (b *both) stranger() *stranger {
	c, err := b.cd.Dial(ctxFor(b.t), b.addr, strangeConfig())
	require.NoError(b.t, err)
	s := &stranger{t: b.t, c: c, self: hello{major: major, minor: minor, bootID: 7, epoch: 1, slot: 4096, calls: 16}}
	p, err := b.cd.Prepare(netip.Addr{}, strangeConfig())
	require.NoError(b.t, err)
	s.more = append(s.more, p)
	s.self.data = append(s.self.data, p.Local())
	return s
}

func (s *stranger) close() {
	for _, p := range s.more {
		_ = p.Close()
	}
	for _, c := range s.data {
		_ = c.Close()
	}
	_ = s.c.Close()
}

func (s *stranger) send(c *qp.Conn, h header, body []byte) {
	s.t.Helper()
	require.NoError(s.t, c.SendBytes(ctxFor(s.t), encode(h, parts{body: body})))
}

// encode is a message as bytes.
func encode(h header, p parts) []byte {
	n := headerLen + len(p.descs)*descLen + len(p.token) + len(p.body)
	if p.stream {
		n += offsetLen
	}
	b := make([]byte, n)
	h.descs, h.inline = uint16(len(p.descs)), uint32(len(p.body))
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
	h.put(b, n)
	return b
}

// recv is the next message, with its body copied; an error when the connection ended.
func (s *stranger) recv() (message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m, err := s.c.Recv(ctx)
	if err != nil {
		return message{}, err
	}
	defer m.Buf.Release()
	p, err := m.Buf.Bytes()
	require.NoError(s.t, err)
	var msg message
	require.NoError(s.t, msg.decode(append([]byte(nil), p...)))
	return msg, nil
}

// shake does the client's part of the handshake, up to READY.
func (s *stranger) shake() (hello, error) {
	s.send(s.c, header{typ: msgHello}, s.self.encode())
	m, err := s.recv()
	if err != nil {
		return hello{}, err
	}
	if m.typ == msgClose {
		return hello{}, refusal(&m)
	}
	require.Equal(s.t, msgHello, m.typ)
	var h hello
	require.NoError(s.t, h.decode(m.body))
	c, err := s.more[0].Connect(h.data[0])
	require.NoError(s.t, err)
	s.data = append(s.data, c)
	return h, nil
}

// strangeServer answers the first client by hand.
func strangeServer(t *testing.T, net *rdmatest.Network, f func(s *stranger, h hello)) (d *qp.Device, addr string, stop func()) {
	dev := net.Device(t)
	d, err := qp.Open(qp.DeviceConfig{Context: dev.Context, Logger: quiet()})
	require.NoError(t, err)
	l, err := d.Listen(t.Context(), dev.Addr().String()+":0", strangeConfig())
	require.NoError(t, err)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return
			}
			s := &stranger{t: t, c: c, self: hello{major: major, minor: minor, bootID: 9, slot: 4096, calls: 16}}
			if m, err := s.recv(); err == nil {
				var h hello
				require.NoError(t, h.decode(m.body))
				f(s, h)
			}
			s.close()
		}
	}()
	return d, l.Addr().String(), func() {
		cancel()
		<-done
		require.NoError(t, l.Close())
		require.NoError(t, d.Close())
	}
}

// answer does the server's part of the handshake.
func (s *stranger) answer(d *qp.Device, h hello) { s.answerWith(d, h, strangeConfig()) }

// answerWith is answer with data queue pairs of another configuration.
func (s *stranger) answerWith(d *qp.Device, h hello, cfg qp.Config) {
	p, err := d.Prepare(netip.Addr{}, cfg)
	require.NoError(s.t, err)
	s.self.epoch = h.epoch
	s.self.data = append(s.self.data, p.Local())
	c, err := p.Connect(h.data[0])
	require.NoError(s.t, err)
	s.data = append(s.data, c)
	s.send(s.c, header{typ: msgHello, epoch: h.epoch}, s.self.encode())
	m, err := s.recv()
	require.NoError(s.t, err)
	require.Equal(s.t, msgReady, m.typ)
	s.send(s.c, header{typ: msgReady, epoch: h.epoch}, []byte("ready"))
}
