package cli

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/spf13/pflag"

	"github.com/zrdma/zrdma/internal/perf"
	"github.com/zrdma/zrdma/internal/report"
)

func (f *benchFlags) defineHTML(fs *pflag.FlagSet) {
	fs.StringVar(&f.htmlFile, "html", "", "write a report with charts as HTML to this `file` too")
}

// figure has four digits, or all before the point: no exponent.
func figure(v float64) string {
	if math.Abs(v) >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.4g", v)
}

// writeHTML writes a document that needs nothing else.
func writeHTML(r *perf.Report, w io.Writer) error {
	end := func(h perf.Host) string {
		return fmt.Sprintf("%s: %s port %d, %s, MTU %d; %s %s %s, %d processors", h.Name, h.Device, h.Port, h.GID, h.MTU, h.OS, h.Kernel, h.Arch, h.CPUs)
	}
	out := report.Report{Title: "zrdma bench", Intro: "What a device does between two ends, measured by zrdma bench.", Data: r,
		Facts: []report.Fact{{Name: "Start", Value: r.Start.Format("2006-01-02 15:04:05 MST")}, {Name: "Client", Value: end(r.Client)}, {Name: "Server", Value: end(r.Server)}, {Name: "Ended", Value: r.Ended + " " + r.Error}}}
	if r.Client.StandIn || r.Server.StandIn {
		out.Notes = append(out.Notes, "The software device is a stand-in: it copies every byte, and its figures say nothing of a NIC.")
	}
	t := report.Table{Title: "Results", Caption: "Medians of the samples. MB is 10^6 bytes; latencies in microseconds.",
		Header: []string{"case", "latency is", "samples", "msg/s", "MB/s", "p50", "p90", "p99", "p99.9", "max", "CPU s/GB", ""}}
	for i := range r.Results {
		x := &r.Results[i]
		m := func(f func(*perf.Sample) float64) string { return figure(x.Median(f)) }
		note := ""
		if slices.ContainsFunc(x.Samples, func(s perf.Sample) bool { return s.Partial != "" }) {
			note = "ended early"
		}
		t.Rows = append(t.Rows, []string{fmt.Sprint(x.Case), x.LatencyOf, fmt.Sprint(len(x.Samples)),
			m(func(s *perf.Sample) float64 { return s.MessagesPerSecond }), m(func(s *perf.Sample) float64 { return s.BytesPerSecond / 1e6 }),
			m(func(s *perf.Sample) float64 { return s.Latency.P50 }), m(func(s *perf.Sample) float64 { return s.Latency.P90 }),
			m(func(s *perf.Sample) float64 { return s.Latency.P99 }), m(func(s *perf.Sample) float64 { return s.Latency.P999 }),
			m(func(s *perf.Sample) float64 { return s.Latency.Max }), m((*perf.Sample).CPUPerGB), note})
	}
	out.Tables = []report.Table{t}
	for _, c := range []struct {
		mode  perf.Mode
		title string
		unit  string
		value func(*perf.Sample) float64
	}{
		{perf.Latency, "Latency, median", "µs", func(s *perf.Sample) float64 { return s.Latency.P50 }},
		{perf.Latency, "Latency, 99th percentile", "µs", func(s *perf.Sample) float64 { return s.Latency.P99 }},
		{perf.Bandwidth, "Bandwidth", "MB/s", func(s *perf.Sample) float64 { return s.BytesPerSecond / 1e6 }},
		{perf.Rate, "Message rate", "messages/s", func(s *perf.Sample) float64 { return s.MessagesPerSecond }},
	} {
		if chart := bySize(r, c.mode, c.value); len(chart.Series) > 0 {
			chart.Title, chart.YTitle = c.title, c.unit
			out.Charts = append(out.Charts, chart)
		}
	}
	return report.Write(w, out)
}

// bySize draws a figure of a mode over the size, a line for each operation; bars
// where there is one size only.
func bySize(r *perf.Report, mode perf.Mode, value func(*perf.Sample) float64) report.Chart {
	c := report.Chart{XTitle: "bytes of a message", Caption: "The median of the samples; the whiskers are the least and the greatest."}
	var sizes []int
	for _, x := range r.Results {
		if x.Mode == mode && !slices.Contains(sizes, x.Size) {
			sizes = append(sizes, x.Size)
		}
	}
	slices.Sort(sizes)
	c.Kind = report.Bars
	if len(sizes) > 2 {
		c.Kind, c.LogX = report.Lines, true
	}
	for _, n := range sizes {
		c.Labels = append(c.Labels, perf.FormatSize(int64(n)))
		c.X = append(c.X, float64(n))
	}
	if c.Kind == report.Lines {
		c.Labels = nil
	} else {
		c.X = nil
	}
	for _, op := range perf.Ops {
		s := report.Series{Name: string(op)}
		found := false
		for _, n := range sizes {
			y, low, high := math.NaN(), math.NaN(), math.NaN()
			for i := range r.Results {
				if x := &r.Results[i]; x.Mode == mode && x.Op == op && x.Size == n {
					v := x.Values(value)
					y, low, high, found = x.Median(value), slices.Min(v), slices.Max(v), true
				}
			}
			s.Y, s.Low, s.High = append(s.Y, y), append(s.Low, low), append(s.High, high)
		}
		if found {
			c.Series = append(c.Series, s)
		}
	}
	return c
}
