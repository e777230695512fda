package tsc

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestKHz(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		require.Zero(t, KHz())
		return
	}
	// The counter and the clock tell the same time, within a percent.
	c0, t0 := sample()
	time.Sleep(window)
	c1, t1 := sample()
	require.InEpsilon(t, t1.Sub(t0).Seconds(), float64(c1-c0)/float64(KHz())/1000, 0.01)
}
