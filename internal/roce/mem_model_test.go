package roce

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/rc"
)

var (
	memSeed  = flag.Uint64("roce.memseed", 0, "replay this seed of TestMemoryModel")
	memSeeds = flag.Uint64("roce.memseeds", 60, "how many seeds TestMemoryModel runs")
)

// The model: what every key is good for, written down as the rules say it, one
// record for each thing that was ever made.
type (
	modelMR struct {
		o        *mr
		pd       int
		access   provider.AccessFlags
		va       uint64
		off, len int // in the arena
		live     bool
	}
	modelMW struct {
		o        *mw
		pd       int
		typ      provider.MWType
		live     bool
		to       *modelMR // nil: not bound
		key      provider.RKey
		access   provider.AccessFlags
		qp       int // of a bound type 2 window
		va       uint64
		off, len int
	}
	model struct {
		t     *testing.T
		r     *rand.Rand
		c     *devCtx
		arena []byte
		pds   [2]*pd
		qps   [4]struct {
			pd  int
			qpn uint32
			v   rc.Memory
		}
		mrs  []*modelMR
		mws  []*modelMW
		keys []provider.RKey // all that were ever seen
	}
)

const arenaLen = 1 << 14

func newModel(t *testing.T, seed uint64) *model {
	m := &model{t: t, r: rand.New(rand.NewPCG(seed, 1)), c: objects(false)}
	w := make([]uint64, arenaLen/8)
	m.arena = unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), arenaLen)
	m.c.n.mem.seed = seed
	for i := range m.pds {
		m.pds[i] = newPD(t, m.c)
	}
	for i := range m.qps {
		m.qps[i].pd, m.qps[i].qpn = i%2, uint32(100+i)
		m.qps[i].v = m.c.n.mem.view(m.pds[i%2], m.qps[i].qpn)
	}
	return m
}

func pick[T any](m *model, s []T) (z T) {
	if len(s) == 0 {
		return z
	}
	return s[m.r.IntN(len(s))]
}

func (m *model) flags(set ...provider.AccessFlags) (a provider.AccessFlags) {
	for _, f := range set {
		if m.r.IntN(3) > 0 {
			a |= f
		}
	}
	return a
}

// forget keeps few things in play, so that they meet: of more than max the oldest
// dead one is no longer chosen.
func forget[T any](s []T, max int, dead func(T) bool) []T {
	if i := slices.IndexFunc(s, dead); len(s) > max && i >= 0 {
		s = slices.Delete(s, i, i+1)
	}
	return s
}

func (m *model) register() {
	m.mrs = forget(m.mrs, 10, func(x *modelMR) bool { return !x.live })
	if len(m.mrs) > 16 {
		return
	}
	x := &modelMR{pd: m.r.IntN(2), access: m.flags(lw, rw, rr, ra, bindF), live: true}
	x.len = 1 + m.r.IntN(600)
	x.off = m.r.IntN(arenaLen - x.len)
	x.va = addrOf(m.arena) + uint64(x.off)
	iova := m.r.IntN(2) == 0
	if iova {
		x.va = uint64(0x10000 + m.r.IntN(1<<16))
	}
	o, err := m.pds[x.pd].RegMR(addrOf(m.arena)+uint64(x.off), uint64(x.len), x.va, iova, x.access)
	if x.access&(rw|ra) != 0 && x.access&lw == 0 {
		require.Error(m.t, err)
		return
	}
	require.NoError(m.t, err)
	x.o = o.(*mr)
	require.NotContains(m.t, m.keys, o.RKey(), "a key of something that lived")
	m.mrs, m.keys = append(m.mrs, x), append(m.keys, o.RKey())
}

func (m *model) deregister() {
	x := pick(m, m.mrs)
	if x == nil || !x.live {
		return
	}
	bound := false
	for _, w := range m.mws {
		bound = bound || w.live && w.to == x
	}
	err := x.o.Close()
	require.Equal(m.t, bound, err != nil, "%v", err)
	x.live = bound
}

func (m *model) makeWindow() {
	m.mws = forget(m.mws, 6, func(x *modelMW) bool { return !x.live })
	if len(m.mws) > 10 {
		return
	}
	x := &modelMW{pd: m.r.IntN(2), typ: provider.MWType1 + provider.MWType(m.r.IntN(2)), live: true}
	x.o = window(m.t, m.pds[x.pd], x.typ)
	x.key = x.o.RKey()
	m.mws, m.keys = append(m.mws, x), append(m.keys, x.key)
}

