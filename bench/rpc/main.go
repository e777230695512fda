// Command rpc measures package rpc on the software device over loopback beside
// gRPC-Go and net/rpc over TCP: a server process and a client process for each, in
// turn in one run, so that ratios mean something. Processor time and allocations
// are those of both processes.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	o := options{}
	flag.IntVar(&o.rounds, "rounds", 5, "turns; the median counts")
	flag.DurationVar(&o.length, "length", time.Second, "how long each measurement takes")
	flag.StringVar(&o.only, "only", "", "run the workloads whose name matches this `regexp`")
	flag.StringVar(&o.peers, "peers", "zrdma,grpc,grpc-raw,netrpc", "who takes part")
	flag.StringVar(&o.profile, "cpuprofile", "", "write profiles of zrdma's two processes to `prefix`-client and -server")
	clients := flag.Int("scale", 0, "instead: so many clients of one server on the network in memory")
	window := flag.Int("window", 8, "with -scale: rpc.Config.Window and MaxCalls")
	perftest := flag.String("perftest", "", "instead: beside perftest and gRPC-Go on this kernel `device`, such as rxe0")
	polling := flag.Bool("poll", false, "zrdma's engines never sleep, and its processes have one processor each, as perftest's")
	role := flag.String("role", "", "client or server of one peer; for this program's own use")
	peer := flag.String("peer", "", "with -role: of whom")
	addr := flag.String("addr", "", "with -role client: the server's address")
	flag.Parse()
	var err error
	if *polling {
		_ = os.Setenv("ZRDMA_BENCH_POLL", "1")
	}
	switch {
	case *role != "":
		err = child(*role, *peer, *addr, o.profile)
	case *perftest != "":
		err = besidePerftest(*perftest, o.rounds, o.length)
	case *clients > 0:
		err = scale(*clients, *window, 3*o.length)
	default:
		err = drive(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rpc:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds               int
	length               time.Duration
	only, peers, profile string
}

// peers are named in tables.
var peerNames = map[string]string{"zrdma": "zrdma", "grpc": "gRPC-Go", "grpc-raw": "gRPC-Go, raw", "netrpc": "net/rpc"}

func drive(o options) error {
	want, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	var ps []*pair
	defer func() {
		for _, p := range ps {
			p.close()
		}
	}()
	for name := range strings.SplitSeq(o.peers, ",") {
		p, err := newPair(name, o.profile)
		if err != nil {
			return err
		}
		ps = append(ps, p)
	}
	fmt.Println(machine(), "median of", o.rounds, "turns of", o.length)
	res := map[string]map[string][]result{} // by workload, then peer
	for turn := range o.rounds {
		for _, w := range workloads {
			if !want.MatchString(w.name) {
				continue
			}
			for i := range ps {
				p := ps[(i+turn)%len(ps)] // nobody is always first
				r, err := p.measure(w.name, o.length)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, p.name, err)
				}
				if res[w.name] == nil {
					res[w.name] = map[string][]result{}
				}
				res[w.name][p.name] = append(res[w.name][p.name], r)
				fmt.Printf("turn %d  %-22s %-14s %s\n", turn, w.name, peerNames[p.name], r.text(&w))
			}
		}
	}
	table(res, ps)
	fmt.Println("load at the end:", load())
	return nil
}

// command is what the driver asks of a child, a line of JSON; the answer is a usage
// or, from a client that ran a workload, a count with it.
type command struct {
	Run    string        `json:",omitempty"`
	Length time.Duration `json:",omitempty"`
}

// report is a child's answer.
type report struct {
	Err  string `json:",omitempty"`
	Addr string `json:",omitempty"`
	CPU  time.Duration
	// Mallocs of the process so far.
	Mallocs uint64
	// Of the software device: packets sent, and system calls that sent and received.
	Packets, Sends, Receives uint64
	// Of a workload: operations, how long they took, and of one call the median
	// and the 99th percentile.
	Ops      int
	Elapsed  time.Duration
	P50, P99 time.Duration
	Mean     time.Duration
}

// result is one measurement.
type result struct {
	rate           float64 // operations a second
	cpu            float64 // seconds of both processes, an operation
	p50, p99, mean time.Duration
	client, server float64 // allocations an operation
	packets, calls float64 // of the software device, an operation
}

func (r *result) text(w *workload) string {
	s := fmt.Sprintf("%9.0f /s", r.rate)
	if w.bytes > 0 {
		gb := float64(w.bytes) / 1e9
		s = fmt.Sprintf("%9.3f GB/s  %7.3f CPU s/GB", r.rate*gb, r.cpu/gb)
	} else {
		s += fmt.Sprintf("  %9.2f CPU us each, %8.0f /CPU s", r.cpu*1e6, 1/r.cpu)
	}
	s += fmt.Sprintf("  p50 %8.1f us  p99 %8.1f us  allocs %.2f + %.2f", us(r.p50), us(r.p99), r.client, r.server)
	if r.packets > 0 {
		s += fmt.Sprintf("  %.2f packets, %.2f system calls each", r.packets, r.calls)
	}
	return s
}

func us(d time.Duration) float64 { return float64(d) / 1e3 }

// median of a figure of results.
func median(rs []result, f func(*result) float64) float64 {
	if len(rs) == 0 {
		return 0
	}
	v := make([]float64, len(rs))
	for i := range rs {
		v[i] = f(&rs[i])
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(b)); len(f) > 0 {
		return f[0]
	}
	return "?"
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs
	}
	return append(b, '\n')
}
