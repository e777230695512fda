package cm

import (
	"bytes"
	"context"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
)

func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestConnect(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		p.c = p.a.resolve(provider.PSTCP, p.l.LocalAddr())
		require.Equal(t, p.l.LocalAddr(), p.c.PeerAddr())
		require.Equal(t, p.a.addrs[0], p.c.LocalAddr().Addr())
		require.NotZero(t, p.c.LocalAddr().Port())
		require.Equal(t, provider.Context(p.a), p.c.Context())
		require.Equal(t, uint8(1), p.c.Port())
		p.cq = p.c.makeQP()
		ask, answer := bytes.Repeat([]byte{1}, roomREQ), bytes.Repeat([]byte{2}, privREP)
		want := provider.CMConnParam{Private: make([]byte, roomREQ+1), ResponderResources: 3, InitiatorDepth: 2, RetryCount: 5, RNRRetryCount: 4}
		require.Equal(t, error(errInval), p.c.Connect(&want))
		want.Private, want.InitiatorDepth = ask, 17
		require.Equal(t, error(errInval), p.c.Connect(&want), "more than the device can do")
		want.InitiatorDepth = 2
		require.NoError(t, p.c.Connect(&want))
		s, ev := p.l.request()
		require.Equal(t, ask, ev.Conn.Private)
		require.Equal(t, p.cq.qpn, ev.Conn.QPN)
		require.Equal(t, [2]uint8{2, 3}, [2]uint8{ev.Conn.ResponderResources, ev.Conn.InitiatorDepth}, "from the other end")
		require.Equal(t, [2]uint8{5, 4}, [2]uint8{ev.Conn.RetryCount, ev.Conn.RNRRetryCount})
		require.Equal(t, p.c.LocalAddr(), s.PeerAddr())
		require.Equal(t, p.l.LocalAddr(), s.LocalAddr())
		p.sq = s.makeQP()
		require.Equal(t, error(errInval), s.Accept(&provider.CMConnParam{Private: make([]byte, privREP+1)}))
		yes := params
		yes.Private = answer
		require.NoError(t, s.Accept(&yes))
		est := p.c.next(provider.CMEventEstablished)
		require.Equal(t, answer, est.Conn.Private)
		require.Equal(t, p.sq.qpn, est.Conn.QPN)
		s.next(provider.CMEventEstablished)
		require.Equal(t, []attrID{attrREQ, attrREP, attrRTU}, p.net.sent())

		// Each queue pair is set for what the other is.
		a, b := p.cq.get(), p.sq.get()
		for _, x := range []provider.QPAttr{a, b} {
			require.Equal(t, provider.QPSRTS, x.State)
			require.Equal(t, provider.MTU1024, x.PathMTU)
			require.Equal(t, uint8(defaultAck), x.Timeout)
			require.Equal(t, uint8(5), x.RetryCnt)
			require.True(t, x.AH.IsGlobal)
		}
		require.Equal(t, a.SQPSN, b.RQPSN)
		require.Equal(t, b.SQPSN, a.RQPSN)
		require.Equal(t, [2]uint32{p.sq.qpn, p.cq.qpn}, [2]uint32{a.DestQPN, b.DestQPN})
		require.Equal(t, [2]uint8{3, 2}, [2]uint8{a.MaxDestRdAtomic, a.MaxRdAtomic})
		require.Equal(t, [2]uint8{2, 3}, [2]uint8{b.MaxDestRdAtomic, b.MaxRdAtomic})
		require.Equal(t, p.b.addrs[0], a.AH.GRH.DGID.Addr())
		require.Equal(t, p.a.addrs[0], b.AH.GRH.DGID.Addr())
		require.Equal(t, uint8(4), b.RNRRetry, "what the client asked of the server")
		require.Equal(t, uint8(7), a.RNRRetry, "what the server asked of the client")

		// The end.
		require.NoError(t, p.c.Disconnect())
		require.Equal(t, provider.QPSErr, p.cq.get().State)
		s.next(provider.CMEventDisconnected)
		require.Equal(t, provider.QPSRTS, p.sq.get().State, "until the application says so")
		p.c.quiet()
		require.NoError(t, s.Disconnect())
		require.Equal(t, int32(0), p.c.next(provider.CMEventDisconnected).Status)
		p.c.next(provider.CMEventTimewaitExit)
		s.next(provider.CMEventTimewaitExit)
		require.Equal(t, []attrID{attrDREQ, attrDREP}, p.net.sent())
		p.c.end()
		s.end()
		p.l.end()
		p.a.empty()
		p.b.empty()
	})
}

