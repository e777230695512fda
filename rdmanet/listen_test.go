package rdmanet

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/qp"
)

func TestDialErrors(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		l := p.listen(t, Config{})
		addr := l.Addr().String()
		require.NoError(t, l.Close())
		d := p.dialer(Config{})
		_, err := d.DialContext(t.Context(), "tcp", addr)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		require.False(t, ne.Timeout())
		c, err := d.DialContext(t.Context(), "udp", addr)
		require.ErrorAs(t, err, new(net.UnknownNetworkError))
		require.Nil(t, c)
		_, err = d.Connect(t.Context(), "nonsense")
		require.ErrorContains(t, err, "missing port")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = d.Connect(ctx, addr)
		require.ErrorIs(t, err, context.Canceled)
		d.Timeout = time.Nanosecond
		_, err = d.Connect(t.Context(), addr)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
	})
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{{MessageSize: 10}, {MessageSize: -1}, {Window: 1}, {Window: 1 << 20}, {DeadAfter: -1}} {
		_, err := c.QP()
		require.ErrorContains(t, err, "it must be")
		_, err = Listen(t.Context(), "127.0.0.1:0", c)
		require.Error(t, err)
		_, err = (&Dialer{Config: c}).Connect(t.Context(), "127.0.0.1:1")
		require.Error(t, err)
		_, err = New(nil, c)
		require.Error(t, err)
	}
}

func TestListener(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		l := p.listen(t, Config{})
		require.NoError(t, l.SetDeadline(time.Now().Add(10*time.Millisecond)))
		_, err := l.Accept()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, l.SetDeadline(time.Time{}))
		// Connections that nobody accepted are reset by Close.
		c, err := p.dialer(Config{}).Connect(t.Context(), l.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		accept := make(chan error, 1)
		other := p.listen(t, Config{})
		go func() {
			_, err := other.Accept()
			accept <- err
		}()
		time.Sleep(10 * time.Millisecond)
		require.NoError(t, other.Close())
		require.ErrorIs(t, <-accept, net.ErrClosed)
		require.NoError(t, l.Close())
		require.NoError(t, l.Close(), "twice")
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		_, err = l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, l.SetDeadline(time.Time{}), net.ErrClosed)
	})
}

// A peer that is a connection of package qp, but no stream, is told from one.
func TestWrongPeer(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		l := p.listen(t, Config{})
		small, err := p.client.Dial(t.Context(), l.Addr().String(), qp.Config{MaxMessage: 32})
		require.NoError(t, err)
		<-small.Done() // refused, and Accept goes on
		require.NoError(t, small.Close())
		for _, m := range []string{"hello world", "zn\x02\x01x", "zn\x01\x07", "z", "zn\x01\x01", "zn\x01\x02x"} {
			q, err := p.client.Dial(t.Context(), l.Addr().String(), qp.Config{})
			require.NoError(t, err)
			c, err := l.Accept()
			require.NoError(t, err)
			require.NoError(t, q.SendBytes(t.Context(), []byte(m)))
			for range 2 {
				_, err = c.Read(make([]byte, 10))
				require.ErrorIs(t, err, ErrProtocol, "%q", m)
			}
			require.NoError(t, c.Close())
			require.NoError(t, q.Close())
		}
	})
}

// New takes a queue pair that was connected in another way, and refuses one that
// has no flow control.
func TestNew(t *testing.T) {
	places(t, func(t *testing.T, p *place) {
		conf, err := Config{}.QP()
		require.NoError(t, err)
		ends := func(conf qp.Config) (out [2]*qp.Conn) {
			n1, n2 := net.Pipe()
			second := make(chan error, 1)
			go func() {
				var err error
				out[1], err = p.server.ExchangeUnsafe(context.Background(), n2, conf)
				second <- err
			}()
			out[0], err = p.client.ExchangeUnsafe(t.Context(), n1, conf)
			require.NoError(t, errors.Join(err, <-second))
			return out
		}
		q := ends(conf)
		a, err := New(q[0], Config{})
		require.NoError(t, err)
		b, err := New(q[1], Config{})
		require.NoError(t, err)
		require.Equal(t, a.LocalAddr(), b.RemoteAddr())
		_, err = a.Write([]byte("hello"))
		require.NoError(t, err)
		var buf [10]byte
		n, err := b.Read(buf[:])
		require.NoError(t, err)
		require.Equal(t, "hello", string(buf[:n]))
		require.NoError(t, errors.Join(a.Close(), b.Close()))
		for _, c := range ends(qp.Config{Raw: true}) {
			_, err = New(c, Config{})
			require.ErrorContains(t, err, "qp.Config.Raw")
			require.NoError(t, c.Close())
		}
	})
}
