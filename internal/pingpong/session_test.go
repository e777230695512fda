package pingpong

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/verbs"
)

const patience = 20 * time.Second

// two are a client's and a server's device on a network in memory.
type two struct {
	net            *rdmatest.Network
	a, b           *rdmatest.Device
	client, server *Device
}

func newTwo(t *testing.T) *two {
	t.Helper()
	n := rdmatest.NewNetwork(t, 1)
	w := &two{net: n, a: n.Device(t), b: n.Device(t)}
	open := func(d *rdmatest.Device) *Device {
		p, err := Open(Config{Config: endpoint.Config{Context: d.Context, GIDIndex: -1}})
		require.NoError(t, err)
		return p
	}
	w.client, w.server = open(w.a), open(w.b)
	return w
}

// session connects over a pipe; what the server says of it comes from the channel.
func (w *two) session(t *testing.T, o Options) (*Client, <-chan Session, error) {
	t.Helper()
	here, there := net.Pipe()
	left := make(chan Session, 1)
	go func() { left <- w.server.ServeConn(t.Context(), there) }()
	c, err := w.client.Connect(t.Context(), here, o)
	return c, left, err
}

func ping(t *testing.T, c interface {
	Ping(context.Context) (time.Duration, error)
}, limit time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	rtt, err := c.Ping(ctx)
	if err == nil {
		require.Positive(t, rtt)
	}
	return err
}

func TestSessions(t *testing.T) {
	w := newTwo(t)
	for _, poll := range []bool{false, true} {
		w.client.poll, w.server.poll = poll, poll
		for _, o := range []Options{{Size: 1}, {Size: 100_000}, {Size: 1, Transport: UD}, {Size: 4096, Transport: UD}} {
			c, left, err := w.session(t, o)
			require.NoError(t, err, o)
			for range 5 {
				require.NoError(t, ping(t, c, patience), o)
			}
			require.NoError(t, c.Close())
			s := <-left
			require.NoError(t, s.Err)
			require.Equal(t, o.Size, s.Size)
		}
	}
	_, _, err := w.session(t, Options{Size: 4097, Transport: UD})
	require.ErrorContains(t, err, "not longer than the port's MTU")
	_, _, err = w.session(t, Options{Size: 1, Transport: "uc"})
	require.ErrorContains(t, err, `no transport "uc"`)
}

// A datagram that is lost is counted, and the next one is not taken for it.
func TestDatagramsAreLost(t *testing.T) {
	w := newTwo(t)
	c, left, err := w.session(t, Options{Size: 64, Transport: UD})
	require.NoError(t, err)
	require.NoError(t, ping(t, c, patience))
	w.net.Partition(w.a, w.b)
	err = ping(t, c, 50*time.Millisecond)
	require.ErrorIs(t, err, ErrLost)
	w.net.Heal(w.a, w.b)
	require.NoError(t, ping(t, c, patience))
	w.net.SetFaults(rdmatest.Faults{Duplicate: 1})
	for range 20 {
		require.NoError(t, ping(t, c, patience), "answers that come twice")
	}
	require.NoError(t, c.Close())
	require.NoError(t, (<-left).Err)
}

// stepOf is the step that an error names.
func stepOf(t *testing.T, err error) string {
	t.Helper()
	var s *endpoint.StepError
	require.ErrorAs(t, err, &s)
	return s.Step
}

func TestRetryIsNamed(t *testing.T) {
	w := newTwo(t)
	c, left, err := w.session(t, Options{Size: 64, Hasty: true})
	require.NoError(t, err)
	require.NoError(t, ping(t, c, patience))
	w.net.Partition(w.a, w.b)
	err = ping(t, c, patience)
	require.Equal(t, "retry", stepOf(t, err))
	require.ErrorContains(t, err, "retry exceeded")
	require.NoError(t, c.Close())
	<-left
}

// The queue pair of a peer that posts no receives.
func TestRNRIsNamed(t *testing.T) {
	w := newTwo(t)
	o := Options{Size: 64, Transport: RC, MTU: verbs.MTU4096, Hasty: true}
	end := func(d *Device) *end {
		gid, err := d.SelectGID(netip.Addr{}, verbs.GID{})
		require.NoError(t, err)
		e, err := d.newEnd(gid, o, rcSlots)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, e.close()) })
		return e
	}
	a, b := end(w.client), end(w.server)
	require.NoError(t, a.connect(b.hello()))
	require.NoError(t, b.connect(a.hello()))
	require.NoError(t, a.postSend(outSlot, 64, 1))
	_, err := a.wait(t.Context())
	require.Error(t, err)
	err = endpoint.Step("ping", err)
	require.Equal(t, "rnr", stepOf(t, err))
	require.ErrorContains(t, err, "no receive buffer")
}

