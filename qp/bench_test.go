package qp

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func benchPair(b *testing.B, cfg Config) (x, y *Conn) {
	da, db := plainDevice(b, "127.0.9.3"), plainDevice(b, "127.0.9.4")
	return pair(b, da, db, cfg, cfg)
}

// BenchmarkSend64 sends messages of 64 bytes one after the other, each waiting
// for its completion, to a receiver that takes them.
func BenchmarkSend64(b *testing.B) {
	x, y := benchPair(b, Config{OnMessage: func(_ *Conn, m Message) { _ = m.Buf.Release() }})
	_ = y
	data := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if err := x.SendBytes(context.Background(), data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPost64 keeps the send queue full, with one completion a batch of 16.
func BenchmarkPost64(b *testing.B) {
	x, _ := benchPair(b, Config{OnMessage: func(_ *Conn, m Message) { _ = m.Buf.Release() }})
	data := make([]byte, 64)
	ops := make([]Op, 16)
	for i := range ops {
		ops[i] = Op{Kind: Send, Data: data}
	}
	b.ReportAllocs()
	for i := 0; i < b.N; i += len(ops) {
		if err := x.Post(context.Background(), ops...); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnect makes and closes connections, and says what one holds.
func BenchmarkConnect(b *testing.B) {
	da, db := plainDevice(b, "127.0.9.3"), plainDevice(b, "127.0.9.4")
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var setup, closing time.Duration
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				cfg := Config{SendDepth: 16, RecvDepth: 8, DeadAfter: -1}
				conns := make([]*Conn, 0, 2*n)
				start := time.Now()
				for range n {
					pa, err := da.Prepare(netip.Addr{}, cfg)
					require.NoError(b, err)
					pb, err := db.Prepare(netip.Addr{}, cfg)
					require.NoError(b, err)
					la, lb := pa.Local(), pb.Local()
					ca, err := pa.Connect(lb)
					require.NoError(b, err)
					cb, err := pb.Connect(la)
					require.NoError(b, err)
					conns = append(conns, ca, cb)
				}
				setup += time.Since(start)
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(2*n), "heap-B/conn")
				start = time.Now()
				for _, c := range conns {
					require.NoError(b, c.Close())
				}
				closing += time.Since(start)
			}
			b.ReportMetric(float64(n)*float64(b.N)/setup.Seconds(), "pairs/s")
			b.ReportMetric(2*float64(n)*float64(b.N)/closing.Seconds(), "closes/s")
		})
	}
}
