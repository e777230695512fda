//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A case is one thing to measure: perftest's command and the Go ones beside it.
type benchCase struct {
	name  string
	tool  string // ib_send_lat
	size  int
	iters int
	bar   float64 // for the ratio Go to C of the first way
	c     []string
	gos   []goWay
}

type goWay struct {
	name string
	args []string
}

const latency = "ib_send_lat"

func way(w string, more ...string) goWay {
	return goWay{name: strings.Join(append([]string{w}, more...), " "), args: append([]string{"-wait", w}, more...)}
}

func cases(waits bool) []benchCase {
	if waits {
		return []benchCase{
			{"64 B latency, polling", latency, 64, 4000, 1.25, nil, []goWay{way("exchange"), way("spin"), way("poll")}},
			{"64 B latency, events", latency, 64, 2000, 1.5, []string{"-e"}, []goWay{way("events"), way("nap"), way("park"), way("naive")}},
			{"64 B message rate", "ib_send_bw", 64, 20000, 0.9, nil, []goWay{way("exchange"), way("poll"), way("spin"), way("events"), way("poll", "-l", "16")}},
		}
	}
	return []benchCase{
		{"64 B latency, polling", latency, 64, 10000, 1.25, nil, []goWay{way("exchange"), way("spin")}},
		{"64 B message rate", "ib_send_bw", 64, 30000, 0.9, nil, []goWay{way("exchange"), way("exchange", "-l", "16")}},
		{"4 KiB write", "ib_write_bw", 4 << 10, 10000, 0.95, nil, []goWay{way("spin")}},
		{"64 KiB write", "ib_write_bw", 64 << 10, 600, 0.95, nil, []goWay{way("spin")}},
		{"1 MiB write", "ib_write_bw", 1 << 20, 50, 0.95, nil, []goWay{way("spin")}},
		{"4 KiB read", "ib_read_bw", 4 << 10, 10000, 0.95, nil, []goWay{way("spin")}},
		{"64 KiB read", "ib_read_bw", 64 << 10, 600, 0.95, nil, []goWay{way("spin")}},
		{"1 MiB read", "ib_read_bw", 1 << 20, 50, 0.95, nil, []goWay{way("spin")}},
		// Last, for this is where perftest stalls on a loaded machine.
		{"64 B latency, events", latency, 64, 3000, 1.5, []string{"-e"}, []goWay{way("events"), way("nap")}},
	}
}

func (b *benchCase) unit() string {
	switch b.tool {
	case latency:
		return "us"
	case "ib_send_bw":
		return "Mpps"
	}
	return "MiB/s"
}

func (b *benchCase) met(ratio float64) string {
	ok := ratio >= b.bar
	if b.tool == latency {
		ok = ratio <= b.bar
	}
	if ok {
		return "met"
	}
	return "MISSED"
}

func measure(o options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	gobin := filepath.Join(filepath.Dir(self), "zrdma-verbsbench")
	gid, err := gidIndex(o.dev)
	if err != nil {
		return err
	}
	preamble(o)
	var table []string
	for _, b := range cases(o.waits) {
		if !strings.Contains(b.name, o.only) {
			continue
		}
		c := append([]string{b.tool, "-d", o.dev, "-x", gid, "-F", "-s", strconv.Itoa(b.size), "-n", strconv.Itoa(b.iters)}, b.c...)
		fmt.Printf("\n%s (%s)\n  C: %s\n", b.name, b.unit(), strings.Join(c, " "))
		rounds := b.rounds(o, gobin, c)
		quiet, best := quietRounds(rounds, b.tool == latency)
		fmt.Printf("  %d rounds, %d of them quiet (best C %.4f)\n", len(rounds), len(quiet), best)
		note := ""
		if len(quiet) < o.pairs {
			quiet, note = rounds, " DISTURBED"
		}
		values := make([][]float64, len(b.gos)) // ratios, by Go way
		var cs []float64
		for _, r := range quiet {
			cs = append(cs, (r.c[0]+r.c[1])/2)
			for i, g := range r.gos {
				values[i] = append(values[i], g/cs[len(cs)-1])
			}
		}
		for i, g := range b.gos {
			if len(values[i]) == 0 {
				continue
			}
			r := median(values[i])
			bar := "-"
			if i == 0 {
				bar = b.met(r)
			}
			line := fmt.Sprintf("%-24s %-14s %11.4f %8.3f  %.3f..%.3f  %5.2f  %-6s %d of %d%s", b.name, g.name, median(cs), r,
				slices.Min(values[i]), slices.Max(values[i]), b.bar, bar, len(values[i]), len(rounds), note)
			fmt.Println("= " + line)
			table = append(table, line)
		}
	}
	fmt.Printf("\n%-24s %-14s %11s %8s  %-12s  %5s\n", "measurement", "Go waits by", "C (median)", "Go/C", "min..max", "bar")
	for _, l := range table {
		fmt.Println(l)
	}
	return nil
}

