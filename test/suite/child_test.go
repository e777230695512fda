package suite_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const childVar = "ZRDMA_SUITE_CHILD"

// inChild is true in the process that child started.
func inChild() bool { return os.Getenv(childVar) != "" }

// child runs the case of that id in a process of its own, with env added.
func child(t *testing.T, id string, env ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestVerbs$/^"+id+"_", "-test.v", "-test.timeout=110s")
	cmd.Env = append(append(os.Environ(), childVar+"="+id), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// failsWithoutWorkarounds requires that the case fails, saying want, once the
// work-arounds are off: else nobody needs them. In the child it does nothing.
func failsWithoutWorkarounds(t *testing.T, id, want string) {
	t.Helper()
	if inChild() {
		return
	}
	out, err := child(t, id, "ZRDMA_NO_WORKAROUNDS=1")
	require.Error(t, err, "%s passes without the work-arounds:\n%s", id, out)
	require.Contains(t, out, "--- FAIL: TestVerbs/"+id+"_", "%s", out)
	require.Contains(t, out, want)
}

// rdmaCoreBefore compares the installed libibverbs with a release of rdma-core.
func rdmaCoreBefore(t *testing.T, major int) bool {
	t.Helper()
	links, _ := filepath.Glob("/usr/lib/*/libibverbs.so.1")
	more, _ := filepath.Glob("/usr/lib*/libibverbs.so.1")
	for _, l := range append(links, more...) {
		f, err := os.Readlink(l)
		if err != nil {
			continue
		}
		if p := strings.Split(filepath.Base(f), "."); len(p) == 6 { // libibverbs.so.1.14.44.0
			n, err := strconv.Atoi(p[4])
			require.NoError(t, err)
			return n < major
		}
	}
	t.Fatal("cannot tell the version of libibverbs")
	return false
}
