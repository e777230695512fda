package suite_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/verbs"
)

// env is what a case starts with. Everything it makes is closed at the end of
// the test, children first, and a Close that fails fails the test.
type env struct {
	t        *testing.T
	dev      string // the device's name
	name     string // what ZRDMA_TEST_DEVICE says
	ctx      *verbs.Context
	pd       *verbs.PD
	port     uint8
	gid      verbs.GIDEntry // of the IPv4 address, else the default one
	ip4, ip6 netip.Addr     // of the netdev; ip6 is a global one, invalid when there is none
	netdev   string
	isRXE    bool
	soft     bool // the software device
	memory   bool // the software device on a network in memory
}

func newEnv(t *testing.T, dev string) *env {
	ctx, err := deviceOf(t, dev).Open()
	require.NoError(t, err)
	e := &env{t: t, dev: ctx.Name(), name: dev, ctx: ctx, memory: memoryDevices[dev] != nil}
	e.closeAtEnd(ctx)
	e.port, err = ctx.ActivePort()
	require.NoError(t, err)
	e.soft = isSoft(dev)
	if _, err := os.Stat(filepath.Join(ctx.SysfsPath(), "parent")); err == nil && !e.soft {
		e.isRXE = true
	}
	e.gid, err = ctx.SelectGID(e.port, netip.Addr{})
	require.NoError(t, err)
	if e.soft {
		e.softAddrs()
	} else if ifi, err := net.InterfaceByIndex(int(e.gid.Ifindex)); err == nil {
		e.netdev = ifi.Name
		addrs, _ := ifi.Addrs()
		for _, a := range addrs {
			ip := netip.MustParsePrefix(a.String()).Addr()
			switch {
			case ip.Is4() && !e.ip4.IsValid():
				e.ip4 = ip
			case ip.Is6() && !ip.IsLinkLocalUnicast() && !e.ip6.IsValid():
				e.ip6 = ip
			}
		}
	}
	e.pd, err = ctx.AllocPD()
	require.NoError(t, err)
	e.closeAtEnd(e.pd)
	return e
}

type closer interface{ Close() error }

func (e *env) closeAtEnd(c closer) {
	e.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			e.t.Errorf("Close of %T: %v", c, err)
		}
	})
}

// kernel is the running kernel's release, for instance 6.1.0-44-amd64.
func kernel() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}

// kernelAtLeast compares the running kernel's version.
func kernelAtLeast(major, minor int) bool {
	var a, b int
	for i, f := range strings.SplitN(kernel(), ".", 3) {
		n := 0
		for _, c := range f {
			if c < '0' || c > '9' {
				break
			}
			n = n*10 + int(c-'0')
		}
		if i == 0 {
			a = n
		} else if i == 1 {
			b = n
		}
	}
	return a > major || a == major && b >= minor
}

const allAccess = verbs.AccessLocalWrite | verbs.AccessRemoteWrite | verbs.AccessRemoteRead | verbs.AccessRemoteAtomic

