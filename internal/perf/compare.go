package perf

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchmath"
)

// metric is a figure that two reports are compared by.
type metric struct {
	name   string
	high   bool // more is better
	value  func(*Sample) float64
	format func(float64) string
}

var metrics = []metric{
	{"MB/s", true, func(s *Sample) float64 { return s.BytesPerSecond / 1e6 }, short},
	{"msg/s", true, func(s *Sample) float64 { return s.MessagesPerSecond }, func(v float64) string { return fmt.Sprintf("%.0f", v) }},
	{"p50 us", false, func(s *Sample) float64 { return s.Latency.P50 }, short},
	{"p99 us", false, func(s *Sample) float64 { return s.Latency.P99 }, short},
	{"CPU s/GB", false, func(s *Sample) float64 { return s.CPUPerGB() }, short},
}

// short has four digits, and no exponent for what is large.
func short(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.4g", v)
}

// of are the metrics that say something about a mode.
func (m *metric) of(mode Mode) bool {
	switch m.name {
	case "MB/s", "CPU s/GB":
		return mode == Bandwidth
	case "msg/s":
		return mode == Rate
	}
	return true
}

// Comparison is one metric of one case in two reports.
type Comparison struct {
	Case     Case
	Metric   string
	Old, New string // median, with the confidence interval at 95 %
	Delta    string // change of the median; "~": none that the samples show
	P        float64
	N        [2]int
	// Change is that of the median, 0.1 for 10 %, better when positive; 0 when the
	// samples show none.
	Change float64
	Notes  []string
}

// Compare compares the cases that both reports have, by the Mann-Whitney U test.
// only lists the cases that one of them has alone.
func Compare(a, b *Report) (rows []Comparison, only []string) {
	key := func(c Case) Case {
		c.Count, c.Duration = 0, 0
		return c
	}
	found := map[Case]*Result{}
	for i := range b.Results {
		found[key(b.Results[i].Case)] = &b.Results[i]
	}
	for i := range a.Results {
		x := &a.Results[i]
		y := found[key(x.Case)]
		if y == nil {
			only = append(only, x.Case.settings()+": in the first report only")
			continue
		}
		delete(found, key(x.Case))
		for j := range metrics {
			if metrics[j].of(x.Mode) {
				rows = append(rows, metrics[j].compare(x, y))
			}
		}
	}
	for i := range b.Results {
		if _, left := found[key(b.Results[i].Case)]; left {
			only = append(only, b.Results[i].Case.settings()+": in the second report only")
		}
	}
	return rows, only
}

// settings names the case with all that tells it from others.
func (c Case) settings() string {
	s := fmt.Sprintf("%v, depth %d, %s", c, c.Depth, c.Wait)
	if c.QPs > 1 || c.Threads > 1 {
		s += fmt.Sprintf(", %d QPs on %d threads", c.QPs, c.Threads)
	}
	if c.Batch > 1 {
		s += fmt.Sprintf(", lists of %d", c.Batch)
	}
	return s
}

func (m *metric) compare(x, y *Result) Comparison {
	t := benchmath.DefaultThresholds
	old, new := benchmath.NewSample(x.Values(m.value), &t), benchmath.NewSample(y.Values(m.value), &t)
	so, sn := benchmath.AssumeNothing.Summary(old, 0.95), benchmath.AssumeNothing.Summary(new, 0.95)
	c := benchmath.AssumeNothing.Compare(old, new)
	out := Comparison{Case: x.Case, Metric: m.name, P: c.P, N: [2]int{c.N1, c.N2},
		Old: m.format(so.Center) + " ±" + strings.TrimSpace(so.PctRangeString()), New: m.format(sn.Center) + " ±" + strings.TrimSpace(sn.PctRangeString()),
		Delta: c.FormatDelta(so.Center, sn.Center)}
	if c.P <= c.Alpha && so.Center != 0 {
		out.Change = sn.Center/so.Center - 1
		if !m.high {
			out.Change = -out.Change
		}
	}
	for _, w := range c.Warnings {
		out.Notes = append(out.Notes, w.Error())
	}
	return out
}

// WriteComparison writes the rows for people.
func WriteComparison(w io.Writer, rows []Comparison, only []string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "case\tmetric\told\tnew\tchange\t")
	notes := map[string]bool{}
	var list []string
	last := ""
	for _, r := range rows {
		name := r.Case.settings()
		if name == last {
			name = ""
		} else {
			last = name
		}
		worth := ""
		if r.Change > 0 {
			worth = " better"
		} else if r.Change < 0 {
			worth = " worse"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s (p=%.3f n=%d+%d)%s\t\n", name, r.Metric, r.Old, r.New, r.Delta, r.P, r.N[0], r.N[1], worth)
		for _, n := range r.Notes {
			if !notes[n] {
				notes[n] = true
				list = append(list, n)
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, l := range append(list, only...) {
		if _, err := fmt.Fprintln(w, l); err != nil {
			return err
		}
	}
	return nil
}
