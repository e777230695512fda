package dpu_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/dpu"
	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/rpc"
)

var (
	simSeeds = flag.Int("dpu.seeds", 5, "how many seeds TestSimulation runs")
	simSeed  = flag.Uint64("dpu.seed", 1, "the first seed of TestSimulation")
	simTell  = flag.Bool("dpu.tell", false, "say what each seed of TestSimulation did")
)

// TestSimulation lets a host read, write and delete blocks while its agent is killed,
// closed, drained, hung, cut off, and while hung agents come back as zombies that go on
// with what they were about to do, late and without regard to their lease; the network
// loses, repeats, reorders and damages packets, and calls are given up. Whatever
// happens:
//   - a read gives what was written last, byte for byte, or one of two where a write was
//     given up or its fate is unknown; in the end every block is what it must be;
//   - no write is done twice, whoever sent it;
//   - a write whose error says that it was not done was not;
//   - memory that came back does not change any more: it is filled and scanned later;
//   - nothing is left: no buffer, no grant, no place.
func TestSimulation(t *testing.T) {
	for seed := *simSeed; seed < *simSeed+uint64(*simSeeds); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rdmatest.Run(t, seed, func(t *testing.T, net *rdmatest.Network) { simulate(t, net, seed) })
		})
	}
}

type sim struct {
	*rig
	rng *rand.Rand // of the goroutine that makes trouble

	holds   sync.WaitGroup
	trouble []string
	resumes []func() // of agents that hang

	wmu     sync.Mutex
	applied map[dpu.Token]int // by writer and number; guarded by wmu
	finals  []func()          // guarded by wmu
}

const simSize = 150_000

func simulate(t *testing.T, net *rdmatest.Network, seed uint64) {
	r := rng(seed, 7)
	w := &sim{rig: newRig(t, net), rng: r, applied: map[dpu.Token]int{}}
	w.storageDown()
	w.onWrite = func(_ string, tok dpu.Token) {
		w.wmu.Lock()
		defer w.wmu.Unlock()
		k := dpu.Token{Writer: tok.Writer, Seq: tok.Seq}
		if w.applied[k]++; w.applied[k] > 1 {
			t.Errorf("write %d was done %d times", tok.Seq, w.applied[k])
		}
	}
	w.storageUp()
	w.acfg.Chunk = 4096 << r.IntN(5)
	w.acfg.BytesInFlight = w.acfg.Chunk * (1 + r.IntN(5))
	w.acfg.Batch = 1 + r.IntN(16)
	w.acfg.Tenants = map[string]dpu.Tenant{"": {Memory: int64(w.acfg.BytesInFlight) * int64(1+r.IntN(4)), MaxOps: 4 + r.IntN(30)}}
	w.ccfg.Depth = 1 + r.IntN(16)
	w.ccfg.Batch = 1 + r.IntN(8)
	w.ccfg.Lease = time.Duration(50+r.IntN(400)) * time.Millisecond
	w.ccfg.Deadline = time.Duration(100+r.IntN(3000)) * time.Millisecond
	w.ccfg.Verify = r.IntN(2) == 0
	w.ccfg.Policy = dpu.Policy{MinSize: []int{-1, 20_000}[r.IntN(2)], MaxDepth: 2 + r.IntN(20), Probation: time.Duration(r.IntN(300)) * time.Millisecond, MaxProbation: time.Second}
	w.up()
	w.faults()
	var workers sync.WaitGroup
	for i := range 1 + r.IntN(5) {
		own := rng(seed, uint64(100+i))
		n := 8 + own.IntN(20)
		workers.Go(func() { w.work(own, i, n) })
	}
	stop, troubled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(troubled)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(r.IntN(200)) * time.Millisecond):
				w.disturb()
			}
		}
	}()
	workers.Wait()
	close(stop)
	<-troubled
	w.peace()
	w.holds.Wait()
	for _, f := range w.finals {
		f()
	}
	require.Zero(t, w.c.Stats().Depth)
	if *simTell {
		st := w.c.Stats()
		t.Logf("seed %d: %+v\n%v", seed, st, w.trouble)
	}
	w.down()
}

func (w *sim) faults() {
	r := w.rng
	w.net.SetFaults(rdmatest.Faults{Drop: r.Float64() * 0.03, Duplicate: r.Float64() * 0.03, Reorder: r.Float64() * 0.03,
		Corrupt: r.Float64() * 0.01, Delay: time.Duration(r.IntN(200)) * time.Microsecond})
}

