package main

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	small = 64
	block = 1 << 20
)

// workload is callers that call one after the other, for a time.
type workload struct {
	name     string
	callers  int
	bytes    int // moved by a call; 0: small calls
	do       func(c caller, seq byte) error
	bars     []bar
	noAllocs bool
}

// bar compares a figure of zrdma with gRPC's.
type bar struct {
	what    string
	of      func(*result) float64
	limit   float64
	atLeast bool
}

func byP50(r *result) float64   { return float64(r.p50) }
func byRate(r *result) float64  { return r.rate }
func perCPU(r *result) float64  { return 1 / r.cpu }
func cpuEach(r *result) float64 { return r.cpu }

var bulk = []bar{{"GB/s", byRate, 2, true}, {"CPU s/GB", cpuEach, 0.5, false}}

var workloads = []workload{
	{"64 B, one at a time", 1, 0, caller.echo, []bar{{"p50", byP50, 1, false}}, true},
	{"64 B, 64 in flight", 64, 0, caller.echo, []bar{{"calls per CPU second", perCPU, 5, true}}, true},
	{"1 MiB reads, 4", 4, block, func(c caller, _ byte) error { return c.read(block) }, bulk, true},
	{"1 MiB writes, 4", 4, block, func(c caller, _ byte) error { return c.write(block) }, bulk, true},
}

// run does a workload in a client.
func run(c client, cmd command) (rep report) {
	i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == cmd.Run })
	if i < 0 || c == nil {
		return report{Err: "no such workload here: " + cmd.Run}
	}
	w := &workloads[i]
	// What is measured allocates nothing of its own.
	times := make([][]time.Duration, w.callers)
	calls := make([]caller, w.callers)
	for i := range calls {
		times[i] = make([]time.Duration, 0, 1<<20/w.callers)
		var err error
		if calls[i], err = c.caller(max(w.bytes, small)); err != nil {
			return report{Err: err.Error()}
		}
		defer calls[i].close()
	}
	errs := make([]error, w.callers)
	ops := make([]int, w.callers)
	var wg sync.WaitGroup
	begin := time.Now()
	end := begin.Add(cmd.Length)
	for i := range calls {
		wg.Go(func() {
			for t := time.Now(); t.Before(end); {
				if errs[i] = w.do(calls[i], byte(ops[i])); errs[i] != nil {
					return
				}
				ops[i]++
				now := time.Now()
				if len(times[i]) < cap(times[i]) {
					times[i] = append(times[i], now.Sub(t))
				}
				t = now
			}
		})
	}
	wg.Wait()
	rep.Elapsed = time.Since(begin)
	var all []time.Duration
	for i := range calls {
		if errs[i] != nil {
			return report{Err: errs[i].Error()}
		}
		rep.Ops += ops[i]
		all = append(all, times[i]...)
	}
	if rep.Ops == 0 {
		return report{Err: "no call ended in time"}
	}
	slices.Sort(all)
	for _, t := range all {
		rep.Mean += t
	}
	rep.Mean /= time.Duration(len(all))
	rep.P50, rep.P99 = all[len(all)/2], all[len(all)*99/100]
	return rep
}

// fill puts what checkBlock looks for at the ends of a block.
func fill(b []byte) {
	binary.LittleEndian.PutUint64(b, uint64(len(b)))
	binary.LittleEndian.PutUint64(b[len(b)-8:], ^uint64(len(b)))
}

func checkBlock(first, last []byte, n, want int) error {
	if n != want || len(first) < 8 || len(last) < 8 || binary.LittleEndian.Uint64(first) != uint64(n) ||
		binary.LittleEndian.Uint64(last[len(last)-8:]) != ^uint64(n) {
		return fmt.Errorf("a block of %d bytes, of %d, that is not what was sent", n, want)
	}
	return nil
}

func checkEcho(b []byte, seq byte) error {
	if len(b) != small || b[0] != seq || b[small-1] != ^seq {
		return fmt.Errorf("an echo of %d bytes that is not what was sent", len(b))
	}
	return nil
}

func echoBody(b []byte, seq byte) []byte {
	b[0], b[small-1] = seq, ^seq
	return b[:small]
}
