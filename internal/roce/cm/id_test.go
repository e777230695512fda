package cm

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestBind(t *testing.T) {
	n := newNetwork()
	h := n.host(t, "10.0.0.1", "fd00::1", "127.0.0.5")
	type want struct {
		reuse, v6only bool
		addr          string
		err           error
	}
	for name, c := range map[string][]want{
		"same address":             {{addr: "10.0.0.1:7"}, {addr: "10.0.0.1:7", err: syscall.EADDRINUSE}},
		"other port":               {{addr: "10.0.0.1:7"}, {addr: "10.0.0.1:8"}},
		"other address":            {{addr: "10.0.0.1:7"}, {addr: "[fd00::1]:7"}},
		"both reuse":               {{addr: "10.0.0.1:7", reuse: true}, {addr: "10.0.0.1:7", reuse: true}},
		"one reuses":               {{addr: "10.0.0.1:7", reuse: true}, {addr: "10.0.0.1:7", err: syscall.EADDRINUSE}},
		"wildcard first":           {{addr: "0.0.0.0:7"}, {addr: "10.0.0.1:7", err: syscall.EADDRNOTAVAIL}},
		"wildcard second":          {{addr: "10.0.0.1:7"}, {addr: "0.0.0.0:7", err: syscall.EADDRNOTAVAIL}},
		"IPv6 wildcard takes IPv4": {{addr: "[::]:7"}, {addr: "0.0.0.0:7", err: syscall.EADDRNOTAVAIL}},
		"IPv6 only":                {{addr: "[::]:7", v6only: true}, {addr: "0.0.0.0:7"}},
		"not ours":                 {{addr: "10.0.0.2:7", err: syscall.EADDRNOTAVAIL}},
		"not ours, on loopback":    {{addr: "127.0.0.2:7", err: syscall.EADDRNOTAVAIL}},
		"localhost":                {{addr: "127.0.0.1:7"}, {addr: "127.0.0.5:7", err: syscall.EADDRINUSE}},
		"IPv4 in IPv6":             {{addr: "[::ffff:10.0.0.1]:7"}, {addr: "10.0.0.1:7", err: syscall.EADDRINUSE}},
	} {
		t.Run(name, func(t *testing.T) {
			var open []*peer
			for _, w := range c {
				x := h.id(provider.PSTCP)
				open = append(open, x)
				if w.reuse {
					require.NoError(t, x.SetOption(0, optReuse, []byte{1, 0, 0, 0}))
				}
				if w.v6only {
					require.NoError(t, x.SetOption(0, optAFOnly, []byte{1, 0, 0, 0}))
				}
				err := x.Bind(at(w.addr))
				if w.err == nil {
					require.NoError(t, err)
					require.Equal(t, error(errInval), x.Bind(at(w.addr)), "twice")
				} else {
					require.Equal(t, w.err, err)
				}
			}
			for _, x := range open {
				x.end()
			}
		})
	}
	// The other port space is another matter.
	a, b := h.id(provider.PSTCP), h.id(provider.PSUDP)
	require.NoError(t, a.Bind(at("10.0.0.1:7")))
	require.NoError(t, b.Bind(at("10.0.0.1:7")))
	require.Equal(t, error(syscall.EPROTONOSUPPORT), func() error { _, err := h.m.CreateID(a.ch, 1, provider.PSIB); return err }())
}

func TestListenAlone(t *testing.T) {
	n := newNetwork()
	h := n.host(t, "10.0.0.1")
	a, b := h.id(provider.PSTCP), h.id(provider.PSTCP)
	for _, x := range []*peer{a, b} {
		require.NoError(t, x.SetOption(0, optReuse, []byte{1, 0, 0, 0}))
		require.NoError(t, x.Bind(at("10.0.0.1:7")))
	}
	require.Equal(t, error(syscall.EADDRINUSE), a.Listen(1))
	b.end()
	require.NoError(t, a.Listen(1))
	require.Equal(t, error(errInval), a.Listen(1), "twice")
	c := h.id(provider.PSTCP)
	require.NoError(t, c.Listen(1), "unbound: a wildcard")
	require.True(t, c.LocalAddr().Addr().IsUnspecified())
}

func TestEphemeralPorts(t *testing.T) {
	n := newNetwork()
	h := n.host(t, "10.0.0.1")
	seen := map[uint16]bool{}
	for range 500 {
		x := h.id(provider.PSTCP)
		require.NoError(t, x.Bind(at("10.0.0.1:0")))
		p := x.LocalAddr().Port()
		require.GreaterOrEqual(t, p, uint16(firstPort))
		require.LessOrEqual(t, p, uint16(lastPort))
		require.False(t, seen[p])
		seen[p] = true
	}
	for p := firstPort; p <= lastPort; p++ {
		h.m.ports[portKey{provider.PSUDP, uint16(p)}] = []*id{{}}
	}
	require.Equal(t, error(syscall.EADDRNOTAVAIL), h.id(provider.PSUDP).Bind(at("10.0.0.1:0")))
	clear(h.m.ports)
}

