package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
)

// Each kind of bad input has its error, and loses nothing: close looks for buffers.
func TestBadInput(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{MaxBytes: 1 << 20, Config: Config{MaxCalls: 4}}, func(s *Server) {
			echo(s)
			s.Handle("long", func(_ context.Context, c *ServerCall) error { return c.Reply(make([]byte, 5000)) })
		})
		c := b.dial(Config{})
		ctx := ctxFor(t)
		fails := func(target error, code Code, method string, body []byte, opts ...Option) {
			t.Helper()
			r, err := c.Call(ctx, method, body, opts...)
			require.Nil(t, r)
			require.ErrorIs(t, err, target)
			require.Equal(t, code, CodeOf(err), err)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, method, e.Method)
		}
		t.Log("arguments that are too long")
		fails(ErrTooLong, ResourceExhausted, "echo", make([]byte, 4096-headerLen+1))
		fails(ErrTooLong, ResourceExhausted, "put", make([]byte, 4096), WriteFrom(b.buf(4096)))
		_, err := c.Call(ctx, "long", nil)
		require.Equal(t, ResourceExhausted, CodeOf(err))
		require.NotErrorIs(t, err, ErrBusy, "it is the handler's fault")

		t.Log("a method that the server does not have")
		fails(errors.ErrUnsupported, Unimplemented, "nothing", nil, ReadInto(b.buf(4096)))
		_, err = c.Call(ctx, "nothing", nil)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.True(t, e.Refused)

		t.Log("buffers")
		foreign, err := b.sd.Pool().Get(ctx, 4096)
		require.NoError(t, err)
		fails(ErrForeignBuffer, InvalidArgument, "get", []byte{1}, ReadInto(foreign))
		x := b.buf(4096)
		require.NoError(t, x.Release())
		fails(mr.ErrMoved, InvalidArgument, "get", []byte{1}, ReadInto(x))
		fails(mr.ErrMoved, InvalidArgument, "get", []byte{1}, ReadInto(mr.Buf{}))
		three := []Option{ReadInto(b.buf(64)), WriteFrom(b.buf(64)), ReadInto(b.buf(64))}
		_, err = c.Call(ctx, "get", nil, three...)
		require.Equal(t, InvalidArgument, CodeOf(err))
		_, err = c.Call(ctx, "get", nil, ReadInto(b.buf(64)), ReadInto(b.buf(64)))
		require.Equal(t, InvalidArgument, CodeOf(err))
		none, err := b.buf(64).Narrow(0, 0)
		require.NoError(t, err)
		_, err = c.Call(ctx, "get", nil, ReadInto(none))
		require.Equal(t, InvalidArgument, CodeOf(err))

		t.Log("a buffer in flight: the call that has it is not disturbed")
		x = b.buf(4096)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		first := make(chan error, 1)
		go func() {
			_, err := c.Call(short, "block", nil, ReadInto(x))
			first <- err
		}()
		time.Sleep(10 * time.Millisecond)
		fails(mr.ErrMoved, InvalidArgument, "get", []byte{1}, ReadInto(x))
		var mis *mr.MisuseError
		_, err = c.Call(ctx, "get", []byte{1}, WriteFrom(x))
		require.ErrorAs(t, err, &mis)
		require.Equal(t, mr.InFlight, mis.Kind)
		require.ErrorIs(t, <-first, context.DeadlineExceeded)

		t.Log("a context that is done: nothing is sent")
		calls := b.s.Stats().Calls
		over, cancel := context.WithCancel(ctx)
		cancel()
		_, err = c.Call(over, "get", []byte{1}, ReadInto(b.buf(4096)))
		require.ErrorIs(t, err, context.Canceled)
		late, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
		defer cancel()
		_, err = c.Call(late, "echo", nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Second)
		require.Equal(t, calls, b.s.Stats().Calls)

		t.Log("a server at its limits")
		big := b.buf(1 << 20)
		short, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
		go func() {
			_, err := c.Call(short, "block", nil, WriteFrom(big))
			first <- err
		}()
		time.Sleep(10 * time.Millisecond)
		fails(ErrBusy, ResourceExhausted, "get", []byte{1}, ReadInto(b.buf(4096)))
		require.ErrorIs(t, <-first, context.DeadlineExceeded)
		time.Sleep(time.Second)
		r, err := c.Call(ctx, "get", []byte{1}, ReadInto(b.buf(4096)))
		require.NoError(t, err, "and later it is not")
		r.Release()

		b.rest()
		require.EqualValues(t, 1, c.Stats().Sessions, "none of this costs the connection")
		require.NoError(t, c.Close())
		fails(ErrClosed, FailedPrecondition, "echo", nil, ReadInto(b.buf(4096)))
		b.close(c)
	})
}

// Handlers that do not listen to their cancellation keep their places.
func TestBusyWithTheCancelled(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		b := newBoth(t, net, ServerConfig{Config: Config{MaxCalls: 2}}, func(s *Server) {
			s.Handle("deaf", func(context.Context, *ServerCall) error {
				time.Sleep(time.Second)
				return nil
			})
		})
		c := b.dial(Config{})
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_, err := c.Call(ctx, "deaf", nil)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		_, err := c.Call(ctxFor(t), "deaf", nil)
		require.ErrorIs(t, err, ErrBusy)
		time.Sleep(2 * time.Second)
		r, err := c.Call(ctxFor(t), "deaf", nil)
		require.NoError(t, err)
		r.Release()
		b.close(c)
	})
}

