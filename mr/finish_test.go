package mr

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// Finish invalidates and waits for it, but keeps no quarantine; Revoke of the same
// device does.
func TestFinish(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{}, func(r *grantRig) {
		require.NotZero(t, r.g.Quarantine())
		g, _ := r.grant(DeviceWrites)
		r.q.auto = false
		start := time.Now()
		go func() {
			time.Sleep(time.Millisecond)
			r.q.complete(nil)
		}()
		n, err := g.Finish(r.t.Context())
		require.NoError(t, err)
		require.Equal(t, time.Millisecond, time.Since(start), "it waits for the invalidation, and for nothing else")
		last := r.q.posted[len(r.q.posted)-1]
		require.Equal(t, verbs.WRLocalInv, last.Opcode)
		require.NoError(t, n.Release())
	})
}

// When the invalidation fails the peer's word is worth nothing.
func TestFinishThatFailsIsQuarantined(t *testing.T) {
	grants(t, GranterConfig{}, &fakeDev{}, func(r *grantRig) {
		g, _ := r.grant(DeviceWrites)
		r.q.auto = false
		start := time.Now()
		go func() {
			time.Sleep(time.Millisecond)
			r.q.complete(errors.New("flushed"))
		}()
		n, err := g.Finish(r.t.Context())
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(start), time.Millisecond+r.g.Quarantine())
		require.NoError(t, n.Release())
	})
}
