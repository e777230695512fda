package verbs

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// fakeRare is any object of a device that has everything rare; fail makes its
// Close fail.
type fakeRare struct {
	handle uint64
	fail   error
	closed int
}

func (f *fakeRare) Handle() uint64       { return f.handle }
func (f *fakeRare) Num() uint32          { return 7 }
func (f *fakeRare) KernelHandle() uint32 { return 5 }
func (f *fakeRare) Close() error {
	if f.fail == nil {
		f.closed++
	}
	return f.fail
}
func (f *fakeRare) ModifyESP(*provider.ESPAttr, []provider.ESPEncap) error { return nil }
func (f *fakeRare) CopyTo(uint64, []byte) error                            { return nil }
func (f *fakeRare) CopyFrom(_ uint64, b []byte) error                      { b[0] = 42; return nil }
func (f *fakeRare) Modify(*provider.WQAttr, provider.WQAttrMask) error     { return nil }
func (f *fakeRare) PostRecv(wr []provider.RecvWR, _ []provider.SGE) (int, error) {
	return len(wr), nil
}

type fakeCounters struct{ fakeRare }

func (*fakeCounters) Attach(provider.CounterDescription, uint32, provider.Flow) error { return nil }
func (*fakeCounters) Read(v []uint64, _ provider.ReadCountersFlags) error             { v[0] = 3; return nil }

type fakeMR struct {
	fakeRare
	code int
	err  error
	got  provider.PD
}

func (*fakeMR) LKey() provider.LKey { return 1 }
func (*fakeMR) RKey() provider.RKey { return 2 }
func (m *fakeMR) Rereg(_ provider.ReregMRFlags, pd provider.PD, _, _ uint64, _ provider.AccessFlags) (int, error) {
	m.got = pd
	return m.code, m.err
}

// plainPD has nothing but the basics, fakePD everything.
type plainPD struct{ provider.PD }

func (plainPD) Close() error { return nil }

type fakePD struct{ plainPD }

func (*fakePD) AllocParentDomain(provider.TD) (provider.PD, error) { return &fakePD{}, nil }
func (*fakePD) RegMR(uint64, uint64, uint64, bool, provider.AccessFlags) (provider.MR, error) {
	return &fakeMR{}, nil
}
func (*fakePD) RegDmabufMR(_, _, _ uint64, _ int, _ provider.AccessFlags) (provider.MR, error) {
	return &fakeMR{}, nil
}
func (*fakePD) AllocNullMR() (provider.MR, error) { return &fakeMR{}, nil }
func (*fakePD) AdviseMR(provider.AdviseMRAdvice, provider.AdviseMRFlags, []provider.SGE) error {
	return nil
}
func (*fakePD) RegDMMR(provider.DM, uint64, uint64, provider.AccessFlags) (provider.MR, error) {
	return &fakeMR{}, nil
}
func (*fakePD) RegMREx(*provider.MRExInit) (provider.MR, error) { return nil, syscall.ENOSYS }

type fakeCQ struct{ provider.CQ }

func (fakeCQ) Close() error { return nil }

type fakeQP struct{ provider.QP }

func (fakeQP) Close() error                             { return nil }
func (fakeQP) CreateFlow([]byte) (provider.Flow, error) { return &fakeRare{}, nil }

// plainCtx is a device without anything rare.
type plainCtx struct{ provider.Context }

func (plainCtx) Info() provider.DeviceInfo                      { return provider.DeviceInfo{Name: "fake0"} }
func (plainCtx) Interrupt()                                     {}
func (plainCtx) Close() error                                   { return nil }
func (plainCtx) AllocPD() (provider.PD, error)                  { return plainPD{}, nil }
func (plainCtx) CreateCQ(*provider.CQInit) (provider.CQ, error) { return fakeCQ{}, nil }
func (plainCtx) CreateQP(*provider.QPInit) (provider.QP, error) { return fakeQP{}, nil }

type fakeCtx struct{ plainCtx }

