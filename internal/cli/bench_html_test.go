package cli

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/perf"
)

func TestBenchHTML(t *testing.T) {
	r := &perf.Report{Schema: perf.Schema, Start: time.Unix(0, 0).UTC(), Client: perf.Host{Name: "<a&b>", StandIn: true}, Ended: "complete"}
	for _, mode := range perf.Modes {
		for _, size := range []int{64, 128, 4096} {
			for _, op := range []perf.Op{perf.Send, perf.Read} {
				c, err := perf.Case{Op: op, Mode: mode, Size: size}.WithDefaults()
				require.NoError(t, err)
				r.Results = append(r.Results, perf.Result{Case: c, Samples: []perf.Sample{{BytesPerSecond: 12345e6}, {BytesPerSecond: 2e9, Partial: "x"}}})
			}
		}
	}
	var b bytes.Buffer
	require.NoError(t, writeHTML(r, &b))
	require.Contains(t, b.String(), "Message rate")
	require.Contains(t, b.String(), "12345")
	require.Contains(t, b.String(), "ended early")
	require.Contains(t, b.String(), "stand-in")
	require.NotContains(t, b.String(), "<a&b>")
	require.NoError(t, writeHTML(&perf.Report{Ended: "interrupted"}, &b), "nothing was measured")
}
