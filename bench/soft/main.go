// Command soft measures the software device on loopback beside a Go TCP stream
// and gRPC-Go, all in one process and in turn, so that ratios mean something.
// Processor time is that of both ends.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/verbs"
)

type row struct {
	name, unit string
	run        func() (value, cpu float64, err error)
	bar        string
}

// per is the unit of a row's processor time.
func (r *row) per() string {
	if r.unit == "GB/s" {
		return "s/GB"
	}
	return "us each"
}

func main() {
	rounds := flag.Int("rounds", 5, "turns; the median counts")
	only := flag.String("only", "", "run the rows whose name matches this `regexp`")
	gib := flag.Float64("gib", 1, "`GiB` that a stream moves")
	prof := flag.String("cpuprofile", "", "write a profile to this `file`")
	flag.Parse()
	if *prof != "" {
		f, err := os.Create(*prof)
		if err != nil {
			fmt.Fprintln(os.Stderr, "soft:", err)
			os.Exit(1)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			fmt.Fprintln(os.Stderr, "soft:", err)
		}
		defer pprof.StopCPUProfile()
	}
	if err := run(*rounds, *only, *gib); err != nil {
		fmt.Fprintln(os.Stderr, "soft:", err)
		os.Exit(1)
	}
}

func run(rounds int, only string, gib float64) error {
	want, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	ca, err := verbs.Open("soft:127.0.8.1")
	if err != nil {
		return err
	}
	defer ca.Close()
	cb, err := verbs.Open("soft:127.0.8.2")
	if err != nil {
		return err
	}
	defer cb.Close()
	const mib = 1 << 20
	blocks := int(gib * 1024)
	ma, mb, err := memoryPair()
	if err != nil {
		return err
	}
	defer ma.Close()
	defer mb.Close()
	write := func(how waiting) func() (float64, float64, error) {
		return stream(mib*blocks, func() error { return streamRDMA(ca, cb, verbs.WRRDMAWrite, mib, blocks, how) })
	}
	read := func(how waiting) func() (float64, float64, error) {
		return stream(mib*blocks, func() error { return streamRDMA(ca, cb, verbs.WRRDMARead, mib, blocks, how) })
	}
	pong := func(how waiting) func() (float64, float64, error) {
		return pingPong(func(n int) ([]time.Duration, error) { return pingPongRDMA(ca, cb, 64, n, how) })
	}
	msgs := func(batch int, how waiting) func() (float64, float64, error) {
		return rate(500_000, func(n int) error { return rateRDMA(ca, cb, 64, n, batch, how) })
	}
	const bulk = ">= 2.5, >= 0.8 of TCP, <= 0.45 s/GB"
	rows := []row{
		{"1 MiB stream, Go TCP", "GB/s", stream(mib*blocks, func() error { return streamTCP(mib, blocks) }), ""},
		{"1 MiB stream, gRPC-Go", "GB/s", stream(mib*blocks, func() error { return streamGRPC(mib, blocks) }), ""},
		{"1 MiB RC WRITE", "GB/s", write(adaptive), bulk},
		{"1 MiB RC READ", "GB/s", read(adaptive), bulk},
		{"1 MiB RC WRITE, polling", "GB/s", write(polling), ""},
		{"1 MiB RC READ, polling", "GB/s", read(polling), ""},
		{"64 B ping-pong, Go TCP", "us p50", pingPong(func(n int) ([]time.Duration, error) { return pingPongTCP(64, n) }), ""},
		{"64 B ping-pong, gRPC-Go", "us p50", pingPong(func(n int) ([]time.Duration, error) { return pingPongGRPC(64, n) }), ""},
		{"64 B ping-pong, RC SEND", "us p50", pong(adaptive), "<= 20"},
		{"64 B ping-pong, RC SEND, polling", "us p50", pong(polling), ""},
		{"64 B ping-pong, RC SEND, sleeping", "us p50", pong(sleeping), ""},
		{"64 B messages, RC SEND, lists of 16", "M/s", msgs(16, adaptive), ">= 0.5"},
		{"64 B messages, RC SEND, one a call", "M/s", msgs(1, adaptive), ""},
		{"64 B messages, RC SEND, 16, polling", "M/s", msgs(16, polling), ""},
	}
	rows = append(rows, memoryRows(ma, mb)...)
	fmt.Printf("%s, %s, %d processors, load %s; median of %d turns\n", time.Now().UTC().Format(time.DateTime), runtime.Version(), runtime.NumCPU(), load(), rounds)
	values, cpu := make([][]float64, len(rows)), make([][]float64, len(rows))
	for turn := range rounds {
		for i, r := range rows {
			if !want.MatchString(r.name) {
				continue
			}
			runtime.GC()
			before := counters(ca, cb, ma, mb)
			v, c, err := r.run()
			happened := since(before, counters(ca, cb, ma, mb))
			if err != nil {
				return fmt.Errorf("%s: %w (%s)", r.name, err, happened)
			}
			values[i], cpu[i] = append(values[i], v), append(cpu[i], c)
			fmt.Printf("turn %d  %-38s %9.3f %-7s %.3f CPU %-8s %s\n", turn, r.name, v, r.unit, c, r.per(), happened)
		}
	}
	fmt.Printf("\n%-38s %9s %9s..%-9s %-7s %-15s  %s\n", "", "median", "min", "max", "", "CPU", "bar")
	for i, r := range rows {
		if v := values[i]; len(v) > 0 {
			slices.Sort(v)
			slices.Sort(cpu[i])
			c := "-"
			if m := cpu[i][len(v)/2]; m > 0 {
				c = fmt.Sprintf("%.3f %s", m, r.per())
			}
			fmt.Printf("%-38s %9.3f %9.3f..%-9.3f %-7s %-15s  %s\n", r.name, v[len(v)/2], v[0], v[len(v)-1], r.unit, c, r.bar)
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
		const n = 20_000
		c := cpuTime()
		d, err := f(n)
		if err != nil {
			return 0, 0, err
		}
		slices.Sort(d)
		return float64(d[len(d)/2]) / 1e3, (cpuTime() - c).Seconds() * 1e6 / n, nil
	}
}

func rate(n int, f func(n int) error) func() (float64, float64, error) {
	return func() (float64, float64, error) {
		n -= n % 16
		c, t := cpuTime(), time.Now()
		err := f(n)
		return float64(n) / time.Since(t).Seconds() / 1e6, (cpuTime() - c).Seconds() * 1e6 / float64(n), err
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
