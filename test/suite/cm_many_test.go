package suite_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

func init() {
	register("N13", "CM cancel", cmCancel)
	register("N14", "CM storm", cmStorm)
	register("N15", "CM IPv6", cmIPv6)
	register("N16", "CM backlog listener close", cmBacklog)
}

func cmCancel(t *testing.T, e *env) {
	e.warm()
	fds, objects := usage(t)
	hole := netip.AddrPortFrom(e.blackHole(), 7)
	// Cancelled while the request is repeated, while the address is looked for
	// (the software device need not look), and before it began.
	for _, c := range []struct {
		peer netip.AddrPort
		d    time.Duration
		step rdmacm.Step
	}{
		{hole, 500 * time.Millisecond, rdmacm.StepConnect},
		{netip.AddrPortFrom(e.nobody(), 7), 100 * time.Millisecond, rdmacm.StepAddress},
		{hole, 0, rdmacm.StepAddress},
	} {
		if e.soft && c.step == rdmacm.StepAddress && c.d > 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), c.d)
		_, err := e.dial(ctx, c.peer, rdmacm.DialConfig{AddrTimeout: 20 * time.Second})
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var ce *rdmacm.ConnectError
		require.ErrorAs(t, err, &ce)
		require.Equal(t, c.step, ce.Step)
	}
	unchanged(t, fds, objects)

	l, err := e.listenOn(e.within(cmLimit), netip.AddrPortFrom(e.ip4, 0), rdmacm.ListenConfig{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err = l.Accept(ctx)
	require.ErrorIs(t, err, context.Canceled)
	// The listener is none the worse for it.
	got := make(chan error, 1)
	go func() {
		c, err := l.Accept(e.within(cmLimit))
		if err == nil {
			err = c.Close()
		}
		got <- err
	}()
	c, err := e.dial(e.within(cmLimit), l.Addr(), rdmacm.DialConfig{})
	require.NoError(t, err)
	require.NoError(t, <-got)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close(), "twice")
	go func() { _, err := l.Accept(e.within(cmLimit)); got <- err }()
	time.Sleep(20 * time.Millisecond)
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-got, rdmacm.ErrClosed)
	// A Setup that fails leaves nothing either.
	boom := errors.New("boom")
	_, err = e.dial(e.within(cmLimit), hole, rdmacm.DialConfig{Setup: func(*rdmacm.Conn) error { return boom }})
	require.ErrorIs(t, err, boom)
	unchanged(t, fds, objects)
}

const (
	stormConns    = 1000
	stormParallel = 64
)

func cmStorm(t *testing.T, e *env) {
	e.warm()
	fds, objects := usage(t)
	small := verbs.QPConfig{Cap: verbs.QPCap{MaxSendWR: 1, MaxRecvWR: 1, MaxSendSGE: 1, MaxRecvSGE: 1}}
	ctx := e.within(240 * time.Second)
	var failed atomic.Int32
	l, err := e.listenOn(ctx, netip.AddrPortFrom(e.ip4, 0), rdmacm.ListenConfig{
		Backlog: 256, QP: small, HandshakeTimeout: time.Minute,
		// A client that closes at once can overtake its own last message of the
		// handshake: the server learns of the connection by its end.
		OnError: func(_ netip.AddrPort, err error) {
			failed.Add(1)
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("accept: %v", err)
			}
		},
	})
	require.NoError(t, err)
	var servers, clients sync.WaitGroup
	var served, dialed atomic.Int32
	for range 16 {
		servers.Go(func() {
			for {
				c, err := l.Accept(ctx)
				if err != nil {
					return
				}
				served.Add(1)
				servers.Go(func() {
					if err := c.WaitDisconnected(ctx); err != nil {
						t.Errorf("server: %v", err)
					}
					if err := c.Close(); err != nil {
						t.Errorf("server: Close: %v", err)
					}
				})
			}
		})
	}
	start := time.Now()
	var next atomic.Int32
	for range stormParallel {
		clients.Go(func() {
			for next.Add(1) <= stormConns {
				c, err := e.dial(ctx, l.Addr(), rdmacm.DialConfig{QP: small, AddrTimeout: time.Minute, RouteTimeout: time.Minute})
				if err != nil {
					t.Errorf("client: %v", err)
					continue
				}
				dialed.Add(1)
				if err := c.Close(); err != nil {
					t.Errorf("client: Close: %v", err)
				}
			}
		})
	}
	clients.Wait()
	// The last of them are still being accepted, which Close would end.
	eventually(t, "all connections accepted", func() bool { return served.Load()+failed.Load() == stormConns })
	t.Logf("%d connections in %v, %d over before they were accepted", dialed.Load(), time.Since(start).Round(time.Millisecond), failed.Load())
	require.NoError(t, l.Close())
	servers.Wait()
	require.Equal(t, int32(stormConns), dialed.Load())
	require.Equal(t, int32(stormConns), served.Load()+failed.Load())
	require.Less(t, failed.Load(), int32(stormConns/10))
	unchanged(t, fds, objects)
}