func TestIPv6(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		l := p.b.id(provider.PSTCP)
		require.NoError(t, l.Bind(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)))
		require.Nil(t, l.Context())
		require.NoError(t, l.Listen(0))
		for i, at := range p.b.addrs {
			c := p.a.resolve(provider.PSTCP, netip.AddrPortFrom(at, l.LocalAddr().Port()))
			q := c.makeQP()
			require.NoError(t, c.Connect(&params))
			s, _ := l.request()
			require.Equal(t, at, s.LocalAddr().Addr(), "a wildcard takes both families")
			require.Equal(t, p.a.addrs[i], s.PeerAddr().Addr())
			s.makeQP()
			require.NoError(t, s.Accept(&params))
			c.next(provider.CMEventEstablished)
			s.next(provider.CMEventEstablished)
			require.Equal(t, uint8(i), q.get().AH.GRH.SGIDIndex)
		}
	})
}

func TestReject(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		for _, want := range []uint16{rejConsumer, rejVendor} {
			p.ask()
			s, _ := p.l.request()
			private := bytes.Repeat([]byte{3}, privREJ)
			require.Equal(t, error(errInval), s.Reject(make([]byte, privREJ+1)))
			require.NoError(t, p.c.SetLocalECE(provider.ECE{}))
			if want == rejConsumer {
				require.NoError(t, s.Reject(private))
			} else {
				_, err := s.RemoteECE()
				require.NoError(t, err)
				require.NoError(t, s.RejectECE(private))
			}
			ev := p.c.next(provider.CMEventRejected)
			require.Equal(t, int32(want), ev.Status)
			require.Equal(t, private, ev.Conn.Private)
			require.Equal(t, provider.QPSErr, p.cq.get().State)
			require.Equal(t, error(errInval), s.Accept(&params))
			s.quiet()
		}
		// Closing a request, taken or not, refuses it.
		p.ask()
		s, _ := p.l.request()
		s.end()
		require.Equal(t, int32(rejConsumer), p.c.next(provider.CMEventRejected).Status)
		p.ask()
		p.l.end()
		require.Equal(t, int32(rejConsumer), p.c.next(provider.CMEventRejected).Status)
		// Nobody listens now.
		p.ask()
		require.Equal(t, int32(rejService), p.c.next(provider.CMEventRejected).Status)
	})
}

func TestLostREJIsRepeated(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		p.net.lose(attrREJ, attrREJ)
		p.ask()
		s, _ := p.l.request()
		require.NoError(t, s.Reject([]byte("no")))
		require.Equal(t, int32(rejConsumer), p.c.next(provider.CMEventRejected).Status)
		p.l.quiet()
	})
}

func TestExternalQP(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		c := p.a.resolve(provider.PSTCP, p.l.LocalAddr())
		_, _, err := c.InitQPAttr(provider.QPSRTR)
		require.Equal(t, error(errInval), err)
		mine := params
		mine.QPN = 77
		require.NoError(t, c.Connect(&mine))
		s, ev := p.l.request()
		require.Equal(t, uint32(77), ev.Conn.QPN)
		yours := params
		yours.QPN = 88
		require.NoError(t, s.Accept(&yours))
		resp := c.next(provider.CMEventConnectResponse)
		require.Equal(t, uint32(88), resp.Conn.QPN)
		rtr, mask, err := c.InitQPAttr(provider.QPSRTR)
		require.NoError(t, err)
		require.Equal(t, wants[provider.QPSRTR]|provider.QPAttrState, mask)
		require.Equal(t, uint32(88), rtr.DestQPN)
		rts, _, err := s.InitQPAttr(provider.QPSRTS)
		require.NoError(t, err)
		require.Equal(t, rtr.RQPSN, rts.SQPSN)
		s.quiet()
		require.NoError(t, c.Establish())
		s.next(provider.CMEventEstablished)
		require.Equal(t, error(syscall.EISCONN), s.Notify(provider.EventCommEst))
		require.Equal(t, error(errInval), c.Establish())
	})
}

