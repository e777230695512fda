package roce

import (
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
)

const (
	lw    = provider.AccessLocalWrite
	rw    = provider.AccessRemoteWrite
	rr    = provider.AccessRemoteRead
	ra    = provider.AccessRemoteAtomic
	bindF = provider.AccessMWBind
	zb    = provider.AccessZeroBased
)

// fakeNet is a network without links.
type fakeNet struct{ virtual bool }

func (f fakeNet) Open(netip.Addr, link.Handler) (link.Link, error) { return nil, syscall.EADDRNOTAVAIL }
func (f fakeNet) Virtual() bool                                    { return f.virtual }

// objects is a device without links and with one context.
func objects(virtual bool) *devCtx { return &devCtx{n: &node{net: fakeNet{virtual}}} }

func newPD(t testing.TB, c *devCtx) *pd {
	t.Helper()
	p, err := c.n.allocPD(c)
	require.NoError(t, err)
	return p
}

func addrOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func reg(t testing.TB, p *pd, b []byte, a provider.AccessFlags) *mr {
	t.Helper()
	m, err := p.RegMR(addrOf(b), uint64(len(b)), 0, false, a)
	require.NoError(t, err)
	return m.(*mr)
}

func window(t testing.TB, p *pd, typ provider.MWType) *mw {
	t.Helper()
	w, err := p.AllocMW(typ)
	require.NoError(t, err)
	return w.(*mw)
}

// page is 4 KiB that is aligned to 8 bytes. It is on the heap: a stack moves when it
// grows, and nothing here pins it.
//
//go:noinline
func page() []byte {
	w := make([]uint64, 512)
	return unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), 4096)
}

func TestRegRefusals(t *testing.T) {
	p := newPD(t, objects(false))
	b := page()
	at := addrOf(b)
	for name, tt := range map[string]struct {
		addr, length, iova uint64
		access             provider.AccessFlags
		want               error
	}{
		"remote write needs local":  {at, 64, at, rw, syscall.EINVAL},
		"remote atomic needs local": {at, 64, at, ra | rr, syscall.EINVAL},
		"zero based":                {at, 64, at, lw | zb, syscall.EOPNOTSUPP},
		"on demand":                 {at, 64, at, lw | provider.AccessOnDemand, syscall.EOPNOTSUPP},
		"huge pages":                {at, 64, at, lw | provider.AccessHugeTLB, syscall.EOPNOTSUPP},
		"flush":                     {at, 64, at, lw | provider.AccessFlushGlobal, syscall.EOPNOTSUPP},
		"unknown bit":               {at, 64, at, lw | 1<<19, syscall.EOPNOTSUPP},
		"empty":                     {at, 0, at, lw, syscall.EINVAL},
		"address wraps":             {^uint64(0) - 10, 64, at, lw, syscall.EINVAL},
		"iova wraps":                {at, 64, ^uint64(0) - 10, lw, syscall.EINVAL},
		"too long":                  {at, 1 << 63, at, lw, syscall.EINVAL},
	} {
		_, err := p.RegMR(tt.addr, tt.length, tt.iova, true, tt.access)
		require.Equal(t, tt.want, err, name)
	}
	m := reg(t, p, b, lw|provider.AccessRelaxedOrdering|1<<29)
	require.NotZero(t, m.LKey())
	require.Equal(t, uint32(m.LKey()), uint32(m.RKey()))
	require.Equal(t, syscall.EBUSY, p.Close())
	require.NoError(t, m.Close())
	require.NoError(t, p.Close())
}

func TestLocal(t *testing.T) {
	c := objects(false)
	p, q := newPD(t, c), newPD(t, c)
	b := page()
	ro, w := reg(t, p, b, 0), reg(t, p, b[100:200], lw)
	foreign := reg(t, q, b, lw)
	m, err := p.RegMR(addrOf(b), 4096, 0x5000, true, lw)
	require.NoError(t, err)
	iova := m.(*mr)
	mw := window(t, p, provider.MWType1)
	v := c.n.mem.view(p, 7)
	for name, tt := range map[string]struct {
		key   provider.LKey
		addr  uint64
		n     uint32
		write bool
		from  int // in b, -1 for a refusal
	}{
		"all":                  {ro.LKey(), addrOf(b), 4096, false, 0},
		"one too many":         {ro.LKey(), addrOf(b), 4097, false, -1},
		"one before":           {ro.LKey(), addrOf(b) - 1, 1, false, -1},
		"last":                 {ro.LKey(), addrOf(b) + 4095, 1, false, 4095},
		"behind":               {ro.LKey(), addrOf(b) + 4096, 1, false, -1},
		"no right to write":    {ro.LKey(), addrOf(b), 1, true, -1},
		"write":                {w.LKey(), addrOf(b) + 100, 100, true, 100},
		"write outside":        {w.LKey(), addrOf(b) + 99, 100, true, -1},
		"another domain":       {foreign.LKey(), addrOf(b), 1, false, -1},
		"another tag":          {ro.LKey() ^ 1, addrOf(b), 1, false, -1},
		"another index":        {ro.LKey() ^ 1<<31, addrOf(b), 1, false, -1},
		"key 0":                {0, addrOf(b), 1, false, -1},
		"nothing needs no key": {0, 0, 0, true, 0},
		"window":               {provider.LKey(mw.RKey()), addrOf(b), 1, false, -1},
		"iova":                 {iova.LKey(), 0x5010, 16, true, 16},
		"iova by address":      {iova.LKey(), addrOf(b), 16, true, -1},
		"address wraps":        {iova.LKey(), ^uint64(0), 0xffffffff, true, -1},
	} {
		got, ok := v.Local(tt.key, tt.addr, tt.n, tt.write)
		require.Equal(t, tt.from >= 0, ok, name)
		if ok && tt.n > 0 {
			require.Same(t, &b[tt.from], &got[0], name)
			require.Len(t, got, int(tt.n), name)
		}
	}
	got, ok := v.Inline(addrOf(b)+5, 10)
	require.True(t, ok)
	require.Same(t, &b[5], &got[0])
}

