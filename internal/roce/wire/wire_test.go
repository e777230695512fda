package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// captured reads the RoCEv2 packets of a pcap file that our hub wrote between
// two VMs: what rdma_rxe really sends.
func captured(t testing.TB, f func(a Addrs, b []byte)) {
	p, err := os.ReadFile("testdata/rxe.pcap")
	require.NoError(t, err)
	le := binary.LittleEndian
	for p = p[24:]; len(p) >= 16; {
		n := int(le.Uint32(p[8:]))
		fr := p[16 : 16+n]
		p = p[16+n:]
		var a Addrs
		var u []byte
		switch binary.BigEndian.Uint16(fr[12:]) {
		case 0x0800:
			ip := fr[14:]
			if ip[9] != 17 {
				continue
			}
			a.Src, _ = netip.AddrFromSlice(ip[12:16])
			a.Dst, _ = netip.AddrFromSlice(ip[16:20])
			a.ID, a.DF = binary.BigEndian.Uint16(ip[4:]), ip[6]&0x40 != 0
			u = ip[20:binary.BigEndian.Uint16(ip[2:])]
		case 0x86dd:
			ip := fr[14:]
			if ip[6] != 17 {
				continue
			}
			a.Src, _ = netip.AddrFromSlice(ip[8:24])
			a.Dst, _ = netip.AddrFromSlice(ip[24:40])
			u = ip[40 : 40+int(binary.BigEndian.Uint16(ip[4:]))]
		default:
			continue
		}
		a.SrcPort, a.DstPort = binary.BigEndian.Uint16(u), binary.BigEndian.Uint16(u[2:])
		if a.DstPort == Port {
			f(a, u[8:])
		}
	}
}

func TestCapturedPackets(t *testing.T) {
	seen := map[Opcode]int{}
	v6 := 0
	captured(t, func(a Addrs, b []byte) {
		require.True(t, a.Check(b), "ICRC of % x", b)
		for _, guess := range []uint16{0, a.ID, a.ID + 1, ^a.ID} {
			g := a
			g.ID = guess
			id, ok := g.SolveID(b)
			require.True(t, ok)
			if a.Src.Is4() {
				require.Equal(t, a.ID, id)
			}
		}
		if a.Src.Is6() {
			v6++
		}
		var p Packet
		require.NoError(t, p.Decode(b))
		seen[p.Opcode]++
		// What we write is what rxe wrote.
		out := p.Append(nil, len(p.Payload))
		out = append(out, p.Payload...)
		out = append(out, make([]byte, Pad(len(p.Payload)))...)
		require.Equal(t, b, a.AppendICRC(out))
	})
	t.Log(seen, "IPv6:", v6)
	for _, o := range []Opcode{RCSendFirst, RCSendLast, RCSendOnly, RCAck, RCReadRequest, RCReadRespOnly, RCWriteOnly, UDSendOnly} {
		require.NotZero(t, seen[o], "opcode %#x in the capture", o)
	}
	require.NotZero(t, v6)
}

func TestCorruptionIsFound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	passed, n := 0, 0
	captured(t, func(a Addrs, b []byte) {
		id := a.ID
		for range 200 {
			c := bytes.Clone(b)
			i := r.IntN(len(c))
			if i == 4 {
				continue // not covered
			}
			c[i] ^= byte(1 + r.IntN(255))
			require.False(t, a.Check(c), "the known-identification check has full strength")
			n++
			a.ID ^= uint16(r.Uint32()) // not known
			ok := a.CheckUnknownID(c)
			if a.ID = id; ok {
				passed++
			}
		}
	})
	// 16 bits remain: about one in 65,536 passes.
	require.Less(t, passed, 3+n/4096, "of %d corrupted packets", n)
}

func TestRoundTripEveryOpcode(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for o := range numOpcodes {
		op := Opcode(o)
		if !op.Known() {
			require.Zero(t, op.HeaderLen())
			continue
		}
		for range 50 {
			in := Packet{Opcode: op, Solicited: r.IntN(2) == 0, MigReq: r.IntN(2) == 0, AckReq: r.IntN(2) == 0,
				FECN: r.IntN(2) == 0, BECN: r.IntN(2) == 0, PKey: uint16(r.Uint32()), DestQP: r.Uint32() & PSNMask, PSN: r.Uint32() & PSNMask}
			h := layout[op]
			if h&(hasRETH|hasAtomicETH) != 0 {
				in.VA, in.RKey = r.Uint64(), r.Uint32()
			}
			if h&hasRETH != 0 {
				in.DMALen = r.Uint32()
			}
			if h&hasAtomicETH != 0 {
				in.Swap, in.Compare = r.Uint64(), r.Uint64()
			}
			if h&hasAETH != 0 {
				in.Syndrome, in.MSN = uint8(r.Uint32()), r.Uint32()&PSNMask
			}
			if h&hasAtomicAck != 0 {
				in.Orig = r.Uint64()
			}
			if h&hasDETH != 0 {
				in.QKey, in.SrcQP = r.Uint32(), r.Uint32()&PSNMask
			}
			if h&hasImm != 0 {
				in.Imm = r.Uint32()
			}
			if h&hasIETH != 0 {
				in.RKey = r.Uint32()
			}
			in.Payload = []byte{}
			if h&hasPayload != 0 {
				in.Payload = make([]byte, r.IntN(70))
				for i := range in.Payload {
					in.Payload[i] = byte(r.Uint32())
				}
			}
			b := in.Append(nil, len(in.Payload))
			require.Len(t, b, op.HeaderLen())
			require.LessOrEqual(t, len(b), MaxHeader)
			b = append(append(b, in.Payload...), make([]byte, Pad(len(in.Payload))+ICRCSize)...)
			var out Packet
			require.NoError(t, out.Decode(b))
			require.Equal(t, in, out)
		}
	}
}

