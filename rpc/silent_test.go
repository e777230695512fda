package rpc

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
)

// Peers that connect and say nothing take a bounded part of the server's memory, and
// others get in behind them. In real time: sockets are the kernel's.
func TestSilentPeers(t *testing.T) {
	nw := rdmatest.NewNetwork(t, 1)
	open := func() *qp.Device {
		d, err := qp.Open(qp.DeviceConfig{Context: nw.Device(t).Context, Logger: quiet(), Pool: mr.PoolConfig{RegionSize: 4 << 20, Limit: 16 << 20, Classes: []int{4096, 65536}}})
		require.NoError(t, err)
		return d
	}
	sd, cd := open(), open()
	const window = 16
	s, err := NewServer(ServerConfig{Config: Config{Device: sd, Logger: quiet(), PlainTCP: true, Window: window, DialTimeout: time.Second}})
	require.NoError(t, err)
	echo(s)
	l, err := s.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	for range 2 * maxGreeting {
		c, err := net.Dial("tcp", l.Addr())
		require.NoError(t, err)
		defer c.Close()
	}
	require.Eventually(t, func() bool { return len(s.greeting) == maxGreeting }, 10*time.Second, time.Millisecond)
	c, err := Dial(ctxFor(t), l.Addr(), Config{Device: cd, Logger: quiet(), PlainTCP: true, Window: window, DialTimeout: time.Minute})
	require.NoError(t, err)
	r, err := c.Call(ctxFor(t), "echo", []byte("x"))
	require.NoError(t, err)
	r.Release()
	require.NoError(t, c.Close())
	require.NoError(t, s.Close())
	require.NoError(t, <-done)
	require.NoError(t, cd.Close())
	require.NoError(t, sd.Close())
}
