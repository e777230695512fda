package perf

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"
)

func TestSizes(t *testing.T) {
	got, err := ParseSizes("64,4k,1MiB, 2K")
	require.NoError(t, err)
	require.Equal(t, []int{64, 4096, 1 << 20, 2048}, got)
	for text, want := range map[string]string{"0": "0 B: a message has 1 byte to 1 GiB", "1t": "1 TiB: a message has", "": "no size", "x": "no size",
		"-1": "no size", "4x": "no size", "1.5k": "no size", "9999999999999g": "too large", "8,,9": "no size"} {
		_, err := ParseSizes(text)
		require.ErrorContains(t, err, want, text)
	}
	require.Equal(t, "3000 B", FormatSize(3000))
	require.Equal(t, "3 KiB", FormatSize(3072))
	require.Equal(t, "1 TiB", FormatSize(1<<40))
	require.Len(t, AllSizes(), 23)
}

// sample has n messages in a second, and latencies around us microseconds.
func sample(c *Case, n int64, us int64) Sample {
	h := newHistogram()
	for i := range int64(100) {
		_ = h.RecordValue(us*1000 + i*10)
	}
	s := Sample{ClientCPU: CPU{User: 0.25, System: 0.5}, ServerCPU: CPU{User: 0.25}}
	s.setAmount(c, n, 1)
	s.setLatency(h)
	return s
}

func report(rate int64, us int64, n int) *Report {
	r := &Report{Schema: Schema, Start: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), Client: Host{Name: "a", Device: "mlx5_0", MTU: 4096}, Server: Host{Name: "b", Device: "mlx5_1"}, Ended: "complete"}
	for _, c := range []Case{{Op: Write, Mode: Bandwidth, Size: 1 << 20}, {Op: Send, Mode: Latency, Size: 64}} {
		c, _ = c.WithDefaults()
		x := Result{Case: c, LatencyOf: c.LatencyOf()}
		for i := range n {
			x.Samples = append(x.Samples, sample(&c, rate+int64(i), us+int64(i)))
		}
		r.Results = append(r.Results, x)
	}
	return r
}

func TestReportForms(t *testing.T) {
	r := report(1000, 10, 3)
	r.Results[1].Samples[2].Partial = "interrupted"
	r.Results[1].Samples[2].Latency.P50 = 1e9 // does not count
	var table, text, js bytes.Buffer
	require.NoError(t, r.WriteTable(&table))
	require.Equal(t, `op        mode          size   n      msg/s      MB/s    p50 us    p90 us    p99 us  p99.9 us    max us  CPU s/GB
write     bandwidth    1 MiB   3       1001      1050     11.49     11.89     11.98     11.99     11.99    0.9527
send      latency       64 B   3       1000   0.06403     10.99     11.39     11.48     11.49     11.49     15617  ended early
`, table.String())
	require.NoError(t, r.WriteCSV(&text))
	rows, err := csv.NewReader(&text).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+6)
	require.Equal(t, csvHead, rows[0])
	require.Equal(t, "interrupted", rows[6][len(rows[6])-1])
	require.Equal(t, "1001", rows[2][17])

	require.NoError(t, r.WriteJSON(&js))
	again, err := ReadReport(strings.NewReader(strings.Replace(js.String(), `"ended"`, `"later": 1, "ended"`, 1)))
	require.NoError(t, err)
	require.Equal(t, r, again)
	h, err := hdrhistogram.Decode([]byte(again.Results[0].Samples[0].HDR))
	require.NoError(t, err)
	require.Equal(t, int64(100), h.TotalCount())
	for bad, want := range map[string]string{"": "no report", "{}": `its schema is ""`, `{"schema":"zrdma-bench/2"}`: "zrdma-bench/2", "[1]": "no report"} {
		_, err := ReadReport(strings.NewReader(bad))
		require.ErrorContains(t, err, want)
	}
}

func TestCompare(t *testing.T) {
	rows, only := Compare(report(1000, 10, 8), report(1200, 10, 8))
	require.Empty(t, only)
	by := map[string]Comparison{}
	for _, r := range rows {
		by[string(r.Case.Op)+" "+r.Metric] = r
	}
	require.Len(t, by, 4+2)
	require.InDelta(t, 0.2, by["write MB/s"].Change, 0.01)
	require.Less(t, by["write MB/s"].P, 0.05)
	require.Contains(t, by["write MB/s"].Delta, "+")
	require.Zero(t, by["write p50 us"].Change)
	require.Equal(t, "~", by["write p50 us"].Delta)
	require.Positive(t, by["write CPU s/GB"].Change, "less is better")
	slow, _ := Compare(report(1000, 10, 8), report(1000, 20, 8))
	require.Negative(t, slow[1].Change, slow[1].Metric)

	few, _ := Compare(report(1000, 10, 1), report(1200, 10, 1))
	require.Equal(t, "~", few[0].Delta, "one sample shows nothing")
	require.NotEmpty(t, few[0].Notes)

	other := report(1, 1, 1)
	other.Results = other.Results[:1]
	other.Results[0].QPs, other.Results[0].Threads = 4, 2
	rows, only = Compare(report(1000, 10, 1), other)
	require.Empty(t, rows)
	require.Len(t, only, 3)
	require.Contains(t, strings.Join(only, "\n"), "4 QPs on 2 threads: in the second report only")

	var out bytes.Buffer
	require.NoError(t, WriteComparison(&out, slow, []string{"x: in the first report only"}))
	require.Contains(t, out.String(), "worse")
	require.Contains(t, out.String(), "x: in the first report only")
	require.Contains(t, out.String(), "n=8+8")
}