// An application that takes its time with the answer is asked for patience.
func TestSlowAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		c := p.a.resolve(provider.PSTCP, p.l.LocalAddr())
		require.NoError(t, c.Connect(&params))
		s, _ := p.l.request()
		time.Sleep(20 * time.Second)
		require.Equal(t, []attrID{attrREQ, attrREQ, attrMRA}, p.net.sent())
		require.NoError(t, s.Accept(&params))
		c.next(provider.CMEventConnectResponse)
		time.Sleep(20 * time.Second)
		require.Equal(t, []attrID{attrREP, attrREP, attrMRA}, p.net.sent())
		require.NoError(t, c.Establish())
		s.next(provider.CMEventEstablished)
	})
}

func TestLostRTU(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		for _, how := range []string{"repeated", "data", "notify", "disconnect"} {
			p.net.lose(attrRTU)
			p.ask()
			s, _ := p.l.request()
			q := s.makeQP()
			require.NoError(t, s.Accept(&params))
			p.c.next(provider.CMEventEstablished)
			s.quiet()
			p.b.m.HandleQPEvent(q.qpn, provider.EventPathMig)
			p.b.m.HandleQPEvent(q.qpn+1, provider.EventCommEst)
			s.quiet()
			want, start := provider.CMEventEstablished, time.Now()
			switch how {
			case "data":
				p.b.m.HandleQPEvent(q.qpn, provider.EventCommEst)
				p.b.m.HandleQPEvent(q.qpn, provider.EventCommEst)
			case "notify":
				require.NoError(t, s.Notify(provider.EventCommEst))
			case "disconnect":
				require.NoError(t, p.c.Disconnect())
				want = provider.CMEventDisconnected
			}
			s.next(want)
			require.Equal(t, how == "repeated", time.Since(start) > 0)
			s.quiet()
		}
	})
}

func TestUnreachable(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNetwork()
		h := n.host(t, "10.0.0.1")
		start := time.Now()
		for _, ps := range []provider.PortSpace{provider.PSTCP, provider.PSUDP} {
			c := h.resolve(ps, netip.MustParseAddrPort("10.0.0.9:7"))
			c.makeQP()
			require.NoError(t, c.Connect(&params))
			ev := c.next(provider.CMEventUnreachable)
			require.Equal(t, -int32(syscall.ETIMEDOUT), ev.Status)
			require.Len(t, n.sent(), maxTries+1)
			c.end()
		}
		require.Greater(t, time.Since(start), time.Minute)
		h.empty()
	})
}

// The answer that nobody confirms is given up as well.
func TestServerGivesUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).ask()
		s, _ := p.l.request()
		p.net.via = func(netip.Addr, netip.Addr, mad, func()) {}
		require.NoError(t, s.Accept(&params))
		require.Equal(t, -int32(syscall.ETIMEDOUT), s.next(provider.CMEventUnreachable).Status)
	})
}

func TestSendError(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		c := p.a.resolve(provider.PSTCP, p.l.LocalAddr())
		p.net.err = syscall.ENETUNREACH
		require.Equal(t, error(syscall.ENETUNREACH), c.Connect(&params))
		p.net.err = syscall.ENOBUFS
		require.NoError(t, c.Connect(&params))
		p.net.err = nil
		p.l.request()
	})
}

func TestQueuePairThatCannotConnect(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).ask()
		p.cq.fail = provider.QPSRTR
		s, _ := p.l.request()
		s.makeQP().fail = provider.QPSRTS
		require.Equal(t, error(syscall.ENOMEM), s.Accept(&params))
		s.end()
		require.Equal(t, int32(rejConsumer), p.c.next(provider.CMEventRejected).Status)
		p.ask()
		p.cq.fail = provider.QPSRTR
		s, _ = p.l.request()
		require.NoError(t, s.Accept(&params))
		require.Equal(t, -int32(syscall.ENOMEM), p.c.next(provider.CMEventConnectError).Status)
		require.Equal(t, int32(rejConsumer), s.next(provider.CMEventRejected).Status)
	})
}