func TestResolve(t *testing.T) {
	n := newNetwork()
	h := n.host(t, "192.168.1.1", "10.0.0.1", "fd00::1", "fe80::1%eth7", "127.0.0.1")
	for _, c := range []struct{ src, dst, local, peer string }{
		{"", "10.0.0.9:7", "10.0.0.1", "10.0.0.9:7"},
		{"", "192.168.1.9:7", "192.168.1.1", "192.168.1.9:7"},
		{"", "[fd00::9]:7", "fd00::1", "[fd00::9]:7"},
		{"", "[fe80::9%eth7]:7", "fe80::1%eth7", "[fe80::9%eth7]:7"},
		{"", "[fe80::9]:7", "fe80::1%eth7", "[fe80::9%eth7]:7"},
		{"", "127.0.0.9:7", "127.0.0.1", "127.0.0.9:7"},
		{"", "0.0.0.0:7", "192.168.1.1", "192.168.1.1:7"},
		{"", "10.0.0.1:7", "10.0.0.1", "10.0.0.1:7"},
		{"192.168.1.1:0", "10.0.0.9:7", "192.168.1.1", "10.0.0.9:7"},
		{"0.0.0.0:55", "10.0.0.9:7", "10.0.0.1", "10.0.0.9:7"},
		{"10.0.0.1:0", "0.0.0.0:7", "10.0.0.1", "10.0.0.1:7"},
	} {
		x := h.id(provider.PSTCP)
		var src netip.AddrPort
		if c.src != "" {
			src = at(c.src)
		}
		require.Equal(t, error(errInval), x.ResolveRoute(1))
		require.NoError(t, x.ResolveAddr(src, at(c.dst), 1), c.dst)
		x.next(provider.CMEventAddrResolved)
		require.Equal(t, c.local, x.LocalAddr().Addr().String())
		require.Equal(t, c.peer, x.PeerAddr().String())
		if src.Port() != 0 {
			require.Equal(t, src.Port(), x.LocalAddr().Port())
		}
		require.Equal(t, error(errInval), x.ResolveAddr(src, at(c.dst), 1), "twice")
		require.Equal(t, error(errInval), x.Connect(&params), "no route yet")
		x.end()
	}
	x := h.id(provider.PSTCP)
	require.Equal(t, error(syscall.ENODEV), x.ResolveAddr(netip.AddrPort{}, at("[fe80::9%nosuch]:7"), 1))
	require.Equal(t, error(errInval), x.ResolveAddr(at("10.0.0.1:0"), at("[fd00::9]:7"), 1))
	require.Equal(t, error(syscall.EADDRNOTAVAIL), x.ResolveAddr(at("10.0.0.77:0"), at("10.0.0.9:7"), 1))
	require.NoError(t, x.ResolveAddr(netip.AddrPort{}, at("10.0.0.9:7"), 1), "none the worse for it")

	lo := n.host(t, "127.0.0.2")
	y := lo.id(provider.PSTCP)
	require.NoError(t, y.ResolveAddr(netip.AddrPort{}, at("10.0.0.9:7"), 1))
	require.Equal(t, -int32(syscall.ENODEV), y.next(provider.CMEventAddrError).Status)
	require.NoError(t, y.ResolveAddr(netip.AddrPort{}, at("127.0.0.3:7"), 1), "again, elsewhere")
	y.next(provider.CMEventAddrResolved)
}

type routed struct {
	*host
	err error
}

func (r routed) Route(netip.Addr) (netip.Addr, error) { return r.addrs[1], r.err }

func TestRouter(t *testing.T) {
	n := newNetwork()
	h := n.host(t, "10.0.0.1", "10.0.0.2")
	for _, err := range []error{nil, syscall.EHOSTUNREACH} {
		h.m = New(routed{h, err})
		x := h.id(provider.PSTCP)
		require.NoError(t, x.ResolveAddr(netip.AddrPort{}, at("10.0.0.9:7"), 1))
		if err == nil {
			x.next(provider.CMEventAddrResolved)
			require.Equal(t, h.addrs[1], x.LocalAddr().Addr())
		} else {
			require.Equal(t, -int32(syscall.EHOSTUNREACH), x.next(provider.CMEventAddrError).Status)
		}
	}
}

