package suite_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Some cases need a process of their own: another user, a limit, a library that
// is absent, or a fault that may hang. They run this test binary again with
// ZRDMA_HELPER set to the name of a helper.

const helperEnv = "ZRDMA_HELPER"

var helpers = map[string]func(t *testing.T){}

// helper adds a helper. It is called from init.
func helper(name string, fn func(t *testing.T)) { helpers[name] = fn }

// TestHelper is the way into a helper; without ZRDMA_HELPER it has nothing to do.
func TestHelper(t *testing.T) {
	if name := os.Getenv(helperEnv); name != "" {
		fn := helpers[name]
		require.NotNil(t, fn, "helper %q", name)
		fn(t)
	}
}

type helperResult struct {
	out     string
	err     error
	timeout bool
}

// runHelper runs a helper in a process of its own for at most d.
func runHelper(t *testing.T, name string, d time.Duration, attr *syscall.SysProcAttr, env ...string) helperResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	c := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^TestHelper$", "-test.v")
	c.Env = append(os.Environ(), append(env, helperEnv+"="+name)...)
	c.SysProcAttr = attr
	c.Dir = "/"
	var b bytes.Buffer
	c.Stdout, c.Stderr = &b, &b
	err := c.Run()
	return helperResult{b.String(), err, errors.Is(ctx.Err(), context.DeadlineExceeded)}
}

// mustHelper requires that the helper ran and passed.
func mustHelper(t *testing.T, name string, attr *syscall.SysProcAttr, env ...string) string {
	t.Helper()
	r := runHelper(t, name, time.Minute, attr, env...)
	require.NoError(t, r.err, r.out)
	require.Contains(t, r.out, "--- PASS: TestHelper")
	return r.out
}
