package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/examples/blockstore/block"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rpc"
)

// load is a workload: blocks are written, read back and verified, some calls are
// given up half way.
type load struct {
	c        block.Client
	d        *qp.Device
	blocks   int
	workers  int
	minSize  int
	maxSize  int
	cancel   float64       // share of the calls that are given up
	patience time.Duration // with a call, while the server is away for instance
	seed     uint64

	verify     bool // what another run has written: nothing is put
	puts, gets kind
	done       atomic.Int64 // calls, of 2*blocks
	hung       atomic.Int64 // calls that ended more than a second after their time

	mu   sync.Mutex
	last time.Time     // a call succeeded; guarded by mu
	gap  time.Duration // the longest without one; guarded by mu
}

// alive notes that a call has succeeded.
func (l *load) alive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.last.IsZero() {
		l.gap = max(l.gap, now.Sub(l.last))
	}
	l.last = now
}

// kind counts calls of one kind.
type kind struct {
	mu        sync.Mutex
	took      []time.Duration // guarded by mu; of those that succeeded
	bytes     int64           // guarded by mu
	cancelled int64           // guarded by mu
}

func (k *kind) add(d time.Duration, n int) {
	k.mu.Lock()
	k.took = append(k.took, d)
	k.bytes += int64(n)
	k.mu.Unlock()
}

func (k *kind) percentile(p float64) time.Duration {
	if len(k.took) == 0 {
		return 0
	}
	return k.took[int(p*float64(len(k.took)-1))]
}