// Who hears that he is connected may end that at once: the RTU still goes first.
func TestDisconnectAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		p.ask()
		p.s, _ = p.l.request()
		p.sq = p.s.makeQP()
		p.net.set(func(_, _ netip.Addr, b mad, deliver func()) {
			if h, _ := parseHeader(&b); h.attr == attrRTU {
				time.Sleep(time.Millisecond) // a sender that lost its processor
			}
			deliver()
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.c.next(provider.CMEventEstablished)
			require.NoError(t, p.c.Disconnect())
		}()
		require.NoError(t, p.s.Accept(&params))
		<-done
		p.s.next(provider.CMEventEstablished)
		p.s.next(provider.CMEventDisconnected)
		require.NoError(t, p.s.Disconnect())
		p.c.next(provider.CMEventDisconnected)
	})
}

func TestDisconnectBoth(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).connect()
		// Both at once: the messages cross.
		var late []func()
		p.net.via = func(_, _ netip.Addr, _ mad, deliver func()) { late = append(late, deliver) }
		require.NoError(t, p.c.Disconnect())
		require.NoError(t, p.s.Disconnect())
		p.net.via = nil
		for _, f := range late {
			f()
		}
		p.c.next(provider.CMEventDisconnected)
		p.s.next(provider.CMEventDisconnected)
		p.c.next(provider.CMEventTimewaitExit)
		p.s.next(provider.CMEventTimewaitExit)
		require.NoError(t, p.c.Disconnect(), "again is nothing")
		require.Equal(t, error(errInval), p.l.Disconnect())
	})
}

func TestDisconnectAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).connect()
		p.net.via = func(netip.Addr, netip.Addr, mad, func()) {}
		require.NoError(t, p.c.Disconnect())
		require.Equal(t, -int32(syscall.ETIMEDOUT), p.c.next(provider.CMEventDisconnected).Status)
		p.c.next(provider.CMEventTimewaitExit)
	})
}

// An id that is closed at once still tells the peer, although a message is lost.
func TestCloseTellsThePeer(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).connect()
		p.net.lose(attrDREQ, attrDREQ)
		p.c.end()
		p.s.next(provider.CMEventDisconnected)
		p.s.end()
		p.l.end()
		p.a.empty()
		p.b.empty()
	})
}

// A client that gives up takes its request back: the server never sees it.
func TestRequestTakenBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).ask()
		p.net.set(func(_, _ netip.Addr, b mad, deliver func()) {
			var r rej
			if h, _ := parseHeader(&b); h.attr == attrREJ {
				r.parse(&b)
				require.Equal(t, [2]uint8{aboutOther, 8}, [2]uint8{r.about, r.infoLen})
				require.Equal(t, uint64(7), be.Uint64(r.info[:]), "the device's GUID: the kernel finds the request by it")
			}
			deliver()
		})
		p.c.end()
		p.l.quiet()
		p.net.set(nil)
		p.ask()
		s, _ := p.l.request()
		p.c.end()
		require.Equal(t, int32(rejTimeout), s.next(provider.CMEventRejected).Status)
		require.Equal(t, error(errInval), s.Accept(&params))
	})
}

func TestBacklog(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNetwork()
		a, b := n.host(t, "10.0.0.1"), n.host(t, "10.0.0.2")
		l := b.id(provider.PSTCP)
		require.NoError(t, l.Bind(netip.AddrPortFrom(b.addrs[0], 7)))
		require.NoError(t, l.Listen(2))
		var c []*peer
		for range 3 {
			x := a.resolve(provider.PSTCP, l.LocalAddr())
			require.NoError(t, x.Connect(&provider.CMConnParam{QPN: uint32(len(c) + 1)}))
			c = append(c, x)
		}
		for _, x := range c {
			x.quiet()
		}
		require.Equal(t, uint64(1), b.m.Stats().BacklogDrops)
		s, _ := l.request() // makes room
		require.NoError(t, s.Reject(nil))
		c[0].next(provider.CMEventRejected)
		l.request()
		s, _ = l.request()
		require.Equal(t, c[2].LocalAddr(), s.PeerAddr(), "it was asked again")
	})
}

