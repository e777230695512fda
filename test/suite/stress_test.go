package suite_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/zrdma/zrdma/verbs"
)

// traffic sends messages of Go memory back and forth and checks each, while the
// collector runs in a loop. Every tenth round the memory is new.
func (e *env) traffic(rounds int) {
	t := e.t
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	p := e.rc()
	var src, dst *verbs.MR
	reg := func() {
		for _, m := range []**verbs.MR{&src, &dst} {
			if *m != nil {
				require.NoError(t, (*m).Close())
			}
			b := make([]byte, 64<<10) // on Go's heap
			var err error
			*m, err = e.pd.RegMR(b, allAccess)
			require.NoError(t, err)
		}
	}
	var garbage [][]byte
	for i := range rounds {
		if i%10 == 0 {
			reg()
		}
		n := 1 + i*977%(64<<10)
		fill(src.Bytes()[:n], i)
		clear(dst.Bytes())
		e.recv(p.b, verbs.RecvWR{ID: 1, SGList: sgl(dst.SGE(0, 64<<10))})
		inline := []byte(fmt.Sprint("round ", i))
		e.send(p.a, sig(2, verbs.WRSend, src.SGE(0, n)), at(verbs.SendWR{ID: 3, Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled, Inline: inline}, dst, 65000))
		garbage = append(garbage[:i%16], make([]byte, 1+i%32*1024))
		require.Equal(t, []uint64{2, 3}, ids(t, e.poll(p.a.SendCQ(), 2), verbs.WCSuccess))
		e.ok(p.b.RecvCQ(), 1, verbs.WCSuccess)
		m := min(n, 65000)
		require.True(t, string(src.Bytes()[:m]) == string(dst.Bytes()[:m]), "round %d", i)
		require.Equal(t, inline, dst.Bytes()[65000:65000+len(inline)], "round %d", i)
	}
	runtime.KeepAlive(garbage)
	require.NoError(t, src.Close())
	require.NoError(t, dst.Close())
}

// usage is what an open object costs: descriptors of this process, and the
// kernel's own count of the device's objects.
func (e *env) usage() map[string]int {
	u := map[string]int{}
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(e.t, err)
	u["fd"] = len(fds)
	if e.soft { // nothing of it is the kernel's but descriptors
		return u
	}
	all, err := netlink.RdmaResourceList()
	require.NoError(e.t, err)
	for _, r := range all {
		if r.Name == e.dev {
			for k, v := range r.RdmaResourceSummaryEntries {
				u[k] = int(v)
			}
		}
	}
	require.Greater(e.t, len(u), 4, "the kernel counts the objects of %s: %v", e.dev, u)
	return u
}

