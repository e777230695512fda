package suite_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("D14", "strings", func(t *testing.T, _ *env) { texts(t) })
	register("D15", "rates", func(t *testing.T, _ *env) { rates(t) })
}

// texts holds the four text functions against every value they know and many
// that they do not: libibverbs indexes tables with them.
func texts(t *testing.T) {
	for name, f := range map[string]struct {
		text, id     func(int64) string
		first, last  int64
		distinctText bool
	}{
		"status": {func(v int64) string { return verbs.WCStatusStr(verbs.WCStatus(v)) },
			func(v int64) string { return verbs.WCStatus(v).String() }, 0, int64(verbs.WCTMRndvIncomplete), true},
		"event": {func(v int64) string { return verbs.EventTypeStr(verbs.EventType(v)) },
			func(v int64) string { return verbs.EventType(v).String() }, 0, int64(verbs.EventWQFatal), true},
		"node": {func(v int64) string { return verbs.NodeTypeStr(verbs.NodeType(v)) },
			func(v int64) string { return verbs.NodeType(v).String() }, int64(verbs.NodeCA), int64(verbs.NodeUnspecified), true},
		"port": {func(v int64) string { return verbs.PortStateStr(verbs.PortState(v)) },
			func(v int64) string { return verbs.PortState(v).String() }, 0, int64(verbs.PortActiveDefer), true},
	} {
		seen, ids := map[string]bool{}, map[string]bool{}
		for v := f.first; v <= f.last; v++ {
			require.NotEmpty(t, f.text(v), "%s %d", name, v)
			require.False(t, seen[f.text(v)], "%s %d: %q names two values", name, v, f.text(v))
			require.False(t, ids[f.id(v)], "%s %d", name, v)
			require.NotContains(t, f.id(v), "(", "%s %d has a name", name, v)
			seen[f.text(v)], ids[f.id(v)] = true, true
		}
		for _, v := range []int64{-1 << 31, -100, -2, -1, f.first - 1, f.last + 1, f.last + 2, 100, 255, 1 << 20, 1<<31 - 1} {
			if v >= f.first && v <= f.last {
				continue
			}
			require.NotEmpty(t, f.text(v), "%s %d", name, v)
			require.Contains(t, f.id(v), "(", "%s %d has no name", name, v)
		}
	}
	require.Equal(t, "success", verbs.WCStatusStr(verbs.WCSuccess))
	require.True(t, strings.Contains(verbs.WCStatusStr(verbs.WCRetryExcErr), "retry"))
	require.Equal(t, "port active", verbs.EventTypeStr(verbs.EventPortActive))
}

// Rates in Mbit/s and as multiples of 2.5 Gbit/s; 0: there is no such multiple.
var rateTable = map[verbs.Rate][2]int{
	verbs.Rate2_5Gbps: {2500, 1}, verbs.Rate5Gbps: {5000, 2}, verbs.Rate10Gbps: {10000, 4},
	verbs.Rate20Gbps: {20000, 8}, verbs.Rate30Gbps: {30000, 12}, verbs.Rate40Gbps: {40000, 16},
	verbs.Rate60Gbps: {60000, 24}, verbs.Rate80Gbps: {80000, 32}, verbs.Rate120Gbps: {120000, 48},
	verbs.Rate14Gbps: {14062, 0}, verbs.Rate56Gbps: {56250, 0}, verbs.Rate112Gbps: {112500, 0},
	verbs.Rate168Gbps: {168750, 0}, verbs.Rate25Gbps: {25781, 0}, verbs.Rate100Gbps: {103125, 0},
	verbs.Rate200Gbps: {206250, 0}, verbs.Rate300Gbps: {309375, 0}, verbs.Rate28Gbps: {28125, 0},
	verbs.Rate50Gbps: {53125, 0}, verbs.Rate400Gbps: {425000, 0}, verbs.Rate600Gbps: {637500, 0},
	verbs.Rate800Gbps: {850000, 0}, verbs.Rate1200Gbps: {1275000, 0},
}

func rates(t *testing.T) {
	for r, w := range rateTable {
		require.Equal(t, w[0], verbs.RateToMbps(r), "%v", r)
		require.Equal(t, r, verbs.MbpsToRate(w[0]), "%v", r)
		m := verbs.RateToMult(r)
		if w[1] != 0 {
			require.Equal(t, w[1], m, "%v", r)
		}
		if m > 0 {
			require.Equal(t, r, verbs.MultToRate(m), "%v", r)
		}
	}
	for _, v := range []int{-1, 0, 3, 1 << 30} {
		require.Equal(t, verbs.RateMax, verbs.MbpsToRate(v))
	}
	require.Equal(t, verbs.RateMax, verbs.MultToRate(-1))
	require.Equal(t, verbs.RateMax, verbs.MultToRate(3))
	for _, r := range []verbs.Rate{verbs.Rate(1), verbs.Rate(200)} {
		require.Equal(t, -1, verbs.RateToMbps(r))
		require.Equal(t, -1, verbs.RateToMult(r))
	}
	require.Equal(t, -1, verbs.RateToMbps(verbs.RateMax), "the port's rate is not known here")
}