// narrow makes a network that drops packets with more than so many bytes.
func narrow(w *two, from, to *rdmatest.Device, bytes int) {
	w.net.SetFaultsFrom(from, to, rdmatest.Faults{Bandwidth: 1 << 40, Queue: bytes})
}

func TestDiscoverMTU(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit func(*two)
		want  verbs.MTU
		where string
	}{
		{"wide", func(*two) {}, verbs.MTU4096, ""},
		{"narrow there", func(w *two) { narrow(w, w.a, w.b, 1500) }, verbs.MTU1024, "on the way there"},
		{"narrow back", func(w *two) { narrow(w, w.b, w.a, 2500) }, verbs.MTU2048, "on the way back"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTwo(t)
			c.limit(w)
			var left []<-chan Session
			dial := func(o Options) (*Client, error) {
				cl, l, err := w.session(t, o)
				left = append(left, l)
				return cl, err
			}
			var tried []Probe
			m, err := w.client.DiscoverMTU(t.Context(), dial, func(p Probe) { tried = append(tried, p) })
			require.NoError(t, err)
			require.Equal(t, c.want, m)
			require.Len(t, tried, int(verbs.MTU4096-c.want)+1)
			for _, p := range tried[:len(tried)-1] {
				require.Error(t, p.Err)
				require.Contains(t, p.Where, c.where)
			}
			require.NoError(t, tried[len(tried)-1].Err)
			for _, l := range left {
				<-l
			}
		})
	}
	w := newTwo(t)
	w.net.Partition(w.a, w.b)
	var left []<-chan Session
	_, err := w.client.DiscoverMTU(t.Context(), func(o Options) (*Client, error) {
		c, l, err := w.session(t, o)
		left = append(left, l)
		return c, err
	}, func(Probe) {})
	require.ErrorContains(t, err, "not even packets with 256 bytes")
	for _, l := range left {
		<-l
	}
}

// Through the connection manager: connections, datagrams, calls; and refusals.
func TestConnectionManager(t *testing.T) {
	w := newTwo(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	ready := make(chan struct{}, 2)
	left := make(chan Session, 10)
	serve := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				t.Errorf("serving: %v", err)
				ready <- struct{}{}
			}
		})
	}
	serve(func() error {
		return w.server.ServeCM(ctx, 700, func() { ready <- struct{}{} }, func(s Session) { left <- s })
	})
	serve(func() error { return w.server.ServeRPC(ctx, ":702", func() { ready <- struct{}{} }) })
	<-ready
	<-ready
	addr := func(port int) string { return net.JoinHostPort(w.b.Addr().String(), strconv.Itoa(port)) }
	for _, tr := range []Transport{RC, UD} {
		c, err := w.client.DialCM(t.Context(), addr(700), Options{Size: 3000, Transport: tr})
		require.NoError(t, err, tr)
		for range 5 {
			require.NoError(t, ping(t, c, patience), tr)
		}
		require.NoError(t, c.Close())
		if tr == RC {
			s := <-left
			require.NoError(t, s.Err)
			require.Equal(t, 5, s.Echoed)
		}
	}
	for _, size := range []int{1, 2048, 2049, 300_000} {
		c, err := w.client.DialRPC(t.Context(), addr(702), size)
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, ping(t, c, patience), size)
		}
		require.NoError(t, c.Close())
	}

	_, err := w.client.DialCM(t.Context(), addr(701), Options{Size: 1})
	require.Equal(t, "cm", stepOf(t, err))
	require.ErrorContains(t, err, "zrdma ping --serve")
	e := w.client.prepare(Options{Size: 1, Transport: RC}, rcSlots)
	e.o.Size = MaxSize + 1 // a client that asks for more than it may
	_, err = w.client.dialRC(t.Context(), netip.AddrPortFrom(w.b.Addr(), 700), e.o)
	var r Refused
	require.ErrorAs(t, refusal(err), &r)
	require.True(t, Misfit(refusal(err)))

	far, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	w.net.Partition(w.a, w.b)
	_, err = w.client.DialCM(far, addr(700), Options{Size: 1})
	require.Equal(t, "cm", stepOf(t, err))
	require.True(t, errors.Is(err, context.DeadlineExceeded), "%v", err)
	w.net.Heal(w.a, w.b)
	cancel()
	wg.Wait()
}
