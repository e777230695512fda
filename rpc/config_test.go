package rpc

import (
	"crypto/tls"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/qp"
)

// Every field of Config is known here: with a default, or zero by design. Values
// that make no sense are refused, never changed in silence.
func TestConfig(t *testing.T) {
	zero := map[string]bool{"Device": true, "TLS": true, "PlainTCP": true, "Secret": true, "Bulk": true, "Rails": true, "DeviceReads": true, "DevicePushes": true, "NoReconnect": true,
		"ClientInterceptors": true, "OnCall": true}
	c, err := Config{}.withDefaults()
	require.NoError(t, err)
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		require.Equal(t, zero[name], v.Field(i).IsZero(), "Config.%s: has it a default?", name)
	}
	for name, bad := range map[string]Config{
		"SlotSize":    {SlotSize: 100},
		"too long":    {SlotSize: maxMessage + 1},
		"MaxCalls":    {MaxCalls: -1},
		"many calls":  {MaxCalls: 1<<14 + 1},
		"Window":      {Window: -1},
		"DataQPs":     {DataQPs: maxData + 1},
		"Grace":       {Grace: -time.Second},
		"DeadAfter":   {DeadAfter: -1},
		"DialTimeout": {DialTimeout: -1},
		"MaxBackoff":  {MaxBackoff: -1},
		"Bulk":        {Bulk: 7},
		"Stripe":      {Stripe: 100},
		"DeviceReads": {DeviceReads: -1},
		"Pushes":      {DevicePushes: -1},
		"Rails":       {Rails: make([]*qp.Device, maxRails)},
		"no Device":   {Rails: make([]*qp.Device, 1)},
		"nil rail":    {Device: new(qp.Device), Rails: make([]*qp.Device, 1)},
		"TLS":         {TLS: &tls.Config{MinVersion: tls.VersionTLS13}, PlainTCP: true},
	} {
		_, err := bad.withDefaults()
		require.Error(t, err, name)
		_, err = Dial(t.Context(), "127.0.0.1:1", bad)
		require.Error(t, err, name)
	}
	for _, bad := range []ServerConfig{{MaxBytes: -1}, {MaxSessions: -1}, {MaxDataQPs: maxData + 1}, {SharedReceives: -1}, {Config: Config{SlotSize: 1}}} {
		_, err := NewServer(bad)
		require.Error(t, err)
	}
	require.Equal(t, int64(2*(256+8)*4096), c.memory())
}
