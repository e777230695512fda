package cm

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
)

// check holds the machine's invariants.
func (m *machine) check(t testing.TB) {
	orphans := 0
	for id, c := range m.conns {
		require.Equal(t, id, c.id)
		require.NotEqual(t, stClosed, c.st)
		if c.owner == nil {
			orphans++
			require.NotZero(t, c.slot, "an orphan in state %d that never ends", c.st)
		}
		require.Equal(t, c.owner == nil, c.parked != nil)
		switch c.st {
		case stReqSent, stRepSent, stDreqSent, stTimewait, stRejected, stSidrSent, stSidrDone:
			require.NotZero(t, c.slot, "state %d without a timer", c.st)
		default:
			require.Zero(t, c.slot, "state %d with a timer", c.st)
		}
	}
	require.Equal(t, orphans, m.parked.Len())
	require.LessOrEqual(t, orphans, maxParked)
	for k, c := range m.byPeer {
		require.Same(t, c, m.conns[c.id])
		require.Equal(t, k, c.peerKey())
	}
	for k, c := range m.byQPN {
		require.Same(t, c, m.conns[c.id])
		require.Equal(t, k, qpnKey{c.peer, c.peerQPN})
	}
	for q, c := range m.waiting {
		require.Equal(t, q, c.localQPN)
		require.Equal(t, stRepSent, c.st)
	}
	for i, c := range m.timers {
		require.Equal(t, i+1, c.slot)
		require.Same(t, c, m.conns[c.id])
		require.False(t, i > 0 && c.deadline.Before(m.timers[(i-1)/2].deadline))
	}
}

// FuzzInput sends anything to a manager in the middle of things: the first byte
// of a step says what happens, messages follow it.
func FuzzInput(f *testing.F) {
	for _, c := range capturedMADs(f) {
		f.Add(append([]byte{0}, c.mad[:]...))
	}
	f.Add([]byte{1, 1, 1, 2, 3, 4, 5, 6, 7})
	f.Fuzz(func(t *testing.T, in []byte) {
		now := time.Unix(1e9, 0)
		rnd := rand.New(rand.NewPCG(1, 2))
		m := newMachine(7, rnd)
		src, dst := netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("10.77.0.1")
		for _, p := range []uint16{0x1c06, 0x1d2f} {
			m.listen(&listener{owner: 1, service: service(provider.PSTCP, p), addr: netip.IPv6Unspecified(), dual: true, backlog: 4})
			m.listen(&listener{owner: 1, service: service(provider.PSUDP, p), addr: dst, backlog: 4})
		}
		var mine []*conn
		pick := func(b byte) *conn {
			if len(mine) == 0 {
				return &conn{}
			}
			return mine[int(b)%len(mine)]
		}
		for steps := 0; len(in) > 1 && steps < 100; steps++ {
			op, arg := in[0], in[1]
			in = in[1:]
			switch op % 12 {
			case 0, 1, 2:
				var b mad
				n := copy(b[:], in)
				in = in[n:]
				if op%12 == 2 { // one that is about something we have
					c := pick(arg)
					header{attr: attrREQ + attrID(arg%9)}.put(&b)
					binary.BigEndian.PutUint32(b[madHdr:], c.peerID)
					binary.BigEndian.PutUint32(b[madHdr+4:], c.id)
				}
				m.input(now, src, dst, &b)
			case 3:
				mine = append(mine, m.connect(now, &request{owner: 1, local: dst, peer: src, qpn: uint32(arg)}))
			case 4:
				mine = append(mine, m.lookup(now, &request{owner: 1, local: dst, peer: src}))
			case 5:
				_ = m.accept(now, pick(arg), &answer{qpn: uint32(arg)})
			case 6:
				_ = m.reject(now, pick(arg), rejConsumer, nil)
			case 7:
				_ = m.ready(now, pick(arg))
			case 8:
				m.disconnect(now, pick(arg))
			case 9:
				m.destroy(now, pick(arg))
			case 10:
				_ = m.answerLookup(now, pick(arg), arg, 1, 2, nil)
			case 11:
				now = now.Add(time.Duration(arg) * 100 * time.Millisecond)
				m.tick(now)
			}
			for _, n := range m.out.notices {
				if n.kind == noteRequest {
					n.c.owner = 1
					mine = append(mine, n.c)
				}
			}
			m.out = outbox{}
			m.check(t)
		}
		for _, c := range mine {
			m.destroy(now, c)
		}
		m.check(t)
		for i := range maxTries { // a DREQ is said again a few times
			m.tick(now.Add(time.Duration(i+1) * time.Hour))
		}
		require.Empty(t, m.conns)
		require.Empty(t, m.timers)
	})
}

// FuzzHandleMAD sends anything to a manager with a listener.
func FuzzHandleMAD(f *testing.F) {
	for _, c := range capturedMADs(f) {
		f.Add(c.mad[:])
	}
	f.Add([]byte{1})
	n := newNetwork()
	h := n.host(f, "10.77.0.1")
	l := h.id(provider.PSTCP)
	require.NoError(f, l.Bind(at("10.77.0.1:7174")))
	require.NoError(f, l.Listen(2))
	f.Fuzz(func(t *testing.T, b []byte) {
		h.t = t
		defer func() { h.t = f }()
		h.m.HandleMAD(netip.MustParseAddr("10.77.0.2"), h.addrs[0], b)
		h.m.HandleMAD(netip.Addr{}, h.addrs[0], b)
		for {
			ev, err := l.ch.TryGet(fresh)
			if err != nil {
				break
			}
			require.NoError(t, ev.New.Close())
		}
		require.LessOrEqual(t, len(h.m.mc.conns), maxParked+2)
	})
}

// However many requests and refusals there are, what is remembered is bounded.
func TestBoundedMemory(t *testing.T) {
	m := newMachine(7, rand.New(rand.NewPCG(1, 2)))
	src, dst := netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("10.77.0.1")
	l := &listener{owner: 1, service: service(provider.PSTCP, 7), addr: dst, backlog: 10}
	m.listen(l)
	now := time.Unix(1e9, 0)
	for i := range 3 * maxParked {
		q := req{localID: uint32(i), qpn: uint32(i) & 0xffffff, service: l.service, mtu: 3, localGID: src.As16(), remoteGID: dst.As16()}
		e := endpoints{src: netip.AddrPortFrom(src, 9), dst: dst}
		e.put(q.private[:])
		var b mad
		header{attr: attrREQ}.put(&b)
		q.put(&b)
		m.input(now, src, dst, &b)
		for _, n := range m.out.notices {
			if n.kind == noteRequest && i >= 20 {
				n.c.owner = 1
				require.NoError(t, m.reject(now, n.c, rejConsumer, nil))
				l.pending--
			} else if n.kind == noteRequest {
				n.c.owner = 1
			}
		}
		if i == 20 {
			require.Equal(t, uint64(11), m.stats.BacklogDrops)
			l.pending = 0
		}
		m.out = outbox{}
	}
	require.Len(t, m.conns, maxParked+10)
	require.NotZero(t, m.stats.Evicted)
	m.check(t)
	m.tick(now.Add(time.Hour))
	require.Len(t, m.conns, 10)
}
