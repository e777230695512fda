package mr

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/rdmatest"
	"github.com/zrdma/zrdma/verbs"
)

var bareQuarantine = flag.Bool("mr.bare", false, "in TestNothingMovesAfterRevoke wait for the quarantine only, not for a grace period: to see what that is worth")

var fenceRounds = flag.Int("mr.rounds", 50, "rounds of each fence in TestNothingMovesAfterRevoke")

// link is two ends that can be connected: two software devices on a network in
// memory, or one device named by ZRDMA_DEVICE, connected to itself.
type link struct {
	a, b   *verbs.Context
	ap, bp *verbs.PD
}

func newLink(t *testing.T) *link {
	t.Helper()
	l := &link{}
	if name := os.Getenv(verbs.EnvDevice); name != "" {
		c, err := verbs.Open(name)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		l.a, l.b = c, c
	} else {
		net := rdmatest.NewNetwork(t, 1)
		l.a, l.b = net.Device(t).Context, net.Device(t).Context
	}
	var err error
	l.ap, err = l.a.AllocPD()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.ap.Close()) })
	l.bp, err = l.b.AllocPD()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.bp.Close()) })
	return l
}

// end is a raw queue pair, as little as a grant needs. It is used by one
// goroutine at a time.
type end struct {
	q    *verbs.QP
	cq   *verbs.CQ
	gid  verbs.GIDEntry
	port uint8
	raze bool // Kill destroys
	mu   sync.Mutex
	id   uint64
}

func newEnd(c *verbs.Context, pd *verbs.PD) (*end, error) {
	port, err := c.ActivePort()
	if err != nil {
		return nil, err
	}
	g, err := c.SelectGID(port, netip.Addr{})
	if err != nil {
		return nil, err
	}
	cq, err := c.CreateCQ(128, nil)
	if err != nil {
		return nil, err
	}
	q, err := pd.CreateQP(verbs.QPConfig{SendCQ: cq, Cap: verbs.QPCap{MaxSendWR: 32, MaxRecvWR: 8, MaxSendSGE: 4, MaxRecvSGE: 1}})
	if err != nil {
		return nil, errors.Join(err, cq.Close())
	}
	return &end{q: q, cq: cq, gid: g, port: port}, nil
}

func (e *end) Close() error { return errors.Join(e.q.Close(), e.cq.Close()) }

func (e *end) up(dest *end) error {
	const rights = verbs.AccessLocalWrite | verbs.AccessRemoteWrite | verbs.AccessRemoteRead
	pa, err := e.q.PD().Context().QueryPort(e.port)
	if err != nil {
		return err
	}
	for _, s := range []struct {
		a    verbs.QPAttr
		mask verbs.QPAttrMask
	}{
		{verbs.QPAttr{State: verbs.QPSInit, PortNum: e.port, AccessFlags: rights},
			verbs.QPAttrState | verbs.QPAttrPKeyIndex | verbs.QPAttrPort | verbs.QPAttrAccessFlags},
		{verbs.QPAttr{State: verbs.QPSRTR, PathMTU: pa.ActiveMTU, DestQPN: dest.q.QPN(), MaxDestRdAtomic: 4, MinRNRTimer: 12,
			AH: verbs.AHAttr{IsGlobal: true, PortNum: e.port, GRH: verbs.GlobalRoute{DGID: dest.gid.GID, SGIDIndex: uint8(e.gid.Index), HopLimit: 64}}},
			verbs.QPAttrState | verbs.QPAttrAV | verbs.QPAttrPathMTU | verbs.QPAttrDestQPN | verbs.QPAttrRQPSN | verbs.QPAttrMaxDestRdAtomic | verbs.QPAttrMinRNRTimer},
		{verbs.QPAttr{State: verbs.QPSRTS, Timeout: 14, RetryCnt: 5, RNRRetry: 6, MaxRdAtomic: 4},
			verbs.QPAttrState | verbs.QPAttrSQPSN | verbs.QPAttrTimeout | verbs.QPAttrRetryCnt | verbs.QPAttrRNRRetry | verbs.QPAttrMaxQPRdAtomic},
	} {
		if err := e.q.Modify(s.a, s.mask); err != nil {
			return err
		}
	}
	return nil
}

// pair connects two new ends.
func (l *link) pair() (a, b *end, err error) {
	if a, err = newEnd(l.a, l.ap); err != nil {
		return
	}
	if b, err = newEnd(l.b, l.bp); err != nil {
		return nil, nil, errors.Join(err, a.Close())
	}
	if err = errors.Join(a.up(b), b.up(a)); err != nil {
		err = errors.Join(err, a.Close(), b.Close())
	}
	return
}

// wait polls for one completion.
func (e *end) wait(d time.Duration) (verbs.WC, error) {
	var wc [1]verbs.WC
	for limit := time.Now().Add(d); ; {
		n, err := e.cq.Poll(wc[:])
		if err != nil {
			return wc[0], err
		}
		if n == 1 {
			return wc[0], nil
		}
		if time.Now().After(limit) {
			return wc[0], fmt.Errorf("no completion within %v", d)
		}
		time.Sleep(20 * time.Microsecond)
	}
}

