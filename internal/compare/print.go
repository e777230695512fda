package compare

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Print writes a result as tables.
func Print(w io.Writer, r *Result) error {
	fmt.Fprintln(w, describe(r))
	for _, f := range facts(r) {
		fmt.Fprintf(w, "%s: %s\n", f[0], f[1])
	}
	fmt.Fprintln(w)
	for _, t := range tables(r) {
		if len(t.rows) == 0 {
			continue
		}
		fmt.Fprintln(w, t.title)
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		for _, row := range append([][]string{t.header}, t.rows...) {
			fmt.Fprintln(tw, strings.Join(row, "\t")+"\t")
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	for _, n := range remarks(r) {
		fmt.Fprintln(w, "- "+n)
	}
	fmt.Fprintln(w, "\nHow it is counted:")
	var err error
	for _, h := range r.How {
		_, err = fmt.Fprintln(w, "- "+h)
	}
	return err
}

func describe(r *Result) string {
	s := fmt.Sprintf("%s a run in blocks of %s, %d under way, from %s of %s; %d rounds, alternately",
		Size(r.Job.Bytes), Size(int64(r.Job.Block)), r.Job.Depth, Size(r.Job.Data), r.Job.Source, r.Rounds)
	if r.Interrupted {
		s += "; interrupted, so runs are missing"
	}
	return s
}

func facts(r *Result) [][2]string {
	host := func(h *Host) string {
		return fmt.Sprintf("%s, %s, %s, %d processors, %s, load %s, RDMA device %s", h.Name, h.Kernel, h.Arch, h.Processors, h.Go, h.Load, h.Device)
	}
	out := [][2]string{{"began", r.Started.Format("2006-01-02 15:04:05 UTC")}}
	if r.SameHost {
		out = append(out, [2]string{"sender", host(r.Server)}, [2]string{"receiver", fmt.Sprintf("the same host, over loopback, another process; RDMA device %s", r.Client.Device)})
	} else {
		out = append(out, [2]string{"sender", host(r.Server)}, [2]string{"receiver", host(r.Client)})
	}
	return out
}

type table struct {
	title  string
	header []string
	rows   [][]string
}

// perGB makes a value of a run one for each GB.
func perGB(f func(*RunResult) (float64, bool)) func(*RunResult) (float64, bool) {
	return func(r *RunResult) (float64, bool) {
		v, ok := f(r)
		return v / r.GB(), ok && r.Bytes > 0
	}
}

func known(f func(*RunResult) float64) func(*RunResult) (float64, bool) {
	return func(r *RunResult) (float64, bool) { return f(r), true }
}

func maybe(f func(*RunResult) *int64) func(*RunResult) (float64, bool) {
	return func(r *RunResult) (float64, bool) {
		if v := f(r); v != nil {
			return float64(*v), true
		}
		return 0, false
	}
}

func rate(r *RunResult) (float64, bool) { return r.Rate(), true }

// cell is the median of a value, or "-" when it is not known.
func (w *WayResult) cell(format string, f func(*RunResult) (float64, bool)) string {
	s, ok := w.over(f)
	if !ok {
		return "-"
	}
	return fmt.Sprintf(format, s.mid)
}

// tables are the same for people and for HTML.
func tables(r *Result) []table {
	speed := table{title: "Speed and latency of a block",
		header: []string{"way", "GB/s", "least", "most", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "verify s/GB", "rounds"}}
	cost := table{title: "Processor time, seconds for each GB",
		header: []string{"way", "sender user", "sender system", "receiver user", "receiver system", "both ends", "machine"}}
	work := table{title: "Work for each GB",
		header: []string{"way", "calls sender", "calls receiver", "all calls sender", "all calls receiver", "copied sender GB", "copied receiver GB", "switches sender", "forced sender", "switches receiver", "forced receiver"}}
	ms := func(f func(*Latency) float64) func(*RunResult) (float64, bool) {
		return known(func(r *RunResult) float64 { return f(&r.Latency) / 1e3 })
	}
	for i := range r.Ways {
		w := &r.Ways[i]
		s, ok := w.over(rate)
		if !ok {
			continue
		}
		speed.rows = append(speed.rows, []string{w.Name, fmt.Sprintf("%.3f", s.mid), fmt.Sprintf("%.3f", s.low), fmt.Sprintf("%.3f", s.high),
			w.cell("%.2f", ms(func(l *Latency) float64 { return l.P50 })), w.cell("%.2f", ms(func(l *Latency) float64 { return l.P90 })),
			w.cell("%.2f", ms(func(l *Latency) float64 { return l.P99 })), w.cell("%.2f", ms(func(l *Latency) float64 { return l.P999 })),
			w.cell("%.2f", ms(func(l *Latency) float64 { return l.Max })),
			w.cell("%.3f", perGB(known(func(r *RunResult) float64 { return r.Verify }))), fmt.Sprint(len(w.Runs))})
		per := func(format string, f func(*RunResult) float64) string { return w.cell(format, perGB(known(f))) }
		cost.rows = append(cost.rows, []string{w.Name,
			per("%.3f", func(r *RunResult) float64 { return r.Sender.UserSeconds }), per("%.3f", func(r *RunResult) float64 { return r.Sender.SystemSeconds }),
			per("%.3f", func(r *RunResult) float64 { return r.Receiver.UserSeconds }), per("%.3f", func(r *RunResult) float64 { return r.Receiver.SystemSeconds }),
			per("%.3f", bothEnds), per("%.3f", func(x *RunResult) float64 { return machineOf(r, x) })})
		calls := func(f func(*RunResult) *int64) string { return w.cell("%.0f", perGB(maybe(f))) }
		work.rows = append(work.rows, []string{w.Name,
			calls(func(r *RunResult) *int64 { return r.Sender.Calls }), calls(func(r *RunResult) *int64 { return r.Receiver.Calls }),
			calls(func(r *RunResult) *int64 { return r.Sender.AllCalls }), calls(func(r *RunResult) *int64 { return r.Receiver.AllCalls }),
			per("%.2f", func(r *RunResult) float64 { return float64(r.Sender.Copied) / 1e9 }), per("%.2f", func(r *RunResult) float64 { return float64(r.Receiver.Copied) / 1e9 }),
			per("%.0f", func(r *RunResult) float64 { return float64(r.Sender.VoluntarySwitch) }), per("%.0f", func(r *RunResult) float64 { return float64(r.Sender.ForcedSwitch) }),
			per("%.0f", func(r *RunResult) float64 { return float64(r.Receiver.VoluntarySwitch) }), per("%.0f", func(r *RunResult) float64 { return float64(r.Receiver.ForcedSwitch) })})
	}
	return []table{speed, cost, work.known()}
}

// known is the table without the columns of which nothing is known.
func (t table) known() table {
	for c := len(t.header) - 1; c >= 0; c-- {
		if !slices.ContainsFunc(t.rows, func(r []string) bool { return r[c] != "-" }) {
			t.header = slices.Delete(t.header, c, c+1)
			for i := range t.rows {
				t.rows[i] = slices.Delete(t.rows[i], c, c+1)
			}
		}
	}
	return t
}

func bothEnds(r *RunResult) float64 {
	return r.Sender.UserSeconds + r.Sender.SystemSeconds + r.Receiver.UserSeconds + r.Receiver.SystemSeconds
}

// machineOf is the busy time of the hosts; of one where both ends are on it.
func machineOf(r *Result, x *RunResult) float64 {
	if r.SameHost {
		return x.Receiver.Machine
	}
	return x.Sender.Machine + x.Receiver.Machine
}

// remarks are what could not be done, what failed, and what must be known of a way.
func remarks(r *Result) []string {
	var out []string
	for i := range r.Ways {
		w := &r.Ways[i]
		switch {
		case w.Failed != "":
			out = append(out, w.Name+" FAILED: "+w.Failed)
		case w.Cannot != "":
			out = append(out, w.Name+" cannot be done here: "+w.Cannot)
		}
		said := map[string]bool{}
		for k := range w.Runs {
			for _, s := range []struct {
				who   string
				notes []string
			}{{"sender", w.Runs[k].Sender.Notes}, {"receiver", w.Runs[k].Receiver.Notes}} {
				for _, n := range s.notes {
					if !said[n] {
						said[n] = true
						out = append(out, fmt.Sprintf("%s, %s: %s", w.Name, s.who, n))
					}
				}
			}
		}
	}
	return out
}