// peace ends all trouble: hung agents go on, everything is connected.
func (w *sim) peace() {
	w.net.SetFaults(rdmatest.Faults{})
	w.net.Heal(w.adev, w.hdev)
	w.net.Heal(w.adev, w.sdev)
	w.net.Heal(w.hdev, w.sdev)
	w.wakeAll()
	time.Sleep(4 * time.Second)
}

// wakeAll lets hung agents go on: in this process they cannot end otherwise.
func (w *sim) wakeAll() {
	for _, f := range w.resumes {
		f()
	}
}

// disturb does one kind of harm.
func (w *sim) disturb() {
	r := w.rng
	note := func(s string) { w.trouble = append(w.trouble, s) }
	pause := func(n int) { time.Sleep(time.Duration(r.IntN(n)) * time.Millisecond) }
	switch r.IntN(14) {
	case 0, 1:
		w.faults()
	case 2: // as kill -9 does: nobody is told
		note("kill")
		w.net.Partition(w.adev, w.hdev)
		w.net.Partition(w.adev, w.sdev)
		w.wakeAll()
		if err := w.backend.Close(); err != nil {
			w.t.Error("closing the agent's client:", err)
		}
		w.backend = nil
		w.agentDown()
		w.net.Heal(w.adev, w.hdev)
		w.net.Heal(w.adev, w.sdev)
		pause(1500)
		w.agentUp()
	case 3:
		note("close")
		w.wakeAll()
		w.agentDown()
		pause(500)
		w.agentUp()
	case 4:
		note("drain")
		w.wakeAll()
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Duration(r.IntN(1000))*time.Millisecond)
		if err := w.agent.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			w.t.Error("Shutdown:", err)
		}
		cancel()
		if err := <-w.aserved; err != nil {
			w.t.Error("Serve:", err)
		}
		pause(500)
		w.agentUp()
	case 5, 6: // it hangs, and then it goes on, while the host has begun anew with it
		note("zombie")
		_, resume := w.stall(r.IntN(6))
		w.agent.SetDeaf(true)
		pause(1000)
		w.resumes = append(w.resumes, resume)
		after := time.Duration(r.IntN(3000)) * time.Millisecond
		time.AfterFunc(after, resume)
		pause(1000)
	case 7: // it hangs for a while
		note("hang")
		_, resume := w.stall(r.IntN(6))
		pause(1000)
		resume()
	case 8, 9:
		note("host and agent part")
		w.net.Partition(w.hdev, w.adev)
		pause(2000)
		w.net.Heal(w.hdev, w.adev)
	case 10:
		note("agent and storage part")
		w.net.Partition(w.sdev, w.adev)
		pause(2000)
		w.net.Heal(w.sdev, w.adev)
	case 11:
		note("one way")
		a, b := w.hdev, w.adev
		if r.IntN(2) == 0 {
			a, b = b, a
		}
		w.net.Cut(a, b)
		pause(1000)
		w.net.Heal(a, b)
	case 12:
		note("host and storage part")
		w.net.Partition(w.hdev, w.sdev)
		pause(1000)
		w.net.Heal(w.hdev, w.sdev)
	default:
		pause(1500)
	}
}

// owned is what a worker knows of one of its blocks: the versions it may have, 0 for
// none.
type owned struct{ may []uint64 }

func (o *owned) is(v uint64) { o.may = []uint64{v} }

func (w *sim) work(r *rand.Rand, worker, steps int) {
	blocks := make([]owned, 1+r.IntN(3))
	for i := range blocks {
		blocks[i].is(0)
	}
	version := uint64(0)
	for range steps {
		time.Sleep(time.Duration(r.IntN(100_000)) * time.Microsecond)
		i := r.IntN(len(blocks))
		k := fmt.Sprint("w", worker, "-", i)
		id := func(v uint64) uint64 { return uint64(worker)<<40 | uint64(i)<<32 | v }
		limit := 30 * time.Second
		if r.IntN(6) == 0 {
			limit = time.Duration(r.IntN(30_000)) * time.Microsecond
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), limit)
		switch r.IntN(10) {
		case 0, 1, 2, 3:
			version++
			w.simPut(ctx, r, k, &blocks[i], version, id)
		case 4:
			w.simDelete(ctx, k, &blocks[i])
		case 5:
			w.hold(r)
		default:
			w.simGet(ctx, k, &blocks[i], id)
		}
		cancel()
	}
	w.wmu.Lock()
	defer w.wmu.Unlock()
	w.finals = append(w.finals, func() {
		for i := range blocks {
			id := func(v uint64) uint64 { return uint64(worker)<<40 | uint64(i)<<32 | v }
			w.simGet(dpu.WithPath(w.t.Context(), dpu.Direct), fmt.Sprint("w", worker, "-", i), &blocks[i], id)
		}
	})
}