func TestUnshift(t *testing.T) {
	require.Equal(t, uint32(0x80000000), mul(0x80000000, 0x80000000), "1 times 1")
	for _, n := range []int{0, 1, 36, 4200, maxShift - 1, maxShift, 3 * maxShift} {
		c := uint32(0xdeadbeef)
		s := c
		for range 8 * n {
			s = mulX(s)
		}
		require.Equal(t, c, unshift(s, n), "%d bytes", n)
	}
}

func TestNoAllocation(t *testing.T) {
	captured(t, func(a Addrs, b []byte) {
		var p Packet
		buf := make([]byte, 0, MaxHeader)
		require.Zero(t, testing.AllocsPerRun(5, func() {
			if p.Decode(b) != nil || !a.CheckUnknownID(b) {
				t.Fatal("bad packet")
			}
			if p.Opcode != CNP {
				p.Append(buf, len(p.Payload))
			}
		}))
	})
}

func FuzzDecode(f *testing.F) {
	captured(f, func(_ Addrs, b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Packet
		if p.Decode(b) != nil {
			return
		}
		// What decodes is encoded to the same bytes, but for reserved bits and padding.
		out := p.Append(nil, len(p.Payload))
		out = append(out, p.Payload...)
		out = append(out, make([]byte, Pad(len(p.Payload))+ICRCSize)...)
		var q Packet
		if err := q.Decode(out); err != nil {
			t.Fatalf("decoded, encoded, then %v", err)
		}
		q.Payload, p.Payload = append([]byte{}, q.Payload...), append([]byte{}, p.Payload...)
		require.Equal(t, p, q)
	})
}

func FuzzICRC(f *testing.F) {
	captured(f, func(a Addrs, b []byte) {
		s, d := a.Src.As16(), a.Dst.As16()
		f.Add(s[:], d[:], a.SrcPort, a.ID, b)
	})
	f.Fuzz(func(t *testing.T, src, dst []byte, port, id uint16, b []byte) {
		s, ok1 := netip.AddrFromSlice(src)
		d, ok2 := netip.AddrFromSlice(dst)
		if !ok1 || !ok2 || s.Unmap().Is4() != d.Unmap().Is4() || len(b) > 9000 {
			return
		}
		a := Addrs{Src: s, Dst: d, SrcPort: port, DstPort: Port, ID: id, DF: id&1 != 0}
		a.CheckUnknownID(b)
		if len(b) < BTHSize {
			return
		}
		if !s.Unmap().Is4() {
			a.ID = 0
		}
		p := a.AppendICRC(bytes.Clone(b))
		for _, guess := range []uint16{a.ID, 0, port} {
			g := a
			if s.Unmap().Is4() {
				g.ID = guess
			}
			if got, ok := g.SolveID(p); !ok || got != a.ID || !a.Check(p) {
				t.Fatalf("identification %d came back as %d, %v", a.ID, got, ok)
			}
		}
	})
}

func BenchmarkSolveID(b *testing.B) {
	for _, n := range []int{64, 4096} {
		for name, guess := range map[string]uint16{"guessed": 7, "solved": 0xffff} {
			b.Run(fmt.Sprint(n, "/", name), func(b *testing.B) {
				a := Addrs{Src: netip.MustParseAddr("127.0.0.1"), Dst: netip.MustParseAddr("127.0.0.2"), SrcPort: 50000, DstPort: Port, ID: 7, DF: true}
				p := Packet{Opcode: RCWriteMiddle}
				pkt := a.AppendICRC(append(p.Append(nil, n), make([]byte, n)...))
				a.ID = guess
				b.SetBytes(int64(n))
				for b.Loop() {
					if !a.CheckUnknownID(pkt) {
						b.Fatal("bad")
					}
				}
			})
		}
	}
}