// run does it, and shows how far it is.
func (l *load) run(ctx context.Context, progress io.Writer) error {
	keys := make(chan int)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for w := range l.workers {
		rng := rand.New(rand.NewPCG(l.seed, uint64(w)))
		wg.Go(func() {
			for i := range keys {
				if err := l.block(ctx, i, rng); err != nil {
					stop(fmt.Errorf("block %d: %w", i, err))
					return
				}
			}
		})
	}
	shown := make(chan struct{})
	go func() { l.show(ctx, progress); close(shown) }()
feed:
	for i := range l.blocks {
		select {
		case keys <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(keys)
	wg.Wait()
	err := context.Cause(ctx)
	stop(nil)
	<-shown
	return err
}

func (l *load) show(ctx context.Context, w io.Writer) {
	const width = 40
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		n, all := int(l.done.Load()), 2*l.blocks
		if l.verify {
			all = l.blocks
		}
		fill := n * width / max(all, 1)
		fmt.Fprintf(w, "\r[%-*s] %d of %d calls", width, "========================================"[:fill], n, all)
		if ctx.Err() != nil {
			fmt.Fprintln(w)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// block writes a block and reads it back.
func (l *load) block(ctx context.Context, i int, rng *rand.Rand) error {
	mine := rand.New(rand.NewPCG(l.seed, uint64(i))) // whoever does it, a block is the same
	size := l.minSize
	for size < l.maxSize && mine.IntN(3) > 0 { // small ones are the more frequent
		size *= 2
	}
	size = min(size, l.maxSize) - mine.IntN(size/2)
	key := fmt.Sprintf("block-%08d", i)
	put := func(ctx context.Context) (int, error) {
		b, err := l.d.Pool().Get(ctx, size)
		if err != nil {
			return 0, err
		}
		p, err := b.Bytes()
		if err != nil {
			return 0, err
		}
		block.Content(p, l.seed+uint64(i))
		b, err = l.c.Put(ctx, key, b)
		if err != nil {
			return 0, err
		}
		return size, b.Release()
	}
	get := func(ctx context.Context) (int, error) {
		b, err := l.d.Pool().Get(ctx, size)
		if err != nil {
			return 0, err
		}
		if b, err = l.c.Get(ctx, key, b); err != nil {
			return 0, err
		}
		defer b.Release()
		p, err := b.Bytes()
		if err != nil {
			return 0, err
		}
		// The checksum was verified; this is the test that it is this block.
		var want [64]byte
		block.Content(want[:min(len(p), 64)&^7], l.seed+uint64(i))
		if len(p) != size || string(p[:min(len(p), 64)&^7]) != string(want[:min(len(p), 64)&^7]) {
			return 0, fmt.Errorf("another block came back: %d bytes for %d", len(p), size)
		}
		return size, nil
	}
	if !l.verify {
		if err := l.call(ctx, &l.puts, rng, put); err != nil {
			return err
		}
	}
	return l.call(ctx, &l.gets, rng, get)
}

// call does f, now and then giving it up at a random moment and doing it again.
func (l *load) call(ctx context.Context, k *kind, rng *rand.Rand, f func(context.Context) (int, error)) error {
	for rng.Float64() < l.cancel {
		c, cancel := context.WithTimeout(ctx, time.Duration(rng.IntN(2000))*time.Microsecond)
		_, err := f(c)
		l.late(c)
		cancel()
		switch {
		case err == nil:
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			k.mu.Lock()
			k.cancelled++
			k.mu.Unlock()
		default:
			return err
		}
	}
	start := time.Now()
	c, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	n, err := f(c)
	l.late(c)
	if err != nil {
		return err
	}
	k.add(time.Since(start), n)
	l.alive()
	l.done.Add(1)
	return nil
}

// late counts a call that has ended well after its context.
func (l *load) late(ctx context.Context) {
	if d, ok := ctx.Deadline(); ok && time.Since(d) > time.Second {
		l.hung.Add(1)
	}
}

// processor is the time that a process has used.
func processor() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// waitRails waits for every rail to be up, for the time given. A lost one is joined
// again by itself.
func (l *load) waitRails(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	down := func(r rpc.RailStats) bool { return r.State != rpc.RailUp }
	for slices.ContainsFunc(l.c.Rails(), down) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// report prints what was done. cpu is of this process, serverCPU of the server's,
// 0 when it is not known.
func (l *load) report(w io.Writer, wall, cpu, serverCPU time.Duration, staged, answers uint64) {
	total := l.puts.bytes + l.gets.bytes
	gb := float64(total) / 1e9
	fmt.Fprintf(w, "\n%-10s %8s %10s %10s %10s %10s %10s %10s\n", "", "calls", "bytes", "p50", "p90", "p99", "max", "given up")
	for _, k := range []struct {
		name string
		k    *kind
	}{{"put", &l.puts}, {"get", &l.gets}} {
		slices.Sort(k.k.took)
		fmt.Fprintf(w, "%-10s %8d %10s", k.name, len(k.k.took), bytesText(k.k.bytes))
		for _, p := range []float64{0.5, 0.9, 0.99, 1} {
			fmt.Fprintf(w, " %10v", k.k.percentile(p).Round(time.Microsecond))
		}
		fmt.Fprintf(w, " %10d\n", k.k.cancelled)
	}
	st, ps := l.c.Stats(), l.d.Pool().Stats()
	fmt.Fprintf(w, "\n%s verified in %v: %.3f GB/s\n", bytesText(total), wall.Round(time.Millisecond), gb/wall.Seconds())
	fmt.Fprintf(w, "processor time: client %.3f s/GB", cpu.Seconds()/gb)
	if serverCPU > 0 {
		fmt.Fprintf(w, ", server %.3f s/GB", serverCPU.Seconds()/gb)
	}
	fmt.Fprintf(w, " (with checksums, and making up the blocks; calls given up and done again count in it, and not in the GB)\n")
	fmt.Fprintf(w, "copied by the library's and the server's code: of messages %d bytes by the client, %d by the server; of blocks %s\n",
		st.Copied, answers, map[bool]string{true: "none", false: bytesText(int64(staged))}[staged == 0])
	if l.d.Context().IsSoft() {
		fmt.Fprintln(w, "(the software device is no NIC: in its place it copies each packet once, on a processor)")
	}
	fmt.Fprintf(w, "buffers fenced: %d after the server's word, %d by taking the right away; in quarantine ever %d, leaked %d\n",
		st.FencedByAck, st.FencedHard, ps.QuarantinedEver, ps.Leaked)
	fmt.Fprintf(w, "connections: %d, calls sent again: %d, late answers dropped: %d\n", st.Sessions, st.Replays, st.Late)
	if rails := l.c.Rails(); len(rails) > 1 {
		for _, r := range rails {
			fmt.Fprintf(w, "rail %s: %v; %d calls with %s of blocks, joined %d times, lost %d times\n", r.Device, r.State, r.Calls, bytesText(int64(r.Bytes)), r.Joined, r.Lost)
		}
	}
	fmt.Fprintf(w, "longest time without a success: %v; calls that ended more than a second after their time: %d\n", l.gap.Round(time.Millisecond), l.hung.Load())
}

func bytesText(n int64) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}
