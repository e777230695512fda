package rdmatest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/verbs"
	"github.com/zrdma/zrdma/verbs/rdmacm"
)

// exchange sends n messages from client to server and back and compares them.
func exchange(t testing.TB, client, server *rdmacm.Conn, n, size int) {
	t.Helper()
	type end struct {
		c      *rdmacm.Conn
		tx, rx *verbs.MR
	}
	var ends [2]end
	for i, c := range []*rdmacm.Conn{client, server} {
		var err error
		e := end{c: c}
		e.tx, err = c.PD.RegMR(make([]byte, size), verbs.AccessLocalWrite)
		require.NoError(t, err)
		e.rx, err = c.PD.RegMR(make([]byte, size), verbs.AccessLocalWrite)
		require.NoError(t, err)
		ends[i] = e
		defer e.tx.Close()
		defer e.rx.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := rand.New(rand.NewPCG(1, uint64(size)))
	for i := range n {
		from, to := ends[i&1], ends[1-i&1]
		for k := range from.tx.Bytes() {
			from.tx.Bytes()[k] = byte(r.Uint32())
		}
		_, err := to.c.QP.PostRecv([]verbs.RecvWR{{ID: 1, SGList: []verbs.SGE{to.rx.SGE(0, size)}}})
		require.NoError(t, err)
		_, err = from.c.QP.PostSend([]verbs.SendWR{{ID: 2, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: []verbs.SGE{from.tx.SGE(0, size)}}})
		require.NoError(t, err)
		for _, c := range []*rdmacm.Conn{from.c, to.c} {
			var wc [1]verbs.WC
			k, err := c.SendCQ.Wait(ctx, wc[:], verbs.SpinAdaptive)
			require.NoError(t, err)
			require.Equal(t, 1, k)
			require.NoError(t, verbs.WCErr(&wc[0]))
		}
		require.True(t, bytes.Equal(from.tx.Bytes(), to.rx.Bytes()), "message %d", i)
	}
}

var harsh = rdmatest.Faults{Drop: 0.03, Duplicate: 0.03, Corrupt: 0.02, Reorder: 0.05, Delay: 200 * time.Microsecond, Jitter: time.Millisecond}

func TestFaultsInVirtualTime(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rdmatest.Run(t, seed, func(t *testing.T, net *rdmatest.Network) {
				client, server := rdmatest.Connect(t, net.Device(t), net.Device(t), rdmacm.DialConfig{})
				net.SetFaults(harsh)
				exchange(t, client, server, 20, 40_000)
				net.SetFaults(rdmatest.Faults{})
				fates := ""
				for _, p := range net.Log() {
					fates += p.Fate + " "
				}
				for _, f := range []string{"dropped", "duplicated", "corrupted", "reordered", "delayed"} {
					require.Contains(t, fates, f)
				}
			})
		})
	}
}

func TestFaultsInRealTime(t *testing.T) {
	net := rdmatest.NewNetwork(t, 3)
	client, server := rdmatest.Connect(t, net.Device(t), net.Device(t), rdmacm.DialConfig{AckTimeout: 12})
	net.SetFaults(rdmatest.Faults{Drop: 0.02, Duplicate: 0.02, Corrupt: 0.02, Reorder: 0.05})
	exchange(t, client, server, 20, 40_000)
}

// run is a run whose every step is the seed's and the test's.
func run(t *testing.T, seed uint64) []string {
	var lines []string
	rdmatest.Run(t, seed, func(t *testing.T, net *rdmatest.Network) {
		client, server := rdmatest.Connect(t, net.Device(t), net.Device(t), rdmacm.DialConfig{})
		net.SetFaults(harsh)
		exchange(t, client, server, 30, 10_000)
		net.SetFaults(rdmatest.Faults{})
		for _, p := range net.Log() {
			lines = append(lines, p.String())
		}
	})
	return lines
}

func TestSameSeedSameRun(t *testing.T) {
	first := run(t, 11)
	require.Greater(t, len(first), 100)
	for range 3 {
		require.Equal(t, first, run(t, 11))
	}
	require.NotEqual(t, first, run(t, 12), "another seed is another run")
}

// Several goroutines are one run as well, when they begin at instants of their own.
func TestSameSeedSameRunInParallel(t *testing.T) {
	once := func() (lines []string) {
		rdmatest.Run(t, 11, func(t *testing.T, net *rdmatest.Network) {
			a, b := net.Device(t), net.Device(t)
			var wg sync.WaitGroup
			for i := range 4 {
				client, server := rdmatest.Connect(t, a, b, rdmacm.DialConfig{})
				wg.Go(func() {
					time.Sleep(time.Second + time.Duration(i)*time.Microsecond)
					net.SetFaults(harsh)
					exchange(t, client, server, 20, 10_000)
				})
			}
			wg.Wait()
			net.SetFaults(rdmatest.Faults{})
			for _, p := range net.Log() {
				lines = append(lines, p.String())
			}
		})
		return lines
	}
	first := once()
	for range 5 {
		require.Equal(t, first, once())
	}
}