// mem maps n bytes of anonymous memory.
func (e *env) mem(n int) []byte {
	e.t.Helper()
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	require.NoError(e.t, err)
	e.t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

// mr registers n bytes of fresh memory.
func (e *env) mr(n int, access verbs.AccessFlags) *verbs.MR {
	e.t.Helper()
	m, err := e.pd.RegMR(e.mem(n), access)
	require.NoError(e.t, err)
	e.closeAtEnd(m)
	return m
}

func (e *env) cq(n int, cfg *verbs.CQConfig) *verbs.CQ {
	e.t.Helper()
	q, err := e.ctx.CreateCQ(n, cfg)
	require.NoError(e.t, err)
	e.closeAtEnd(q)
	return q
}

func (e *env) channel() *verbs.CompChannel {
	e.t.Helper()
	c, err := e.ctx.CreateCompChannel()
	require.NoError(e.t, err)
	e.closeAtEnd(c)
	return c
}

// qp makes a queue pair with room for 64 requests of 4 elements and 64 bytes
// inline, on a CQ of its own when cfg names none.
func (e *env) qp(cfg verbs.QPConfig) *verbs.QP {
	e.t.Helper()
	if cfg.SendCQ == nil {
		cfg.SendCQ = e.cq(256, nil)
	}
	c := &cfg.Cap
	for _, p := range []struct {
		v *uint32
		d uint32
	}{{&c.MaxSendWR, 64}, {&c.MaxRecvWR, 64}, {&c.MaxSendSGE, 4}, {&c.MaxRecvSGE, 4}, {&c.MaxInlineData, 64}} {
		if *p.v == 0 {
			*p.v = p.d
		}
	}
	if cfg.SRQ != nil {
		c.MaxRecvWR, c.MaxRecvSGE = 0, 0
	}
	q, err := e.pd.CreateQP(cfg)
	require.NoError(e.t, err)
	e.closeAtEnd(q)
	return q
}

// link says how two queue pairs are connected; zero values are the defaults.
type link struct {
	mtu         verbs.MTU         // the port's active MTU
	access      verbs.AccessFlags // allAccess
	psnA, psnB  uint32
	timeout     uint8 // 14
	retry       uint8 // 5; 7 never ends on rxe. 255 means 0
	rnrRetry    uint8 // 7: wait for a receive. 255 means 0
	minRNR      uint8 // 12: 0.64 ms
	rdAtomic    uint8 // 16
	qkey        uint32
	gid         *verbs.GIDEntry
	stopAtInit  bool
	stopAtRTR   bool
	skipConnect bool
}

func (l link) withDefaults(e *env) link {
	def := func(v *uint8, d uint8) {
		switch *v {
		case 0:
			*v = d
		case 255:
			*v = 0
		}
	}
	def(&l.timeout, 14)
	def(&l.retry, 5)
	def(&l.rnrRetry, 7)
	def(&l.minRNR, 12)
	def(&l.rdAtomic, 16)
	if l.access == 0 {
		l.access = allAccess
	}
	if l.mtu == 0 {
		pa, err := e.ctx.QueryPort(e.port)
		require.NoError(e.t, err)
		l.mtu = pa.ActiveMTU
	}
	if l.gid == nil {
		l.gid = &e.gid
	}
	return l
}

// up moves q to RTS, connected to the queue pair of number dest behind gid.
func (e *env) up(q *verbs.QP, dest uint32, dgid verbs.GID, sqPSN, rqPSN uint32, l link) {
	e.t.Helper()
	l = l.withDefaults(e)
	a := verbs.QPAttr{State: verbs.QPSInit, PortNum: e.port, AccessFlags: l.access, QKey: l.qkey}
	mask := verbs.QPAttrState | verbs.QPAttrPKeyIndex | verbs.QPAttrPort
	if q.Type() == verbs.QPTUD {
		mask |= verbs.QPAttrQKey
	} else {
		mask |= verbs.QPAttrAccessFlags
		if q.Type() == verbs.QPTUC {
			a.AccessFlags &= verbs.AccessLocalWrite | verbs.AccessRemoteWrite
		}
	}
	require.NoError(e.t, q.Modify(a, mask))
	if l.stopAtInit {
		return
	}
	a = verbs.QPAttr{State: verbs.QPSRTR}
	mask = verbs.QPAttrState
	if q.Type() != verbs.QPTUD {
		a.PathMTU, a.DestQPN, a.RQPSN = l.mtu, dest, rqPSN
		a.MaxDestRdAtomic, a.MinRNRTimer = l.rdAtomic, l.minRNR
		a.AH = e.ahAttr(dgid, l.gid)
		mask |= verbs.QPAttrAV | verbs.QPAttrPathMTU | verbs.QPAttrDestQPN | verbs.QPAttrRQPSN
		if q.Type() == verbs.QPTRC {
			mask |= verbs.QPAttrMaxDestRdAtomic | verbs.QPAttrMinRNRTimer
		}
	}
	require.NoError(e.t, q.Modify(a, mask))
	if l.stopAtRTR {
		return
	}
	a = verbs.QPAttr{State: verbs.QPSRTS, SQPSN: sqPSN, Timeout: l.timeout, RetryCnt: l.retry, RNRRetry: l.rnrRetry, MaxRdAtomic: l.rdAtomic}
	mask = verbs.QPAttrState | verbs.QPAttrSQPSN
	if q.Type() == verbs.QPTRC {
		mask |= verbs.QPAttrTimeout | verbs.QPAttrRetryCnt | verbs.QPAttrRNRRetry | verbs.QPAttrMaxQPRdAtomic
	}
	require.NoError(e.t, q.Modify(a, mask))
}

// ahAttr is the path to dgid from the GID src.
func (e *env) ahAttr(dgid verbs.GID, src *verbs.GIDEntry) verbs.AHAttr {
	return verbs.AHAttr{IsGlobal: true, PortNum: e.port, GRH: verbs.GlobalRoute{DGID: dgid, SGIDIndex: uint8(src.Index), HopLimit: 64}}
}

// pair is two queue pairs connected to each other over the device.
type pair struct {
	e    *env
	a, b *verbs.QP
}

// pair makes and connects two queue pairs, each with a CQ of its own unless cfg names one.
func (e *env) pair(cfg verbs.QPConfig, l link) *pair {
	e.t.Helper()
	p := &pair{e, e.qp(cfg), e.qp(cfg)}
	if !l.skipConnect {
		e.connect(p.a, p.b, l)
	}
	return p
}

// rc is pair with the defaults.
func (e *env) rc() *pair { return e.pair(verbs.QPConfig{}, link{}) }

// connect moves two queue pairs to RTS, connected to each other.
func (e *env) connect(a, b *verbs.QP, l link) {
	e.t.Helper()
	g := e.gid.GID
	if l.gid != nil {
		g = l.gid.GID
	}
	e.up(a, b.QPN(), g, l.psnA, l.psnB, l)
	e.up(b, a.QPN(), g, l.psnB, l.psnA, l)
}

// waitLimit bounds every wait. A child (child_test.go) that must fail does so soon.
var waitLimit = func() time.Duration {
	if inChild() {
		return 3 * time.Second
	}
	return 20 * time.Second
}()

// poll waits for exactly n completions of q and returns them.
func (e *env) poll(q *verbs.CQ, n int) []verbs.WC {
	e.t.Helper()
	out := e.pollFor(q, n, waitLimit)
	require.Len(e.t, out, n, "completions within %v", waitLimit)
	return out
}

// pollFor collects up to n completions of q until the time is over.
func (e *env) pollFor(q *verbs.CQ, n int, d time.Duration) []verbs.WC {
	e.t.Helper()
	var out []verbs.WC
	wc := make([]verbs.WC, n)
	for end := time.Now().Add(d); len(out) < n; {
		k, err := q.Poll(wc[:n-len(out)])
		require.NoError(e.t, err)
		out = append(out, wc[:k]...)
		if k == 0 {
			if time.Now().After(end) {
				break
			}
			time.Sleep(200 * time.Microsecond)
		}
	}
	return out
}

// ok waits for one completion of q and requires its status and id.
func (e *env) ok(q *verbs.CQ, id uint64, s verbs.WCStatus) verbs.WC {
	e.t.Helper()
	w := e.poll(q, 1)[0]
	require.Equal(e.t, s, w.Status, "completion %+v", w)
	require.Equal(e.t, id, w.WRID)
	return w
}

func (e *env) send(q *verbs.QP, wrs ...verbs.SendWR) {
	e.t.Helper()
	n, err := q.PostSend(wrs)
	require.NoError(e.t, err)
	require.Equal(e.t, len(wrs), n)
}

func (e *env) recv(q interface {
	PostRecv([]verbs.RecvWR) (int, error)
}, wrs ...verbs.RecvWR) {
	e.t.Helper()
	n, err := q.PostRecv(wrs)
	require.NoError(e.t, err)
	require.Equal(e.t, len(wrs), n)
}

// toErr moves q to the error state.
func (e *env) toErr(q *verbs.QP) {
	e.t.Helper()
	require.NoError(e.t, q.Modify(verbs.QPAttr{State: verbs.QPSErr}, verbs.QPAttrState))
}

// fill writes a pattern that depends on seed and position.
func fill(b []byte, seed int) {
	for i := range b {
		b[i] = byte(i*7 + i>>8 + seed*31 + 1)
	}
}

func sgl(s ...verbs.SGE) []verbs.SGE { return s }