func (w *sim) simPut(ctx context.Context, r *rand.Rand, k string, o *owned, v uint64, id func(uint64) uint64) {
	n := 1 + r.IntN(simSize)
	b, err := w.hd.Pool().Get(ctx, n)
	if err != nil {
		return
	}
	p, err := b.Bytes()
	if err != nil {
		w.t.Error(err)
		return
	}
	block.Content(p, id(v))
	b, err = w.c.Put(ctx, k, b)
	switch {
	case err == nil:
		o.is(v)
		w.reuse(r, b)
	case undone(err):
	case errors.Is(err, dpu.ErrIndeterminate), ctx.Err() != nil:
		o.may = append(o.may, v)
		time.Sleep(4 * time.Second) // a write that was given up may be done for a while
	default:
		w.t.Errorf("put %s: %v; trouble: %v", k, err, w.trouble)
	}
}

// undone reports an error after which nothing was done.
func undone(err error) bool {
	var e *rpc.Error
	return errors.Is(err, rpc.ErrBusy) || errors.As(err, &e) && e.Refused && !errors.Is(err, dpu.ErrIndeterminate)
}

func (w *sim) simDelete(ctx context.Context, k string, o *owned) {
	err := w.c.Delete(ctx, k)
	switch {
	case err == nil:
		if len(o.may) == 1 && o.may[0] == 0 {
			w.t.Errorf("%s was deleted, and was not there", k)
		}
		o.is(0)
	case rpc.CodeOf(err) == rpc.NotFound:
		if !o.could(0) {
			w.t.Errorf("%s is not there to be deleted, and should be: %v", k, o.may)
		}
		o.is(0)
	case undone(err):
	case errors.Is(err, dpu.ErrIndeterminate), ctx.Err() != nil:
		o.may = append(o.may, 0)
		time.Sleep(4 * time.Second)
	default:
		w.t.Errorf("delete %s: %v", k, err)
	}
}

func (o *owned) could(v uint64) bool {
	for _, x := range o.may {
		if x == v {
			return true
		}
	}
	return false
}

func (w *sim) simGet(ctx context.Context, k string, o *owned, id func(uint64) uint64) {
	b, err := w.hd.Pool().Get(ctx, simSize)
	if err != nil {
		return
	}
	b, err = w.c.Get(ctx, k, b)
	switch {
	case err == nil:
	case rpc.CodeOf(err) == rpc.NotFound:
		if !o.could(0) {
			w.t.Errorf("block %s is lost: it may have %v; trouble: %v", k, o.may, w.trouble)
		}
		o.is(0)
		return
	case ctx.Err() != nil, rpc.CodeOf(err) == rpc.ResourceExhausted:
		return
	default:
		w.t.Errorf("get %s: %v", k, err)
		return
	}
	p, err := b.Bytes()
	if err != nil {
		w.t.Error(err)
		return
	}
	got := uint64(1 << 62)
	want := make([]byte, len(p))
	for _, v := range o.may {
		if v == 0 {
			continue
		}
		if block.Content(want, id(v)); string(want) == string(p) {
			got = v
			break
		}
	}
	if got == 1<<62 {
		w.t.Errorf("block %s is of no version that it may have, %v; trouble: %v", k, o.may, w.trouble)
	} else if len(o.may) > 1 {
		o.is(got)
	}
	_ = b.Release()
}

// reuse fills a buffer that came back and looks at it later.
func (w *sim) reuse(r *rand.Rand, b mr.Buf) {
	p, err := b.Bytes()
	if err != nil {
		w.t.Error(err)
		return
	}
	seed := r.Uint64()
	block.Content(p, seed)
	wait := time.Duration(r.IntN(2000)) * time.Millisecond
	w.holds.Add(1)
	go func() {
		defer w.holds.Done()
		time.Sleep(wait)
		want := make([]byte, len(p))
		if block.Content(want, seed); string(want) != string(p) {
			w.t.Errorf("memory changed after it came back; trouble: %v", w.trouble)
		}
		_ = b.Release()
	}()
}

func (w *sim) hold(r *rand.Rand) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
	defer cancel()
	b, err := w.hd.Pool().Get(ctx, 1+r.IntN(simSize))
	if err == nil {
		w.reuse(r, b)
	}
}
