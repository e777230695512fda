package perf

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/rdmatest"
)

// long is a case that does not end by itself within the test.
var long = Case{Op: Write, Size: 512, Depth: 4, Signal: 1, Duration: time.Hour}

// under runs a case, calls f when messages go, and returns what became of it.
func under(t *testing.T, ctx context.Context, c *Client, cs Case, f func()) (Sample, error) {
	t.Helper()
	type result struct {
		s   Sample
		err error
	}
	got := make(chan result, 1)
	go func() {
		s, err := c.Run(ctx, cs)
		got <- result{s, err}
	}()
	require.Eventually(t, func() bool { return c.Progress().Messages > 20 }, time.Minute, time.Millisecond)
	require.Positive(t, c.Progress().Elapsed)
	require.Equal(t, int64(0), c.Progress().Bytes%int64(cs.Size))
	f()
	select {
	case r := <-got:
		return r.s, r.err
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
		return Sample{}, nil
	}
}

func partial(t *testing.T, s Sample) {
	t.Helper()
	require.Greater(t, s.Messages, int64(20))
	require.Positive(t, s.Latency.Count)
	require.Positive(t, s.BytesPerSecond)
	require.NotEmpty(t, s.Partial)
}

// Interrupted: both ends finish in order, and the next case can be measured.
func TestInterrupted(t *testing.T) {
	p := newPair(t)
	c := p.dial(t)
	for _, cs := range []Case{long, {Op: Send, Mode: Latency, Size: 8, Count: 1 << 30}, {Op: WriteImm, Size: 8, Bidirectional: true, Count: 1 << 30}, {Op: RPC, Size: 100, Depth: 2, Duration: time.Hour}} {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := under(t, ctx, c, cs, cancel)
		require.ErrorIs(t, err, context.Canceled, cs)
		partial(t, s)
	}
	_, err := c.Run(t.Context(), Case{Op: Read, Size: 8, Count: 5})
	require.NoError(t, err)
}

func TestServerDies(t *testing.T) {
	for _, cs := range []Case{long, {Op: Send, Mode: Latency, Size: 8, Duration: time.Hour}, {Op: Send, Size: 8, Wait: Poll, Bidirectional: true, Duration: time.Hour}} {
		p := newPair(t)
		s, err := under(t, t.Context(), p.dial(t), cs, p.end)
		require.Error(t, err)
		partial(t, s)
	}
}

func TestClientDies(t *testing.T) {
	p := newPair(t)
	for _, cs := range []Case{long, {Op: Send, Mode: Latency, Size: 8, Duration: time.Hour}, {Op: Send, Size: 8, Bidirectional: true, Duration: time.Hour}} {
		c, err := Dial(t.Context(), p.client, p.l.Addr().String(), "test")
		require.NoError(t, err)
		_, err = under(t, t.Context(), c, cs, func() { c.ctl.conn.Close() })
		require.Error(t, err)
		c.Close()
		s := <-p.left
		require.Len(t, s.Cases, 1)
		require.Error(t, s.Err)
	}
	_, err := p.dial(t).Run(t.Context(), Case{Op: Read, Size: 8, Count: 5})
	require.NoError(t, err, "the server is there for the next")
}

// The network between the devices breaks, TCP does not.
func TestPartition(t *testing.T) {
	p := newPair(t)
	s, err := under(t, t.Context(), p.dial(t), long, func() { p.net.Partition(p.a, p.b) })
	var step *endpoint.StepError
	require.ErrorAs(t, err, &step)
	require.Equal(t, "retry", step.Step)
	partial(t, s)
	p.net.Heal(p.a, p.b)
}

// The device is pulled out in the middle: the message says so, and what was
// measured is kept.
func TestDeviceVanishes(t *testing.T) {
	for name, at := range map[string]func(p *pair) *rdmatest.Device{
		"client": func(p *pair) *rdmatest.Device { return p.a },
		"server": func(p *pair) *rdmatest.Device { return p.b },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			s, err := under(t, t.Context(), p.dial(t), long, func() { p.net.Remove(at(p)) })
			require.Error(t, err)
			partial(t, s)
			if name == "client" {
				var step *endpoint.StepError
				require.ErrorAs(t, err, &step)
				require.Equal(t, "device", step.Step)
				require.ErrorIs(t, err, syscall.ENODEV)
				require.ErrorContains(t, err, "has vanished")
			}
		})
	}
}

func TestLossIsSurvived(t *testing.T) {
	p := newPair(t)
	c := p.dial(t)
	s, err := under(t, t.Context(), c, Case{Op: Send, Size: 6000, Depth: 8, Count: 300}, func() { p.net.SetFaults(rdmatest.Faults{Drop: 0.01}) })
	require.NoError(t, err)
	require.Equal(t, int64(300), s.Messages)
}

func TestBusy(t *testing.T) {
	p := newPair(t)
	c := p.dial(t)
	_, err := Dial(t.Context(), p.client, p.l.Addr().String(), "test")
	var busy *BusyError
	require.ErrorAs(t, err, &busy)
	require.ErrorContains(t, err, "busy with 127.0.0.1:")
	require.ErrorContains(t, err, "one client at a time")
	_, err = c.Run(t.Context(), Case{Op: Write, Size: 8, Count: 5})
	require.NoError(t, err, "the first is not disturbed")
	require.Error(t, (<-p.left).Err)
	// One after the other.
	c.ctl.conn.Close()
	require.NoError(t, (<-p.left).Err)
	for range 3 {
		c, err := Dial(t.Context(), p.client, p.l.Addr().String(), "test")
		require.NoError(t, err)
		_, err = c.Run(t.Context(), Case{Op: Write, Size: 8, Count: 5})
		require.NoError(t, err)
		c.Close()
		require.NoError(t, (<-p.left).Err)
	}
}