func TestRemote(t *testing.T) {
	c := objects(false)
	p, q := newPD(t, c), newPD(t, c)
	b := page()
	all, readonly, local := reg(t, p, b, lw|rw|rr|ra), reg(t, p, b, rr), reg(t, p, b, lw)
	foreign := reg(t, q, b, lw|rw|rr)
	v := c.n.mem.view(p, 7)
	for name, tt := range map[string]struct {
		key    provider.RKey
		va     uint64
		n      uint32
		access provider.AccessFlags
		ok     bool
	}{
		"write":          {all.RKey(), addrOf(b), 4096, rw, true},
		"write too long": {all.RKey(), addrOf(b) + 1, 4096, rw, false},
		"read":           {readonly.RKey(), addrOf(b) + 9, 9, rr, true},
		"no right":       {readonly.RKey(), addrOf(b), 1, rw, false},
		"no remote":      {local.RKey(), addrOf(b), 1, rr, false},
		"no remote w":    {local.RKey(), addrOf(b), 1, rw, false},
		"domain":         {foreign.RKey(), addrOf(b), 1, rr, false},
		"nothing":        {12345, 1, 0, rw, true},
	} {
		_, ok := v.Remote(tt.key, tt.va, tt.n, tt.access)
		require.Equal(t, tt.ok, ok, name)
	}
	require.False(t, v.Invalidate(all.RKey(), true), "a region that was registered")
	require.NoError(t, all.Close())
	_, ok := v.Remote(all.RKey(), addrOf(b), 1, rr)
	require.False(t, ok)
}

func TestAtomics(t *testing.T) {
	c := objects(false)
	p := newPD(t, c)
	b := page()
	word := (*uint64)(unsafe.Pointer(&b[8]))
	m, plain := reg(t, p, b, lw|ra), reg(t, p, b, lw|rw|rr)
	odd, err := p.RegMR(addrOf(b)+4, 64, 0x1000, true, lw|ra)
	require.NoError(t, err)
	v := c.n.mem.view(p, 7)
	*word = 5
	old, ok := v.CompareSwap(m.RKey(), addrOf(b)+8, 4, 9)
	require.True(t, ok)
	require.EqualValues(t, 5, old)
	require.EqualValues(t, 5, *word)
	old, ok = v.CompareSwap(m.RKey(), addrOf(b)+8, 5, 9)
	require.True(t, ok)
	require.EqualValues(t, 5, old)
	require.EqualValues(t, 9, *word)
	old, ok = v.FetchAdd(m.RKey(), addrOf(b)+8, ^uint64(0))
	require.True(t, ok)
	require.EqualValues(t, 9, old)
	require.EqualValues(t, 8, *word)
	for name, tt := range map[string]struct {
		key provider.RKey
		va  uint64
	}{
		"misaligned":              {m.RKey(), addrOf(b) + 9},
		"straddles the end":       {m.RKey(), addrOf(b) + 4096 - 4},
		"behind":                  {m.RKey(), addrOf(b) + 4096},
		"no right":                {plain.RKey(), addrOf(b) + 8},
		"aligned only as an iova": {odd.RKey(), 0x1000},
		"aligned only in memory":  {odd.RKey(), 0x1004},
	} {
		_, ok := v.CompareSwap(tt.key, tt.va, 8, 1)
		require.False(t, ok, name)
		_, ok = v.FetchAdd(tt.key, tt.va, 1)
		require.False(t, ok, name)
	}
	require.EqualValues(t, 8, *word)
}