func (e *end) PD() *verbs.PD { return e.q.PD() }

func (e *end) PostControl(_ context.Context, wr verbs.SendWR, done func(error)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.id++
	wr.ID = e.id
	wr.Flags |= verbs.SendSignaled
	if _, err := e.q.PostSend([]verbs.SendWR{wr}); err != nil {
		return err
	}
	if wr.BindMW != nil {
		wr.BindMW.SetRKey(wr.RKey)
	}
	wc, err := e.wait(20 * time.Second)
	if err == nil {
		err = verbs.WCErr(&wc)
	}
	done(err)
	return nil
}

func (e *end) Kill(ctx context.Context) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.raze {
		return true, e.q.Close()
	}
	return false, e.q.Drain(ctx, nil)
}

// flood writes src, alternating its halves, into all of to until stop is set or
// a write fails; it keeps eight writes under way. It counts the good ones.
func (e *end) flood(src *Region, to Remote, stop *atomic.Bool, good *atomic.Int64) error {
	const depth = 8
	k := src.key(e.q.PD())
	post := func(i int) error {
		_, err := e.q.PostSend([]verbs.SendWR{{ID: uint64(i), Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled, RemoteAddr: to.Addr, RKey: to.RKey,
			SGList: []verbs.SGE{{Addr: k.base + uint64(i%2)*uint64(to.Len), Length: to.Len, LKey: k.lkey}}}})
		return err
	}
	n := 0
	for ; n < depth; n++ {
		if err := post(n); err != nil {
			return err
		}
	}
	for !stop.Load() {
		var wc [depth]verbs.WC
		c, err := e.cq.Poll(wc[:])
		if err != nil {
			return err
		}
		for i := range wc[:c] {
			if err := verbs.WCErr(&wc[i]); err != nil {
				return err
			}
			good.Add(1)
			if err := post(n); err != nil {
				return err
			}
			n++
		}
		if c == 0 {
			time.Sleep(20 * time.Microsecond)
		}
	}
	return nil
}

// fenceKind is a way to take memory back.
type fenceKind struct {
	name   string
	mech   Mechanism
	raze   bool
	access verbs.AccessFlags
	none   bool // the control: memory is reused without a fence
}

var fenceKinds = []fenceKind{
	{name: "window", mech: ByWindow},
	{name: "region", mech: ByRegion},
	{name: "queue pair to ERR", mech: ByQueuePair, access: verbs.AccessLocalWrite | verbs.AccessRemoteWrite},
	{name: "queue pair destroyed", mech: ByQueuePair, raze: true, access: verbs.AccessLocalWrite | verbs.AccessRemoteWrite},
	{name: "none", mech: ByWindow, none: true},
}

// A peer writes and writes into granted memory while the grant is revoked: not a
// byte changes after Revoke has returned. Without the fence they do change.
func TestNothingMovesAfterRevoke(t *testing.T) {
	const size = 64 << 10
	for _, k := range fenceKinds {
		t.Run(k.name, func(t *testing.T) {
			if k.none && raceBuild {
				return // the race detector would rightly object
			}
			l := newLink(t)
			src, err := Alloc(2*size, Config{Huge: HugeOff}, l.ap)
			require.NoError(t, err)
			defer func() { require.NoError(t, src.Close()) }()
			for i := range src.mem {
				src.mem[i] = byte(1 + i/size)
			}
			g, err := NewGranter(l.bp, GranterConfig{Mechanism: k.mech})
			require.NoError(t, err)
			if *bareQuarantine {
				g.settled = timeOnly
			}
			rounds := *fenceRounds
			if k.none {
				rounds = max(10, rounds/20)
			}
			moved, overrun, busy, writes := 0, 0, 0, int64(0)
			r := rand.New(rand.NewPCG(1, 2))
			for round := range rounds {
				m, c, w := l.revokeUnderFire(t, k, g, src, size, time.Duration(r.IntN(1500))*time.Microsecond)
				moved += m
				if m > 0 {
					overrun++
				}
				busy += c
				writes += w
				if t.Failed() {
					t.Fatalf("round %d", round)
				}
			}
			t.Logf("%s: %d rounds, %d writes, in %d rounds bytes changed afterwards, %d in all, %+v", k.name, rounds, writes, overrun, moved, g.Stats())
			require.NoError(t, g.Close())
			if k.none {
				require.NotZero(t, moved, "the test cannot see what it is about")
			} else {
				require.Zero(t, moved)
				require.Equal(t, rounds, busy, "the peer was at it in every round")
			}
		})
	}
}

const reused = 0xEE

