package rc

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// fast is one end of a loop without codec and without time: packets wait in a
// ring as header and gathered payload.
type fast struct {
	mem   []byte // key 1, address 0
	qp    *QP
	peer  *fast
	ring  [512]wire.Packet
	buf   [512][4096]byte
	h, t  int
	sends int
	recvs int
}

func (f *fast) at(addr uint64, n uint32) ([]byte, bool) {
	if addr+uint64(n) > uint64(len(f.mem)) {
		return nil, false
	}
	return f.mem[addr : addr+uint64(n)], true
}
func (f *fast) Local(_ provider.LKey, a uint64, n uint32, _ bool) ([]byte, bool) { return f.at(a, n) }
func (f *fast) Inline(a uint64, n uint32) ([]byte, bool)                         { return f.at(a, n) }
func (f *fast) Remote(_ provider.RKey, a uint64, n uint32, _ provider.AccessFlags) ([]byte, bool) {
	return f.at(a, n)
}
func (f *fast) CompareSwap(provider.RKey, uint64, uint64, uint64) (uint64, bool) { return 0, true }
func (f *fast) FetchAdd(provider.RKey, uint64, uint64) (uint64, bool)            { return 0, true }
func (f *fast) Invalidate(provider.RKey, bool) bool                              { return true }
func (f *fast) Bind(*provider.WR) bool                                           { return true }

func (f *fast) Packet(p *wire.Packet, segs [][]byte, n int) {
	d := f.peer
	i := d.t % len(d.ring)
	if d.t-d.h == len(d.ring) {
		panic("ring full")
	}
	d.t++
	b := d.buf[i][:0]
	for _, s := range segs {
		b = append(b, s...)
	}
	d.ring[i] = *p
	d.ring[i].Payload = b[:n]
}
func (f *fast) SendDone(*provider.WC)       { f.sends++ }
func (f *fast) RecvDone(*provider.WC, bool) { f.recvs++ }
func (f *fast) Event(provider.EventType)    {}

// turn sends a batch and lets the peer take it.
func (f *fast) turn(now int64) {
	f.qp.Pump(now, 64)
	d := f.peer
	for ; d.h < d.t; d.h++ {
		d.qp.Input(now, &d.ring[d.h%len(d.ring)])
	}
	d.qp.FlushAcks()
}

func fastPair(t testing.TB, mtu provider.MTU) (a, b *fast) {
	p := defaults()
	p.mtu = mtu
	a, b = &fast{mem: make([]byte, 1<<20)}, &fast{mem: make([]byte, 1<<20)}
	a.peer, b.peer = b, a
	for i, f := range []*fast{a, b} {
		f.qp = New(Config{QPN: uint32(i), Cap: p.cap, Mem: f, Sink: f})
		rts(t, f.qp, p, uint32(1-i), p.psn[i], p.psn[1-i])
	}
	return a, b
}

// one runs a request to its completion.
func (f *fast) one(t testing.TB, wr *provider.WR, sge []provider.SGE, now int64) {
	if err := f.qp.PostSend(wr, sge); err != nil {
		t.Fatal(err)
	}
	for want, i := f.sends+1, 0; f.sends < want; i++ {
		f.turn(now)
		f.peer.turn(now)
		if i > 10000 {
			t.Fatal("stuck")
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	a, b := fastPair(t, provider.MTU4096)
	sge := []provider.SGE{{Addr: 0, Length: 20000, LKey: 1}, {Addr: 30000, Length: 7, LKey: 1}}
	eight := []provider.SGE{{Addr: 64, Length: 8, LKey: 1}}
	now := int64(1)
	work := func() {
		for _, op := range []provider.WROpcode{provider.WRSend, provider.WRRDMAWrite, provider.WRRDMARead, provider.WRAtomicFetchAndAdd} {
			wr := provider.WR{Opcode: op, Flags: provider.SendSignaled, RKey: 1}
			s := sge
			switch op {
			case provider.WRAtomicFetchAndAdd:
				s = eight
			case provider.WRSend:
				if err := b.qp.PostRecv(1, sge); err != nil {
					t.Fatal(err)
				}
			}
			a.one(t, &wr, s, now)
			now++
		}
	}
	work()
	require.Zero(t, testing.AllocsPerRun(50, work))
	require.Equal(t, a.sends, 4*b.recvs)
}

func benchBulk(b *testing.B, op provider.WROpcode) {
	x, _ := fastPair(b, provider.MTU4096)
	wr := provider.WR{Opcode: op, Flags: provider.SendSignaled, RKey: 1}
	sge := []provider.SGE{{Length: 1 << 20, LKey: 1}}
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	now := int64(1)
	for b.Loop() {
		x.one(b, &wr, sge, now)
		now++
	}
}

// BenchmarkWrite1M copies twice: into the ring, which stands for the socket, and
// out of it.
func BenchmarkWrite1M(b *testing.B) { benchBulk(b, provider.WRRDMAWrite) }
func BenchmarkRead1M(b *testing.B)  { benchBulk(b, provider.WRRDMARead) }

func BenchmarkSendPingPong64(b *testing.B) {
	x, y := fastPair(b, provider.MTU4096)
	wr := provider.WR{Opcode: provider.WRSend, Flags: provider.SendSignaled}
	sge := []provider.SGE{{Length: 64, LKey: 1}}
	b.ReportAllocs()
	for b.Loop() {
		for _, f := range []*fast{x, y} {
			if err := f.peer.qp.PostRecv(1, sge); err != nil {
				b.Fatal(err)
			}
			f.one(b, &wr, sge, 1)
		}
	}
}