func TestStaleConnection(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).connect()
		// The client's host forgets everything and uses the same queue pair again.
		p.a.m.mu.Lock()
		p.a.m.forget()
		p.a.m.mu.Unlock()
		c := p.a.resolve(provider.PSTCP, p.l.LocalAddr())
		require.NoError(t, c.Connect(&provider.CMConnParam{QPN: p.cq.qpn}))
		require.Equal(t, int32(rejStale), c.next(provider.CMEventRejected).Status)
		p.s.next(provider.CMEventDisconnected)
		p.l.quiet()
		c = p.a.resolve(provider.PSTCP, p.l.LocalAddr())
		require.NoError(t, c.Connect(&provider.CMConnParam{QPN: p.cq.qpn}))
		p.l.request()
	})
}

func TestUnacceptableRequests(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		var got []rej
		p.net.via = func(src, _ netip.Addr, b mad, deliver func()) {
			if h, _ := parseHeader(&b); h.attr == attrREJ {
				var r rej
				r.parse(&b)
				got = append(got, r)
			}
		}
		var good mad
		var q req
		send := func(f func(q *req)) rej {
			q := q
			f(&q)
			header{attr: attrREQ}.put(&good)
			q.put(&good)
			got = nil
			p.b.m.HandleMAD(p.a.addrs[0], p.b.addrs[0], good[:])
			if len(got) == 0 {
				return rej{}
			}
			return got[0]
		}
		q = req{localID: 5, service: service(provider.PSTCP, p.l.LocalAddr().Port()), mtu: 5, localGID: p.a.addrs[0].As16(), remoteGID: p.b.addrs[0].As16()}
		e := endpoints{src: netip.AddrPortFrom(p.a.addrs[0], 9), dst: p.b.addrs[0]}
		e.put(q.private[:])
		require.Equal(t, uint16(rejTransport), send(func(q *req) { q.transport = 3 }).reason)
		require.Equal(t, uint16(rejMTU), send(func(q *req) { q.mtu = 6 }).reason)
		require.Equal(t, uint16(rejMTU), send(func(q *req) { q.mtu = 0 }).reason)
		require.Equal(t, uint16(rejGID), send(func(q *req) { q.localGID[15]++ }).reason)
		require.Equal(t, uint16(rejGID), send(func(q *req) { q.private[19]++ }).reason, "an address that is somebody else's")
		require.Equal(t, uint16(rejGID), send(func(q *req) { q.private[1] = 0x50 }).reason)
		require.Equal(t, uint16(rejService), send(func(q *req) { q.service++ }).reason)
		require.Zero(t, send(func(*req) {}).reason)
		p.l.request()
	})
}

func TestUD(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNetwork()
		a, b := n.host(t, "10.0.0.1"), n.host(t, "10.0.0.2")
		l := b.listen(provider.PSUDP)
		c := a.resolve(provider.PSUDP, l.LocalAddr())
		q := c.makeQP()
		require.Equal(t, provider.QPSRTS, q.get().State)
		ask, answer := bytes.Repeat([]byte{1}, roomSIDRREQ), bytes.Repeat([]byte{2}, privSIDRREP)
		require.Equal(t, error(errInval), c.Connect(&provider.CMConnParam{Private: make([]byte, roomSIDRREQ+1)}))
		n.lose(attrSIDRREP)
		require.NoError(t, c.Connect(&provider.CMConnParam{Private: ask}))
		s, ev := l.request()
		require.Equal(t, ask, ev.Conn.Private)
		sq := s.makeQP()
		require.NoError(t, s.Accept(&provider.CMConnParam{Private: answer}))
		require.Equal(t, error(errInval), s.Accept(&params), "twice")
		est := c.next(provider.CMEventEstablished)
		require.Equal(t, answer, est.Conn.Private)
		require.Equal(t, [2]uint32{sq.qpn, udQKey}, [2]uint32{est.UD.QPN, est.UD.QKey})
		require.Equal(t, b.addrs[0], est.UD.AH.GRH.DGID.Addr())
		s.quiet()
		l.quiet()

		c = a.resolve(provider.PSUDP, l.LocalAddr())
		require.NoError(t, c.Connect(&params))
		s, _ = l.request()
		require.NoError(t, s.Reject([]byte("no")))
		ev = c.next(provider.CMEventUnreachable)
		require.Equal(t, int32(sidrReject), ev.Status)
		require.Equal(t, "no", string(ev.Conn.Private[:2]))
		l.end()
		c = a.resolve(provider.PSUDP, l.LocalAddr())
		require.NoError(t, c.Connect(&params))
		require.Equal(t, int32(sidrUnsupported), c.next(provider.CMEventUnreachable).Status)
	})
}

