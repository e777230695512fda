package mr

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A recycled grant is the next one, without a trace of what it was; one that
// something may still call back is not used again.
func TestRecycle(t *testing.T) {
	grants(t, GranterConfig{Quarantine: -1, Grace: time.Second}, &fakeDev{}, func(r *grantRig) {
		first, _ := r.grant(DeviceWrites)
		key := first.Remote().RKey
		first.Recycle() // too early: nothing happens
		n, err := first.Finish(r.t.Context())
		require.NoError(t, err)
		require.NoError(t, n.Release())
		first.Recycle()
		second, _ := r.grant(DeviceReads)
		require.Same(t, first, second)
		require.NotEqual(t, key, second.Remote().RKey)
		select {
		case <-second.Bound():
		default:
			t.Error("Grant returns when it is bound")
		}
		// LOCAL_INV that comes too late belongs to this life only.
		r.q.auto = false
		n, err = second.Revoke(r.t.Context())
		require.NoError(t, err, "the window was deallocated instead")
		require.NoError(t, n.Release())
		second.Recycle()
		r.q.auto = true
		third, _ := r.grant(DeviceReads)
		require.NotSame(t, second, third)
		r.q.complete(errors.New("late"))
		n, err = third.Revoke(r.t.Context())
		require.NoError(t, err)
		require.NoError(t, n.Release())
		third.Recycle()
		fourth, _ := r.grant(DeviceReads)
		fourth.Abandon()
		time.Sleep(time.Second)
		fourth.Recycle()
		fifth, _ := r.grant(DeviceReads)
		require.NotSame(t, fourth, fifth)
		n, err = fifth.Revoke(r.t.Context())
		require.NoError(t, err)
		require.NoError(t, n.Release())
	})
}
