package suite_test

import (
	_ "embed"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/handle"
)

//go:embed cases.tsv
var casesTSV string

type testCase struct {
	id, name string
	fn       func(t *testing.T, e *env)
}

var cases = map[string]testCase{}

// register adds a case under its id in cases.tsv. It is called from init.
func register(id, name string, fn func(t *testing.T, e *env)) {
	if _, dup := cases[id]; dup {
		panic("case " + id + " is registered twice")
	}
	cases[id] = testCase{id, name, fn}
}

func listedIDs() []string {
	var ids []string
	for _, f := range rows() {
		ids = append(ids, f[0])
	}
	return ids
}

// rows are the cases of the list, with their columns.
func rows() (out [][]string) {
	for i, l := range strings.Split(strings.TrimRight(casesTSV, "\n"), "\n") {
		if i > 0 {
			out = append(out, strings.Split(l, "\t"))
		}
	}
	return out
}

const softColumn = 6

// meaningless are the cases that the software device cannot have, with the reason.
func meaningless() map[string]string {
	out := map[string]string{}
	for _, f := range rows() {
		if why, ok := strings.CutPrefix(f[softColumn], "no: "); ok {
			out[f[0]] = why
		}
	}
	return out
}

// TestEveryCaseIsThere needs no device: a case of the list that nobody wrote is a failure.
func TestEveryCaseIsThere(t *testing.T) {
	ids := listedIDs()
	require.Len(t, ids, 146)
	var missing []string
	for _, id := range ids {
		if _, ok := cases[id]; !ok {
			missing = append(missing, id)
		}
	}
	require.Empty(t, missing, "cases of cases.tsv without a test")
	require.Len(t, cases, len(ids), "a registered case is not in cases.tsv")
	for _, f := range rows() {
		require.Len(t, f, 8, "columns of %s", f[0])
		require.True(t, f[softColumn] == "yes" || strings.HasPrefix(f[softColumn], "yes: ") || strings.HasPrefix(f[softColumn], "no: "), "%s: the column soft is yes, perhaps with how it differs from rxe, or no with the reason", f[0])
	}
	// One more is a decision: it is written here as well.
	require.Equal(t, []string{"E07", "E12", "K01", "K02", "Z05"}, slices.Sorted(maps.Keys(meaningless())))
}

// TestVerbs runs every case on the device under test, one after the other, each
// with a context and protection domain of its own.
func TestVerbs(t *testing.T) {
	dev := testDevice(t)
	excused := map[string]string{}
	if isSoft(dev) {
		excused = meaningless()
	}
	ids := make([]string, 0, len(cases))
	for id := range cases {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	ran, passed := 0, 0
	for _, id := range ids {
		c := cases[id]
		if why, ok := excused[id]; ok {
			t.Logf("%s, %s: not on the software device: %s", id, c.name, why)
			continue
		}
		t.Run(id+"_"+strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			ran++
			before := len(handle.Live())
			t.Cleanup(func() {
				if t.Skipped() {
					t.Errorf("%s was skipped: what the device cannot do is a checked error, not a skip", id)
				}
				if t.Failed() {
					return
				}
				if l := handle.Live(); len(l) > before {
					t.Errorf("%d object(s) left open:\n%s", len(l)-before, strings.Join(l, "\n"))
					return
				}
				passed++
			})
			c.fn(t, newEnv(t, dev))
		})
	}
	all := len(listedIDs()) - len(excused)
	fmt.Fprintf(os.Stderr, "verbs suite on %s: %d of %d cases ran, %d passed, %d mean nothing there, kernel %s\n", dev, ran, all, passed, len(excused), kernel())
	if f := flag.Lookup("test.run"); f != nil && !strings.Contains(f.Value.String(), "/") && passed < all {
		t.Errorf("verbs suite: %d of %d cases passed", passed, all)
	}
}

// testDevice names the device under test. Where none is asked for there is
// nothing to test on; one that is asked for and absent is a failure.
func testDevice(t *testing.T) string {
	dev := os.Getenv("ZRDMA_TEST_DEVICE")
	if dev == "" {
		t.Skip("ZRDMA_TEST_DEVICE is not set: `make soft` runs this on the software device, `make rxe` in a VM with rdma_rxe")
	}
	return dev
}