func (m *model) closeWindow() {
	if x := pick(m, m.mws); x != nil && x.live {
		require.NoError(m.t, x.o.Close())
		x.live, x.to = false, nil
	}
}

func (m *model) bind() {
	w, x, qi := pick(m, m.mws), pick(m, m.mrs), m.r.IntN(len(m.qps))
	if w == nil || x == nil {
		return
	}
	off := m.r.IntN(x.len+8) - 4
	n := m.r.IntN(x.len + 1)
	a := m.flags(rw, rr, ra)
	switch m.r.IntN(6) {
	case 0:
		a |= zb
	case 1:
		a |= m.flags(lw)
	case 2, 3, 4: // as it should be
		qi = qi&^1 | w.pd
		for _, y := range m.mrs {
			if y.live && y.pd == w.pd && y.access&(bindF|lw) == bindF|lw {
				x = y
			}
		}
		off = m.r.IntN(x.len)
		n = 1 + m.r.IntN(x.len-off)
	}
	q := m.qps[qi]
	tag := provider.RKey(m.r.IntN(256))
	wr := provider.WR{MW: w.o.Handle(), MR: x.o.Handle(), RKey: tag, BindAddr: x.va + uint64(off), BindLength: uint64(n), BindAccess: a}
	t1 := w.typ == provider.MWType1
	unbind := t1 && n == 0
	want := w.live && w.pd == q.pd && a&lw == 0 && (a&zb == 0 || !t1)
	if !unbind {
		want = want && n > 0 && (t1 || w.to == nil) && x.live && x.pd == q.pd && x.access&bindF != 0 &&
			off >= 0 && off+n <= x.len && (a&(rw|ra) == 0 || x.access&lw != 0)
	}
	require.Equal(m.t, want, q.v.Bind(&wr), "bind %+v of %+v to %+v by %+v", wr, *w, *x, q)
	if !want {
		return
	}
	w.key = w.key&^0xff | tag
	m.keys = append(m.keys, w.key)
	if unbind {
		w.to = nil
		return
	}
	w.to, w.access, w.qp, w.va, w.off, w.len = x, a&^zb, qi, wr.BindAddr, x.off+off, n
	if a&zb != 0 {
		w.va = 0
	}
}

func (m *model) invalidate() {
	qi, k := m.r.IntN(len(m.qps)), m.aKey()
	if w := pick(m, m.mws); w != nil && m.r.IntN(2) == 0 {
		qi, k = w.qp, w.key
	}
	var hit *modelMW
	for _, w := range m.mws {
		if w.live && w.to != nil && w.key == k && w.typ == provider.MWType2 && w.qp == qi {
			hit = w
		}
	}
	require.Equal(m.t, hit != nil, m.qps[qi].v.Invalidate(k, true), "key %#x", k)
	if hit != nil {
		hit.to = nil
	}
}

// aKey is a key that is or was good, or nearly so.
func (m *model) aKey() provider.RKey {
	k := pick(m, m.keys)
	if w := pick(m, m.mws); w != nil && m.r.IntN(3) == 0 {
		k = w.key
	}
	switch m.r.IntN(8) {
	case 0:
		k ^= 1 << m.r.IntN(8)
	case 1:
		k ^= 1 << m.r.IntN(32)
	}
	return k
}

// span is where in the arena a key leads, or led: the latest record of it.
type span struct {
	va       uint64
	off, len int
}

// grant finds what a key leads to, and whether a queue pair may go there. Where it
// may not it gets the place all the same, so that only rights stand in the way.
func (m *model) grant(k provider.RKey, qi int, a provider.AccessFlags) (at span, ok bool) {
	for _, x := range m.mrs {
		if x.o.RKey() == k {
			return span{x.va, x.off, x.len}, x.live && x.pd == m.qps[qi].pd && x.access&a == a
		}
	}
	for _, w := range m.mws {
		if w.key == k {
			return span{w.va, w.off, w.len}, w.live && w.to != nil && w.pd == m.qps[qi].pd && w.access&a == a && (w.typ == provider.MWType1 || w.qp == qi)
		}
	}
	if x := pick(m, m.mrs); x != nil {
		at = span{x.va, x.off, x.len}
	}
	return at, false
}

