package suite_test

import (
	_ "embed"
	"flag"
	"fmt"
	"os"
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
	for i, l := range strings.Split(strings.TrimSpace(casesTSV), "\n") {
		if i > 0 {
			ids = append(ids, strings.SplitN(l, "\t", 2)[0])
		}
	}
	return ids
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
}

// TestVerbs runs every case on the device under test, one after the other, each
// with a context and protection domain of its own.
func TestVerbs(t *testing.T) {
	dev := testDevice(t)
	ids := make([]string, 0, len(cases))
	for id := range cases {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	ran, passed := 0, 0
	for _, id := range ids {
		c := cases[id]
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
	all := len(listedIDs())
	fmt.Fprintf(os.Stderr, "verbs suite: %d of %d cases ran, %d passed, kernel %s\n", ran, all, passed, kernel())
	if f := flag.Lookup("test.run"); f != nil && !strings.Contains(f.Value.String(), "/") && passed < all {
		t.Errorf("verbs suite: %d of %d cases passed", passed, all)
	}
}

// testDevice names the device under test. Where none is asked for there is
// nothing to test on; one that is asked for and absent is a failure.
func testDevice(t *testing.T) string {
	dev := os.Getenv("ZRDMA_TEST_DEVICE")
	if dev == "" {
		t.Skip("ZRDMA_TEST_DEVICE is not set: `make rxe` runs this in a VM with rdma_rxe")
	}
	return dev
}
