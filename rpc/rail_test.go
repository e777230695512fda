package rpc

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/qp"
	"github.com/zrdma/zrdma/rdmatest"
)

// railed is a server and a client of two devices each.
type railed struct {
	*both
	srv, cli [2]*rdmatest.Device
	sds, cds [2]*qp.Device
	hold     chan struct{} // closed: calls of "slow" go on
	held     chan struct{} // a token for each that waits
}

func newRailed(t *testing.T, net *rdmatest.Network, cfg ServerConfig, all bool) *railed {
	r := &railed{hold: make(chan struct{}), held: make(chan struct{}, 16)}
	open := func() (*rdmatest.Device, *qp.Device) {
		dev := net.Device(t)
		d, err := qp.Open(qp.DeviceConfig{Context: dev.Context, Logger: quiet(), Pool: mr.PoolConfig{Canaries: true, RegionSize: 4 << 20, Limit: 64 << 20, Classes: []int{4096, 65536, 1 << 20}}})
		require.NoError(t, err)
		return dev, d
	}
	for i := range 2 {
		r.srv[i], r.sds[i] = open()
		r.cli[i], r.cds[i] = open()
	}
	cfg.Device, cfg.Rails, cfg.Logger = r.sds[0], r.sds[1:], quiet()
	s, err := NewServer(cfg)
	require.NoError(t, err)
	r.both = &both{t: t, net: net, done: make(chan error, 1), s: s, sd: r.sds[0], cd: r.cds[0], rs: r.srv[0], rc: r.cli[0]}
	echo(s)
	get := s.methods[MethodID("get")].h
	s.Handle("slow", func(ctx context.Context, c *ServerCall) error {
		r.held <- struct{}{}
		select {
		case <-r.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
		return get(ctx, c)
	})
	addr := r.srv[0].Addr().String() + ":7471"
	if all {
		addr += ", " + r.srv[1].Addr().String() + ":7471"
	}
	l, err := s.Listen(t.Context(), addr)
	require.NoError(t, err)
	r.addr = l.Addr()
	go func() { r.done <- s.Serve(l) }()
	return r
}

func (r *railed) dial(cfg Config) *Client {
	cfg.Device, cfg.Rails, cfg.Logger = r.cds[0], r.cds[1:], quiet()
	c, err := Dial(ctxFor(r.t), r.addr, cfg)
	require.NoError(r.t, err)
	return c
}

func (r *railed) close(cl ...*Client) {
	for _, c := range cl {
		require.NoError(r.t, c.Close())
	}
	require.NoError(r.t, r.s.Close())
	require.NoError(r.t, <-r.done)
	for i := range 2 {
		for _, d := range []*qp.Device{r.sds[i], r.cds[i]} {
			st := d.Pool().Stats()
			require.Zero(r.t, st.Damaged+uint64(st.Leaked))
			for _, k := range st.Classes {
				require.Equal(r.t, k.Slots, k.Free)
			}
			require.NoError(r.t, d.Close()) // the first one first: its memory is registered with the other
		}
	}
}

// await waits, in virtual time, until the rails of the client are as they should.
func (r *railed) await(c *Client, want ...RailState) {
	r.t.Helper()
	for range 6000 {
		ok := true
		for i, s := range c.Rails() {
			ok = ok && s.State == want[i]
		}
		if ok {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatalf("after a minute: %+v; want %v", c.Rails(), want)
}

// carried is how many bytes of packets went between two devices.
func (r *railed) carried(a, b *rdmatest.Device) (n int) {
	for _, p := range r.net.Log() {
		if p.From == a.Addr() && p.To == b.Addr() || p.From == b.Addr() && p.To == a.Addr() {
			n += p.Len
		}
	}
	return n
}

func (r *railed) get(c *Client, method string, n int, opts ...Option) error {
	buf, err := r.cd.Pool().Get(ctxFor(r.t), n)
	require.NoError(r.t, err)
	p, err := buf.Bytes()
	require.NoError(r.t, err)
	clear(p)
	rep, err := c.Call(ctxFor(r.t), method, []byte{7}, append(opts, ReadInto(buf))...)
	if err != nil {
		return err
	}
	defer rep.Release()
	buf = rep.Buf(0)
	p, err = buf.Bytes()
	require.NoError(r.t, err)
	require.Equal(r.t, n, len(p))
	for i := range p {
		if p[i] != 7+byte(i) {
			r.t.Fatalf("byte %d of %d is wrong", i, n)
		}
	}
	require.Equal(r.t, n, rep.Pushed)
	return buf.Release()
}

func (r *railed) put(c *Client, n int, opts ...Option) error {
	buf, err := r.cd.Pool().Get(ctxFor(r.t), n)
	require.NoError(r.t, err)
	p, err := buf.Bytes()
	require.NoError(r.t, err)
	var sum byte
	for i := range p {
		p[i] = byte(i * 7)
		sum += p[i]
	}
	rep, err := c.Call(ctxFor(r.t), "put", nil, append(opts, WriteFrom(buf))...)
	if err != nil {
		return err
	}
	require.Equal(r.t, sum, rep.Body[0])
	rep.Release()
	return nil
}

// A buffer of twice Stripe goes half over one rail and half over the other; a
// smaller one over one of them.
func TestRailsStripe(t *testing.T) {
	for _, shared := range []int{0, 1000} {
		virtual(t, func(t *testing.T, net *rdmatest.Network) {
			r := newRailed(t, net, ServerConfig{SharedReceives: shared, Config: Config{MaxCalls: 16}}, false)
			c := r.dial(Config{DataQPs: 2, MaxCalls: 16})
			r.await(c, RailUp, RailUp)
			for _, f := range []func(*Client, int) error{
				func(c *Client, n int) error { return r.get(c, "get", n) },
				func(c *Client, n int) error { return r.put(c, n) },
			} {
				for _, n := range []int{1, 256 << 10, 256<<10 + 1, 1<<20 - 5, 1 << 20} {
					a, b := r.carried(r.srv[0], r.cli[0]), r.carried(r.srv[1], r.cli[1])
					require.NoError(t, f(c, n), n)
					a, b = r.carried(r.srv[0], r.cli[0])-a, r.carried(r.srv[1], r.cli[1])-b
					if n >= 256<<10 {
						require.InDelta(t, n/2, a, float64(n/8+8192), "of %d", n)
						require.InDelta(t, n/2, b, float64(n/8+8192), "of %d", n)
					}
				}
			}
			require.Zero(t, r.carried(r.srv[0], r.cli[1])+r.carried(r.srv[1], r.cli[0]), "the i-th device talks to the i-th")
			none := r.dial(Config{Stripe: -1, MaxCalls: 16})
			r.await(none, RailUp, RailUp)
			for range 4 { // whole, in turn
				require.NoError(t, r.get(none, "get", 1<<20))
			}
			for _, s := range none.Rails() {
				require.Equal(t, uint64(2<<20), s.Bytes)
			}
			r.close(c, none)
		})
	}
}

// A rail that is lost costs no session, and no idempotent call; it comes back.
func TestRailLost(t *testing.T) {
	for lost := range 2 {
		for _, mode := range []BulkMode{Push, Pull, Auto} {
			virtual(t, func(t *testing.T, net *rdmatest.Network) {
				r := newRailed(t, net, ServerConfig{}, false)
				c := r.dial(Config{Bulk: mode, DevicePushes: 1})
				r.await(c, RailUp, RailUp)
				net.Partition(r.srv[lost], r.cli[lost])
				start := time.Now()
				for range 8 { // the first finds out
					require.NoError(t, r.get(c, "get", 1<<20, Idempotent()))
					require.NoError(t, r.put(c, 1<<20, Idempotent()))
					require.NoError(t, r.get(c, "get", 100, Idempotent()))
					rep, err := c.Call(ctxFor(t), "echo", []byte("x"), Idempotent())
					require.NoError(t, err)
					rep.Release()
				}
				require.Less(t, time.Since(start), 5*time.Second)
				require.Equal(t, uint64(1), c.Stats().Sessions)
				require.Equal(t, uint64(1), c.Rails()[lost].Lost)
				require.Error(t, c.Rails()[lost].Err)
				require.NotEqual(t, RailUp, c.Rails()[lost].State)
				for range 4 { // not a try of it, and it has no part in what goes well
					require.NoError(t, r.get(c, "get", 1<<20))
				}
				net.Heal(r.srv[lost], r.cli[lost])
				r.await(c, RailUp, RailUp)
				require.NoError(t, r.get(c, "get", 1<<20))
				require.NoError(t, r.put(c, 1<<20))
				require.Equal(t, uint64(2), c.Rails()[lost].Joined)
				require.Equal(t, uint64(1), c.Stats().Sessions)
				time.Sleep(5 * time.Second)
				r.close(c)
			})
		}
	}
}

// A rail dies under a call that the server has begun: a call that may not be done
// twice is indeterminate, another is done again, and the memory of both is safe.
func TestRailDiesMidCall(t *testing.T) {
	for lost := range 2 {
		for _, again := range []bool{false, true} {
			virtual(t, func(t *testing.T, net *rdmatest.Network) {
				r := newRailed(t, net, ServerConfig{}, false)
				c := r.dial(Config{})
				r.await(c, RailUp, RailUp)
				ended := make(chan error, 2)
				for range 2 { // on either rail is the home of one
					go func() {
						var o []Option
						if again {
							o = append(o, Idempotent())
						}
						ended <- r.get(c, "slow", 1<<20, o...)
					}()
					<-r.held
				}
				net.Partition(r.srv[lost], r.cli[lost])
				time.Sleep(10 * time.Millisecond)
				close(r.hold)
				for range 2 {
					err := <-ended
					if again {
						require.NoError(t, err)
					} else {
						require.ErrorIs(t, err, ErrIndeterminate)
					}
				}
				require.Equal(t, uint64(1), c.Stats().Sessions)
				require.NoError(t, r.get(c, "get", 1<<20))
				net.Heal(r.srv[lost], r.cli[lost])
				r.await(c, RailUp, RailUp)
				time.Sleep(5 * time.Second)
				r.close(c)
			})
		}
	}
}

// What a dead device had is dead on both sides, also if it died on one only.
func TestRailDeviceFails(t *testing.T) {
	for side := range 2 {
		virtual(t, func(t *testing.T, net *rdmatest.Network) {
			r := newRailed(t, net, ServerConfig{}, false)
			c := r.dial(Config{})
			r.await(c, RailUp, RailUp)
			d := [2]*qp.Device{r.sds[1], r.cds[1]}[side]
			for _, x := range d.Conns() {
				_ = x.Close() // as at a fatal event
			}
			for range 8 {
				require.NoError(t, r.get(c, "get", 1<<20, Idempotent()))
			}
			require.Equal(t, uint64(1), c.Stats().Sessions)
			r.await(c, RailUp, RailUp)
			require.Equal(t, uint64(1), c.Rails()[1].Lost)
			r.close(c)
		})
	}
}

// Both rails lost is the end of the session; with addresses of both devices the
// next one begins where a way is.
func TestRailsAllLost(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		r := newRailed(t, net, ServerConfig{}, true)
		c := r.dial(Config{DialTimeout: 2 * time.Second})
		r.await(c, RailUp, RailUp)
		for i := range 2 {
			net.Partition(r.srv[i], r.cli[i])
		}
		_, err := c.Call(ctxFor(t), "echo", nil)
		require.ErrorIs(t, err, ErrIndeterminate)
		r.await(c, RailUnused, RailUnused)
		net.Heal(r.srv[1], r.cli[1]) // and not the first
		rep, err := c.Call(ctxFor(t), "echo", nil, WaitForServer())
		require.NoError(t, err)
		rep.Release()
		require.NoError(t, r.get(c, "get", 1<<20))
		require.NotEqual(t, RailUp, c.Rails()[0].State)
		require.Equal(t, RailUp, c.Rails()[1].State)
		net.Heal(r.srv[0], r.cli[0])
		r.await(c, RailUp, RailUp)
		require.NoError(t, r.get(c, "get", 1<<20))
		require.Equal(t, uint64(2), c.Stats().Sessions)
		r.close(c)
	})
}

// A server that closes, or a client, says so over rails too: nobody waits until it
// is found out.
func TestRailsClose(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		r := newRailed(t, net, ServerConfig{}, false)
		c := r.dial(Config{DeadAfter: 20 * time.Second})
		r.await(c, RailUp, RailUp)
		start := time.Now()
		require.NoError(t, c.Close())
		for r.s.Stats().Open > 0 {
			time.Sleep(time.Millisecond)
		}
		c = r.dial(Config{DeadAfter: 20 * time.Second, NoReconnect: true})
		r.await(c, RailUp, RailUp)
		require.NoError(t, r.s.Close())
		for c.Rails()[0].State == RailUp {
			time.Sleep(time.Millisecond)
		}
		require.Less(t, time.Since(start), 5*time.Second)
		_, err := c.Call(ctxFor(t), "echo", nil)
		require.True(t, errors.Is(err, ErrUnavailable) || errors.Is(err, ErrIndeterminate), err)
		r.close(c)
	})
}

