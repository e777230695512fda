package qp

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/verbs"
)

// The counts of a device never go down, and what connections hold goes with them.
func TestDeviceStats(t *testing.T) {
	inVirtual(t, func(t *testing.T, _ *rdmatest.Network, da, db *Device) {
		require.Len(t, da.Engines(), 1)
		for i := range uint64(3) {
			a, b := pairOf(t, da, db, Config{}, Config{})
			require.NoError(t, a.SendBytes(t.Context(), []byte("hello")))
			s := da.Stats()
			require.Equal(t, 1, s.Conns)
			require.Equal(t, i+1, s.Opened)
			require.GreaterOrEqual(t, s.Completed, i+1)
			require.Equal(t, a.Stats().SendFree, s.SendFree)
			require.NotZero(t, s.ReceivesPosted)
			require.NoError(t, a.Close())
			require.NoError(t, b.Close())
			after := da.Stats()
			require.Zero(t, after.Conns)
			require.GreaterOrEqual(t, after.Completed, s.Completed)
			require.Zero(t, after.SendFree+after.ReceivesPosted+after.Credits)
			require.NotZero(t, after.Errors[verbs.WCWRFlushErr])
		}
	})
}

// add misses no count: a field of type uint64 counts up.
func TestStatsAdd(t *testing.T) {
	var x, sum Stats
	v := reflect.ValueOf(&x).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Uint64 {
			v.Field(i).SetUint(uint64(i + 1))
		}
	}
	x.Errors = map[verbs.WCStatus]uint64{verbs.WCRetryExcErr: 7}
	sum.add(x)
	require.Equal(t, x, sum)
}
