//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Which rounds count depends on the C runs alone.
func TestQuietRounds(t *testing.T) {
	rounds := []round{
		{c: [2]float64{10, 12}, gos: []float64{900}},
		{c: [2]float64{12, 40}, gos: []float64{12}},
		{c: [2]float64{40, 12.9}, gos: []float64{12}},
		{c: [2]float64{12.9, 13}, gos: []float64{13}},
	}
	quiet, best := quietRounds(rounds, true)
	require.Equal(t, 10.0, best)
	require.Equal(t, []round{rounds[0], rounds[3]}, quiet)

	quiet, best = quietRounds([]round{{c: [2]float64{100, 80}}, {c: [2]float64{80, 70}}, {c: [2]float64{70, 99}}}, false)
	require.Equal(t, 100.0, best)
	require.Equal(t, []round{{c: [2]float64{100, 80}}}, quiet)

	quiet, _ = quietRounds(nil, true)
	require.Empty(t, quiet)
}
