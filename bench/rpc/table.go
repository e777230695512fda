package main

import (
	"fmt"
	"runtime"
	"time"
)

func machine() string {
	return fmt.Sprintf("%s, %s, %d processors, load %s;", time.Now().UTC().Format(time.DateTime), runtime.Version(), runtime.NumCPU(), load())
}

// table prints medians, and zrdma's ratios to the better gRPC of the same turn.
func table(res map[string]map[string][]result, ps []*pair) {
	fmt.Println()
	for _, w := range workloads {
		by := res[w.name]
		if by == nil {
			continue
		}
		for _, p := range ps {
			rs := by[p.name]
			m := result{
				rate:    median(rs, func(r *result) float64 { return r.rate }),
				cpu:     median(rs, func(r *result) float64 { return r.cpu }),
				p50:     time.Duration(median(rs, func(r *result) float64 { return float64(r.p50) })),
				p99:     time.Duration(median(rs, func(r *result) float64 { return float64(r.p99) })),
				client:  median(rs, func(r *result) float64 { return r.client }),
				server:  median(rs, func(r *result) float64 { return r.server }),
				packets: median(rs, func(r *result) float64 { return r.packets }),
				calls:   median(rs, func(r *result) float64 { return r.calls }),
			}
			fmt.Printf("%-22s %-14s %s\n", w.name, peerNames[p.name], m.text(&w))
		}
	}
	fmt.Println("\nzrdma to the better of gRPC-Go and gRPC-Go, tuned, in each turn: median (min..max)")
	for _, w := range workloads {
		by := res[w.name]
		if by == nil || by["zrdma"] == nil || by["grpc"] == nil {
			continue
		}
		for _, c := range w.bars {
			rs := make([]result, 0, len(by["zrdma"]))
			for i := range by["zrdma"] {
				best := c.of(&by["grpc"][i])
				if t := by["grpc-tuned"]; len(t) > i {
					if v := c.of(&t[i]); (v > best) == c.atLeast {
						best = v
					}
				}
				rs = append(rs, result{rate: c.of(&by["zrdma"][i]) / best})
			}
			of := func(r *result) float64 { return r.rate }
			m, verdict, sign := median(rs, of), "missed", "<="
			if c.atLeast {
				sign = ">="
			}
			if (m >= c.limit) == c.atLeast || m == c.limit {
				verdict = "met"
			}
			lo, hi := rs[0].rate, rs[0].rate
			for _, r := range rs {
				lo, hi = min(lo, r.rate), max(hi, r.rate)
			}
			fmt.Printf("%-22s %-24s %6.2f (%.2f..%.2f)  bar %s %.1f: %s\n", w.name, c.what, m, lo, hi, sign, c.limit, verdict)
		}
		if rs := by["zrdma"]; w.noAllocs {
			m := median(rs, func(r *result) float64 { return r.client })
			verdict := "missed"
			if m < 0.05 { // the runtime's own, over thousands of calls
				verdict = "met"
			}
			fmt.Printf("%-22s %-24s %6.3f  bar 0: %s\n", w.name, "client's allocs a call", m, verdict)
		}
	}
}
