package roce

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/rc"
)

func bindReq(w *mw, m *mr, tag uint8, addr, length uint64, a provider.AccessFlags) *provider.WR {
	wr := &provider.WR{Opcode: provider.WRBindMW, MW: w.Handle(), RKey: w.RKey()&^0xff | provider.RKey(tag),
		BindAddr: addr, BindLength: length, BindAccess: a}
	if m != nil {
		wr.MR = m.Handle()
	}
	return wr
}

func can(v rc.Memory, k provider.RKey, va uint64, n uint32, a provider.AccessFlags) bool {
	_, ok := v.Remote(k, va, n, a)
	return ok
}

func TestWindowBounds(t *testing.T) {
	c := objects(false)
	p := newPD(t, c)
	b := page()
	m := reg(t, p, b, lw|rw|rr|bindF)
	v := c.n.mem.view(p, 7)
	for _, typ := range []provider.MWType{provider.MWType1, provider.MWType2} {
		w := window(t, p, typ)
		k := w.RKey()&^0xff | 0x5a
		require.False(t, can(v, w.RKey(), addrOf(b), 1, rr), "not bound")
		require.True(t, v.Bind(bindReq(w, m, 0x5a, addrOf(b)+1000, 100, rr)))
		require.True(t, can(v, k, addrOf(b)+1000, 100, rr))
		require.False(t, can(v, k, addrOf(b)+1000, 101, rr))
		require.False(t, can(v, k, addrOf(b)+999, 1, rr), "of the region, not of the window")
		require.False(t, can(v, k, addrOf(b)+1000, 1, rw), "the region has the right, the window has not")
		require.False(t, can(v, k^1, addrOf(b)+1000, 1, rr), "another tag")
		_, ok := v.Local(provider.LKey(k), addrOf(b)+1000, 1, false)
		require.False(t, ok, "a window is no local key")
		require.Equal(t, syscall.EINVAL, m.Close(), "a window is bound")
		code, err := m.Rereg(provider.ReregMRChangeAccess, nil, 0, 0, lw)
		require.Equal(t, syscall.EBUSY, err)
		require.Equal(t, int(provider.ReregMRErrInput), code)
		require.NoError(t, w.Close())
		require.False(t, can(v, k, addrOf(b)+1000, 1, rr))
	}
	require.NoError(t, m.Close())
	require.NoError(t, p.Close())
}

func TestBindRefusals(t *testing.T) {
	c := objects(false)
	p, q := newPD(t, c), newPD(t, c)
	b := page()
	m, plain, ro := reg(t, p, b, lw|rw|rr|ra|bindF), reg(t, p, b, lw|rw|rr), reg(t, p, b, rr|bindF)
	foreign := reg(t, q, b, lw|rw|bindF)
	at := addrOf(b)
	v := c.n.mem.view(p, 7)
	for _, typ := range []provider.MWType{provider.MWType1, provider.MWType2} {
		w, fw := window(t, p, typ), window(t, q, typ)
		for name, wr := range map[string]*provider.WR{
			"region of another domain":     bindReq(w, foreign, 1, at, 8, rr),
			"window of another domain":     bindReq(fw, m, 1, at, 8, rr),
			"region not for binding":       bindReq(w, plain, 1, at, 8, rr),
			"writes of a read-only region": bindReq(w, ro, 1, at, 8, rw),
			"atomics of such a one":        bindReq(w, ro, 1, at, 8, ra),
			"begins before":                bindReq(w, m, 1, at-1, 8, rr),
			"ends behind":                  bindReq(w, m, 1, at+4090, 8, rr),
			"wraps":                        bindReq(w, m, 1, at+8, ^uint64(0)-4, rr),
			"local write":                  bindReq(w, m, 1, at, 8, lw|rr),
			"no region":                    bindReq(w, nil, 1, at, 8, rr),
			"a region for a window":        {MW: m.Handle(), MR: m.Handle(), BindAddr: at, BindLength: 8},
			"a window for a region":        {MW: w.Handle(), MR: fw.Handle(), BindAddr: at, BindLength: 8},
			"no such window":               {MW: w.Handle() + 1<<32, MR: m.Handle(), BindAddr: at, BindLength: 8},
		} {
			require.False(t, v.Bind(wr), "type %d: %s", typ, name)
		}
		require.False(t, can(v, w.RKey()&^0xff|1, at, 1, rr))
	}
	require.NoError(t, m.Close(), "a refused bind leaves nothing behind")
	gone := bindReq(window(t, p, provider.MWType1), m, 1, at, 8, rr)
	require.False(t, v.Bind(gone), "a region that was closed")
	require.NoError(t, foreign.Close())
}