// rss is the resident memory in KiB.
func rss(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) > 1 && f[0] == "VmRSS:" {
			n, err := strconv.Atoi(f[1])
			require.NoError(t, err)
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// footprint is what a leak would add to, in KiB: resident memory, or under the race
// detector, whose own records grow there, the Go heap.
func footprint(t *testing.T) int {
	if !raceDetector {
		return rss(t)
	}
	runtime.GC() // what cleanups of the first collection let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc >> 10)
}

func init() {
	register("Z01", "GC stress", func(t *testing.T, e *env) {
		e.traffic(300)
		if inChild() {
			return
		}
		for _, v := range [][]string{{"GODEBUG=cgocheck=1", "GOGC=1"}, {"GODEBUG=cgocheck=1,clobberfree=1,gcstoptheworld=1", "GOGC=1"}} {
			out, err := child(t, "Z01", append(v, helperDevice(e))...)
			require.NoError(t, err, "%v:\n%s", v, out)
			require.Contains(t, out, "--- PASS: TestVerbs/Z01_")
		}
	})
	register("Z02", "leaks", func(t *testing.T, e *env) {
		mem := e.mem(4096)
		// once opens and closes ten objects of nine kinds.
		once := func() {
			c, err := e.device().Open()
			require.NoError(t, err)
			pd, err := c.AllocPD()
			require.NoError(t, err)
			ch, err := c.CreateCompChannel()
			require.NoError(t, err)
			cq, err := c.CreateCQ(16, &verbs.CQConfig{Channel: ch})
			require.NoError(t, err)
			mr, err := pd.RegMR(mem, allAccess)
			require.NoError(t, err)
			mw, err := pd.AllocMW(verbs.MWType2)
			require.NoError(t, err)
			ah, err := pd.CreateAH(e.ahAttr(e.gid.GID, &e.gid))
			require.NoError(t, err)
			srq, err := pd.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: 16}})
			require.NoError(t, err)
			caps := verbs.QPCap{MaxSendWR: 4, MaxRecvWR: 4, MaxSendSGE: 1, MaxRecvSGE: 1}
			qp, err := pd.CreateQP(verbs.QPConfig{SendCQ: cq, Cap: caps})
			require.NoError(t, err)
			qps, err := pd.CreateQP(verbs.QPConfig{SendCQ: cq, Cap: verbs.QPCap{MaxSendWR: 4, MaxSendSGE: 1}, SRQ: srq})
			require.NoError(t, err)
			for _, o := range []closer{qps, qp, srq, ah, mw, mr, cq, ch, pd, c} {
				require.NoError(t, o.Close(), "%T", o)
			}
		}
		for range 100 {
			once()
		}
		debug.FreeOSMemory() // collects first
		before, mb := e.usage(), footprint(t)
		for range 1000 {
			once()
		}
		debug.FreeOSMemory()
		after, ma := e.usage(), footprint(t)
		require.Equal(t, before, after)
		t.Logf("10000 objects: memory %d to %d KiB; %v", mb, ma, after)
		// 10000 objects of which each leaked one page would be 40 MB.
		require.Less(t, ma-mb, 10<<10, "KiB of memory gained")
	})
	register("Z03", "concurrency", func(t *testing.T, e *env) {
		const workers, each = 8, 250
		p := e.pair(verbs.QPConfig{Cap: verbs.QPCap{MaxSendWR: 128, MaxRecvWR: 128}}, link{})
		m := e.mr(1<<20, allAccess)
		var sent, received [workers * each]atomic.Int32
		var nSent, nRecv, slots atomic.Int64
		deadline := time.Now().Add(4 * waitLimit)
		failed := func(err error, ok ...error) bool {
			for _, o := range ok {
				if errors.Is(err, o) {
					return false
				}
			}
			return !assert.NoError(t, err) || t.Failed() || !assert.True(t, time.Now().Before(deadline), "too slow: %d sent, %d received", nSent.Load(), nRecv.Load())
		}
		var wg sync.WaitGroup
		drain := func(q *verbs.CQ) bool {
			var wc [5]verbs.WC
			n, err := q.Poll(wc[:])
			if failed(err) {
				return false
			}
			for i := range wc[:n] {
				w := &wc[i]
				if !assert.Equal(t, verbs.WCSuccess, w.Status) {
					return false
				}
				if w.IsRecv() {
					slot := int(w.WRID)
					id := binary.LittleEndian.Uint64(m.Bytes()[slot*64:])
					received[id].Add(1)
					nRecv.Add(1)
				} else {
					sent[w.WRID].Add(1)
					nSent.Add(1)
				}
			}
			return true
		}
		const total = workers * each
		done := func() bool { return nSent.Load() == total && nRecv.Load() == total }
		for w := range workers {
			wg.Go(func() { // each posts its receives and sends, and polls for all
				for i := range each {
					slot := slots.Add(1) - 1
					r := verbs.RecvWR{ID: uint64(slot), SGList: sgl(m.SGE(int(slot)*64, 64))}
					for {
						_, err := p.b.PostRecv([]verbs.RecvWR{r})
						if failed(err, verbs.ErrQueueFull) || !drain(p.b.RecvCQ()) {
							return
						}
						if err == nil {
							break
						}
					}
					var b [8]byte
					id := uint64(w*each + i)
					binary.LittleEndian.PutUint64(b[:], id)
					for {
						_, err := p.a.PostSend([]verbs.SendWR{{ID: id, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, Inline: b[:]}})
						if failed(err, verbs.ErrQueueFull) || !drain(p.a.SendCQ()) {
							return
						}
						if err == nil {
							break
						}
					}
				}
				for !done() {
					if failed(nil) || !drain(p.a.SendCQ()) || !drain(p.b.RecvCQ()) {
						return
					}
					runtime.Gosched()
				}
			})
		}
		wg.Wait()
		for i := range sent {
			require.Equal(t, int32(1), sent[i].Load(), "completions of send %d", i)
			require.Equal(t, int32(1), received[i].Load(), "arrivals of message %d", i)
		}
		require.Empty(t, e.pollFor(p.a.SendCQ(), 1, 20*time.Millisecond))
		require.Empty(t, e.pollFor(p.b.RecvCQ(), 1, 20*time.Millisecond))
	})
	register("Z04", "close races", func(t *testing.T, e *env) {
		m := e.mr(1<<16, allAccess)
		for round := range 60 {
			ch, err := e.ctx.CreateCompChannel()
			require.NoError(t, err)
			cq, err := e.ctx.CreateCQ(256, &verbs.CQConfig{Channel: ch})
			require.NoError(t, err)
			p := e.pair(verbs.QPConfig{SendCQ: cq}, link{})
			ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
			var wg sync.WaitGroup
			// until runs f until it says that its object is closed.
			until := func(name string, f func() error, fine ...error) {
				wg.Go(func() {
					for ctx.Err() == nil {
						err := f()
						if errors.Is(err, verbs.ErrClosed) {
							assert.ErrorIs(t, err, net.ErrClosed)
							return
						}
						ok := err == nil
						for _, o := range fine {
							ok = ok || errors.Is(err, o)
						}
						if !assert.True(t, ok, "%s: %v", name, err) {
							return
						}
						runtime.Gosched()
					}
					assert.Fail(t, "the Close was not seen", name)
				})
			}
			write := []verbs.SendWR{at(sig(1, verbs.WRRDMAWrite, m.SGE(0, 1024)), m, 4096)}
			// A slot of the send queue may be free before its completion is polled:
			// the room in the completion queue is the poster's to count.
			var pending atomic.Int32
			until("PostSend", func() error {
				if pending.Load() >= 100 {
					_, err := p.a.State()
					return err
				}
				n, err := p.a.PostSend(write)
				pending.Add(int32(n))
				return err
			}, verbs.ErrQueueFull)
			until("PostRecv", func() error { _, err := p.a.PostRecv(recvs(m, 1, 1)); return err }, verbs.ErrQueueFull)
			until("Query", func() error { _, err := p.b.State(); return err })
			var wc [16]verbs.WC
			until("Wait", func() error { n, err := cq.Wait(ctx, wc[:], 0); pending.Add(int32(-n)); return err })
			var wc2 [16]verbs.WC
			until("Poll", func() error { n, err := cq.Poll(wc2[:]); pending.Add(int32(-n)); return err })
			until("ReqNotify", func() error { return cq.ReqNotify(false) })
			until("Get", func() error { _, err := ch.Get(ctx); return err })
			time.Sleep(time.Duration(round%7) * time.Millisecond)
			require.ErrorIs(t, cq.Close(), verbs.ErrInUse)
			for _, o := range []closer{p.a, p.b, cq, ch} {
				var both sync.WaitGroup
				for range 2 { // from two goroutines at once
					both.Go(func() { assert.NoError(t, o.Close(), "%T", o) })
				}
				both.Wait()
			}
			wg.Wait()
			cancel()
			if t.Failed() {
				return
			}
		}
	})
}
