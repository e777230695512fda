package perf

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"time"
)

// WriteTable writes the report for people: a line for each case, the medians of
// its samples.
func (r *Report) WriteTable(w io.Writer) error {
	if _, err := io.WriteString(w, TableHead()); err != nil {
		return err
	}
	for i := range r.Results {
		if _, err := io.WriteString(w, r.Results[i].TableLine()); err != nil {
			return err
		}
	}
	return nil
}

const tableForm = "%-9s %-9s %8s %3s %10s %9s %9s %9s %9s %9s %9s %9s"

// TableHead is the head of the table.
func TableHead() string {
	return fmt.Sprintf(tableForm+"\n", "op", "mode", "size", "n", "msg/s", "MB/s", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us", "CPU s/GB")
}

// TableLine is the line of a case.
func (r *Result) TableLine() string {
	m := func(value func(*Sample) float64) string { return short(r.Median(value)) }
	note := ""
	if r.Bidirectional {
		note = "  both ways"
	}
	for i := range r.Samples {
		if r.Samples[i].Partial != "" {
			note += "  ended early"
			break
		}
	}
	cpu := "-"
	if r.Median((*Sample).CPUPerGB) > 0 {
		cpu = m((*Sample).CPUPerGB)
	}
	return fmt.Sprintf(tableForm+"%s\n", r.Op, r.Mode, FormatSize(int64(r.Size)), strconv.Itoa(len(r.Samples)),
		fmt.Sprintf("%.0f", r.Median(func(s *Sample) float64 { return s.MessagesPerSecond })), m(func(s *Sample) float64 { return s.BytesPerSecond / 1e6 }),
		m(func(s *Sample) float64 { return s.Latency.P50 }), m(func(s *Sample) float64 { return s.Latency.P90 }),
		m(func(s *Sample) float64 { return s.Latency.P99 }), m(func(s *Sample) float64 { return s.Latency.P999 }),
		m(func(s *Sample) float64 { return s.Latency.Max }), cpu, note)
}

// CPUPerGB is the processor time of both ends for 10^9 bytes, in seconds.
func (s *Sample) CPUPerGB() float64 {
	if s.Bytes == 0 {
		return 0
	}
	return (s.ClientCPU.Total() + s.ServerCPU.Total()) / (float64(s.Bytes) / 1e9)
}

var csvHead = []string{"start", "client", "server", "client_device", "server_device", "stand_in", "op", "mode", "size", "qps", "threads", "depth", "batch", "wait", "bidirectional",
	"sample", "seconds", "messages", "bytes", "messages_per_second", "bytes_per_second",
	"latency_of", "min_us", "mean_us", "stddev_us", "p50_us", "p90_us", "p99_us", "p99_9_us", "p99_99_us", "max_us",
	"client_user_s", "client_system_s", "server_user_s", "server_system_s", "partial"}

// WriteCSV writes a line for each sample.
func (r *Report) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write(csvHead)
	f := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	for _, x := range r.Results {
		for i, s := range x.Samples {
			d := s.Latency
			_ = c.Write([]string{r.Start.UTC().Format(time.RFC3339), r.Client.Name, r.Server.Name, r.Client.Device, r.Server.Device,
				strconv.FormatBool(r.Client.StandIn || r.Server.StandIn), string(x.Op), string(x.Mode), strconv.Itoa(x.Size),
				strconv.Itoa(x.QPs), strconv.Itoa(x.Threads), strconv.Itoa(x.Depth), strconv.Itoa(x.Batch), string(x.Wait), strconv.FormatBool(x.Bidirectional),
				strconv.Itoa(i + 1), f(s.Seconds), strconv.FormatInt(s.Messages, 10), strconv.FormatInt(s.Bytes, 10), f(s.MessagesPerSecond), f(s.BytesPerSecond),
				x.LatencyOf, f(d.Min), f(d.Mean), f(d.StdDev), f(d.P50), f(d.P90), f(d.P99), f(d.P999), f(d.P9999), f(d.Max),
				f(s.ClientCPU.User), f(s.ClientCPU.System), f(s.ServerCPU.User), f(s.ServerCPU.System), s.Partial})
		}
	}
	c.Flush()
	return c.Error()
}
