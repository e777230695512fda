package compare

import (
	"math"

	"github.com/zrdma/zrdma/internal/report"
)

// Document is a result as a report with charts.
func Document(r *Result) report.Report {
	d := report.Report{Title: "zrdma compare: the ways to move bytes", Intro: describe(r), Data: r, Notes: append(remarks(r), r.How...)}
	for _, f := range facts(r) {
		d.Facts = append(d.Facts, report.Fact{Name: f[0], Value: f[1]})
	}
	var done []*WayResult
	var labels []string
	for i := range r.Ways {
		if len(r.Ways[i].Runs) > 0 {
			done = append(done, &r.Ways[i])
			labels = append(labels, r.Ways[i].Name)
		}
	}
	series := func(name, stack string, f func(*RunResult) (float64, bool), whiskers bool) report.Series {
		s := report.Series{Name: name, Stack: stack}
		for _, w := range done {
			v, ok := w.over(f)
			if !ok {
				v = spread{math.NaN(), math.NaN(), math.NaN()}
			}
			s.Y = append(s.Y, v.mid)
			if whiskers {
				s.Low, s.High = append(s.Low, v.low), append(s.High, v.high)
			}
		}
		return s
	}
	cpu := func(f func(*RunResult) float64) func(*RunResult) (float64, bool) { return perGB(known(f)) }
	ms := func(f func(*Latency) float64) func(*RunResult) (float64, bool) {
		return known(func(r *RunResult) float64 { return f(&r.Latency) / 1e3 })
	}
	if len(done) > 0 {
		d.Charts = []report.Chart{
			{Title: "Throughput", YTitle: "GB/s", Labels: labels, Caption: "Higher is better. The bar is the median of the rounds, the whiskers are the slowest and the fastest.",
				Series: []report.Series{series("GB/s", "", rate, true)}},
			{Title: "Processor time", YTitle: "CPU seconds for each GB", Kind: report.StackedBars, Labels: labels, Caption: "Lower is better. Left bar of each pair: the sender; right bar: the receiver.",
				Series: []report.Series{
					series("sender user", "sender", cpu(func(r *RunResult) float64 { return r.Sender.UserSeconds }), false),
					series("sender system", "sender", cpu(func(r *RunResult) float64 { return r.Sender.SystemSeconds }), false),
					series("receiver user", "receiver", cpu(func(r *RunResult) float64 { return r.Receiver.UserSeconds }), false),
					series("receiver system", "receiver", cpu(func(r *RunResult) float64 { return r.Receiver.SystemSeconds }), false),
				}},
			{Title: "Latency of a block", YTitle: "milliseconds", LogY: true, Labels: labels, Caption: "Lower is better; the axis is logarithmic. It is that of a busy connection: blocks wait behind each other.",
				Series: []report.Series{
					series("p50", "", ms(func(l *Latency) float64 { return l.P50 }), false),
					series("p99", "", ms(func(l *Latency) float64 { return l.P99 }), false),
					series("max", "", ms(func(l *Latency) float64 { return l.Max }), false),
				}},
			{Title: "System calls that move data", YTitle: "for each GB", Kind: report.StackedBars, Labels: labels, Caption: "What is missing nobody counts.",
				Series: []report.Series{
					series("sender", "", perGB(maybe(func(r *RunResult) *int64 { return r.Sender.Calls })), false),
					series("receiver", "", perGB(maybe(func(r *RunResult) *int64 { return r.Receiver.Calls })), false),
				}},
		}
	}
	for _, t := range tables(r) {
		d.Tables = append(d.Tables, report.Table{Title: t.title, Header: t.header, Rows: t.rows})
	}
	how := report.Table{Title: "The ways", Header: []string{"way", "what moves the bytes", "result"}}
	for i := range r.Ways {
		w := &r.Ways[i]
		what := "measured"
		switch {
		case w.Failed != "":
			what = "failed: " + w.Failed
		case w.Cannot != "":
			what = "cannot be done here: " + w.Cannot
		case len(w.Runs) == 0:
			what = "not measured"
		}
		how.Rows = append(how.Rows, []string{w.Name, w.How, what})
	}
	d.Tables = append(d.Tables, how)
	return d
}