func TestWindowType1(t *testing.T) {
	c := objects(false)
	p := newPD(t, c)
	b := page()
	m := reg(t, p, b, lw|rw|rr|bindF)
	at := addrOf(b)
	w := window(t, p, provider.MWType1)
	v, other := c.n.mem.view(p, 7), c.n.mem.view(p, 8)
	require.False(t, v.Bind(bindReq(w, m, 1, at, 8, rr|zb)), "zero based is for type 2")

	// ibv_bind_mw goes through bindWR, which picks the next key.
	wr, err := w.bindWR(m, 3, provider.SendSignaled, at, 100, rr)
	require.NoError(t, err)
	require.EqualValues(t, 3, wr.ID)
	require.NotEqual(t, w.RKey(), wr.RKey)
	require.Equal(t, w.RKey()>>8, wr.RKey>>8)
	require.True(t, v.Bind(&wr))
	w.SetRKey(wr.RKey)
	first := w.RKey()
	require.True(t, can(v, first, at, 100, rr))
	require.True(t, can(other, first, at, 100, rr), "any queue pair of the domain")
	require.False(t, v.Invalidate(first, false), "type 1 is unbound by a bind")

	// Bound again while it is bound, it moves.
	wr, err = w.bindWR(m, 4, 0, at+200, 100, rr)
	require.NoError(t, err)
	require.True(t, v.Bind(&wr))
	w.SetRKey(wr.RKey)
	require.False(t, can(v, first, at, 1, rr))
	require.False(t, can(v, w.RKey(), at, 1, rr))
	require.True(t, can(v, w.RKey(), at+200, 100, rr))
	require.Equal(t, syscall.EINVAL, m.Close())

	wr, err = w.bindWR(nil, 5, 0, 0, 0, 0)
	require.NoError(t, err)
	require.True(t, v.Bind(&wr), "a length of 0 unbinds")
	require.False(t, can(v, w.RKey(), at+200, 1, rr))
	require.False(t, can(v, wr.RKey, at+200, 1, rr))
	require.NoError(t, m.Close())

	q := newPD(t, c)
	_, err = w.bindWR(reg(t, q, b, lw|bindF), 6, 0, at, 8, rr)
	require.Equal(t, syscall.EPERM, err)
	_, err = w.bindWR(reg(t, p, b, lw|bindF), 6, 0, at, 8, rr|zb)
	require.Equal(t, syscall.EINVAL, err)
	_, err = window(t, p, provider.MWType2).bindWR(nil, 6, 0, 0, 0, 0)
	require.Equal(t, syscall.EINVAL, err)
	for _, typ := range []provider.MWType{0, 3} {
		_, err = p.AllocMW(typ)
		require.Equal(t, syscall.EINVAL, err)
	}
}

func TestWindowType2(t *testing.T) {
	c := objects(false)
	p := newPD(t, c)
	b := page()
	m := reg(t, p, b, lw|rw|rr|ra|bindF)
	at := addrOf(b)
	w := window(t, p, provider.MWType2)
	v, other := c.n.mem.view(p, 7), c.n.mem.view(p, 8)
	k := func(tag provider.RKey) provider.RKey { return w.RKey()&^0xff | tag }

	require.False(t, v.Invalidate(w.RKey(), false), "not bound")
	require.False(t, v.Bind(bindReq(w, m, 1, at, 0, rr)), "a length of 0")
	require.True(t, v.Bind(bindReq(w, m, 1, at, 100, rr|ra)))
	require.True(t, can(v, k(1), at, 100, rr))
	require.False(t, can(other, k(1), at, 100, rr), "another queue pair")
	_, ok := v.FetchAdd(k(1), at, 1)
	require.True(t, ok)
	_, ok = other.FetchAdd(k(1), at, 1)
	require.False(t, ok)
	require.False(t, v.Bind(bindReq(w, m, 2, at, 100, rr)), "bound already")
	require.True(t, can(v, k(1), at, 100, rr), "and stays so")
	require.False(t, other.Invalidate(k(1), true), "another queue pair")
	require.False(t, v.Invalidate(k(2), true), "another tag")
	require.True(t, v.Invalidate(k(1), true))
	require.False(t, can(v, k(1), at, 1, rr))
	require.False(t, v.Invalidate(k(1), true), "once")

	require.True(t, other.Bind(bindReq(w, m, 2, at, 100, rr)), "the next bind may be another queue pair's")
	require.False(t, can(other, k(1), at, 1, rr), "the key before")
	require.True(t, can(other, k(2), at, 1, rr))
	require.Equal(t, syscall.EINVAL, m.Close())

	// A queue pair that had the window before has no say in it.
	c.n.mem.forgetQP(7)
	require.True(t, can(other, k(2), at, 1, rr))

	// The queue pair goes: so does the window, but not the number's next owner's.
	c.n.mem.forgetQP(8)
	require.False(t, can(other, k(2), at, 1, rr))
	require.False(t, can(c.n.mem.view(p, 8), k(2), at, 1, rr))
	require.Empty(t, c.n.mem.byQP)
	require.NoError(t, m.Close())
}

func TestWindowZeroBased(t *testing.T) {
	c := objects(false)
	p := newPD(t, c)
	b := page()
	m := reg(t, p, b, lw|rw|bindF)
	w := window(t, p, provider.MWType2)
	v := c.n.mem.view(p, 7)
	require.True(t, v.Bind(bindReq(w, m, 9, addrOf(b)+256, 64, rw|zb)))
	k := w.RKey()&^0xff | 9
	d, ok := v.Remote(k, 0, 64, rw)
	require.True(t, ok)
	require.Same(t, &b[256], &d[0])
	require.False(t, can(v, k, 1, 64, rw))
	require.False(t, can(v, k, addrOf(b)+256, 1, rw))
}