func TestSettingsDiffer(t *testing.T) {
	p := newPair(t)
	p.server.Rules = Rules{Ops: []Op{Write, Read}, Modes: []Mode{Bandwidth}, Sizes: []int{8, 64}, QPs: 2, Threads: 2, Depth: 16, Batch: 1, Wait: Events, Bidirectional: true}
	good := Case{Op: Read, Mode: Bandwidth, Size: 64, QPs: 2, Threads: 2, Depth: 16, Batch: 1, Bidirectional: true, Count: 10}
	c := p.dial(t)
	for want, change := range map[string]func(*Case){
		"--op is write, read on the server and send on the client":                  func(c *Case) { c.Op = Send },
		"--mode is bandwidth on the server and rate on the client":                  func(c *Case) { c.Mode = Rate },
		"--sizes is [8 64] on the server and 9 on the client":                       func(c *Case) { c.Size = 9 },
		"--qps is 2 on the server and 4 on the client":                              func(c *Case) { c.QPs = 4 },
		"--threads is 2 on the server and 1 on the client":                          func(c *Case) { c.Threads = 1 },
		"--depth is 16 on the server and 17 on the client":                          func(c *Case) { c.Depth = 17 },
		"--batch is 1 on the server and 4 on the client":                            func(c *Case) { c.Batch = 4 },
		"waiting is events on the server and poll on the client":                    func(c *Case) { c.Wait = Poll },
		"--bidirectional is true on the server and false on the client":             func(c *Case) { c.Bidirectional = false },
		"--qps is 2 on the server and 4 on the client; --depth is 16 on the server": func(c *Case) { c.QPs, c.Depth = 4, 8 },
	} {
		cs := good
		change(&cs)
		_, err := c.Run(t.Context(), cs)
		var r *RefusedError
		require.ErrorAs(t, err, &r)
		require.ErrorContains(t, err, "different settings: ")
		require.ErrorContains(t, err, want)
	}
	_, err := c.Run(t.Context(), good)
	require.NoError(t, err, "a refusal does not end the session")
}

func TestServerLimits(t *testing.T) {
	p := newPair(t)
	p.server.MaxMemory = 1 << 20
	c := p.dial(t)
	_, err := c.Run(t.Context(), Case{Op: Write, Size: 1 << 20, Count: 1})
	require.ErrorContains(t, err, "takes 2080 KiB of memory here, and --max-memory is 1 MiB")
	_, err = c.Run(t.Context(), Case{Op: Write, Size: 64, Depth: maxDepth, Count: 1})
	require.ErrorContains(t, err, "work requests on a queue")

	// A client that a later release made, or that means harm.
	raw := func(cs Case, ends int) error {
		conn, err := net.Dial("tcp", p.l.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Write(hello{Min: 1, Max: 9, Release: "later"}.encode())
		require.NoError(t, err)
		_, err = readHello(conn)
		require.NoError(t, err)
		b, err := json.Marshal(map[string]any{"setup": map[string]any{"case": cs, "ends": make([]wend, ends), "later": true}, "later": 1})
		require.NoError(t, err)
		_, err = conn.Write(append(b, '\n'))
		require.NoError(t, err)
		ctl := newControl(conn)
		defer ctl.close()
		_, err = ctl.next(t.Context(), time.Minute)
		return err
	}
	c.Close()
	<-p.left
	for want, f := range map[string]func() error{
		"does not know all of flush":          func() error { return raw(Case{Op: "flush"}, 1) },
		"3 queue pairs were described, not 2": func() error { return raw(Case{Op: Write, Size: 8, QPs: 2}, 3) },
		"a message has 1 byte":                func() error { return raw(Case{Op: Write, Size: -5}, 1) },
		"threads 1000":                        func() error { return raw(Case{Op: Write, Size: 8, Threads: 1000}, 1) },
		"a duration of":                       func() error { return raw(Case{Op: Write, Size: 8, Duration: 1e18}, 1) },
		"queue pair to QPS_RTR":               func() error { return raw(Case{Op: Write, Size: 8}, 1) },
	} {
		err := f()
		require.ErrorContains(t, err, want)
		<-p.left
	}
	_, err = p.dial(t).Run(t.Context(), Case{Op: Write, Size: 8, Count: 1})
	require.NoError(t, err)
}

func TestBadCases(t *testing.T) {
	c := newPair(t).dial(t)
	for want, cs := range map[string]Case{
		"no operation":                  {Op: "flush", Size: 1},
		"no mode":                       {Op: Send, Mode: "fast", Size: 1},
		"no way of waiting":             {Op: Send, Wait: "hope", Size: 1},
		"1 byte to 1 GiB":               {Op: Send, Size: 0},
		"not 1099511627776 bytes":       {Op: Send, Size: 1 << 40},
		"works on 8 bytes":              {Op: CAS, Size: 16},
		"nothing to be bidirectional":   {Op: Send, Mode: Latency, Size: 8, Bidirectional: true},
		"from the client to the server": {Op: RPC, Size: 8, Bidirectional: true},
		"a depth of 1":                  {Op: Send, Mode: Latency, Size: 8, Depth: 4},
		"qps 2: it is 3":                {Op: Send, Size: 8, QPs: 2, Threads: 3},
		"batch 9: it is 1 to 8":         {Op: Send, Size: 8, Depth: 8, Batch: 9},
		"a count of":                    {Op: Send, Size: 8, Count: -1},
	} {
		_, err := c.Run(t.Context(), cs)
		require.ErrorContains(t, err, want)
		require.False(t, errors.As(err, new(*RefusedError)), "found here")
	}
}
