package link

import (
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// copier is a device's handler without the device: it copies payloads to where
// they belong and counts.
type copier struct {
	mem   []byte
	n     atomic.Int64
	reply func(l Link, r *Rx)
}

func (c *copier) Writable(Link) {}
func (c *copier) Input(l Link, batch []Rx) {
	at := 0
	for i := range batch {
		p := batch[i].Pkt.Payload
		if at+len(p) > len(c.mem) {
			at = 0
		}
		at += copy(c.mem[at:], p)
		if c.reply != nil {
			c.reply(l, &batch[i])
		}
	}
	c.n.Add(int64(len(batch)))
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// source sends packets of n bytes until total are acknowledged, window at most on
// the way: from its goroutine's Input, as a device without a busy application.
type source struct {
	p             wire.Packet
	data          []byte
	n             int
	next, una     uint32
	total, window uint32
	done          chan struct{}
}

func (s *source) Writable(Link) {}
func (s *source) Input(l Link, batch []Rx) {
	s.una = batch[len(batch)-1].Pkt.PSN
	if s.una == s.total {
		close(s.done)
		return
	}
	s.pump(l)
}

func (s *source) pump(l Link) {
	segs := [1][]byte{}
	at := 0
	for s.next < s.total && s.next-s.una < s.window {
		if at+s.n > len(s.data) {
			at = 0
		}
		segs[0] = s.data[at : at+s.n]
		at += s.n
		s.p.PSN = s.next
		s.next++
		l.Send(lo2, &s.p, segs[:], s.n)
	}
	l.Flush()
}

// acker copies payloads to where they belong, and acknowledges once for each batch.
type acker struct {
	copier
	got uint32
}

func (k *acker) Input(l Link, batch []Rx) {
	k.copier.Input(l, batch)
	k.got += uint32(len(batch))
	l.Send(lo1, &wire.Packet{Opcode: wire.RCAck, PSN: k.got}, nil, 0)
	l.Flush()
}

// stream sends b.N packets of n bytes with a window, as fast as they arrive.
func stream(b *testing.B, net Network, n int, window uint32, poll bool) {
	k := &acker{copier: copier{mem: make([]byte, 1<<20)}}
	s := &source{p: wire.Packet{Opcode: wire.RCWriteMiddle, PKey: 0xffff, DestQP: 17}, data: make([]byte, 1<<20), n: n,
		total: uint32(b.N), window: window, done: make(chan struct{})}
	a, z := open(b, net, lo1, s), open(b, net, lo2, k)
	if poll {
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					z.Poll()
				}
			}
		}()
	}
	b.SetBytes(int64(n))
	b.ReportAllocs()
	cpu := cpuTime()
	b.ResetTimer()
	s.pump(a)
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		b.Fatalf("%d of %d arrived: %+v", s.una, b.N, z.Stats())
	}
	b.StopTimer()
	b.ReportMetric((cpuTime()-cpu).Seconds()/(float64(b.N)*float64(n)/1e9), "cpu-s/GB")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e3, "kpkt/s")
	b.ReportMetric(float64(b.N)/float64(a.Stats().TxCalls), "pkt/call")
}

func BenchmarkStream(b *testing.B) {
	for _, x := range []struct {
		name   string
		n      int
		window uint32
	}{{"4096", 4096, 128}, {"1024", 1024, 512}, {"64", 64, 1024}} {
		b.Run("udp/"+x.name, func(b *testing.B) { stream(b, UDP(UDPOptions{}), x.n, x.window, false) })
		b.Run("udp-poll/"+x.name, func(b *testing.B) { stream(b, UDP(UDPOptions{}), x.n, x.window, true) })
		b.Run("memory/"+x.name, func(b *testing.B) { stream(b, Memory(0, MemOptions{}), x.n, x.window, false) })
	}
}

// pingPong bounces 64 bytes. Kinds of waiting: the link's goroutine answers on
// both sides; one goroutine polls each side; one goroutine polls both.
func pingPong(b *testing.B, net Network, kind string) {
	data := [][]byte{make([]byte, 64)}
	p := wire.Packet{Opcode: wire.RCSendOnly, PKey: 0xffff, DestQP: 17}
	q := p
	pong := &copier{mem: make([]byte, 1<<16), reply: func(l Link, r *Rx) { l.Send(r.Src, &q, data, 64); l.Flush() }}
	back := make(chan struct{}, 1)
	ping := &copier{mem: make([]byte, 1<<16)}
	if kind == "park" {
		ping.reply = func(Link, *Rx) { back <- struct{}{} }
	}
	a, z := open(b, net, lo1, ping), open(b, net, lo2, pong)
	if kind == "poll" {
		stop, done := make(chan struct{}), make(chan struct{})
		defer func() { close(stop); <-done }()
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					z.Poll()
				}
			}
		}()
	}
	b.ReportAllocs()
	times := make([]time.Duration, 0, 1<<20)
	b.ResetTimer()
	for i := range b.N {
		t := time.Now()
		a.Send(lo2, &p, data, 64)
		a.Flush()
		switch kind {
		case "park":
			<-back
		default:
			for ping.n.Load() <= int64(i) {
				a.Poll()
				if kind == "both" {
					z.Poll()
				}
			}
		}
		if len(times) < cap(times) {
			times = append(times, time.Since(t))
		}
	}
	b.StopTimer()
	reportQuantiles(b, times)
}

func reportQuantiles(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2])/1e3, "p50-us")
	b.ReportMetric(float64(times[len(times)*99/100])/1e3, "p99-us")
}

func BenchmarkPingPong(b *testing.B) {
	for _, kind := range []string{"park", "poll", "both"} {
		b.Run("udp/"+kind, func(b *testing.B) { pingPong(b, UDP(UDPOptions{}), kind) })
		b.Run("memory/"+kind, func(b *testing.B) { pingPong(b, Memory(0, MemOptions{}), kind) })
	}
}