// Work that cannot be done in the time that is left is refused before its data
// moves; now and then one is tried all the same.
func TestDeadlineAdmission(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		var pulled atomic.Int32
		b := newBoth(t, net, ServerConfig{}, func(s *Server) {
			s.Handle("slow", func(ctx context.Context, c *ServerCall) error {
				pulled.Add(1)
				time.Sleep(100 * time.Millisecond)
				return nil
			})
		})
		c := b.dial(Config{})
		for range 4 {
			r, err := c.Call(ctxFor(t), "slow", nil, WriteFrom(b.buf(4096)))
			require.NoError(t, err)
			r.Release()
		}
		require.EqualValues(t, 4, pulled.Load())
		refused := 0
		for range 32 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			start := time.Now()
			_, err := c.Call(ctx, "slow", nil, WriteFrom(b.buf(4096)))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			var e *Error
			if errors.As(err, &e) && e.Refused {
				refused++
				require.Less(t, time.Since(start), time.Millisecond)
			}
			cancel()
		}
		require.Equal(t, 30, refused)
		require.EqualValues(t, 6, pulled.Load())
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		r, err := c.Call(ctx, "slow", nil, WriteFrom(b.buf(4096)))
		require.NoError(t, err)
		r.Release()
		b.close(c)
	})
}

// authority makes certificates that are good for an hour.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	a := &authority{t, cert, key, x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

func (a *authority) issue(until time.Time) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "peer"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	require.NoError(a.t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) config(c tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c}, RootCAs: a.pool, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
}

// Sessions over TLS, and certificates that are not accepted, here and there. In
// real time: sockets are the kernel's.
func TestCertificates(t *testing.T) {
	good, other := newAuthority(t), newAuthority(t)
	hour, past := time.Now().Add(time.Hour), time.Now().Add(-time.Minute)
	for _, k := range []struct {
		name           string
		server, client *tls.Config
		bad            bool
	}{
		{"good", good.config(good.issue(hour)), good.config(good.issue(hour)), false},
		{"the server's has expired", good.config(good.issue(past)), good.config(good.issue(hour)), true},
		{"the client's has expired", good.config(good.issue(hour)), good.config(good.issue(past)), true},
		{"the server's is of a stranger", good.config(other.issue(hour)), good.config(good.issue(hour)), true},
		{"the client's is of a stranger", good.config(good.issue(hour)), good.config(other.issue(hour)), true},
		{"the client has none", good.config(good.issue(hour)), &tls.Config{RootCAs: good.pool, MinVersion: tls.VersionTLS13}, true},
	} {
		t.Run(k.name, func(t *testing.T) {
			nw := rdmatest.NewNetwork(t, 1)
			sn, cn := nw.Device(t), nw.Device(t)
			sd, err := qp.Open(qp.DeviceConfig{Context: sn.Context, Logger: quiet()})
			require.NoError(t, err)
			cd, err := qp.Open(qp.DeviceConfig{Context: cn.Context, Logger: quiet()})
			require.NoError(t, err)
			s, err := NewServer(ServerConfig{Config: Config{Device: sd, Logger: quiet(), TLS: k.server}})
			require.NoError(t, err)
			echo(s)
			l, err := s.Listen(t.Context(), "127.0.0.1:0")
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() { done <- s.Serve(l) }()
			c, err := Dial(ctxFor(t), l.Addr(), Config{Device: cd, Logger: quiet(), TLS: k.client, NoReconnect: true})
			if k.bad {
				require.ErrorIs(t, err, ErrUnauthenticated)
				require.Equal(t, Unauthenticated, CodeOf(err))
			} else {
				require.NoError(t, err)
				r, err := c.Call(ctxFor(t), "echo", []byte("x"))
				require.NoError(t, err)
				r.Release()
				require.NoError(t, c.Close())
			}
			require.NoError(t, s.Close())
			require.NoError(t, <-done)
			require.NoError(t, cd.Close())
			require.NoError(t, sd.Close())
		})
	}
}

// A caller that has its answer may call again at once, before the handler has
// returned; handlers that never do are bounded all the same.
func TestAnsweredCallsDoNotCount(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		over := make(chan struct{})
		b := newBoth(t, net, ServerConfig{Config: Config{MaxCalls: 2}}, func(s *Server) {
			s.Handle("slow end", func(_ context.Context, c *ServerCall) error {
				err := c.Reply(nil)
				<-over
				return err
			})
		})
		cl := b.dial(Config{})
		for range 4 {
			r, err := cl.Call(t.Context(), "slow end", nil)
			require.NoError(t, err)
			r.Release()
		}
		_, err := cl.Call(t.Context(), "slow end", nil)
		require.Equal(t, ResourceExhausted, CodeOf(err))
		close(over)
		time.Sleep(time.Millisecond)
		r, err := cl.Call(t.Context(), "slow end", nil)
		require.NoError(t, err)
		r.Release()
		b.close(cl)
	})
}
