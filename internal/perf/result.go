package perf

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Schema names the form of a Report as JSON. A new field does not change it.
const Schema = "zrdma-bench/1"

// Report is all that a run of `zrdma bench` measured. docs/tools.md describes it.
type Report struct {
	Schema  string    `json:"schema"`
	Start   time.Time `json:"start"`
	Client  Host      `json:"client"`
	Server  Host      `json:"server"`
	OneHost bool      `json:"one_process,omitempty"` // both ends were in one process: ClientCPU is of both, ServerCPU zero
	Results []Result  `json:"results"`
	// Ended is "complete", "interrupted" or "failed"; Error says why it failed.
	Ended string `json:"ended"`
	Error string `json:"error,omitempty"`
}

// Result is one case, measured once or more.
type Result struct {
	Case
	LatencyOf string   `json:"latency_of"` // half round trip, post to completion, or call
	Samples   []Sample `json:"samples"`
}

// Sample is one measurement of a case. Messages and bytes are of both directions.
type Sample struct {
	Seconds           float64      `json:"seconds"`
	Messages          int64        `json:"messages"`
	Bytes             int64        `json:"bytes"`
	MessagesPerSecond float64      `json:"messages_per_second"`
	BytesPerSecond    float64      `json:"bytes_per_second"`
	Latency           Distribution `json:"latency_us"`
	ClientCPU         CPU          `json:"client_cpu"`
	ServerCPU         CPU          `json:"server_cpu"`
	// Partial says why the measurement ended early; empty when it did not.
	Partial string `json:"partial,omitempty"`
	// HDR is the histogram of the latencies, in nanoseconds: HdrHistogram V2,
	// compressed, base64.
	HDR string `json:"hdr,omitempty"`
}

// Distribution of latencies, in microseconds.
type Distribution struct {
	Count  int64   `json:"count"`
	Min    float64 `json:"min"`
	Mean   float64 `json:"mean"`
	StdDev float64 `json:"stddev"`
	P50    float64 `json:"p50"`
	P90    float64 `json:"p90"`
	P99    float64 `json:"p99"`
	P999   float64 `json:"p99_9"`
	P9999  float64 `json:"p99_99"`
	Max    float64 `json:"max"`
}

func distribution(h *hdrhistogram.Histogram) Distribution {
	if h.TotalCount() == 0 {
		return Distribution{}
	}
	q := func(p float64) float64 { return float64(h.ValueAtPercentile(p)) / 1e3 }
	return Distribution{Count: h.TotalCount(), Min: float64(h.Min()) / 1e3, Mean: h.Mean() / 1e3, StdDev: h.StdDev() / 1e3,
		P50: q(50), P90: q(90), P99: q(99), P999: q(99.9), P9999: q(99.99), Max: float64(h.Max()) / 1e3}
}

func (s *Sample) setLatency(h *hdrhistogram.Histogram) {
	s.Latency = distribution(h)
	if b, err := h.EncodeV2(); err == nil && s.Latency.Count > 0 {
		s.HDR = string(b)
	}
}

func (s *Sample) setAmount(c *Case, messages int64, seconds float64) {
	s.Messages, s.Bytes, s.Seconds = messages, messages*int64(c.Size), seconds
	if seconds > 0 {
		s.MessagesPerSecond = float64(messages) / seconds
		s.BytesPerSecond = float64(s.Bytes) / seconds
	}
}

// Median is the median of a value over the samples that are whole, or over all
// when none is.
func (r *Result) Median(value func(*Sample) float64) float64 {
	v := r.Values(value)
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// Values are those of the samples that are whole, or of all when none is.
func (r *Result) Values(value func(*Sample) float64) (v []float64) {
	for _, partial := range []bool{false, true} {
		for i := range r.Samples {
			if s := &r.Samples[i]; (s.Partial != "") == partial {
				v = append(v, value(s))
			}
		}
		if len(v) > 0 {
			break
		}
	}
	return v
}

// WriteJSON writes the report.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// ReadReport reads what WriteJSON wrote, also in a later release.
func ReadReport(rd io.Reader) (*Report, error) {
	var r Report
	d := json.NewDecoder(rd)
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("no report of zrdma bench: %w", err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("no report of zrdma bench that this release reads: its schema is %q, not %q", r.Schema, Schema)
	}
	return &r, nil
}