// extent is a part of size bytes, often one that ends where they do or a byte later.
func (m *model) extent(size int) (from, n int) {
	from, n = m.r.IntN(size+10)-5, 1+m.r.IntN(size+10)
	if m.r.IntN(2) == 0 {
		n = max(1, size-from+m.r.IntN(2))
	}
	return from, n
}

func (m *model) access() {
	qi, k := m.r.IntN(len(m.qps)), m.aKey()
	v := m.qps[qi].v
	a := pick(m, []provider.AccessFlags{rw, rr, ra})
	x, ok := m.grant(k, qi, a)
	va, off, size := x.va, x.off, x.len
	from, n := m.extent(size)
	if a == ra {
		n = 8
		from &^= 7
	}
	at := va + uint64(from)
	want := ok && from >= 0 && from+n <= size
	if a != ra {
		got, granted := v.Remote(k, at, uint32(n), a)
		require.Equal(m.t, want, granted, "key %#x at %#x+%d for %v by %d", k, at, n, a, qi)
		if granted {
			require.Same(m.t, &m.arena[off+from], &got[0])
			require.Len(m.t, got, n)
		}
		return
	}
	want = want && at%8 == 0 && (off+from)%8 == 0
	before := append([]byte(nil), m.arena...)
	old, granted := v.FetchAdd(k, at, 0x0101_0101_0101_0101)
	require.Equal(m.t, want, granted, "key %#x at %#x for an atomic by %d", k, at, qi)
	if granted {
		word := (*uint64)(unsafe.Pointer(&before[off+from : off+from+8][0]))
		require.Equal(m.t, old, *word)
		*word += 0x0101_0101_0101_0101
	}
	require.Equal(m.t, before, m.arena)
}

func (m *model) local() {
	qi := m.r.IntN(len(m.qps))
	k, write := m.aKey(), m.r.IntN(2) == 0
	need := provider.AccessFlags(0)
	if write {
		need = lw
	}
	x, ok := m.grant(k, qi, need)
	for _, w := range m.mws {
		ok = ok && w.key != k
	}
	va, size := x.va, x.len
	from, n := m.extent(size)
	got, granted := m.qps[qi].v.Local(provider.LKey(k), va+uint64(from), uint32(n), write)
	require.Equal(m.t, ok && from >= 0 && from+n <= size, granted, "key %#x at %d+%d", k, from, n)
	if granted {
		require.Same(m.t, &m.arena[x.off+from], &got[0])
	}
}

func (m *model) loseQP() {
	qi := m.r.IntN(len(m.qps))
	m.c.n.mem.forgetQP(m.qps[qi].qpn)
	for _, w := range m.mws {
		if w.to != nil && w.typ == provider.MWType2 && w.qp == qi {
			w.to = nil
		}
	}
}

// check compares the bookkeeping that no single step shows.
func (m *model) check() {
	windows := map[*modelMR]int{}
	for _, w := range m.mws {
		if w.to != nil {
			windows[w.to]++
		}
	}
	refs := [2]int{}
	for _, x := range m.mrs {
		if x.live {
			require.Equal(m.t, windows[x], x.o.windows)
			refs[x.pd]++
		}
	}
	for _, w := range m.mws {
		if w.live {
			refs[w.pd]++
		}
	}
	for i, p := range m.pds {
		require.Equal(m.t, refs[i], p.refs)
	}
}

// Random registrations, windows, binds and accesses with keys that are good, were
// good or are off by a bit: the table and the model agree on every one.
func TestMemoryModel(t *testing.T) {
	from, n := uint64(1), *memSeeds
	if *memSeed != 0 {
		from, n = *memSeed, 1
	}
	for seed := from; seed < from+n; seed++ {
		m := newModel(t, seed)
		steps := []func(){m.register, m.register, m.deregister, m.makeWindow, m.closeWindow, m.bind, m.bind, m.bind,
			m.invalidate, m.access, m.access, m.access, m.local, m.local}
		ok := t.Run("", func(t *testing.T) {
			m.t = t
			for range 1500 {
				if m.r.IntN(100) == 0 {
					m.loseQP()
				}
				pick(m, steps)()
			}
			m.check()
		})
		if !ok {
			t.Fatalf("replay with -roce.memseed=%d", seed)
		}
	}
}
