package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/pingpong"
)

func TestUsageErrors(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown command":    {[]string{"pong"}, `unknown command "pong"`},
		"unknown flag":       {[]string{"ping", "--frobnicate", "h"}, "--frobnicate"},
		"unknown short flag": {[]string{"devices", "-x"}, "'x'"},
		"no mode":            {[]string{"ping"}, "whom?"},
		"two modes":          {[]string{"ping", "-s", "host"}, "exclude each other"},
		"two hosts":          {[]string{"ping", "a", "b"}, "one HOST"},
		"empty host":         {[]string{"ping", ""}, "empty"},
		"size 0":             {[]string{"ping", "--size", "0", "h"}, "--size 0"},
		"size too large":     {[]string{"ping", "--size", "67108865", "h"}, "1 to 67108864"},
		"size not a number":  {[]string{"ping", "--size", "big", "h"}, `"big"`},
		"count":              {[]string{"ping", "-c", "-1", "h"}, "negative"},
		"interval":           {[]string{"ping", "-i", "-1", "h"}, "negative"},
		"interval text":      {[]string{"ping", "-i", "soon", "h"}, "neither"},
		"interval NaN":       {[]string{"ping", "-i", "NaN", "h"}, "out of range"},
		"timeout":            {[]string{"ping", "-W", "0", "h"}, "--timeout"},
		"tcp port":           {[]string{"ping", "-p", "65536", "h"}, "--tcp-port"},
		"port":               {[]string{"ping", "--port", "18515", "h"}, "--tcp-port"},
		"gid index":          {[]string{"ping", "-g", "-2", "h"}, "--gid-index"},
		"events and poll":    {[]string{"ping", "-e", "--poll", "h"}, "exclude each other"},
		"devices argument":   {[]string{"devices", "rxe0"}, `"rxe0"`},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			require.Equal(t, ExitUsage, Main(c.args, &out, &errOut), errOut.String())
			require.Contains(t, errOut.String(), c.want)
			require.Empty(t, out.String())
		})
	}
}

func TestHelpNamesTheExitCodes(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"devices", "--help"}, {"ping", "--help"}, {"agent", "--help"}} {
		var out, errOut bytes.Buffer
		require.Equal(t, ExitOK, Main(args, &out, &errOut))
		require.Contains(t, out.String(), "Exit codes:")
		require.Empty(t, errOut.String())
	}
}

func TestNoDevice(t *testing.T) {
	err := noDevice(errors.New("because"))
	var c coded
	require.ErrorAs(t, err, &c)
	require.Equal(t, ExitNoDevice, c.code)
	require.ErrorContains(t, err, "because")
	require.ErrorContains(t, err, "modprobe rdma_rxe")
	require.ErrorContains(t, err, "soft:127.0.0.1")

	var out, errOut bytes.Buffer
	require.Equal(t, ExitNoDevice, Main([]string{"ping", "-d", "no_such_device", "--loopback"}, &out, &errOut), errOut.String())
	require.Contains(t, errOut.String(), `no RDMA device "no_such_device"`)
}

var rows = []deviceRow{
	{Name: "mlx5_0", NodeGUID: "1:2:3:4", Transport: "InfiniBand", Ports: []portRow{
		{Port: 1, State: "active", ActiveMTU: 4096, LinkLayer: "Ethernet", GIDs: []gidRow{
			{0, "fe80::1", "RoCE v1", "eth0"}, {10, "10.0.0.1", "RoCE v2", ""},
		}},
		{Port: 2, State: "down", ActiveMTU: 256, LinkLayer: "InfiniBand", GIDs: []gidRow{}},
	}},
	{Name: "bad", NodeGUID: "5:6:7:8", Transport: "iWARP", Ports: []portRow{}, Error: "permission denied"},
}

func TestDeviceTable(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, printDevices(&out, rows))
	require.Equal(t, `DEVICE  NODE GUID  TRANSPORT   PORT  STATE   MTU   LINK LAYER  GID  ADDRESS   TYPE     NETDEV
mlx5_0  1:2:3:4    InfiniBand  1     active  4096  Ethernet    0    fe80::1   RoCE v1  eth0
                                                               10   10.0.0.1  RoCE v2  -
                               2     down    256   InfiniBand  -    -         -        -
bad     5:6:7:8    iWARP       -     -       -     -           -    -         -        -
bad: permission denied
`, out.String())
}

func TestDeviceJSON(t *testing.T) {
	b, err := json.Marshal(rows[:1])
	require.NoError(t, err)
	require.JSONEq(t, `[{"name":"mlx5_0","node_guid":"1:2:3:4","transport":"InfiniBand","ports":[
		{"port":1,"state":"active","active_mtu":4096,"link_layer":"Ethernet","gids":[
			{"index":0,"gid":"fe80::1","type":"RoCE v1","netdev":"eth0"},
			{"index":10,"gid":"10.0.0.1","type":"RoCE v2"}]},
		{"port":2,"state":"down","active_mtu":256,"link_layer":"InfiniBand","gids":[]}]}]`, string(b))
}

func TestLoopbackTable(t *testing.T) {
	var s pingpong.Stats
	for i := 1; i <= 4; i++ {
		s.Add(time.Duration(i) * time.Millisecond)
	}
	s.Lose()
	var out bytes.Buffer
	printTable(&out, &s, 100, 2*time.Second, 500*time.Millisecond)
	require.Equal(t, `round trips      4 of 5
verified bytes   800
rtt min          1000.0 us
rtt avg          2500.0 us
rtt p99          4000.0 us
rtt max          4000.0 us
wall time        2.000 s
CPU time         0.500 s
`, out.String())
}

func TestSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{"0.2": 200 * time.Millisecond, "3": 3 * time.Second, "15ms": 15 * time.Millisecond, "0": 0} {
		var s seconds
		require.NoError(t, s.Set(text))
		require.Equal(t, want, time.Duration(s))
	}
}

// The software device is always there: listed last, and good for a ping.
func TestSoftDevice(t *testing.T) {
	var out, errOut bytes.Buffer
	require.Equal(t, ExitOK, Main([]string{"devices", "--json"}, &out, &errOut), errOut.String())
	var rows []deviceRow
	require.NoError(t, json.Unmarshal(out.Bytes(), &rows))
	require.Equal(t, "soft:127.0.0.1", rows[len(rows)-1].Name)

	out.Reset()
	require.Equal(t, ExitOK, Main([]string{"ping", "-d", "soft:127.7.2.1", "--loopback", "-c", "50"}, &out, &errOut), errOut.String())
	require.Contains(t, out.String(), "50 of 50")
	require.Equal(t, ExitFailed, Main([]string{"ping", "-d", "soft:eth0", "--loopback"}, &out, &errOut))
	require.Contains(t, errOut.String(), "no IP address")
}
