package qp

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

// The benchmarks of this file do the same work with package verbs alone and with
// a Conn, in turn on the same devices: batches of 16, at most 128 under way, the
// last of each batch signalled, completions waited for with CQ.Wait.
const (
	benchBatch = 16
	benchDepth = 128
)

// rawEnd is a queue pair and its completion queue, without anything else.
type rawEnd struct {
	q  *verbs.QP
	cq *verbs.CQ
}

func newRawEnd(b *testing.B, d *Device) *rawEnd {
	ch := must[*verbs.CompChannel](b)(d.Context().CreateCompChannel())
	b.Cleanup(func() { _ = ch.Close() })
	cq := must[*verbs.CQ](b)(d.Context().CreateCQ(1024, &verbs.CQConfig{Channel: ch}))
	b.Cleanup(func() { require.NoError(b, cq.Close()) })
	q := must[*verbs.QP](b)(d.PD().CreateQP(verbs.QPConfig{SendCQ: cq, RecvCQ: cq,
		Cap: verbs.QPCap{MaxSendWR: benchDepth, MaxRecvWR: 512, MaxSendSGE: 1, MaxRecvSGE: 1, MaxInlineData: 64}}))
	b.Cleanup(func() { require.NoError(b, q.Close()) })
	return &rawEnd{q, cq}
}

func rawPair(b *testing.B, da, db *Device) (x, y *rawEnd) {
	x, y = newRawEnd(b, da), newRawEnd(b, db)
	for _, p := range [][2]*rawEnd{{x, y}, {y, x}} {
		at, to := p[0].q, p[1].q
		g := must[verbs.GIDEntry](b)(at.PD().Context().SelectGID(1, netip.Addr{}))
		h := must[verbs.GIDEntry](b)(to.PD().Context().SelectGID(1, netip.Addr{}))
		pa := must[verbs.PortAttr](b)(at.PD().Context().QueryPort(1))
		access := verbs.AccessLocalWrite | verbs.AccessRemoteWrite
		require.NoError(b, at.Modify(verbs.QPAttr{State: verbs.QPSInit, PortNum: 1, AccessFlags: access},
			verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrAccessFlags))
		require.NoError(b, at.Modify(verbs.QPAttr{State: verbs.QPSRTR, PathMTU: pa.ActiveMTU, DestQPN: to.QPN(), MaxDestRdAtomic: 1, MinRNRTimer: 12,
			AH: verbs.AHAttr{IsGlobal: true, PortNum: 1, GRH: verbs.GlobalRoute{DGID: h.GID, SGIDIndex: uint8(g.Index), HopLimit: 64}}},
			verbs.QPAttrState|verbs.QPAttrAV|verbs.QPAttrPathMTU|verbs.QPAttrDestQPN|verbs.QPAttrRQPSN|verbs.QPAttrMaxDestRdAtomic|verbs.QPAttrMinRNRTimer))
		require.NoError(b, at.Modify(verbs.QPAttr{State: verbs.QPSRTS, Timeout: 14, RetryCnt: 6, RNRRetry: 7, MaxRdAtomic: 1},
			verbs.QPAttrState|verbs.QPAttrSQPSN|verbs.QPAttrTimeout|verbs.QPAttrRetryCnt|verbs.QPAttrRNRRetry|verbs.QPAttrMaxQPRdAtomic))
	}
	return x, y
}

// run posts wr in batches until n are done; next may change them before each.
func (x *rawEnd) run(b *testing.B, wr []verbs.SendWR, n, depth int, next func(batch int)) {
	wc := make([]verbs.WC, 64)
	posted, done := 0, 0
	for done < n {
		for posted < n && posted-done+benchBatch <= depth {
			next(posted / benchBatch)
			if _, err := x.q.PostSend(wr); err != nil {
				b.Fatal(err)
			}
			posted += benchBatch
		}
		k, err := x.cq.Wait(context.Background(), wc, verbs.SpinAdaptive)
		if err != nil {
			b.Fatal(err)
		}
		for i := range wc[:k] {
			if wc[i].Status != verbs.WCSuccess {
				b.Fatal(wc[i].Status)
			}
			done += benchBatch
		}
	}
}

func signalLast(wr []verbs.SendWR) []verbs.SendWR {
	wr[len(wr)-1].Flags |= verbs.SendSignaled
	return wr
}

func region(b *testing.B, d *Device, n int, access verbs.AccessFlags) *verbs.MR {
	m := must[*verbs.MR](b)(d.PD().RegMR(make([]byte, n), access|verbs.AccessLocalWrite))
	b.Cleanup(func() { require.NoError(b, m.Close()) })
	return m
}

// BenchmarkBeside is the cost of a Conn over raw verbs: compare /raw and /conn.
func BenchmarkBeside(b *testing.B) {
	da, db := plainDevice(b, "127.0.9.3"), plainDevice(b, "127.0.9.4")
	b.Run("messages 64 B/raw", func(b *testing.B) { rawMessages(b, da, db) })
	b.Run("messages 64 B/conn", func(b *testing.B) { connMessages(b, da, db) })
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("write %d KiB/raw", size>>10), func(b *testing.B) { rawWrites(b, da, db, size) })
		b.Run(fmt.Sprintf("write %d KiB/conn", size>>10), func(b *testing.B) { connWrites(b, da, db, size) })
	}
}