func (*fakeCtx) AllocPD() (provider.PD, error)                    { return &fakePD{}, nil }
func (*fakeCtx) AllocTD() (provider.TD, error)                    { return &fakeRare{}, nil }
func (*fakeCtx) AllocDM(uint64, uint32) (provider.DM, error)      { return &fakeRare{}, nil }
func (*fakeCtx) OpenXRCD(int, int) (provider.XRCD, error)         { return &fakeRare{}, nil }
func (*fakeCtx) OpenQP(*provider.OpenQPInit) (provider.QP, error) { return fakeQP{}, nil }
func (*fakeCtx) CreateWQ(in *provider.WQInit) (provider.WQ, error) {
	in.MaxWR++
	return &fakeRare{}, nil
}
func (*fakeCtx) CreateCounters() (provider.Counters, error) { return &fakeCounters{}, nil }
func (*fakeCtx) CreateRWQIndTable([]provider.WQ, uint32) (provider.RWQIndTable, error) {
	return &fakeRare{}, nil
}
func (*fakeCtx) CreateFlowActionESP(*provider.ESPAttr, []provider.ESPEncap) (provider.FlowAction, error) {
	return &fakeRare{}, nil
}

func rareCtx(t *testing.T, p provider.Context) (*Context, *PD) {
	before := len(handle.Live())
	t.Cleanup(func() { require.Len(t, handle.Live(), before, "objects left open") })
	c := newContext(p)
	require.NoError(t, c.h.Init("verbs.Context"))
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	d, err := c.AllocPD()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return c, d
}

type closer interface{ Close() error }

// ordered requires that parent cannot close before child, and closes both.
func ordered(t *testing.T, child closer, parents ...closer) {
	t.Helper()
	for _, p := range parents {
		require.ErrorIs(t, p.Close(), ErrInUse, "%T under %T", child, p)
	}
	require.NoError(t, child.Close())
	require.NoError(t, child.Close(), "twice")
}

func TestRareLifeCycle(t *testing.T) {
	c, d := rareCtx(t, &fakeCtx{})
	must := func(err error) { t.Helper(); require.NoError(t, err) }

	td, err := c.AllocTD()
	must(err)
	pd, err := d.AllocParentDomain(td)
	must(err)
	ordered(t, pd, td, d, c)
	ordered(t, td, c)
	_, err = d.AllocParentDomain(td)
	require.ErrorIs(t, err, ErrClosed)

	dm, err := c.AllocDM(64, 0)
	must(err)
	require.ErrorIs(t, dm.CopyTo(60, make([]byte, 5)), syscall.EINVAL)
	require.ErrorIs(t, dm.CopyTo(^uint64(0), make([]byte, 5)), syscall.EINVAL)
	must(dm.CopyTo(60, make([]byte, 4)))
	b := make([]byte, 1)
	must(dm.CopyFrom(0, b))
	require.Equal(t, byte(42), b[0])
	_, err = d.RegDMMR(dm, 32, 33, 0)
	require.ErrorIs(t, err, syscall.EINVAL)
	m, err := d.RegDMMR(dm, 32, 32, 0)
	must(err)
	ordered(t, m, dm, d)
	ordered(t, dm, c)
	require.ErrorIs(t, dm.CopyTo(0, b), ErrClosed)

	x, err := c.OpenXRCD(nil, 0)
	must(err)
	q, err := c.OpenQP(x, 5)
	must(err)
	require.Equal(t, QPTXRCRecv, q.Type())
	ordered(t, q, x, c)
	ordered(t, x, c)
	_, err = c.OpenQP(x, 5)
	require.ErrorIs(t, err, ErrClosed)

	null, err := d.AllocNullMR()
	must(err)
	ordered(t, null, d)
}