// A minute of the connection manager's patience, and the retries of a queue pair,
// cost no time.
func TestPartition(t *testing.T) {
	real := time.Now()
	rdmatest.Run(t, 1, func(t *testing.T, net *rdmatest.Network) {
		a, b := net.Device(t), net.Device(t)
		client, server := rdmatest.Connect(t, a, b, rdmacm.DialConfig{})
		l, err := b.Listen(t.Context(), 0, rdmacm.ListenConfig{})
		require.NoError(t, err)
		defer l.Close()

		net.Partition(a, b)
		start := time.Now()
		_, err = a.Dial(t.Context(), l.Addr(), rdmacm.DialConfig{})
		var ce *rdmacm.ConnectError
		require.ErrorAs(t, err, &ce)
		require.Equal(t, rdmacm.EventUnreachable, ce.Event)
		require.Greater(t, time.Since(start), 10*time.Second)

		// A partition that heals in time is a delay.
		time.AfterFunc(30*time.Millisecond, func() { net.Heal(a, b) })
		exchange(t, client, server, 2, 100)

		// One direction only: the message arrives, its acknowledgement does not.
		net.Cut(b, a)
		_, err = server.QP.PostRecv([]verbs.RecvWR{{ID: 1}})
		require.NoError(t, err)
		_, err = client.QP.PostSend([]verbs.SendWR{{ID: 2, Opcode: verbs.WRSend, Flags: verbs.SendSignaled}})
		require.NoError(t, err)
		var wc [1]verbs.WC
		_, err = server.RecvCQ.Wait(t.Context(), wc[:], verbs.SpinAdaptive)
		require.NoError(t, err)
		require.NoError(t, verbs.WCErr(&wc[0]))
		_, err = client.SendCQ.Wait(t.Context(), wc[:], verbs.SpinAdaptive)
		require.NoError(t, err)
		require.Equal(t, verbs.WCRetryExcErr, wc[0].Status)
	})
	require.Less(t, time.Since(real), time.Minute)
}

// Faults of one direction leave the other alone, and change while traffic runs.
func TestDirections(t *testing.T) {
	rdmatest.Run(t, 5, func(t *testing.T, net *rdmatest.Network) {
		a, b := net.Device(t), net.Device(t)
		client, server := rdmatest.Connect(t, a, b, rdmacm.DialConfig{})
		net.SetFaultsFrom(a, b, rdmatest.Faults{Drop: 0.2})
		exchange(t, client, server, 10, 20_000)
		from, to := 0, 0
		for _, p := range net.Log() {
			if p.Fate == "dropped" && p.From == a.Addr() {
				from++
			} else if p.Fate == "dropped" {
				to++
			}
		}
		require.Positive(t, from)
		require.Zero(t, to)

		// 1 MB/s: what is sent takes its time.
		net.SetFaults(rdmatest.Faults{Bandwidth: 1_000_000})
		start := time.Now()
		exchange(t, client, server, 1, 100_000)
		require.Greater(t, time.Since(start), 100*time.Millisecond)
		require.Less(t, time.Since(start), 150*time.Millisecond)
		net.SetFaults(rdmatest.Faults{Delay: 40 * time.Millisecond})
		start = time.Now()
		exchange(t, client, server, 1, 100)
		require.GreaterOrEqual(t, time.Since(start), 80*time.Millisecond)
	})
}

// Chaos: what it does is changed all the time while several pairs play.
func TestChangesUnderTraffic(t *testing.T) {
	net := rdmatest.NewNetwork(t, 9)
	a, b := net.Device(t), net.Device(t)
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-done:
				net.SetFaults(rdmatest.Faults{})
				net.Heal(a, b)
				return
			case <-time.After(2 * time.Millisecond):
			}
			switch i % 4 {
			case 0:
				net.SetFaults(rdmatest.Faults{Drop: 0.05, Reorder: 0.1})
			case 1:
				net.SetFaultsFrom(b, a, rdmatest.Faults{Duplicate: 0.2, Corrupt: 0.05})
			case 2:
				net.Partition(a, b)
			case 3:
				net.Heal(a, b)
			}
		}
	}()
	for range 3 {
		client, server := rdmatest.Connect(t, a, b, rdmacm.DialConfig{AckTimeout: 14})
		exchange(t, client, server, 20, 20_000)
	}
	close(done)
	<-stopped
}

// recorder is a test whose failures are wanted.
type recorder struct {
	exampleT
	said   strings.Builder
	failed bool
}

func (r *recorder) Failed() bool    { return r.failed }
func (r *recorder) Log(args ...any) { fmt.Fprintln(&r.said, args...) }
func (r *recorder) Errorf(f string, args ...any) {
	r.failed = true
	fmt.Fprintf(&r.said, f+"\n", args...)
}