func TestDeviceRemoved(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).connect()
		wild := p.b.id(provider.PSTCP)
		require.NoError(t, wild.Listen(1))
		p.b.m.DeviceRemoved()
		wild.quiet()
		p.s.next(provider.CMEventDeviceRemoval)
		p.l.next(provider.CMEventDeviceRemoval)
		require.Equal(t, error(syscall.ENODEV), p.s.Establish())
		_, err := p.b.m.CreateID(p.l.ch, 1, provider.PSTCP)
		require.Equal(t, error(syscall.ENODEV), err)
		require.NoError(t, p.s.Disconnect())
		require.NoError(t, p.c.Disconnect())
		p.c.next(provider.CMEventDisconnected)
	})
}

func TestToItself(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		n := newNetwork()
		h := n.host(t, "127.0.0.1")
		l := h.listen(provider.PSTCP)
		c := h.resolve(provider.PSTCP, l.LocalAddr())
		c.makeQP()
		require.NoError(t, c.Connect(&params))
		s, _ := l.request()
		s.makeQP()
		require.NoError(t, s.Accept(&params))
		c.next(provider.CMEventEstablished)
		s.next(provider.CMEventEstablished)
		require.NoError(t, s.Disconnect())
		c.next(provider.CMEventDisconnected)
	})
}

func TestEndpoint(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		l, err := p.b.m.GetAddrInfo("10.0.0.2", "7", &provider.CMAddrInfo{Flags: raiPassive})
		require.NoError(t, err)
		e, err := p.b.m.CreatePassiveEP(fresh(), &l[0], nil)
		require.NoError(t, err)
		require.NoError(t, e.Listen(0))
		require.Equal(t, netip.MustParseAddrPort("10.0.0.2:7"), e.LocalAddr())
		require.Equal(t, error(errInval), e.Migrate(p.l.ch))
		l, err = p.a.m.GetAddrInfo("10.0.0.2", "7", nil)
		require.NoError(t, err)
		require.Equal(t, p.a.addrs[0], l[0].Src.Addr())
		c := p.a.resolve(provider.PSTCP, l[0].Dst)
		require.NoError(t, c.Connect(&params))
		ch := newChannel(p.b.m)
		ev, err := e.GetRequest(t.Context(), ch, 99)
		require.NoError(t, err)
		require.Equal(t, uint64(99), ev.NewCookie)
		require.NoError(t, ev.New.Accept(&params))
		c.next(provider.CMEventConnectResponse)
		require.NoError(t, c.Establish())
		got, err := ch.Get(t.Context(), fresh)
		require.NoError(t, err)
		require.Equal(t, provider.CMEventEstablished, got.Type)
		require.Equal(t, uint64(99), got.Cookie)
		require.NoError(t, ev.New.Close())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = e.GetRequest(ctx, ch, 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.AfterFunc(time.Second, e.Interrupt)
		_, err = e.GetRequest(t.Context(), ch, 1)
		require.Equal(t, error(syscall.ECANCELED), err)
		require.NoError(t, e.Close())
	})
}