func TestRWQIndTable(t *testing.T) {
	c, d := rareCtx(t, &fakeCtx{})
	cq, err := c.CreateCQ(4, nil)
	require.NoError(t, err)
	var wqs []*WQ
	for range 8 { // more than a handle has parents
		w, err := d.CreateWQ(WQConfig{MaxWR: 4, CQ: cq})
		require.NoError(t, err)
		require.Equal(t, uint32(5), w.Config().MaxWR)
		wqs = append(wqs, w)
	}
	n, err := wqs[0].PostRecv([]RecvWR{{ID: 1}, {ID: 2}})
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Same(t, wqs[0], c.lookupOther(wqs[0].cookie))
	_, err = c.CreateRWQIndTable(wqs[:3])
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = c.CreateRWQIndTable([]*WQ{wqs[0], nil})
	require.ErrorIs(t, err, syscall.EINVAL)
	replaced := wqs[1]
	wqs[1] = wqs[0] // twice in the table
	tbl, err := c.CreateRWQIndTable(wqs)
	require.NoError(t, err)
	require.ErrorIs(t, wqs[7].Close(), ErrInUse)
	q, err := d.CreateQP(QPConfig{SendCQ: cq, IndTable: tbl})
	require.NoError(t, err)
	ordered(t, q, tbl)
	tbl.p.(*fakeRare).fail = syscall.EBUSY
	require.ErrorIs(t, tbl.Close(), syscall.EBUSY)
	require.ErrorIs(t, wqs[7].Close(), ErrInUse, "a table that failed to close still holds its queues")
	tbl.p.(*fakeRare).fail = nil
	ordered(t, tbl, wqs[0], wqs[7], c)
	for i, w := range wqs {
		if i != 1 {
			ordered(t, w, cq)
		}
	}
	require.Nil(t, c.lookupOther(wqs[0].cookie))
	require.ErrorIs(t, d.Close(), ErrInUse, "the one that was not in the table")
	require.NoError(t, replaced.Close())
	require.NoError(t, cq.Close())
}

func TestFlowHoldsWhatItUses(t *testing.T) {
	c, d := rareCtx(t, &fakeCtx{})
	cq, err := c.CreateCQ(4, nil)
	require.NoError(t, err)
	q, err := d.CreateQP(QPConfig{SendCQ: cq})
	require.NoError(t, err)
	cnt, err := c.CreateCounters()
	require.NoError(t, err)
	act, err := c.CreateFlowActionESP(ESPConfig{AESGCM: &AESGCM{Key: make([]byte, 32)}})
	require.NoError(t, err)
	for _, bad := range [][]FlowSpec{{nil}, {HandleAction{}}, {CountAction{cnt}, CountAction{}}, make([]FlowSpec, 256)} {
		_, err = q.CreateFlow(FlowConfig{Port: 1, Specs: bad})
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Zero(t, cnt.h.Children())
	}
	_, err = q.CreateFlow(FlowConfig{})
	require.ErrorIs(t, err, syscall.EINVAL, "no port")
	f, err := q.CreateFlow(FlowConfig{Port: 1, Specs: []FlowSpec{EthSpec{}, CountAction{cnt}, HandleAction{act}}})
	require.NoError(t, err)
	require.NoError(t, cnt.AttachPointFlow(CounterBytes, 0, f))
	v := make([]uint64, 1)
	require.NoError(t, cnt.Read(v, 0))
	require.Equal(t, uint64(3), v[0])
	ordered(t, f, q, cnt, act)
	ordered(t, cnt, c)
	ordered(t, act, c)
	_, err = q.CreateFlow(FlowConfig{Port: 1, Specs: []FlowSpec{CountAction{cnt}}})
	require.ErrorIs(t, err, ErrClosed)
	ordered(t, q, cq)
	require.NoError(t, cq.Close())
}