// What was left open is told with the stack that made it, and a failed test prints
// its packets.
func TestLeakAndLog(t *testing.T) {
	r := &recorder{}
	net := rdmatest.NewNetwork(r, 1)
	a, b := net.Device(r), net.Device(r)
	pd, err := a.AllocPD()
	require.NoError(t, err)
	client, server := rdmatest.Connect(t, a, b, rdmacm.DialConfig{})
	exchange(t, client, server, 3, 100)
	require.NoError(t, client.Close())
	require.NoError(t, server.Close())
	r.end()
	require.True(t, r.failed)
	s := r.said.String()
	require.Contains(t, s, "is still in use")
	require.Contains(t, s, "verbs.PD created at")
	require.Contains(t, s, "TestLeakAndLog")
	require.Contains(t, s, "10.0.0.1 > 10.0.0.2 #")
	require.Contains(t, s, "SEND")
	require.NoError(t, pd.Close())
	require.NoError(t, a.Close())

	clean := &recorder{}
	net = rdmatest.NewNetwork(clean, 1)
	net.Device(clean)
	clean.end()
	require.False(t, clean.failed, clean.said.String())
	require.Empty(t, clean.said.String())
}

func TestDeviceAddresses(t *testing.T) {
	net := rdmatest.NewNetwork(t, 1)
	a, b := net.Device(t), net.Device(t)
	require.Equal(t, "soft:10.0.0.1,fd00:7a72:646d::1", a.Name())
	require.Equal(t, "soft:10.0.0.2,fd00:7a72:646d::2", b.Name())
	require.Equal(t, "fd00:7a72:646d::2", b.Addr6().String())
	for _, d := range []*rdmatest.Device{a, b} {
		g, err := d.SelectGID(1, d.Addr6())
		require.NoError(t, err)
		require.Equal(t, d.Addr6(), g.GID.Addr())
	}
	again := a.Open(t)
	require.Equal(t, a.Name(), again.Name())
	require.NoError(t, again.Close())
	// Two networks have the same addresses and do not meet.
	other := rdmatest.NewNetwork(t, 1)
	require.Equal(t, a.Name(), other.Device(t).Name())
}

func TestFaultsOutOfRange(t *testing.T) {
	net := rdmatest.NewNetwork(t, 1)
	for _, f := range []rdmatest.Faults{{Drop: -0.1}, {Corrupt: 1.5}, {Delay: -1}, {Bandwidth: -5}} {
		require.Panics(t, func() { net.SetFaults(f) })
	}
}

// Without the end of a wait, virtual time would not end it either: a context does.
func TestWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := rdmatest.NewVirtualNetwork(t, 1)
		client, _ := rdmatest.Connect(t, net.Device(t), net.Device(t), rdmacm.DialConfig{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		_, err := client.RecvCQ.Wait(ctx, make([]verbs.WC, 1), verbs.SpinAdaptive)
		require.True(t, errors.Is(err, context.DeadlineExceeded), "%v", err)
		require.GreaterOrEqual(t, time.Since(start), time.Hour)
	})
}

// A loop of polls makes time pass as well, though it never blocks.
func TestPollInVirtualTime(t *testing.T) {
	rdmatest.Run(t, 2, func(t *testing.T, net *rdmatest.Network) {
		a, b := net.Device(t), net.Device(t)
		client, server := rdmatest.Connect(t, a, b, rdmacm.DialConfig{})
		net.SetFaults(rdmatest.Faults{Delay: 50 * time.Millisecond})
		start := time.Now()
		_, err := server.QP.PostRecv([]verbs.RecvWR{{ID: 1}})
		require.NoError(t, err)
		_, err = client.QP.PostSend([]verbs.SendWR{{ID: 2, Opcode: verbs.WRSend, Flags: verbs.SendSignaled}})
		require.NoError(t, err)
		for _, q := range []*verbs.CQ{server.RecvCQ, client.SendCQ} {
			var wc [1]verbs.WC
			for n := 0; n == 0; {
				n, err = q.Poll(wc[:])
				require.NoError(t, err)
				require.Less(t, time.Since(start), time.Minute)
			}
			require.NoError(t, verbs.WCErr(&wc[0]))
		}
		require.GreaterOrEqual(t, time.Since(start), 100*time.Millisecond)
	})
}

// What a test forgot does not hang its bubble: it is told like any other failure.
func TestLeakInVirtualTime(t *testing.T) {
	r := &recorder{}
	synctest.Test(t, func(t *testing.T) {
		net := rdmatest.NewVirtualNetwork(r, 1)
		a, b := net.Device(r), net.Device(r)
		l, err := b.Listen(t.Context(), 0, rdmacm.ListenConfig{})
		require.NoError(t, err)
		accepted := make(chan *rdmacm.Conn, 1)
		go func() {
			c, _ := l.Accept(context.Background())
			accepted <- c
		}()
		c, err := a.Dial(t.Context(), l.Addr(), rdmacm.DialConfig{})
		require.NoError(t, err)
		server := <-accepted
		net.Partition(a, b) // and work under way, to be retried
		_, err = c.QP.PostSend([]verbs.SendWR{{ID: 2, Opcode: verbs.WRSend}})
		require.NoError(t, err)
		r.end()
		require.True(t, r.failed)
		require.Contains(t, r.said.String(), "rdmacm.EventChannel created at")
		forgotten = append(forgotten, c, server, l, a, b)
	})
}

// forgotten outlives its bubble, where nothing of it can be closed any more: it is
// kept from the collector, which would report it.
var forgotten []io.Closer