func TestOptions(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		x := p.a.id(provider.PSTCP)
		require.Equal(t, error(syscall.ENOSYS), x.SetOption(0, 99, []byte{1}))
		require.Equal(t, error(syscall.ENOSYS), x.SetOption(1, 1, []byte{1}))
		require.Equal(t, error(errInval), x.SetOption(0, optTOS, nil))
		require.Equal(t, error(errInval), x.SetOption(0, optTOS, []byte{1, 0}))
		require.Equal(t, error(errInval), x.SetOption(0, optReuse, []byte{1}))
		require.Equal(t, error(errInval), x.SetOption(0, optAck, []byte{32}))
		require.NoError(t, x.SetOption(0, optTOS, []byte{0x60}))
		require.NoError(t, x.SetOption(0, optAck, []byte{19}))
		require.NoError(t, x.ResolveAddr(netip.AddrPort{}, p.l.LocalAddr(), 1))
		x.next(provider.CMEventAddrResolved)
		require.NoError(t, x.ResolveRoute(1))
		x.next(provider.CMEventRouteResolved)
		require.Equal(t, error(errInval), x.SetOption(0, optAFOnly, []byte{1, 0, 0, 0}))
		q := x.makeQP()
		require.NoError(t, x.Connect(&params))
		s, _ := p.l.request()
		sq := s.makeQP()
		require.NoError(t, s.Accept(&params))
		x.next(provider.CMEventEstablished)
		require.Equal(t, uint8(19), q.get().Timeout)
		require.Equal(t, uint8(0x60), q.get().AH.GRH.TrafficClass)
		require.Equal(t, uint8(0x60), sq.get().AH.GRH.TrafficClass)
		require.Equal(t, uint8(defaultAck), sq.get().Timeout, "ours to choose")
	})
}

func TestMigrate(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).ask()
		s, _ := p.l.request()
		s.makeQP()
		require.NoError(t, s.Accept(&params))
		// What waits moves along, and only what is the id's.
		other := p.a.id(provider.PSTCP)
		require.NoError(t, other.Migrate(p.c.ch))
		require.NoError(t, other.WriteEvent(provider.CMEventUser, 5, 6))
		require.Equal(t, error(errInval), other.WriteEvent(provider.CMEventEstablished, 0, 0))
		to := newChannel(p.a.m)
		require.NoError(t, p.c.Migrate(to))
		ev, err := p.c.ch.TryGet(fresh)
		require.NoError(t, err)
		require.Equal(t, provider.CMEvent{Type: provider.CMEventUser, Status: 5, Arg: 6, Cookie: other.cookie}, ev)
		p.c.quiet()
		p.c.ch = to
		p.c.next(provider.CMEventEstablished)
		require.Equal(t, error(errInval), p.c.Migrate(p.l.ch), "of another manager")
	})
}

func TestChannel(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNetwork()
		x := n.host(t, "10.0.0.1").id(provider.PSTCP)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := x.ch.Get(ctx, fresh)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		// Each event is for one waiter, and none is lost to one that gives up.
		got := make(chan error)
		for range 2 {
			go func() { _, err := x.ch.Get(t.Context(), fresh); got <- err }()
		}
		_, err = x.ch.Get(ctx, fresh)
		require.Error(t, err)
		for range 2 {
			require.NoError(t, x.WriteEvent(provider.CMEventUser, 0, 0))
		}
		require.NoError(t, <-got)
		require.NoError(t, <-got)
		go func() { _, err := x.ch.Get(t.Context(), fresh); got <- err }()
		x.ch.Interrupt()
		require.Equal(t, error(syscall.ECANCELED), <-got)
		_, err = x.ch.TryGet(fresh)
		require.Equal(t, error(syscall.ECANCELED), err)
		require.NoError(t, x.ch.Close())
	})
}

