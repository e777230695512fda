package roce

import (
	"testing"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
)

func benchEnds(b *testing.B, udp bool) (x, y *queuePair) {
	var net link.Network = link.Memory(1, link.MemOptions{})
	if udp {
		net = link.UDP(link.UDPOptions{})
	}
	return connected(newEnd(b, net, 0), newEnd(b, net, 1), provider.QPTRC)
}

func benchNets(b *testing.B, f func(b *testing.B, x, y *queuePair)) {
	for name, udp := range map[string]bool{"memory": false, "udp": true} {
		b.Run(name, func(b *testing.B) {
			x, y := benchEnds(b, udp)
			b.ReportAllocs()
			f(b, x, y)
		})
	}
}

// bulk keeps four operations of 1 MiB under way.
func bulk(b *testing.B, op provider.WROpcode) {
	benchNets(b, func(b *testing.B, x, y *queuePair) {
		wr := []provider.WR{{Opcode: op, Flags: provider.SendSignaled, NumSGE: 1, RemoteAddr: addrOf(y.mem), RKey: y.mr.RKey()}}
		sge := []provider.SGE{x.sge(0, 1<<20)}
		wc := make([]provider.WC, 4)
		b.SetBytes(1 << 20)
		posted, got := 0, 0
		for b.Loop() {
			for posted-got < 4 {
				if _, err := x.PostSend(wr, sge); err != nil {
					b.Fatal(err)
				}
				posted++
			}
			for was := got; got == was; {
				k, _ := x.send.Poll(wc)
				for _, w := range wc[:k] {
					if w.Status != 0 {
						b.Fatal(w)
					}
				}
				got += k
			}
		}
		b.Logf("%+v %+v; %+v", x.ctx.n.Counters().RC, y.ctx.n.Counters().RC, y.ctx.n.links[0].Stats())
	})
}

func BenchmarkWrite1M(b *testing.B) { bulk(b, provider.WRRDMAWrite) }
func BenchmarkRead1M(b *testing.B)  { bulk(b, provider.WRRDMARead) }

func BenchmarkPingPong64(b *testing.B) {
	benchNets(b, func(b *testing.B, x, y *queuePair) {
		wr := []provider.WR{{Opcode: provider.WRSend, NumSGE: 1, Flags: provider.SendSignaled}}
		rr := []provider.RecvWR{{NumSGE: 1}}
		turn := func(q *queuePair, wc []provider.WC) {
			for got := 0; got < 1; {
				k, _ := q.recv.Poll(wc)
				got += k
			}
			q.send.Poll(wc)
			q.PostRecv(rr, []provider.SGE{q.sge(0, 64)})
			q.PostSend(wr, []provider.SGE{q.sge(64, 64)})
		}
		x.PostRecv(rr, []provider.SGE{x.sge(0, 64)})
		y.PostRecv(rr, []provider.SGE{y.sge(0, 64)})
		stop := make(chan struct{})
		go func() {
			wc := make([]provider.WC, 1)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if k, _ := y.recv.Poll(wc); k == 0 {
					continue
				}
				y.send.Poll(wc)
				y.PostRecv(rr, []provider.SGE{y.sge(0, 64)})
				y.PostSend(wr, []provider.SGE{y.sge(64, 64)})
			}
		}()
		wc := make([]provider.WC, 1)
		x.PostSend(wr, []provider.SGE{x.sge(64, 64)})
		for b.Loop() {
			turn(x, wc)
		}
		close(stop)
	})
}

// BenchmarkMessages64 keeps 64 messages of 64 bytes under way.
func BenchmarkMessages64(b *testing.B) {
	benchNets(b, func(b *testing.B, x, y *queuePair) {
		wr := []provider.WR{{Opcode: provider.WRRDMAWrite, NumSGE: 1, Flags: provider.SendSignaled | provider.SendInline, RemoteAddr: addrOf(y.mem), RKey: y.mr.RKey()}}
		sge := []provider.SGE{x.sge(0, 64)}
		batch := make([]provider.WR, 16)
		for i := range batch {
			batch[i] = wr[0]
		}
		wc := make([]provider.WC, 64)
		posted, got := 0, 0
		for b.Loop() {
			for posted-got < 64 {
				x.PostSend(batch, sge)
				posted += len(batch)
			}
			for was := got; got < was+16; {
				k, _ := x.send.Poll(wc)
				got += k
			}
		}
		b.ReportMetric(float64(got)/b.Elapsed().Seconds(), "msg/s")
	})
}