// A round is the Go runs between two C runs.
type round struct {
	c   [2]float64
	gos []float64
}

const (
	// quietWithin is how much worse than the best a C run may be that says that
	// the machine was left alone.
	quietWithin = 1.3
	// maxRounds bounds the search for quiet ones, in multiples of those wanted.
	maxRounds = 4
)

// rounds measures until enough of them were quiet. It ends early on an error,
// with what it has.
func (b *benchCase) rounds(o options, gobin string, c []string) (all []round) {
	runC := func() (float64, error) { return again(func() (float64, error) { return cRun(c, b.tool) }) }
	last, err := runC()
	for err == nil {
		r := round{c: [2]float64{last}}
		for _, g := range b.gos {
			var v float64
			v, err = again(func() (float64, error) {
				return goRun(append([]string{gobin, "-d", o.dev}, goArgs(b, g)...), b.tool)
			})
			if err != nil {
				break
			}
			fmt.Printf("  C %10.4f   Go %10.4f   [%s]\n", last, v, g.name)
			r.gos = append(r.gos, v)
		}
		if err == nil {
			last, err = runC()
		}
		if err != nil {
			break
		}
		r.c[1] = last
		all = append(all, r)
		if quiet, _ := quietRounds(all, b.tool == latency); len(quiet) >= o.pairs || len(all) >= maxRounds*o.pairs {
			return all
		}
	}
	fmt.Println("  GIVEN UP:", err)
	return all
}

// quietRounds picks the rounds between two C runs that are nearly as good as the
// best one. low: small values are good.
func quietRounds(all []round, low bool) (quiet []round, best float64) {
	better := func(a, b float64) bool { return best == 0 || a > b != low }
	for _, r := range all {
		for _, c := range r.c {
			if better(c, best) {
				best = c
			}
		}
	}
	for _, r := range all {
		if low && max(r.c[0], r.c[1]) <= best*quietWithin || !low && min(r.c[0], r.c[1])*quietWithin >= best {
			quiet = append(quiet, r)
		}
	}
	return quiet, best
}

// goArgs are perftest's own settings for the case: a completion in 100 up to
// 8 KiB, each above, and one message at a time for latency.
func goArgs(b *benchCase, g goWay) []string {
	q, t := 100, 128
	if b.size > 8192 {
		q = 1
	}
	if b.tool == latency {
		q, t = 1, 1
	}
	return append([]string{"-test", strings.TrimPrefix(b.tool, "ib_"), "-s", strconv.Itoa(b.size), "-n", strconv.Itoa(b.iters),
		"-Q", strconv.Itoa(q), "-t", strconv.Itoa(t)}, g.args...)
}

const perRun = 15 * time.Second

// again repeats a run that failed, and says so: both perftest with -e and our
// programs were seen to stall on rxe when the machine was overloaded.
func again(run func() (float64, error)) (float64, error) {
	for i := 0; ; i++ {
		v, err := run()
		if err == nil && v > 0 && !math.IsInf(v, 0) {
			return v, nil
		}
		fmt.Printf("  FAILED RUN, repeated: value %v, %.200q\n", v, fmt.Sprint(err))
		if i == 1 {
			return 0, fmt.Errorf("two runs failed: value %v, %w", v, err)
		}
	}
}