func TestRereg(t *testing.T) {
	c, d := rareCtx(t, &fakeCtx{})
	d2, err := c.AllocPD()
	require.NoError(t, err)
	for _, tt := range []struct {
		code  ReregMRErrCode
		state ReregState
		moved bool
	}{
		{0, 0, true},
		{ReregMRErrInput, ReregOldValid, false},
		{ReregMRErrDontForkNew, ReregOldValid, false},
		{ReregMRErrDoForkOld, ReregNewValid, true},
		{ReregMRErrCmd, ReregUndefined, false},
		{ReregMRErrCmdAndDoForkNew, ReregUndefined, false},
	} {
		old, fresh := make([]byte, 64), make([]byte, 128)
		m, err := d.RegMR(old, AccessLocalWrite)
		require.NoError(t, err)
		p := m.p.(*fakeMR)
		p.code = int(tt.code)
		if tt.code != 0 {
			p.err = syscall.ENOMEM
		}
		err = m.Rereg(ReregMRChangeTranslation|ReregMRChangePd, ReregConfig{Buf: fresh, PD: d2})
		require.Same(t, d2.p, p.got)
		if tt.code == 0 {
			require.NoError(t, err)
		} else {
			var re *ReregError
			require.ErrorAs(t, err, &re)
			require.Equal(t, tt.state, re.State)
			require.Equal(t, tt.code, re.Code)
			require.ErrorIs(t, err, syscall.ENOMEM)
			require.Contains(t, err.Error(), tt.state.String())
		}
		want, dom := old, d
		if tt.moved {
			want, dom = fresh, d2
		}
		require.Same(t, &want[0], &m.Bytes()[0])
		require.Equal(t, uint64(len(want)), m.Len())
		require.Equal(t, addr(want), m.Addr())
		require.Same(t, dom, m.PD())
		ordered(t, m, d, d2)
	}
	m, err := d.RegMR(make([]byte, 8), 0)
	require.NoError(t, err)
	require.ErrorIs(t, m.Rereg(0, ReregConfig{}), syscall.EINVAL)
	require.ErrorIs(t, m.Rereg(ReregMRChangePd, ReregConfig{}), syscall.EINVAL)
	require.NoError(t, m.Close())
	require.ErrorIs(t, m.Rereg(ReregMRChangeAccess, ReregConfig{}), ErrClosed)
	require.NoError(t, d2.Close())
}

// A device without the optional interfaces: every way in says so and leaves nothing behind.
func TestRareAbsent(t *testing.T) {
	c, d := rareCtx(t, plainCtx{})
	cq, err := c.CreateCQ(4, nil)
	require.NoError(t, err)
	defer cq.Close()
	one := func(_ any, err error) error { return err }
	for name, err := range map[string]error{
		"td":        one(c.AllocTD()),
		"parent":    one(d.AllocParentDomain(nil)),
		"importpd":  one(c.ImportPD(1)),
		"importmr":  one(d.ImportMR(1)),
		"importdm":  one(c.ImportDM(1, 1)),
		"cmd":       one(c.CmdFile()),
		"dmabuf":    one(d.RegDmabufMR(0, 0, 1, 0, 0)),
		"null":      one(d.AllocNullMR()),
		"advise":    d.AdviseMR(AdviseMRPrefetch, 0, []SGE{{}}),
		"dm":        one(c.AllocDM(1, 0)),
		"xrcd":      one(c.OpenXRCD(nil, 0)),
		"wq":        one(d.CreateWQ(WQConfig{MaxWR: 1, CQ: cq})),
		"esp":       one(c.CreateFlowActionESP(ESPConfig{AESGCM: &AESGCM{Key: make([]byte, 16)}})),
		"counters":  one(c.CreateCounters()),
		"speed":     one(c.QueryPortSpeed(1)),
		"dmah":      one(c.AllocDMAH(DMAHConfig{})),
		"regex":     one(d.RegMREx(MRExConfig{Bytes: make([]byte, 8)})),
		"buf":       one(d.AllocBuf(8)),
		"caps":      one(c.QueryCompCntrCaps()),
		"comp cntr": one(c.CreateCompCntr(CompCntrWRs)),
	} {
		require.ErrorIs(t, err, errors.ErrUnsupported, name)
		var e *Error
		require.ErrorAs(t, err, &e, name)
	}
}

// A library that lacks a symbol: the error names the rdma-core that has it.
func TestSince(t *testing.T) {
	_, d := rareCtx(t, &fakeCtx{})
	_, err := d.RegMREx(MRExConfig{Bytes: make([]byte, 8)})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "rdma-core 59")
	require.NoError(t, since("59", nil))
}
