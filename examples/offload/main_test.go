package main

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/dpufault"
)

// offload runs the program in this process. The three devices are on loopback: the
// tests of this package take turns.
func offload(t *testing.T, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	t.Cleanup(func() {
		dpufault.SetAgent(dpufault.Agent{})
		dpufault.SetUnfenced(nil)
	})
	c := command()
	var out bytes.Buffer
	c.SetArgs(args)
	c.SetOut(&out)
	err := c.ExecuteContext(ctx)
	return out.String(), err
}

func TestAllInOne(t *testing.T) {
	out, err := offload(t, "--blocks", "12", "--size", "150000", "--json", "--lease", "1m", "--path", "staged")
	require.NoError(t, err, out)
	var phases []result
	for _, line := range bytes.Split([]byte(out), []byte("\n")) {
		if len(line) > 0 && line[0] == '{' {
			var r result
			require.NoError(t, json.Unmarshal(line, &r))
			phases = append(phases, r)
		}
	}
	require.Len(t, phases, 2)
	for _, r := range phases {
		require.EqualValues(t, 12, r.Staged)
		require.EqualValues(t, 12*150000, r.Bytes)
		require.Zero(t, r.FellBack)
		require.Zero(t, r.Leaked)
	}
}

func TestVersions(t *testing.T) {
	out, err := offload(t, "--op", "versions", "--duration", "1s", "--blocks", "4", "--size", "100000")
	require.NoError(t, err, out)
	require.Contains(t, out, "versions:")
}

// The zombie, and the control without a fence.
func TestZombie(t *testing.T) {
	for _, args := range [][]string{nil, {"--no-fence"}} {
		out, err := offload(t, append([]string{"--op", "zombie", "--stall-after", "1", "--stall", "1s", "--wait", "2s", "--lease", "300ms"}, args...)...)
		require.NoError(t, err, out)
		require.Contains(t, out, "bytes changed by late writes")
	}
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{{"--role", "judge"}, {"--op", "eat"}, {"--path", "sideways"}, {"--size", "0"}, {"--blocks", "0"}, {"--workers", "-1"},
		{"--no-fence"}, {"--check", "no"}, {"--role", "host"}, {"--role", "agent"}, {"more"}} {
		_, err := offload(t, args...)
		require.Error(t, err, args)
	}
}