// revokeUnderFire is one round, on queue pairs and memory of its own: how many
// bytes changed after the fence, and whether the peer was writing when it began.
func (l *link) revokeUnderFire(t *testing.T, k fenceKind, g *Granter, src *Region, size int, delay time.Duration) (moved, busy int, writes int64) {
	a, b, err := l.pair()
	require.NoError(t, err)
	b.raze = k.raze
	mem, err := Alloc(size, Config{Huge: HugeOff, Access: k.access}, l.bp)
	require.NoError(t, err)
	buf, err := mem.Buf(0, size)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	grant, err := g.Grant(ctx, b, buf, DeviceWrites)
	require.NoError(t, err)

	var stop atomic.Bool
	var good atomic.Int64
	ended := make(chan error, 1)
	go func() { ended <- a.flood(src, grant.Remote(), &stop, &good) }()
	for good.Load() == 0 && ctx.Err() == nil {
		time.Sleep(50 * time.Microsecond)
	}
	require.NotZero(t, good.Load(), "no write arrived")
	time.Sleep(delay)

	select {
	case err := <-ended:
		t.Fatalf("the peer gave up before the fence: %v", err)
	default:
		busy = 1
	}
	view := mem.mem
	if !k.none {
		buf, err = grant.Revoke(ctx)
		require.NoError(t, err)
		view, err = buf.Bytes()
		require.NoError(t, err)
	}
	// The memory is put to a new use, and must keep what is written there.
	for i := range view {
		view[i] = reused
	}
	time.Sleep(3 * time.Millisecond)
	moved = len(view) - bytes.Count(view, []byte{reused})
	if k.none || k.mech == ByQueuePair { // else it learns by itself that its key opens nothing
		stop.Store(true)
	}
	select {
	case err := <-ended:
		require.True(t, stop.Load() || err != nil)
	case <-ctx.Done():
		stop.Store(true)
		t.Error("the peer goes on writing and is not refused")
		<-ended
	}
	if k.none {
		buf, err = grant.Revoke(ctx)
		require.NoError(t, err)
	}
	require.NoError(t, buf.Release())
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())
	require.NoError(t, mem.Close())
	return moved, busy, good.Load()
}

// The window shows its range in its direction to its queue pair, and nothing else.
func TestGrantShowsNothingElse(t *testing.T) {
	l := newLink(t)
	rxe := false
	if _, err := os.Stat(filepath.Join(l.b.SysfsPath(), "parent")); err == nil && l.b.SysfsPath() != "" {
		rxe = true
	}
	g, err := NewGranter(l.bp, GranterConfig{})
	require.NoError(t, err)
	require.Equal(t, ByWindow, g.Mechanism())
	src, err := Alloc(4096, Config{Huge: HugeOff}, l.ap)
	require.NoError(t, err)
	mem, err := Alloc(8192, Config{Huge: HugeOff}, l.bp)
	require.NoError(t, err)
	try := func(op verbs.WROpcode, d Direction, off uint64, n uint32, other bool) verbs.WCStatus {
		t.Helper()
		a, b, err := l.pair()
		require.NoError(t, err)
		c, e, err := l.pair()
		require.NoError(t, err)
		buf, err := mem.Buf(1024, 2048)
		require.NoError(t, err)
		grant, err := g.Grant(t.Context(), b, buf, d)
		require.NoError(t, err)
		to := grant.Remote()
		k := src.key(l.ap)
		from := a
		if other {
			from = c
		}
		_, err = from.q.PostSend([]verbs.SendWR{{Opcode: op, Flags: verbs.SendSignaled, RemoteAddr: to.Addr + off, RKey: to.RKey,
			SGList: []verbs.SGE{{Addr: k.base, Length: n, LKey: k.lkey}}}})
		require.NoError(t, err)
		wc, err := from.wait(20 * time.Second)
		require.NoError(t, err)
		buf, err = grant.Revoke(t.Context())
		require.NoError(t, err)
		require.NoError(t, buf.Release())
		for _, x := range []*end{a, b, c, e} {
			require.NoError(t, x.Close())
		}
		return wc.Status
	}
	require.Equal(t, verbs.WCSuccess, try(verbs.WRRDMAWrite, DeviceWrites, 0, 2048, false))
	require.Equal(t, verbs.WCSuccess, try(verbs.WRRDMARead, DeviceReads, 0, 2048, false))
	require.Equal(t, verbs.WCSuccess, try(verbs.WRRDMARead, DeviceReads, 1000, 1048, false))
	require.Equal(t, verbs.WCRemAccessErr, try(verbs.WRRDMARead, DeviceWrites, 0, 1, false), "the other direction")
	require.Equal(t, verbs.WCRemAccessErr, try(verbs.WRRDMAWrite, DeviceReads, 0, 1, false), "the other direction")
	require.NotEqual(t, verbs.WCSuccess, try(verbs.WRRDMAWrite, DeviceWrites, 0, 1, true), "another queue pair")
	if !rxe { // which looks at the bounds of the region only
		require.Equal(t, verbs.WCRemAccessErr, try(verbs.WRRDMAWrite, DeviceWrites, 1, 2048, false), "past the end")
		require.Equal(t, verbs.WCRemAccessErr, try(verbs.WRRDMARead, DeviceReads, ^uint64(0), 2, false), "before the beginning")
	}
	require.NoError(t, g.Close())
	require.NoError(t, mem.Close())
	require.NoError(t, src.Close())
}
