package perf

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/rdmatest"
)

// pair is a server and what dials it, on two devices of a network in memory.
type pair struct {
	net    *rdmatest.Network
	a, b   *rdmatest.Device // client's and server's
	client *endpoint.Device
	server *Server
	l      net.Listener
	left   chan Session
	served chan error
	end    context.CancelFunc
}

func newPair(t *testing.T) *pair {
	t.Helper()
	n := rdmatest.NewNetwork(t, 1)
	p := &pair{net: n, a: n.Device(t), b: n.Device(t), left: make(chan Session, 100), served: make(chan error, 1)}
	open := func(d *rdmatest.Device) *endpoint.Device {
		e, err := endpoint.Open(endpoint.Config{Context: d.Context, GIDIndex: -1})
		require.NoError(t, err)
		return e
	}
	p.client = open(p.a)
	p.server = &Server{Device: open(p.b), Release: "test", Served: func(s Session) { p.left <- s }}
	var err error
	p.l, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	p.end = cancel
	go func() { p.served <- p.server.Serve(ctx, p.l, 0) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-p.served:
			require.NoError(t, err)
		case <-time.After(time.Minute):
			t.Error("the server does not end")
		}
	})
	return p
}

func (p *pair) dial(t *testing.T) *Client {
	t.Helper()
	c, err := Dial(t.Context(), p.client, p.l.Addr().String(), "test")
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// Every operation in every mode, both ways of waiting, several threads and queue
// pairs, by count and by time.
func TestEveryCase(t *testing.T) {
	p := newPair(t)
	c := p.dial(t)
	for _, op := range Ops {
		for _, mode := range Modes {
			for _, wait := range Waits {
				if wait == Poll && (op == RPC || mode == Rate || op == CAS || op == Write) {
					continue // the same as another
				}
				cs := Case{Op: op, Mode: mode, Wait: wait, Size: 3000, Count: 60, Threads: 2, QPs: 3}
				if op.Atomic() {
					cs.Size = 8
				}
				if mode != Latency {
					cs.Depth = 5
				}
				t.Run(cs.String()+" "+string(wait), func(t *testing.T) {
					s, err := c.Run(t.Context(), cs)
					require.NoError(t, err)
					want := int64(60)
					if op == RPC { // each caller has a share of it
						want = s.Messages
						require.GreaterOrEqual(t, want, int64(60))
						require.Less(t, want, int64(60+15))
					}
					require.Equal(t, want, s.Messages)
					require.Equal(t, want*int64(cs.Size), s.Bytes)
					require.Positive(t, s.MessagesPerSecond)
					require.Empty(t, s.Partial)
					d := s.Latency
					require.Positive(t, d.Count)
					require.True(t, 0 < d.Min && d.Min <= d.P50 && d.P50 <= d.P99 && d.P99 <= d.Max, "%+v", d)
					require.NotEmpty(t, s.HDR)
				})
			}
		}
	}
	require.Equal(t, "soft", c.Server().Device[:4])
	require.True(t, c.Server().StandIn)
}

func TestBidirectional(t *testing.T) {
	c := newPair(t).dial(t)
	for _, op := range Ops {
		if op == RPC {
			continue
		}
		cs := Case{Op: op, Size: 8, Count: 200, QPs: 2, Bidirectional: true}
		s, err := c.Run(t.Context(), cs)
		require.NoError(t, err, op)
		require.Equal(t, int64(400), s.Messages, op)
	}
}

func TestByTime(t *testing.T) {
	c := newPair(t).dial(t)
	for _, cs := range []Case{
		{Op: Send, Size: 4096, Duration: 50 * time.Millisecond},
		{Op: Write, Size: 1 << 18, Duration: 50 * time.Millisecond, Bidirectional: true},
		{Op: Read, Mode: Latency, Size: 64, Duration: 50 * time.Millisecond},
		{Op: RPC, Size: 100, Depth: 8, Duration: 50 * time.Millisecond},
		{Op: RPC, Size: 100_000, Depth: 3, Duration: 50 * time.Millisecond},
	} {
		s, err := c.Run(t.Context(), cs)
		require.NoError(t, err, cs)
		require.GreaterOrEqual(t, s.Seconds, 0.05, cs)
		require.Positive(t, s.Messages, cs)
	}
}