// The keys of a slot differ each time, and a slot rests before it is used again.
func TestKeysAreNotReused(t *testing.T) {
	p := newPD(t, objects(false))
	b := page()
	seen := map[provider.RKey]bool{}
	near := 0
	var last provider.RKey
	for range 5 * reuseAfter {
		m := reg(t, p, b, lw)
		require.False(t, seen[m.RKey()], "key %#x came back", m.RKey())
		if d := int64(m.RKey()>>8) - int64(last>>8); d == 1 || d == -1 {
			near++
		}
		last, seen[m.RKey()] = m.RKey(), true
		require.NoError(t, m.Close())
	}
	require.Less(t, near, reuseAfter, "keys follow each other")
	require.LessOrEqual(t, int(p.n.mem.used), reuseAfter+1+1)

	// Two devices give different keys, two runs of a test the same.
	require.NotEqual(t, reg(t, p, b, lw).RKey(), reg(t, newPD(t, objects(false)), b, lw).RKey())
	require.Equal(t, reg(t, newPD(t, objects(true)), b, lw).RKey(), reg(t, newPD(t, objects(true)), b, lw).RKey())
}

func TestIndexIsAPermutation(t *testing.T) {
	var m memTable
	m.init()
	for pos := uint32(0); pos <= idxMask; pos += 12345 {
		i := (pos*m.mul + m.add) & idxMask
		require.Equal(t, pos, (i-m.add)*m.inv&idxMask)
	}
}

func TestRereg(t *testing.T) {
	c := objects(false)
	p, q := newPD(t, c), newPD(t, c)
	a, b := page(), page()
	m := reg(t, p, a, lw|bindF)
	key := m.RKey()
	v, w := c.n.mem.view(p, 1), c.n.mem.view(q, 1)
	_, ok := v.Remote(key, addrOf(a), 1, rw)
	require.False(t, ok)
	code, err := m.Rereg(provider.ReregMRChangeAccess, nil, 0, 0, lw|rw)
	require.NoError(t, err)
	require.Zero(t, code)
	_, ok = v.Remote(key, addrOf(a), 1, rw)
	require.True(t, ok)
	_, err = m.Rereg(provider.ReregMRChangePd|provider.ReregMRChangeTranslation, q, addrOf(b), 100, 0)
	require.NoError(t, err)
	_, ok = v.Remote(key, addrOf(b), 1, rw)
	require.False(t, ok, "the former domain")
	_, ok = w.Remote(key, addrOf(b)+99, 1, rw)
	require.True(t, ok)
	_, ok = w.Remote(key, addrOf(b)+100, 1, rw)
	require.False(t, ok)
	code, err = m.Rereg(provider.ReregMRChangeAccess, nil, 0, 0, rw)
	require.Equal(t, syscall.EINVAL, err)
	require.Equal(t, int(provider.ReregMRErrInput), code)
	_, ok = w.Remote(key, addrOf(b), 1, rw)
	require.True(t, ok, "a refusal changes nothing")
	require.NoError(t, p.Close())
	require.Equal(t, syscall.EBUSY, q.Close())
}

// After Close returns nothing touches the memory: the race detector looks on.
func TestDeregIsAFence(t *testing.T) {
	c := objects(false)
	p := newPD(t, c)
	v := c.n.mem.view(p, 7)
	for range 200 {
		b := page()
		m := reg(t, p, b, lw|rw|ra)
		key, at := m.RKey(), addrOf(b)
		var wg sync.WaitGroup
		started := make(chan struct{})
		wg.Go(func() {
			for i := 0; ; i++ {
				c.n.mu.Lock()
				d, ok := v.Remote(key, at, 64, rw)
				if ok {
					d[i%64]++
					_, ok = v.FetchAdd(key, at+128, 1)
				}
				c.n.mu.Unlock()
				if i == 3 {
					close(started)
				}
				if !ok {
					return
				}
			}
		})
		<-started
		require.NoError(t, m.Close())
		clear(b)
		require.Zero(t, b[0])
		wg.Wait()
		for i, x := range b {
			require.Zero(t, x, "byte %d", i)
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	c := objects(false)
	p := newPD(t, c)
	b := page()
	m := reg(t, p, b, lw|rw)
	v := c.n.mem.view(p, 7)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		v.Local(m.LKey(), addrOf(b), 64, true)
		v.Remote(m.RKey(), addrOf(b), 64, rw)
	}))
}

func BenchmarkRemote(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := objects(false)
			p := newPD(b, c)
			mem := page()
			var keys []provider.RKey
			for range n {
				keys = append(keys, reg(b, p, mem, lw|rw).RKey())
			}
			v, at := c.n.mem.view(p, 7), addrOf(mem)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, ok := v.Remote(keys[i*7919%n], at, 64, rw); !ok {
					b.Fatal("refused")
				}
			}
		})
	}
}
