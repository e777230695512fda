package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// TestBothEnds runs every test between two ends in this process, on one software
// device with two addresses.
func TestBothEnds(t *testing.T) {
	t.Setenv(verbs.EnvDevice, "soft:127.18.60.1,127.18.60.2")
	port := 18610
	for _, flags := range []string{
		"-t mix -n 60", "-t mix -n 60 -oob -m 256 -psn 0xffffe0", "-t mix -n 30 -oob -m 4096 -min 1 -dir s2c",
		"-t stream -n 3000 -max 100", "-t stream -n 1000 -oob -max 3000 -m 512 -dir c2s", "-t inv -n 10",
		"-t refuse", "-t refuse -oob", "-t rnr -max 5000", "-t rnr -max 5000 -oob",
	} {
		port++
		t.Run(flags, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			end := func(more string) (options, *summary) {
				o, err := parse(strings.Fields(fmt.Sprintf("%s -p %d %s", more, port, flags)))
				require.NoError(t, err)
				return o, new(summary)
			}
			so, ss := end("-s -a 127.18.60.1")
			server, err := newConnector(ctx, &so)
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() { done <- tests[so.test](ctx, &so, ss, server) }()
			co, cs := end("-c 127.18.60.1 -a 127.18.60.2")
			require.NoError(t, run(ctx, &co, cs))
			require.NoError(t, <-done)
			require.NoError(t, server.Close())
			require.NotZero(t, cs.Ops+ss.Ops)
			require.NotZero(t, cs.MTU)
		})
	}
}

// TestPlan holds the plan against what the C program draws.
func TestPlan(t *testing.T) {
	o := options{seed: 1, max: 65536}
	require.Equal(t, uint64(0xe9399117c8dc154c), o.draw(1, 7, fieldKey))
	kinds := map[kind]int{}
	longest, empty := 0, 0
	for i := range uint64(2000) {
		p := o.plan(0, i)
		kinds[p.kind]++
		longest = max(longest, p.n)
		if p.n == 0 {
			empty++
		}
	}
	require.Len(t, kinds, 7, "every operation comes up")
	require.Equal(t, 65536, longest)
	require.Greater(t, empty, 50)
}

func TestPatternIsTheSameFromAnywhere(t *testing.T) {
	whole := make([]byte, 100)
	fill(whole, 42, 0)
	for from := range 60 {
		part := make([]byte, 40)
		fill(part, 42, uint64(from))
		require.Equal(t, whole[from:from+40], part)
		require.Equal(t, -1, differs(part, 42, uint64(from)))
		part[17]++
		require.NotEqual(t, -1, differs(part, 42, uint64(from)))
	}
}