// A peer with one device, or of version 1.0, has no rails, and all works.
func TestRailsOneSided(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		r := newRailed(t, net, ServerConfig{}, false)
		c, err := Dial(ctxFor(t), r.addr, Config{Device: r.cds[0], Logger: quiet()})
		require.NoError(t, err)
		require.NoError(t, r.get(c, "get", 1<<20))
		require.NoError(t, r.put(c, 1<<20))
		require.Len(t, c.Rails(), 1)
		require.Equal(t, uint64(2<<20), c.Rails()[0].Bytes)
		r.close(c)
	})
}

// What JOIN and its kin say is checked, and costs at most the session.
func TestBadJoin(t *testing.T) {
	virtual(t, func(t *testing.T, net *rdmatest.Network) {
		r := newRailed(t, net, ServerConfig{}, false)
		good := r.dial(Config{})
		r.await(good, RailUp, RailUp)
		e := r.endpoint()
		for name, x := range map[string]struct {
			h    header
			body []byte
			ends bool
		}{
			"no endpoints":     {header{typ: msgJoin, id: railID(1, 1)}, joinBody(1, 1, nil), false},
			"half an endpoint": {header{typ: msgJoin, id: railID(1, 1)}, joinBody(1, 1, []qp.Endpoint{e})[:30], false},
			"other devices":    {header{typ: msgJoin, id: railID(1, 1)}, joinBody(0, 1, []qp.Endpoint{e}), false},
			"the only one":     {header{typ: msgJoin, id: railID(0, 1)}, joinBody(0, 0, []qp.Endpoint{e}), false},
			"no such rail":     {header{typ: msgJoin, id: railID(2, 1)}, joinBody(0, 0, []qp.Endpoint{e}), true},
			"another epoch":    {header{typ: msgJoin, id: railID(1, 1), epoch: 9}, joinBody(1, 1, []qp.Endpoint{e}), true},
		} {
			s := r.stranger()
			s.self.rails = 2
			_, err := s.shake()
			require.NoError(t, err, name)
			for _, c := range []*qp.Conn{s.c, s.data[0]} {
				s.send(c, header{typ: msgReady, epoch: 1}, []byte("ready"))
			}
			m, err := s.recv()
			require.NoError(t, err, name)
			require.Equal(t, msgReady, m.typ)
			if x.h.epoch == 0 {
				x.h.epoch = 1
			}
			s.send(s.c, x.h, x.body)
			m, err = s.recv()
			if x.ends {
				require.True(t, err != nil || m.typ == msgClose, name)
			} else {
				require.NoError(t, err, name)
				require.Equal(t, msgJoined, m.typ, name)
				require.NotZero(t, m.flags&flagError, name)
			}
			s.close()
		}
		// A rail that is joined and never gets ready is given up.
		s := r.stranger()
		s.self.rails = 2
		_, err := s.shake()
		require.NoError(t, err)
		for _, c := range []*qp.Conn{s.c, s.data[0]} {
			s.send(c, header{typ: msgReady, epoch: 1}, []byte("ready"))
		}
		_, err = s.recv()
		require.NoError(t, err)
		before := len(r.sds[1].Conns())
		for i := range uint32(5) {
			s.send(s.c, header{typ: msgJoin, id: railID(1, i+1), epoch: 1}, joinBody(1, 1, []qp.Endpoint{e}))
			m, err := s.recv()
			require.NoError(t, err)
			require.Equal(t, msgJoined, m.typ)
		}
		require.LessOrEqual(t, len(r.sds[1].Conns()), before+2)
		time.Sleep(10 * time.Second)
		require.Equal(t, before, len(r.sds[1].Conns()))
		s.close()
		require.NoError(t, r.get(good, "get", 1<<20))
		require.Equal(t, uint64(1), good.Stats().Sessions)
		r.close(good)
	})
}

// endpoint is that of a queue pair which does not answer.
func (r *railed) endpoint() qp.Endpoint {
	p, err := r.cds[1].Prepare(netip.Addr{}, strangeConfig())
	require.NoError(r.t, err)
	defer p.Close()
	return p.Local()
}
