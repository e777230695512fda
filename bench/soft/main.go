// Command soft measures the software device on loopback beside a Go TCP stream
// and gRPC-Go, all in one process and in turn, so that ratios mean something.
// Processor time is that of both ends.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/verbs"
)

type row struct {
	name, unit string
	run        func() (value, cpuPerGB float64, err error)
	bar        string
}

func main() {
	rounds := flag.Int("rounds", 5, "turns; the median counts")
	only := flag.String("only", "", "run the rows whose name contains this `text`")
	gib := flag.Float64("gib", 1, "`GiB` that a stream moves")
	flag.Parse()
	if err := run(*rounds, *only, *gib); err != nil {
		fmt.Fprintln(os.Stderr, "soft:", err)
		os.Exit(1)
	}
}

func run(rounds int, only string, gib float64) error {
	ca, err := verbs.Open("soft:127.0.0.1")
	if err != nil {
		return err
	}
	defer ca.Close()
	cb, err := verbs.Open("soft:127.0.0.2")
	if err != nil {
		return err
	}
	defer cb.Close()
	const mib = 1 << 20
	blocks := int(gib * 1024)
	rows := []row{
		{"1 MiB stream, Go TCP", "GB/s", stream(mib*blocks, func() error { return streamTCP(mib, blocks) }), ""},
		{"1 MiB stream, gRPC-Go", "GB/s", stream(mib*blocks, func() error { return streamGRPC(mib, blocks) }), ""},
		{"1 MiB RC WRITE", "GB/s", stream(mib*blocks, func() error { return streamRDMA(ca, cb, verbs.WRRDMAWrite, mib, blocks) }), ">= 2.5, >= 0.8 of TCP, <= 0.45 s/GB"},
		{"1 MiB RC READ", "GB/s", stream(mib*blocks, func() error { return streamRDMA(ca, cb, verbs.WRRDMARead, mib, blocks) }), ">= 2.5, >= 0.8 of TCP, <= 0.45 s/GB"},
		{"64 B ping-pong, Go TCP", "us p50", pingPong(func(n int) ([]time.Duration, error) { return pingPongTCP(64, n) }), ""},
		{"64 B ping-pong, gRPC-Go", "us p50", pingPong(func(n int) ([]time.Duration, error) { return pingPongGRPC(64, n) }), ""},
		{"64 B ping-pong, RC SEND", "us p50", pingPong(func(n int) ([]time.Duration, error) { return pingPongRDMA(ca, cb, 64, n) }), "<= 20"},
		{"64 B messages, RC SEND, lists of 16", "M/s", rate(500_000, func(n int) error { return rateRDMA(ca, cb, 64, n, 16) }), ">= 0.5"},
		{"64 B messages, RC SEND, one a call", "M/s", rate(500_000, func(n int) error { return rateRDMA(ca, cb, 64, n, 1) }), ""},
	}
	rows = append(rows, memoryRows()...)
	fmt.Printf("%s, %s, %d processors, load %s; median of %d turns\n", time.Now().UTC().Format(time.DateTime), runtime.Version(), runtime.NumCPU(), load(), rounds)
	values, cpu := make([][]float64, len(rows)), make([][]float64, len(rows))
	for turn := range rounds {
		for i, r := range rows {
			if !strings.Contains(r.name, only) {
				continue
			}
			runtime.GC()
			v, c, err := r.run()
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			values[i], cpu[i] = append(values[i], v), append(cpu[i], c)
			fmt.Printf("turn %d  %-38s %9.3f %-7s %.3f s/GB\n", turn, r.name, v, r.unit, c)
		}
	}
	fmt.Printf("\n%-38s %9s %9s..%-9s %-7s %9s  %s\n", "", "median", "min", "max", "", "CPU s/GB", "bar")
	for i, r := range rows {
		if v := values[i]; len(v) > 0 {
			slices.Sort(v)
			slices.Sort(cpu[i])
			c := "-"
			if m := cpu[i][len(v)/2]; m > 0 {
				c = fmt.Sprintf("%.3f", m)
			}
			fmt.Printf("%-38s %9.3f %9.3f..%-9.3f %-7s %9s  %s\n", r.name, v[len(v)/2], v[0], v[len(v)-1], r.unit, c, r.bar)
		}
	}
	fmt.Println("load at the end:", load())
	return nil
}

func stream(total int, f func() error) func() (float64, float64, error) {
	return func() (float64, float64, error) {
		c, t := cpuTime(), time.Now()
		err := f()
		gb := float64(total) / 1e9
		return gb / time.Since(t).Seconds(), (cpuTime() - c).Seconds() / gb, err
	}
}

func pingPong(f func(n int) ([]time.Duration, error)) func() (float64, float64, error) {
	return func() (float64, float64, error) {
		d, err := f(20_000)
		if err != nil {
			return 0, 0, err
		}
		slices.Sort(d)
		return float64(d[len(d)/2]) / 1e3, 0, nil
	}
}

func rate(n int, f func(n int) error) func() (float64, float64, error) {
	return func() (float64, float64, error) {
		n -= n % 16
		t := time.Now()
		err := f(n)
		return float64(n) / time.Since(t).Seconds() / 1e6, 0, err
	}
}

func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(b)); len(f) > 0 {
		return f[0]
	}
	return "?"
}
