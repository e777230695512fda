package link

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// someOpcodes are of different header lengths.
var someOpcodes = []wire.Opcode{wire.RCSendOnly, wire.RCWriteFirst, wire.RCWriteOnlyImm, wire.RCReadRespFirst, wire.UDSendOnlyImm, wire.RCAck}

// somePacket is a packet to send, its payload in pieces.
func somePacket(r *rand.Rand, op wire.Opcode, n int) (p wire.Packet, segs [][]byte) {
	p = wire.Packet{Opcode: op, PKey: 0xffff, DestQP: r.Uint32N(1 << 24), PSN: r.Uint32N(1 << 24), AckReq: r.IntN(2) == 0}
	if !op.HasPayload() {
		return p, nil
	}
	p.Payload = make([]byte, n)
	for i := range p.Payload {
		p.Payload[i] = byte(r.Uint32())
	}
	for b := p.Payload; len(b) > 0; {
		k := min(len(b), 1+r.IntN(2000))
		segs = append(segs, b[:k])
		b = b[k:]
	}
	return p, segs
}

func v4(a, b, c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{a, b, c, d}) }

// Whatever the kernel joins and splits, packets arrive whole and in order.
func TestUDPCarriesAnything(t *testing.T) {
	for _, x := range []struct {
		name string
		a, b netip.Addr
		opts UDPOptions
	}{
		{"v4", v4(127, 0, 0, 1), v4(127, 0, 0, 2), UDPOptions{}},
		{"v4 alone", v4(127, 0, 0, 1), v4(127, 0, 0, 2), UDPOptions{NoOffload: true}},
		{"v4 with ICRC", v4(127, 0, 0, 1), v4(127, 0, 0, 2), UDPOptions{ICRC: true}},
		{"v6", lo6, lo6, UDPOptions{}},
		{"v6 with ICRC", lo6, lo6, UDPOptions{ICRC: true}},
		{"v6 alone", lo6, lo6, UDPOptions{NoOffload: true}},
	} {
		t.Run(x.name, func(t *testing.T) {
			if c, err := net.ListenPacket("udp", netip.AddrPortFrom(x.b, 0).String()); err != nil {
				t.Skip("this machine has no ", x.b, ": ", err)
			} else {
				c.Close()
			}
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			n, s := UDP(x.opts), newSink()
			b := open(t, n, x.b, s)
			a := b
			if x.a != x.b {
				a = open(t, n, x.a, s)
			}
			var want []wire.Packet
			for range 150 {
				size, same := r.IntN(4097), r.IntN(2) == 0
				op := someOpcodes[r.IntN(len(someOpcodes))]
				for range 1 + r.IntN(30) {
					if !same {
						op, size = someOpcodes[r.IntN(len(someOpcodes))], r.IntN(4097)
					}
					p, segs := somePacket(r, op, size)
					a.Send(x.b, &p, segs, len(p.Payload))
					want = append(want, p)
				}
				require.NoError(t, a.Flush())
				s.wait(t, len(want)) // so that no buffer overflows
			}
			for i, g := range s.all() {
				require.Equal(t, x.a, g.from)
				w := want[i]
				require.Equal(t, w.Opcode, g.pkt.Opcode, i)
				require.Equal(t, []any{w.DestQP, w.PSN, w.AckReq, w.PKey}, []any{g.pkt.DestQP, g.pkt.PSN, g.pkt.AckReq, g.pkt.PKey}, i)
				require.True(t, bytes.Equal(w.Payload, g.pkt.Payload), i)
			}
			st, sr := a.Stats(), b.Stats()
			require.EqualValues(t, len(want), st.TxPackets)
			require.EqualValues(t, len(want), sr.RxPackets)
			require.Equal(t, st.TxBytes, sr.RxBytes)
			require.Zero(t, st.TxDropped+sr.RxBadICRC+sr.RxMalformed+sr.RxDropped)
			if runtime.GOOS == "linux" && !x.opts.NoOffload {
				require.Less(t, st.TxCalls, st.TxPackets*3/4, "nothing was batched")
			} else {
				require.Equal(t, st.TxCalls, st.TxPackets)
			}
		})
	}
}

func TestUDPManyDestinations(t *testing.T) {
	n, s := UDP(UDPOptions{}), newSink()
	a := open(t, n, lo1, s)
	var to []netip.Addr
	for i := range 5 {
		d := ownLoopback(10 + i)
		open(t, n, d, s)
		to = append(to, d)
	}
	p, segs := somePacket(rand.New(rand.NewPCG(1, 2)), wire.RCSendOnly, 64)
	for i := range 100 {
		a.Send(to[i%5], &p, segs, 64)
	}
	require.NoError(t, a.Flush())
	s.wait(t, 100)
	require.EqualValues(t, 100, a.Stats().TxPackets)
}

