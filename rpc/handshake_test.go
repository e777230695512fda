package rpc

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
)

// A stranger that asks without having proved anything is not answered: no handler
// sees what it sent.
func TestNoRequestBeforeTheProof(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		for name, ask := range map[string]func(s *stranger){
			"at once": func(s *stranger) {
				s.send(s.c, header{typ: msgRequest, method: MethodID("echo"), id: 1 << 32, epoch: 0}, []byte("x"))
			},
			"after hello": func(s *stranger) {
				_, err := s.shake()
				require.NoError(t, err)
				s.send(s.c, header{typ: msgRequest, method: MethodID("echo"), id: 1 << 32, epoch: 1}, []byte("x"))
			},
			"with a wrong proof": func(s *stranger) {
				_, err := s.shake()
				require.NoError(t, err)
				s.send(s.c, header{typ: msgReady, epoch: 1}, make([]byte, 32))
				s.send(s.c, header{typ: msgRequest, method: MethodID("echo"), id: 1 << 32, epoch: 1}, []byte("x"))
			},
		} {
			b := newBoth(t, net, ServerConfig{Config: Config{Secret: []byte("s")}}, echo)
			s := b.stranger()
			ask(s)
			for {
				m, err := s.recv()
				if err != nil {
					break
				}
				require.NotEqual(t, msgResponse, m.typ, name)
			}
			require.Zero(t, b.s.Stats().Calls, name)
			s.close()
			b.close()
		}
	})
}

// A later minor version, with fields that this one does not know, is served, also
// where a secret binds both hellos.
func TestAnotherMinorVersion(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		secret := []byte("s")
		b := newBoth(t, net, ServerConfig{Config: Config{Secret: secret}}, echo)
		s := b.stranger()
		s.self.minor = minor + 5
		said := s.self.encode()
		said = binary.LittleEndian.AppendUint16(said, 999)
		said = binary.LittleEndian.AppendUint16(said, 3)
		said = append(said, "new"...)
		s.send(s.c, header{typ: msgHello}, said)
		m, err := s.recv()
		require.NoError(t, err)
		require.Equal(t, msgHello, m.typ)
		var h hello
		require.NoError(t, h.decode(m.body))
		// By hand: over what was said, not over what the other side understood.
		prove := func(who string) []byte {
			m := hmac.New(sha256.New, secret)
			m.Write([]byte(who))
			for _, b := range [][]byte{said, h.said} {
				m.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(b))))
				m.Write(b)
			}
			return m.Sum(nil)
		}
		require.Equal(t, prove("server"), h.mac)
		c, err := s.more[0].Connect(h.data[0])
		require.NoError(t, err)
		s.data = append(s.data, c)
		proof := prove("client")
		s.send(s.c, header{typ: msgReady, epoch: 1}, proof)
		s.send(c, header{typ: msgReady, epoch: 1}, proof)
		m, err = s.recv()
		require.NoError(t, err)
		require.Equal(t, msgReady, m.typ)
		s.send(s.c, header{typ: msgRequest, method: MethodID("echo"), id: 1 << 32, epoch: 1}, []byte("hi"))
		m, err = s.recv()
		require.NoError(t, err)
		require.Equal(t, msgResponse, m.typ)
		require.Equal(t, "hi", string(m.body))
		s.close()
		b.close()
	})
}

// Another major version is refused in words, both ways.
func TestAnotherMajorVersion(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, echo)
		s := b.stranger()
		s.self.major = major + 1
		_, err := s.shake()
		require.ErrorIs(t, err, ErrVersion)
		require.Equal(t, FailedPrecondition, CodeOf(err))
		require.ErrorContains(t, err, fmt.Sprintf("version 1.%d of the protocol, the peer 2.%d", minor, minor))
		s.close()

		_, addr, stop := strangeServer(t, net, func(s *stranger, h hello) {
			s.self.major = major + 1
			s.self.data, s.self.epoch = h.data, h.epoch
			s.send(s.c, header{typ: msgHello, epoch: h.epoch}, s.self.encode())
			_, _ = s.recv()
		})
		_, err = Dial(ctxFor(t), addr, Config{Device: b.cd, Logger: quiet(), NoReconnect: true})
		require.ErrorIs(t, err, ErrVersion)
		require.ErrorIs(t, err, ErrUnavailable)
		stop()
		b.close()
	})
}