// both runs a server and its client and returns what the client printed.
func both(port int, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), perRun)
	defer cancel()
	var sout, cout bytes.Buffer
	server := exec.CommandContext(ctx, args[0], args[1:]...)
	server.Stdout, server.Stderr = &sout, &sout
	if err := server.Start(); err != nil {
		return "", err
	}
	for !listening(port) && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	client := exec.CommandContext(ctx, args[0], append(slices.Clone(args[1:]), "127.0.0.1")...)
	client.Stdout, client.Stderr = &cout, &cout
	cerr := client.Run()
	if cerr != nil {
		cancel()
	}
	if serr := server.Wait(); cerr != nil || serr != nil {
		return "", fmt.Errorf("%s: client: %v, server: %v\n%s\n%s", strings.Join(args, " "), cerr, serr, cout.String(), sout.String())
	}
	return cout.String(), nil
}

func listening(port int) bool {
	want := fmt.Sprintf(":%04X ", port)
	for _, f := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, _ := os.ReadFile(f)
		for l := range strings.Lines(string(b)) {
			f := strings.Fields(l)
			if len(f) > 3 && strings.HasSuffix(f[1]+" ", want) && f[3] == "0A" {
				return true
			}
		}
	}
	return false
}

// cRun takes perftest's average of the latency, its average bandwidth, or its
// message rate.
func cRun(args []string, tool string) (float64, error) {
	out, err := both(18515, args)
	if err != nil {
		return 0, err
	}
	col := map[string]int{latency: 5, "ib_send_bw": 4}[tool]
	if col == 0 {
		col = 3
	}
	s := bufio.NewScanner(strings.NewReader(out))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) > col && f[0] == args[7] {
			return strconv.ParseFloat(f[col], 64)
		}
	}
	return 0, fmt.Errorf("no result in the output of %v:\n%s", args, out)
}

func goRun(args []string, tool string) (float64, error) {
	out, err := both(18600, args)
	if err != nil {
		return 0, err
	}
	var r struct {
		Lat float64 `json:"lat_us"`
		BW  float64 `json:"mib_s"`
		PPS float64 `json:"mpps"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return 0, fmt.Errorf("%v: %w: %q", args, err, out)
	}
	switch tool {
	case latency:
		return r.Lat, nil
	case "ib_send_bw":
		return r.PPS, nil
	}
	return r.BW, nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// gidIndex finds the IPv4-mapped GID.
func gidIndex(dev string) (string, error) {
	for i := range 16 {
		b, err := os.ReadFile(fmt.Sprintf("/sys/class/infiniband/%s/ports/1/gids/%d", dev, i))
		if err == nil && strings.HasPrefix(string(b), "0000:0000:0000:0000:0000:ffff:") {
			return strconv.Itoa(i), nil
		}
	}
	return "", fmt.Errorf("%s has no IPv4-mapped GID", dev)
}

func preamble(o options) {
	line := func(path string) string { b, _ := os.ReadFile(path); return strings.TrimSpace(string(b)) }
	fmt.Println("date:", time.Now().UTC().Format(time.RFC3339))
	fmt.Println("kernel:", line("/proc/sys/kernel/osrelease"))
	fmt.Println("clock:", line("/sys/devices/system/clocksource/clocksource0/current_clocksource"))
	v, _ := exec.Command("ib_send_bw", "--version").CombinedOutput()
	fmt.Println("perftest:", strings.TrimSpace(string(v)))
	fmt.Println("host load average at the start:", o.load)
	fmt.Printf("rounds: C, Go, C, Go, ..., C in one boot, until %d were quiet: both C runs beside the Go runs\n", o.pairs)
	fmt.Printf("  within %.2f of the best C run of the measurement. The Go runs have no say in that. The ratio is Go to\n", quietWithin)
	fmt.Println("  the mean of the two C runs, and of these the median")
}