func TestUDPRefusals(t *testing.T) {
	n := UDP(UDPOptions{})
	l := open(t, n, lo1, newSink())
	_, err := n.Open(lo1, newSink())
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "use another address")
	_, err = n.Open(netip.AddrFrom16(lo1.As16()), newSink())
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	for _, a := range []string{"192.0.2.1", "2001:db8::1", "0.0.0.0", "::", "224.0.0.1"} {
		_, err = n.Open(netip.MustParseAddr(a), newSink())
		require.ErrorIs(t, err, syscall.EADDRNOTAVAIL, a)
	}
	_, err = n.Open(netip.Addr{}, newSink())
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)

	p := wire.Packet{Opcode: wire.RCAck}
	l.Send(lo6, &p, nil, 0)                         // another family
	l.Send(lo2, &wire.Packet{Opcode: 0xff}, nil, 0) // no such packet
	l.Send(lo2, &p, nil, 1<<20)
	require.EqualValues(t, 3, l.Stats().TxDropped)
	require.NoError(t, l.Flush())
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Flush(), net.ErrClosed)
	l.Send(lo2, &p, nil, 0)
	require.Zero(t, l.Poll())
	open(t, n, lo1, newSink()) // the address is free again
}

// What a socket without a link answers (ICMP) disturbs nothing.
func TestUDPNobodyThere(t *testing.T) {
	n, s := UDP(UDPOptions{}), newSink()
	a, b := open(t, n, lo1, s), open(t, n, lo2, s)
	nobody := ownLoopback(77)
	p := wire.Packet{Opcode: wire.RCAck}
	for i := range 50 {
		a.Send(nobody, &p, nil, 0)
		a.Send(lo2, &p, nil, 0)
		require.NoError(t, a.Flush())
		s.wait(t, i+1)
	}
	require.EqualValues(t, 50, b.Stats().RxPackets)
}

// Garbage from anybody is counted and dropped.
func TestUDPGarbage(t *testing.T) {
	s := newSink()
	l := open(t, UDP(UDPOptions{}), lo2, s)
	c, err := net.Dial("udp4", netip.AddrPortFrom(lo2, wire.Port).String())
	require.NoError(t, err)
	defer c.Close()
	src := c.LocalAddr().(*net.UDPAddr).AddrPort()
	r := rand.New(rand.NewPCG(3, 4))
	const rounds = 300
	for i := range rounds {
		b := make([]byte, r.IntN(200))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		_, err = c.Write(b)
		require.NoError(t, err)
		// A good packet, damaged in its payload: only the ICRC tells.
		p, _ := somePacket(r, wire.RCSendOnly, 100)
		a := wire.Addrs{Src: src.Addr(), SrcPort: src.Port(), Dst: lo2, DstPort: wire.Port, DF: true, ID: uint16(i)}
		b = a.AppendICRC(append(p.Append(nil, 100), p.Payload...))
		for {
			at, bit := wire.BTHSize+r.IntN(100), byte(1)<<r.IntN(8)
			if b[at] ^= bit; !a.CheckUnknownID(b) {
				break
			}
			b[at] ^= bit
		}
		_, err = c.Write(b)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			st := l.Stats()
			return st.RxBadICRC+st.RxMalformed == uint64(2*(i+1))
		}, 10*time.Second, 50*time.Microsecond, fmt.Sprint(i))
	}
	require.GreaterOrEqual(t, l.Stats().RxBadICRC, uint64(rounds))
	require.Empty(t, s.all())
}

// A packet that arrives just after the last Poll is not forgotten, and one that
// arrives while somebody polls is not delivered twice.
func TestUDPPollerStops(t *testing.T) { pollerStops(t, UDP(UDPOptions{})) }

func pollerStops(t *testing.T, n Network) {
	s := newSink()
	a, b := open(t, n, lo1, newSink()), open(t, n, lo2, s)
	p := wire.Packet{Opcode: wire.RCAck}
	sent := 0
	for round := range 60 {
		for range 200 {
			b.Poll()
		}
		if round%3 == 0 {
			b.Idle()
		}
		for range round % 4 {
			a.Send(lo2, &p, nil, 0)
			sent++
		}
		require.NoError(t, a.Flush())
		s.wait(t, sent)
	}
	require.Len(t, s.all(), sent)
	require.EqualValues(t, sent, b.Stats().RxPackets)
}

func TestPathMTU(t *testing.T) {
	for mtu, want := range map[int]int{65536: 4096, 9000: 4096, 4176: 4096, 4175: 2048, 1500: 1024, 1280: 1024, 1103: 512, 576: 256, 100: 256} {
		require.Equal(t, want, pathMTU(mtu), mtu)
	}
	require.Equal(t, 4096, open(t, UDP(UDPOptions{}), lo2, newSink()).MTU())
	require.Equal(t, 1024, interfaceMTU(netip.MustParseAddr("192.0.2.1")))
}