func TestSecret(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		for _, k := range []struct{ server, client string }{{"a", "b"}, {"a", ""}, {"", "a"}} {
			b := newBoth(t, net, ServerConfig{Config: Config{Secret: []byte(k.server)}}, echo)
			_, err := Dial(ctxFor(t), b.addr, Config{Device: b.cd, Logger: quiet(), NoReconnect: true, Secret: []byte(k.client)})
			require.ErrorIs(t, err, ErrUnauthenticated, "%+v", k)
			c := b.dial(Config{Secret: []byte(k.server)})
			r, err := c.Call(ctxFor(t), "echo", []byte("x"))
			require.NoError(t, err)
			r.Release()
			b.close(c)
		}
	})
}

// A server that is full says so.
func TestTooManySessions(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{MaxSessions: 1}, echo)
		c := b.dial(Config{})
		_, err := Dial(ctxFor(t), b.addr, Config{Device: b.cd, Logger: quiet(), NoReconnect: true})
		require.Equal(t, ResourceExhausted, CodeOf(err), err)
		b.close(c)
	})
}

// A session that ends while its dial returns is not the client's: calls would spin
// on it for ever.
func TestSessionThatEndsAtOnce(t *testing.T) {
	for name, typ := range map[string]msgType{"close": msgClose, "goaway": msgGoAway} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *rdmatest.Network) {
				b := newBoth(t, net, ServerConfig{}, echo)
				var d *qp.Device
				d, addr, stop := strangeServer(t, net, func(s *stranger, h hello) {
					s.answer(d, h)
					s.send(s.c, header{typ: typ, epoch: h.epoch}, nil)
					_, _ = s.recv()
				})
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				c, err := Dial(ctx, addr, Config{Device: b.cd, Logger: quiet()})
				if err == nil {
					_, err = c.Call(ctx, "echo", []byte("x"))
					require.Error(t, err)
					require.NoError(t, c.Close())
				}
				stop()
				b.close()
			})
		})
	}
}

// Whenever client or server is closed while they connect, nothing stays.
func TestCloseWhileConnecting(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		for i := range 24 {
			net.SetFaults(rdmatest.Faults{Delay: 50 * time.Microsecond})
			b := newBoth(t, net, ServerConfig{}, echo)
			res := make(chan *Client)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			go func() {
				c, err := Dial(ctx, b.addr, Config{Device: b.cd, Logger: quiet(), DataQPs: 1 + i%3})
				if err != nil {
					c = nil
				}
				res <- c
			}()
			time.Sleep(time.Duration(i) * 75 * time.Microsecond)
			if i%2 == 0 {
				require.NoError(t, b.s.Close())
			} else {
				cancel()
			}
			if c := <-res; c != nil {
				require.NoError(t, c.Close())
			}
			cancel()
			b.close()
		}
	})
}

// A session that has ended, or that the server wants to end, takes no calls: who
// dials must not keep it.
func TestUsable(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{}, echo)
		c := b.dial(Config{})
		c.mu.Lock()
		first := c.cur
		c.mu.Unlock()
		require.True(t, first.usable())
		first.retire(false)
		require.False(t, first.usable())
		r, err := c.Call(ctxFor(t), "echo", []byte("x"))
		require.NoError(t, err)
		r.Release()
		c.mu.Lock()
		second := c.cur
		c.mu.Unlock()
		require.NotSame(t, first, second)
		second.session.end(ErrClosed)
		require.False(t, second.usable())
		r, err = c.Call(ctxFor(t), "echo", []byte("x"))
		require.NoError(t, err)
		r.Release()
		b.close(c)
	})
}