func cmIPv6(t *testing.T, e *env) {
	require.True(t, e.ip6.IsValid(), "the netdev has a global IPv6 address")
	addrs := []netip.Addr{e.ip6}
	if ll := e.linkLocal(); ll.IsValid() {
		addrs = append(addrs, ll)
	}
	for _, addr := range addrs {
		l := e.listen(addr, rdmacm.ListenConfig{})
		require.Equal(t, addr, l.Addr().Addr())
		s, c := e.connPair(l, l.Addr(), rdmacm.DialConfig{})
		require.Equal(t, addr, c.PeerAddr().Addr())
		require.Equal(t, addr, s.LocalAddr().Addr())
		require.Equal(t, s.PeerAddr().Port(), c.LocalAddr().Port())
		e.exchange(c.QP, e.connMR(c), s.QP, e.connMR(s), 3)
	}
	_, err := e.dial(e.within(cmLimit), netip.AddrPortFrom(netip.MustParseAddr("fe80::99%nosuch0"), 7), rdmacm.DialConfig{})
	var ce *rdmacm.ConnectError
	require.ErrorAs(t, err, &ce)
	require.Equal(t, rdmacm.StepAddress, ce.Step)
	require.ErrorIs(t, err, syscall.ENODEV)
	// An IPv6 wildcard takes IPv4 as well.
	l := e.listen(netip.IPv6Unspecified(), rdmacm.ListenConfig{})
	s, c := e.connPair(l, netip.AddrPortFrom(e.ip4, l.Addr().Port()), rdmacm.DialConfig{})
	e.exchange(c.QP, e.connMR(c), s.QP, e.connMR(s), 4)
}

func cmBacklog(t *testing.T, e *env) {
	e.warm()
	fds, objects := usage(t)
	l, err := e.listenOn(e.within(cmLimit), netip.AddrPortFrom(e.ip4, 0), rdmacm.ListenConfig{Backlog: 2})
	require.NoError(t, err)
	const n = 5
	errs := make(chan error, n)
	for range n {
		go func() {
			c, err := e.dial(e.within(cmLimit), l.Addr(), rdmacm.DialConfig{})
			if err == nil {
				c.Close()
			}
			errs <- err
		}()
	}
	// Two wait to be accepted. The others are dropped without an answer, so that
	// their managers ask again: no failure, and no object for them on this side.
	select {
	case err := <-errs:
		require.Fail(t, "a request ended", "%v", err)
	case <-time.After(500 * time.Millisecond):
	}
	require.NoError(t, l.Close())
	for range n {
		var ce *rdmacm.ConnectError
		select {
		case err := <-errs:
			require.ErrorAs(t, err, &ce)
			require.Equal(t, rdmacm.EventRejected, ce.Event, "%v", err)
		case <-time.After(cmLimit):
			require.Fail(t, "a request is neither answered nor refused")
		}
	}
	unchanged(t, fds, objects)
	_, err = l.Accept(e.within(cmLimit))
	require.ErrorIs(t, err, rdmacm.ErrClosed)
}