func TestMulticast(t *testing.T) {
	n := newNetwork()
	h := n.host(t, "10.0.0.1")
	group := at("239.1.2.3:0")
	x := h.id(provider.PSUDP)
	require.Equal(t, error(errInval), x.JoinMulticast(group, 1, 0, false), "not bound")
	require.NoError(t, x.Bind(at("10.0.0.1:0")))
	q := x.makeQP()
	require.Equal(t, error(provider.ENOTSUPP), x.JoinMulticast(at("[ff0e::1]:0"), 1, 0, false))
	require.NoError(t, x.JoinMulticast(group, 5, 0, false))
	ev := x.next(provider.CMEventMulticastJoin)
	require.Equal(t, uint64(5), ev.Group)
	require.Equal(t, [2]uint32{mcastQPN, udQKey}, [2]uint32{ev.UD.QPN, ev.UD.QKey})
	require.Equal(t, group.Addr(), ev.UD.AH.GRH.DGID.Addr())
	require.Len(t, q.mc, 1)
	require.Equal(t, error(syscall.EBUSY), x.q.Close())
	require.Equal(t, error(syscall.EADDRNOTAVAIL), x.LeaveMulticast(at("239.1.2.4:0")))
	require.NoError(t, x.LeaveMulticast(group))
	require.Empty(t, q.mc)
	h.noMcast = true
	require.NoError(t, x.JoinMulticast(group, 6, 0, false))
	require.Equal(t, -int32(syscall.EOPNOTSUPP), x.next(provider.CMEventMulticastError).Status)
	require.NoError(t, x.JoinMulticast(group, 7, sendOnly, true), "attaches nothing")
	x.next(provider.CMEventMulticastJoin)
	require.Equal(t, error(errInval), h.id(provider.PSTCP).JoinMulticast(group, 1, 0, false))
}

func TestGetComp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).ask()
		var wc provider.WC
		require.Equal(t, error(errInval), p.l.GetComp(t.Context(), true, &wc))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, p.c.GetComp(ctx, true, &wc), context.DeadlineExceeded)
		cq := p.c.qp.comp[1].cq.(*fakeCQ)
		got := make(chan error)
		wait := func() { var wc provider.WC; got <- p.c.GetComp(t.Context(), true, &wc) }
		go wait()
		go wait()
		time.Sleep(time.Second)
		cq.wc <- provider.WC{WRID: 1}
		cq.wc <- provider.WC{WRID: 2}
		cq.ch.ev <- struct{}{}
		require.NoError(t, <-got)
		require.NoError(t, <-got, "both were there at the one event")
		go wait()
		time.Sleep(time.Second)
		require.NoError(t, p.c.q.Close())
		require.Equal(t, error(syscall.ECANCELED), <-got)
		p.c.q = nil
		require.Equal(t, error(errInval), p.c.GetComp(t.Context(), true, &wc))
	})
}

func TestAddrInfo(t *testing.T) {
	n := newNetwork()
	h := n.host(t, "10.0.0.1", "fd00::1")
	_, err := h.m.GetAddrInfo("", "", nil)
	require.Equal(t, error(errInval), err)
	l, err := h.m.GetAddrInfo("", "7", &provider.CMAddrInfo{Flags: raiPassive | raiFamily, Family: afINET6, PortSpace: provider.PSUDP})
	require.NoError(t, err)
	require.Equal(t, []provider.CMAddrInfo{{Flags: raiPassive, Family: afINET6, QPType: provider.QPTUD, PortSpace: provider.PSUDP, Src: at("[::]:7")}}, l)
	_, err = h.m.GetAddrInfo("10.0.0.9", "7", &provider.CMAddrInfo{Flags: raiFamily, Family: afINET6})
	require.Equal(t, error(syscall.EADDRNOTAVAIL), err)
	_, err = h.m.GetAddrInfo("host", "7", &provider.CMAddrInfo{Flags: raiNumericHost})
	require.Equal(t, error(errInval), err)
	x := h.id(provider.PSTCP)
	_, err = x.QueryAddrInfo()
	require.Error(t, err)
	require.NoError(t, x.ResolveAddrInfo("10.0.0.9", "7", nil))
	x.next(provider.CMEventAddrinfoResolved)
	l, err = x.QueryAddrInfo()
	require.NoError(t, err)
	require.Equal(t, at("10.0.0.9:7"), l[0].Dst)
	require.NoError(t, x.ResolveAddrInfo("10.0.0.9", "no such service", nil))
	x.next(provider.CMEventAddrinfoError)
}

// A waiter that gives up just as an event comes leaves it to the others.
func TestGivingUpLosesNoEvent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNetwork()
		x := n.host(t, "10.0.0.1").id(provider.PSTCP)
		for range 200 {
			ctx, cancel := context.WithCancel(t.Context())
			hasty, patient := make(chan error, 1), make(chan error, 1)
			go func() { _, err := x.ch.Get(ctx, fresh); hasty <- err }()
			synctest.Wait()
			go func() { _, err := x.ch.Get(t.Context(), fresh); patient <- err }()
			synctest.Wait()
			require.NoError(t, x.WriteEvent(provider.CMEventUser, 0, 0))
			cancel()
			if <-hasty == nil {
				require.NoError(t, x.WriteEvent(provider.CMEventUser, 0, 0))
			}
			require.NoError(t, <-patient)
		}
	})
}
