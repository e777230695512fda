package mr

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/verbs"
)

// fakeDev is a device that registers anything, up to a limit, and counts.
type fakeDev struct {
	provider.Context
	keys      atomic.Uint32
	mrs, mws  atomic.Int64
	limit     atomic.Int64 // bytes; 0: none
	pinned    atomic.Int64
	noWindows bool
	noBind    bool // registrations with AccessMWBind are refused
	mu        sync.Mutex
	regErr    error // of the next registrations
	deregErr  error
	mwErr     error // of dealloc
}

func (d *fakeDev) Info() provider.DeviceInfo     { return provider.DeviceInfo{Name: "fake0"} }
func (d *fakeDev) Interrupt()                    {}
func (d *fakeDev) Close() error                  { return nil }
func (d *fakeDev) AllocPD() (provider.PD, error) { return &fakePD{d: d}, nil }

type fakePD struct {
	provider.PD
	d *fakeDev
}

func (p *fakePD) Close() error { return nil }

func (p *fakePD) RegMR(addr, length, _ uint64, _ bool, a provider.AccessFlags) (provider.MR, error) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if p.d.regErr != nil {
		return nil, p.d.regErr
	}
	if p.d.noBind && a&provider.AccessMWBind != 0 {
		return nil, syscall.EINVAL
	}
	if l := p.d.limit.Load(); l > 0 && p.d.pinned.Load()+int64(length) > l {
		return nil, syscall.ENOMEM
	}
	p.d.pinned.Add(int64(length))
	p.d.mrs.Add(1)
	return &fakeMR{d: p.d, n: int64(length), key: p.d.keys.Add(1) << 8}, nil
}

func (p *fakePD) AllocMW(t provider.MWType) (provider.MW, error) {
	if p.d.noWindows {
		return nil, syscall.EOPNOTSUPP
	}
	p.d.mws.Add(1)
	return &fakeMW{d: p.d, key: provider.RKey(p.d.keys.Add(1) << 8)}, nil
}

type fakeMR struct {
	d   *fakeDev
	n   int64
	key uint32
}

func (m *fakeMR) Handle() uint64      { return uint64(m.key) }
func (m *fakeMR) LKey() provider.LKey { return provider.LKey(m.key) }
func (m *fakeMR) RKey() provider.RKey { return provider.RKey(m.key) }
func (m *fakeMR) Close() error {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	if m.d.deregErr != nil {
		return m.d.deregErr
	}
	m.d.pinned.Add(-m.n)
	m.d.mrs.Add(-1)
	return nil
}

type fakeMW struct {
	d   *fakeDev
	key provider.RKey
}

func (w *fakeMW) Handle() uint64          { return uint64(w.key) }
func (w *fakeMW) RKey() provider.RKey     { return w.key }
func (w *fakeMW) SetRKey(k provider.RKey) { w.key = k }
func (w *fakeMW) Close() error {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if w.d.mwErr != nil {
		return w.d.mwErr
	}
	w.d.mws.Add(-1)
	return nil
}

// fake is a domain of a fakeDev; at the end nothing of it may be left.
func fake(t testing.TB) (*fakeDev, *verbs.PD) {
	d := &fakeDev{}
	return d, d.pd(t)
}

func (d *fakeDev) pd(t testing.TB) *verbs.PD { return wrap(t, d, d) }

// wrap makes a domain of c, which counts in d.
func wrap(t testing.TB, c provider.Context, d *fakeDev) *verbs.PD {
	t.Helper()
	pd, err := bridge.Context(c).(*verbs.Context).AllocPD()
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, pd.Close())
		require.Zero(t, d.mrs.Load(), "regions left")
		require.Zero(t, d.mws.Load(), "windows left")
	})
	return pd
}
