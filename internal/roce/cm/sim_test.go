package cm

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
)

var (
	simSeeds = flag.Int("cm.seeds", 60, "how many simulations to run")
	simSeed  = flag.Uint64("cm.seed", 0, "run only this one")
)

// A simulation connects, uses and ends connections over a network that loses,
// repeats and delays. Each attempt ends in exactly one way on each side, the two
// sides agree as far as they can, and nothing is left.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		synctest.Test(t, func(t *testing.T) { simulate(t, *simSeed) })
		return
	}
	for seed := range uint64(*simSeeds) {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("-cm.seed=%d", seed+1)
				}
			}()
			simulate(t, seed+1)
		})
	}
}

type sim struct {
	t    *testing.T
	loss float64
	mu   sync.Mutex
	rnd  *rand.Rand // guarded by mu
	ends map[string]int
}

func (s *sim) chance(p float64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rnd.Float64() < p
}

func (s *sim) delay(max time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.rnd.Int64N(int64(max)))
}

func (s *sim) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends[what]++
}

func (s *sim) via(_, _ netip.Addr, _ mad, deliver func()) {
	for again := true; again; again = s.chance(0.1) {
		if !s.chance(s.loss) {
			time.AfterFunc(s.delay(300*time.Millisecond), deliver)
		}
	}
}

func simulate(t *testing.T, seed uint64) {
	s := &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), ends: map[string]int{}}
	s.loss = s.rnd.Float64() * 0.6
	if seed%8 == 0 {
		s.loss = 1
	}
	n := newNetwork()
	n.set(s.via)
	a, b := n.host(t, "10.0.0.1", "fd00::1"), n.host(t, "10.0.0.2", "fd00::2")
	l := b.id(provider.PSTCP)
	require.NoError(t, l.Bind(netip.AddrPortFrom(netip.IPv6Unspecified(), 7)))
	require.NoError(t, l.Listen(4))
	const clients = 20
	var wg, served sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	wg.Go(func() {
		for {
			ev, err := l.ch.Get(ctx, fresh)
			if err != nil {
				return
			}
			p := &peer{id: ev.New.(*id), h: b, ch: newChannel(b.m), cookie: ev.NewCookie}
			require.NoError(t, p.Migrate(p.ch))
			served.Go(func() { s.serve(p) })
		}
	})
	var done sync.WaitGroup
	for i := range clients {
		done.Go(func() { s.dial(a, b.addrs[i%2]) })
	}
	done.Wait()
	served.Wait()
	stop()
	wg.Wait()
	served.Wait()
	l.end()
	n.set(nil)
	a.empty()
	b.empty()
	total := 0
	for k, v := range s.ends {
		if k[:2] == "c " {
			total += v
		}
	}
	require.Equal(t, clients, total, "%v", s.ends)
	if s.loss == 1 {
		require.Equal(t, map[string]int{"c CM_EVENT_UNREACHABLE": clients}, s.ends)
	}
}

// wait takes events until the attempt is over; the rest of them must fit.
func (s *sim) wait(p *peer) provider.CMEventType {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	ev, err := p.ch.Get(ctx, fresh)
	require.NoError(s.t, err, "an attempt that does not end")
	return ev.Type
}

func (s *sim) dial(h *host, to netip.Addr) {
	c := &peer{id: nil, h: h, ch: newChannel(h.m), cookie: fresh()}
	x, err := h.m.CreateID(c.ch, c.cookie, provider.PSTCP)
	require.NoError(s.t, err)
	c.id = x.(*id)
	defer c.end()
	require.NoError(s.t, c.ResolveAddr(netip.AddrPort{}, netip.AddrPortFrom(to, 7), 1))
	c.next(provider.CMEventAddrResolved)
	require.NoError(s.t, c.ResolveRoute(1))
	c.next(provider.CMEventRouteResolved)
	q := c.makeQP()
	if s.chance(0.1) {
		q.mu.Lock()
		q.fail = provider.QPSRTR
		q.mu.Unlock()
	}
	require.NoError(s.t, c.Connect(&params))
	if s.loss < 1 && s.chance(0.1) {
		time.Sleep(s.delay(3 * time.Second))
		s.count("c gave up")
		return
	}
	end := s.wait(c)
	s.count("c " + end.String())
	switch end {
	case provider.CMEventEstablished:
		require.Equal(s.t, provider.QPSRTS, q.get().State)
		s.over(c)
	case provider.CMEventRejected, provider.CMEventUnreachable, provider.CMEventConnectError:
		time.Sleep(time.Second)
		_, err := c.ch.TryGet(fresh)
		require.Error(s.t, err, "something after the end")
	default:
		s.t.Errorf("unexpected %v", end)
	}
}

func (s *sim) serve(p *peer) {
	defer p.end()
	time.Sleep(s.delay(2 * time.Second))
	if s.chance(0.2) {
		if p.Reject(nil) == nil {
			s.count("s rejected")
		}
		return
	}
	p.makeQP()
	if p.Accept(&params) != nil {
		s.count("s gone")
		return
	}
	end := s.wait(p)
	s.count("s " + end.String())
	switch end {
	case provider.CMEventEstablished:
		s.over(p)
	case provider.CMEventDisconnected, provider.CMEventRejected, provider.CMEventUnreachable:
	default:
		s.t.Errorf("unexpected %v", end)
	}
}

// over ends an established connection from either side, or waits for that.
func (s *sim) over(p *peer) {
	ctx, cancel := context.WithTimeout(context.Background(), s.delay(5*time.Second))
	defer cancel()
	ev, err := p.ch.Get(ctx, fresh)
	if err == nil {
		require.Contains(s.t, []provider.CMEventType{provider.CMEventDisconnected, provider.CMEventRejected}, ev.Type)
	}
	if s.chance(0.3) {
		return // without a word
	}
	require.NoError(s.t, p.Disconnect())
	if err != nil {
		require.Contains(s.t, []provider.CMEventType{provider.CMEventDisconnected, provider.CMEventRejected}, s.wait(p))
	}
	require.Equal(s.t, provider.CMEventTimewaitExit, s.wait(p))
}
