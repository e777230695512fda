package suite_test

import (
	"errors"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("M01", "reg dereg", regDereg)
	register("M02", "all legal access combos", accessCombos)
	register("M03", "bad flags", accessBad)
	register("M04", "rkey visibility", rkeyVisibility)
	register("M05", "iova", iova)
	register("M06", "relaxed ordering", relaxedOrdering)
	register("M11", "dereg in use", deregInUse)
}

func regDereg(t *testing.T, e *env) {
	b := e.mem(8192)
	m, err := e.pd.RegMR(b, allAccess)
	require.NoError(t, err)
	e.closeAtEnd(m)
	require.NotZero(t, m.LKey())
	require.NotZero(t, m.RKey())
	require.EqualValues(t, 8192, m.Len())
	require.Equal(t, uint64(uintptr(unsafe.Pointer(&b[0]))), m.Addr())
	require.Same(t, &b[0], &m.Bytes()[0])
	require.Same(t, e.pd, m.PD())
	require.Equal(t, verbs.SGE{Addr: m.Addr() + 100, Length: 8092, LKey: m.LKey()}, m.SGE(100, 8092))
	require.Panics(t, func() { m.SGE(100, 8093) })
	require.Panics(t, func() { m.SGE(-1, 1) })

	// The same memory may be registered again, and a part of it.
	m2, err := e.pd.RegMR(b[1:100], verbs.AccessLocalWrite)
	require.NoError(t, err)
	require.NotEqual(t, m.LKey(), m2.LKey())
	require.NoError(t, m2.Close())

	byAddr, err := e.pd.RegMRAddr(m.Addr(), 4096, verbs.AccessLocalWrite)
	require.NoError(t, err)
	require.Nil(t, byAddr.Bytes())
	require.Equal(t, m.Addr(), byAddr.Addr())
	require.NoError(t, byAddr.Close())

	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	require.Zero(t, m.LKey())
	_, err = e.pd.RegMR(nil, allAccess)
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = e.pd.RegMR([]byte{}, allAccess)
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = e.pd.RegMRAddr(4096, 4096, verbs.AccessLocalWrite)
	require.ErrorIs(t, err, syscall.EFAULT, "memory that is not mapped")
}

// legal says whether remote rights have the local right they need.
func legal(a verbs.AccessFlags) bool {
	return a&(verbs.AccessRemoteWrite|verbs.AccessRemoteAtomic) == 0 || a&verbs.AccessLocalWrite != 0
}

func accessCombos(t *testing.T, e *env) {
	b := e.mem(4096)
	bits := []verbs.AccessFlags{verbs.AccessLocalWrite, verbs.AccessRemoteWrite, verbs.AccessRemoteRead,
		verbs.AccessRemoteAtomic, verbs.AccessMWBind, verbs.AccessRelaxedOrdering}
	n := 0
	for set := range 1 << len(bits) {
		var a verbs.AccessFlags
		for i, f := range bits {
			if set>>i&1 != 0 {
				a |= f
			}
		}
		if !legal(a) {
			continue
		}
		m, err := e.pd.RegMR(b, a)
		require.NoError(t, err, "%v", a)
		require.NotZero(t, m.LKey())
		require.NoError(t, m.Close())
		n++
	}
	require.Equal(t, 40, n)

	// What rxe cannot do is ignored by old kernels and refused by new ones.
	if e.isRXE {
		m, err := e.pd.RegMR(b, verbs.AccessLocalWrite|verbs.AccessZeroBased)
		if kernelAtLeast(6, 12) {
			require.ErrorIs(t, err, errors.ErrUnsupported)
		} else {
			require.NoError(t, err)
			require.NoError(t, m.Close())
		}
		_, err = e.pd.RegMR(b, verbs.AccessLocalWrite|verbs.AccessOnDemand)
		require.Error(t, err, "on-demand paging")
	}
}

func accessBad(t *testing.T, e *env) {
	b := e.mem(4096)
	for _, a := range []verbs.AccessFlags{
		verbs.AccessRemoteWrite, verbs.AccessRemoteAtomic, verbs.AccessRemoteWrite | verbs.AccessRemoteAtomic,
		verbs.AccessRemoteWrite | verbs.AccessRemoteRead | verbs.AccessMWBind, verbs.AccessRemoteAtomic | verbs.AccessRelaxedOrdering,
	} {
		for name, reg := range map[string]func() (*verbs.MR, error){
			"RegMR":     func() (*verbs.MR, error) { return e.pd.RegMR(b, a) },
			"RegMRIOVA": func() (*verbs.MR, error) { return e.pd.RegMRIOVA(b, 0x1000, a) },
			"RegMRAddr": func() (*verbs.MR, error) {
				return e.pd.RegMRAddr(uint64(uintptr(unsafe.Pointer(&b[0]))), 4096, a)
			},
		} {
			_, err := reg()
			require.ErrorIs(t, err, syscall.EINVAL, "%s %v", name, a)
			require.ErrorContains(t, err, "AccessLocalWrite", "the error says what is missing")
		}
	}
}

