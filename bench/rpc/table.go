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
	for _, peer := range []string{"grpc", "grpc-raw"} {
		ratios(res, peer)
	}
	for _, w := range workloads {
		if rs := res[w.name]["zrdma"]; w.noAllocs && rs != nil {
			m := median(rs, func(r *result) float64 { return r.client })
			verdict := "missed"
			if m < 0.5 { // of the measurement itself, and the runtime's, over the calls of a turn
				verdict = "met"
			}
			fmt.Printf("%-22s %-24s %6.3f  bar 0: %s\n", w.name, "client's allocs a call", m, verdict)
		}
	}
}

// ratios prints how zrdma does beside a peer in the same turn.
func ratios(res map[string]map[string][]result, peer string) {
	fmt.Printf("\nzrdma to %s, in each turn: median (min..max)\n", peerNames[peer])
	for _, w := range workloads {
		us, them := res[w.name]["zrdma"], res[w.name][peer]
		if len(us) == 0 || len(them) != len(us) {
			continue
		}
		for _, c := range w.bars {
			rs := make([]result, len(us))
			for i := range us {
				rs[i].rate = c.of(&us[i]) / c.of(&them[i])
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
	}
}