// What each side offers limits what the other asks of it.
func TestDepths(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).ask()
		s, _ := p.l.request()
		q := s.makeQP()
		few := params
		few.ResponderResources, few.InitiatorDepth = 1, 0
		require.NoError(t, s.Accept(&few))
		p.c.next(provider.CMEventEstablished)
		a, b := p.cq.get(), q.get()
		require.Equal(t, [2]uint8{1, 0}, [2]uint8{a.MaxRdAtomic, a.MaxDestRdAtomic})
		require.Equal(t, [2]uint8{0, 1}, [2]uint8{b.MaxRdAtomic, b.MaxDestRdAtomic})
		access := func(x *peer) provider.AccessFlags {
			a, _, err := x.InitQPAttr(provider.QPSInit)
			require.NoError(t, err)
			return a.AccessFlags
		}
		require.Equal(t, provider.AccessRemoteWrite, access(p.c))
		require.Equal(t, provider.AccessRemoteWrite|provider.AccessRemoteRead|provider.AccessRemoteAtomic, access(s))
	})
}

// Messages about a connection count only from its peer, with its ids and, at the
// end, its queue pair.
func TestForeignMessages(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).connect()
		c, s := p.c.conn, p.s.conn
		evil := netip.MustParseAddr("10.0.0.66")
		send := func(from netip.Addr, a attrID, m message) {
			var b mad
			header{attr: a}.put(&b)
			m.put(&b)
			p.b.m.HandleMAD(from, p.b.addrs[0], b[:])
		}
		unknown := p.b.m.Stats().Unknown
		good := ids{c.id, s.id, s.localQPN}
		send(evil, attrDREQ, &good)
		send(p.a.addrs[0], attrDREQ, &ids{c.id, s.id, s.localQPN + 1})
		send(p.a.addrs[0], attrDREQ, &ids{c.id + 1, s.id, s.localQPN})
		send(evil, attrREJ, &rej{localID: c.id, remoteID: s.id, about: aboutOther, reason: rejConsumer})
		send(evil, attrREJ, &rej{localID: c.id, remoteID: s.id, about: aboutREQ, reason: rejTimeout})
		send(p.a.addrs[0], attrID(99), &good)
		p.s.quiet()
		require.Equal(t, unknown+5, p.b.m.Stats().Unknown)
		require.Equal(t, uint64(1), p.b.m.Stats().Malformed)
		send(p.a.addrs[0], attrDREQ, &good)
		p.s.next(provider.CMEventDisconnected)
	})
}

// An answer that nobody waits for ends the peer's waiting.
func TestAnswerToNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).ask()
		s, _ := p.l.request()
		p.net.lose(attrREJ)
		p.c.end()
		require.NoError(t, s.Accept(&params))
		require.Equal(t, int32(rejCommID), s.next(provider.CMEventRejected).Status)
	})
}

// A request of a connection that is over comes late.
func TestLateRequest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t)
		var late func()
		p.net.set(func(_, _ netip.Addr, b mad, deliver func()) {
			if h, _ := parseHeader(&b); h.attr == attrREQ {
				late = deliver
			}
			deliver()
		})
		p.connect()
		require.NoError(t, p.c.Disconnect())
		require.NoError(t, p.s.Disconnect())
		p.net.sent()
		late()
		require.Equal(t, []attrID{attrREJ}, p.net.sent(), "stale")
		p.l.quiet()
		p.c.next(provider.CMEventDisconnected)
	})
}

// A device that closes tells those it is connected with.
func TestManagerCloses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t).connect()
		c, s := p.c, p.s
		p.ask()
		p.l.request()
		p.net.lose(attrDREQ)
		require.NoError(t, c.Disconnect())
		p.a.m.Close()
		s.next(provider.CMEventDisconnected)
		require.Equal(t, []attrID{attrREQ, attrREP, attrRTU, attrREQ, attrDREQ, attrDREQ, attrREJ}, p.net.sent())
		c.quiet()
		require.Equal(t, error(syscall.ENODEV), c.Establish())
		_, err := p.a.m.CreateID(c.ch, 1, provider.PSTCP)
		require.Equal(t, error(syscall.ENODEV), err)
		p.a.m.Close()
		require.Empty(t, p.net.sent(), "twice")
	})
}
