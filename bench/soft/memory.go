package main

import (
	"net/netip"
	"time"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/roce"
	"github.com/zrdma/zrdma/internal/roce/link"
	"github.com/zrdma/zrdma/verbs"
)

// memoryPair opens two devices on a network in memory, as rdmatest makes them.
func memoryPair() (ca, cb *verbs.Context, err error) {
	n := link.Memory(1, link.MemOptions{})
	open := func(addr string) (*verbs.Context, error) {
		d := roce.New(roce.Config{Name: "soft:" + addr, Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Net: n})
		return bridge.Device(d).(*verbs.Device).Open()
	}
	if ca, err = open("10.0.0.1"); err != nil {
		return nil, nil, err
	}
	cb, err = open("10.0.0.2")
	return ca, cb, err
}

// memoryRows measure the in-memory network.
func memoryRows(ca, cb *verbs.Context) []row {
	const mib, blocks = 1 << 20, 1024
	return []row{
		{"in memory: 64 B ping-pong, polling", "us p50", pingPong(func(n int) ([]time.Duration, error) { return pingPongRDMA(ca, cb, 64, n, polling) }), "<= 3"},
		{"in memory: 64 B ping-pong, adaptive", "us p50", pingPong(func(n int) ([]time.Duration, error) { return pingPongRDMA(ca, cb, 64, n, adaptive) }), "<= 3"},
		{"in memory: 64 B ping-pong, sleeping", "us p50", pingPong(func(n int) ([]time.Duration, error) { return pingPongRDMA(ca, cb, 64, n, sleeping) }), ""},
		{"in memory: 1 MiB RC WRITE", "GB/s", stream(mib*blocks, func() error { return streamRDMA(ca, cb, verbs.WRRDMAWrite, mib, blocks, adaptive) }), ""},
		{"in memory: 1 MiB RC READ", "GB/s", stream(mib*blocks, func() error { return streamRDMA(ca, cb, verbs.WRRDMARead, mib, blocks, adaptive) }), ""},
	}
}