func rawMessages(b *testing.B, da, db *Device) {
	x, y := rawPair(b, da, db)
	m := region(b, db, 512*64, 0)
	recv := make([]verbs.RecvWR, 512)
	for i := range recv {
		recv[i] = verbs.RecvWR{ID: uint64(i), SGList: []verbs.SGE{{Addr: m.Addr() + uint64(i*64), Length: 64, LKey: m.LKey()}}}
	}
	_, err := y.q.PostRecv(recv)
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		wc, again := make([]verbs.WC, 64), make([]verbs.RecvWR, 0, 64)
		for {
			n, err := y.cq.Wait(ctx, wc, verbs.SpinAdaptive)
			if err != nil {
				return
			}
			again = again[:0]
			for i := range wc[:n] {
				again = append(again, recv[wc[i].WRID])
			}
			if _, err := y.q.PostRecv(again); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	data := make([]byte, 64)
	wr := make([]verbs.SendWR, benchBatch)
	for i := range wr {
		wr[i] = verbs.SendWR{Opcode: verbs.WRSend, Inline: data}
	}
	b.ResetTimer()
	cpu := cpuTime()
	x.run(b, signalLast(wr), b.N, benchDepth, func(int) {})
	report(b, cpu)
	cancel()
	<-ended
}

func connMessages(b *testing.B, da, db *Device) {
	x, _ := pair(b, da, db, Config{SendDepth: benchDepth}, Config{RecvDepth: 512, MaxMessage: 64, OnMessage: func(_ *Conn, m Message) { _ = m.Buf.Release() }})
	data := make([]byte, 64)
	ops := make([]Op, benchBatch)
	for i := range ops {
		ops[i] = Op{Kind: Send, Data: data}
	}
	ctx := context.Background()
	b.ResetTimer()
	cpu := cpuTime()
	for i := 0; i < b.N; i += len(ops) {
		if err := x.Post(ctx, ops...); err != nil {
			b.Fatal(err)
		}
	}
	check2(b, x.Flush(ctx))
	report(b, cpu)
}

// plainDevice is a software device, or the one of ZRDMA_TEST_DEVICE, without
// canaries, which cost.
func plainDevice(b *testing.B, addr string) *Device {
	if name := testDevice(); name != "" {
		d := must[*Device](b)(Open(DeviceConfig{Name: name, Logger: quietLogger()}))
		b.Cleanup(func() { require.NoError(b, d.Close()) })
		return d
	}
	c := must[*verbs.Context](b)(verbs.OpenSoft(verbs.SoftConfig{Addrs: []netip.Addr{netip.MustParseAddr(addr)}}))
	b.Cleanup(func() { require.NoError(b, c.Close()) })
	d := must[*Device](b)(Open(DeviceConfig{Context: c, Logger: quietLogger()}))
	b.Cleanup(func() { require.NoError(b, d.Close()) })
	return d
}

func check2(b *testing.B, err error) {
	if err != nil {
		b.Fatal(err)
	}
}

func rawWrites(b *testing.B, da, db *Device, size int) {
	x, _ := rawPair(b, da, db)
	// As many sources as connWrites has: they must not be in the cache here only.
	sources := numSources(size)
	src, dst := region(b, da, sources*size, 0), region(b, db, size, verbs.AccessRemoteWrite)
	wr := make([]verbs.SendWR, benchBatch)
	for i := range wr {
		wr[i] = verbs.SendWR{Opcode: verbs.WRRDMAWrite, RemoteAddr: dst.Addr(), RKey: dst.RKey(),
			SGList: []verbs.SGE{{Addr: src.Addr(), Length: uint32(size), LKey: src.LKey()}}}
	}
	b.SetBytes(int64(size))
	b.ResetTimer()
	cpu := cpuTime()
	x.run(b, signalLast(wr), b.N, sources, func(k int) {
		for i := range wr {
			wr[i].SGList[0].Addr = src.Addr() + uint64((k*benchBatch+i)%sources*size)
		}
	})
	report(b, cpu)
}

func numSources(size int) int { return min(benchDepth, max(benchBatch, 32<<20/size)) }

// cpuTime is what this process has used. On a machine that does other things it
// says more than the time on the clock: both ends are in it, and the network.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func report(b *testing.B, since time.Duration) {
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-since)/float64(b.N), "cpu-ns/op")
}

// connWrites posts buffers that come back with each write, in any order.
func connWrites(b *testing.B, da, db *Device, size int) {
	x, _ := pair(b, da, db, Config{SendDepth: benchDepth}, Config{})
	dst := region(b, db, size, verbs.AccessRemoteWrite)
	to := Remote{Addr: dst.Addr(), Len: uint32(size), RKey: dst.RKey()}
	ctx := context.Background()
	// A slot is a batch with its buffers; it is free again when all have come back.
	type slot struct {
		bufs [benchBatch]mr.Buf
		ops  []Op
	}
	free := make(chan *slot, benchDepth)
	for range numSources(size) / benchBatch {
		s := &slot{ops: make([]Op, benchBatch)}
		for i := range s.ops {
			s.bufs[i] = must[mr.Buf](b)(da.Pool().Get(ctx, size))
			s.ops[i] = Op{Kind: Write, Bufs: s.bufs[i : i+1], Remote: to, Done: func(r Result) {
				if r.Err != nil {
					b.Error(r.Err)
				}
				s.bufs[i] = r.Bufs[0]
				if i == benchBatch-1 {
					free <- s
				}
			}}
		}
		free <- s
	}
	b.SetBytes(int64(size))
	b.ResetTimer()
	cpu := cpuTime()
	for i := 0; i < b.N; i += benchBatch {
		s := <-free
		if err := x.Post(ctx, s.ops...); err != nil {
			b.Fatal(err)
		}
	}
	check2(b, x.Flush(ctx))
	report(b, cpu)
	for range numSources(size) / benchBatch { // Flush may return before the last Done
		release((<-free).bufs[:])
	}
}