func rkeyVisibility(t *testing.T, e *env) {
	for _, a := range []verbs.AccessFlags{verbs.AccessRemoteRead, verbs.AccessLocalWrite | verbs.AccessRemoteWrite, allAccess} {
		require.NotZero(t, e.mr(4096, a).RKey(), "%v", a)
	}
	m := e.mr(4096, verbs.AccessLocalWrite)
	require.NotZero(t, m.LKey())
	switch {
	case !e.isRXE:
	case kernelAtLeast(6, 12):
		require.NotZero(t, m.RKey())
	case !kernelAtLeast(6, 2):
		require.Zero(t, m.RKey())
	}
	// Whatever the key is, it gives no remote right.
	p := e.rc()
	e.send(p.a, write(1, e.mr(64, allAccess).SGE(0, 64), m.Addr(), max(m.RKey(), verbs.RKey(m.LKey()))))
	e.ok(p.a.SendCQ(), 1, verbs.WCRemAccessErr)
}

// write is a signaled RDMA write.
func write(id uint64, src verbs.SGE, addr uint64, key verbs.RKey) verbs.SendWR {
	return verbs.SendWR{ID: id, Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled, SGList: sgl(src), RemoteAddr: addr, RKey: key}
}

func iova(t *testing.T, e *env) {
	const base = 0x7a72_0000_1000
	src := e.mr(8192, allAccess)
	dst, err := e.pd.RegMRIOVA(e.mem(8192), base, allAccess)
	require.NoError(t, err)
	e.closeAtEnd(dst)
	require.EqualValues(t, base, dst.Addr())
	fill(src.Bytes(), 5)
	p := e.rc()
	e.send(p.a, write(1, src.SGE(0, 5000), base+100, dst.RKey()))
	e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
	require.Equal(t, src.Bytes()[:5000], dst.Bytes()[100:5100])

	// Locally it is addressed by the iova too.
	e.send(p.a, verbs.SendWR{ID: 2, Opcode: verbs.WRRDMARead, Flags: verbs.SendSignaled, SGList: sgl(dst.SGE(7000, 100)), RemoteAddr: src.Addr() + 40, RKey: src.RKey()})
	e.ok(p.a.SendCQ(), 2, verbs.WCSuccess)
	require.Equal(t, src.Bytes()[40:140], dst.Bytes()[7000:7100])

	va := uint64(uintptr(unsafe.Pointer(&dst.Bytes()[0])))
	e.send(p.a, write(3, src.SGE(0, 8), va, dst.RKey()))
	e.ok(p.a.SendCQ(), 3, verbs.WCRemAccessErr)
}

func relaxedOrdering(t *testing.T, e *env) {
	m := e.mr(65536, allAccess|verbs.AccessRelaxedOrdering)
	e.roundTrip(m, e.mr(65536, allAccess|verbs.AccessRelaxedOrdering), 65536)
	m, err := e.pd.RegMRIOVA(e.mem(4096), 0x10000, verbs.AccessRelaxedOrdering)
	require.NoError(t, err)
	require.NoError(t, m.Close())
}

// roundTrip writes n bytes of a into b and reads them back over one pair.
func (e *env) roundTrip(a, b *verbs.MR, n int) {
	e.t.Helper()
	p := e.rc()
	fill(a.Bytes()[:n], n)
	e.send(p.a, write(1, a.SGE(0, n), b.Addr(), b.RKey()))
	e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
	require.Equal(e.t, a.Bytes()[:n], b.Bytes()[:n])
	fill(b.Bytes()[:n], n+1)
	e.send(p.a, verbs.SendWR{ID: 2, Opcode: verbs.WRRDMARead, Flags: verbs.SendSignaled, SGList: sgl(a.SGE(0, n)), RemoteAddr: b.Addr(), RKey: b.RKey()})
	e.ok(p.a.SendCQ(), 2, verbs.WCSuccess)
	require.Equal(e.t, b.Bytes()[:n], a.Bytes()[:n])
}

func deregInUse(t *testing.T, e *env) {
	good := e.mr(4096, allAccess)
	gone, err := e.pd.RegMR(e.mem(4096), allAccess)
	require.NoError(t, err)
	sge, addr, key := gone.SGE(0, 64), gone.Addr(), gone.RKey()
	p, q := e.rc(), e.rc()
	e.send(p.a, write(1, sge, good.Addr(), good.RKey()))
	e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
	e.send(q.a, write(2, good.SGE(0, 64), addr, key))
	e.ok(q.a.SendCQ(), 2, verbs.WCSuccess)

	require.NoError(t, gone.Close())
	e.send(p.a, write(3, sge, good.Addr(), good.RKey()))
	switch {
	case e.isRXE && kernelAtLeast(6, 12):
		// The error state can overtake the status of the request.
		w := e.poll(p.a.SendCQ(), 1)[0]
		require.Contains(t, []verbs.WCStatus{verbs.WCLocQPOpErr, verbs.WCWRFlushErr}, w.Status)
	case e.isRXE:
		// Its requester knows a protection error only from page faults.
		e.ok(p.a.SendCQ(), 3, verbs.WCLocQPOpErr)
	default:
		e.ok(p.a.SendCQ(), 3, verbs.WCLocProtErr)
	}
	e.send(q.a, write(4, good.SGE(0, 64), addr, key))
	e.ok(q.a.SendCQ(), 4, verbs.WCRemAccessErr)
	r := e.rc()
	e.send(r.a, verbs.SendWR{ID: 5, Opcode: verbs.WRRDMARead, Flags: verbs.SendSignaled, SGList: sgl(sge), RemoteAddr: good.Addr(), RKey: good.RKey()})
	e.ok(r.a.SendCQ(), 5, verbs.WCLocProtErr)
	require.Zero(t, gone.SGE(0, 1).LKey, "a closed region gives no key away")
}
