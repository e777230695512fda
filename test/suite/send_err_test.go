package suite_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// fails posts one request on a pair of its own and gives the status it fails with.
func (e *env) fails(l link, w verbs.SendWR) verbs.WCStatus {
	e.t.Helper()
	p := e.pair(verbs.QPConfig{}, l)
	e.send(p.a, w)
	c := e.ok2(p.a.SendCQ(), w.ID)
	requireState(e.t, p.a, verbs.QPSErr)
	return c.Status
}

// ok2 waits for one completion of q, of any status.
func (e *env) ok2(q *verbs.CQ, id uint64) verbs.WC {
	e.t.Helper()
	w := e.poll(q, 1)[0]
	require.Equal(e.t, id, w.WRID)
	return w
}

// localErr is the status of a SEND or WRITE whose local memory is not as it says:
// LOC_PROT_ERR by the specification. rxe meets it while it builds the packet:
// 6.1 has another status for a key that is none, and 6.12 stops the queue pair
// and then flushes the very request, so that its cause is lost.
func (e *env) localErr(noSuchKey bool) verbs.WCStatus {
	switch {
	case e.isRXE && kernelAtLeast(6, 12):
		return verbs.WCWRFlushErr
	case e.isRXE && noSuchKey:
		return verbs.WCLocQPOpErr
	}
	return verbs.WCLocProtErr
}

var remoteOps = []verbs.WROpcode{verbs.WRRDMAWrite, verbs.WRRDMARead, verbs.WRAtomicCmpAndSwp, verbs.WRAtomicFetchAndAdd}

func init() {
	register("S13", "bad lkey", func(t *testing.T, e *env) {
		m, ro := e.mr(4096, allAccess), e.mr(4096, verbs.AccessRemoteRead)
		other, err := e.ctx.AllocPD()
		require.NoError(t, err)
		e.closeAtEnd(other)
		foreign, err := other.RegMR(e.mem(4096), allAccess)
		require.NoError(t, err)
		e.closeAtEnd(foreign)
		gone, err := e.pd.RegMR(e.mem(4096), allAccess)
		require.NoError(t, err)
		deregistered := gone.SGE(0, 8)
		require.NoError(t, gone.Close())
		wrong := m.SGE(0, 8)
		wrong.LKey ^= 0x5500
		long := m.SGE(4090, 6)
		long.Length = 7
		for name, s := range map[string]verbs.SGE{"wrong": wrong, "deregistered": deregistered, "of another PD": foreign.SGE(0, 8), "too long": long} {
			for _, op := range append([]verbs.WROpcode{verbs.WRSend}, remoteOps...) {
				if op != verbs.WRSend && op != verbs.WRRDMAWrite && s.Length != 8 {
					continue
				}
				want := verbs.WCLocProtErr
				if op == verbs.WRSend || op == verbs.WRRDMAWrite {
					want = e.localErr(s.Length == 8)
				}
				assert.Equal(t, want, e.fails(link{rnrRetry: 255}, at(sig(1, op, s), m, 256)), "%s lkey, %v", name, op)
			}
		}
		// A READ into memory that may not be written.
		assert.Equal(t, verbs.WCLocProtErr, e.fails(link{}, at(sig(1, verbs.WRRDMARead, ro.SGE(0, 8)), m, 0)))
		// The receiver's own key: its completion says so.
		p := e.rc()
		e.recv(p.b, verbs.RecvWR{ID: 5, SGList: sgl(wrong)})
		e.send(p.a, sig(6, verbs.WRSend, m.SGE(0, 8)))
		want := verbs.WCLocProtErr
		if e.isRXE {
			want = verbs.WCLocQPOpErr
		}
		e.ok(p.b.RecvCQ(), 5, want)
		e.ok(p.a.SendCQ(), 6, verbs.WCRemOpErr)
	})
	register("S14", "bad rkey no access", func(t *testing.T, e *env) {
		m := e.mr(4096, allAccess)
		with := func(a verbs.AccessFlags) *verbs.MR { return e.mr(4096, a) }
		needs := map[verbs.WROpcode]verbs.AccessFlags{
			verbs.WRRDMAWrite: verbs.AccessRemoteWrite, verbs.WRRDMARead: verbs.AccessRemoteRead,
			verbs.WRAtomicCmpAndSwp: verbs.AccessRemoteAtomic, verbs.WRAtomicFetchAndAdd: verbs.AccessRemoteAtomic,
		}
		for _, op := range remoteOps {
			w := at(sig(1, op, m.SGE(0, 8)), m, 256)
			w.RKey ^= 0x5500
			assert.Equal(t, verbs.WCRemAccessErr, e.fails(link{}, w), "%v: wrong rkey", op)
			w = at(sig(1, op, m.SGE(0, 8)), with(allAccess&^needs[op]), 256)
			assert.Equal(t, verbs.WCRemAccessErr, e.fails(link{}, w), "%v: a region without the access", op)
			w = at(sig(1, op, m.SGE(0, 8)), m, 256)
			got := e.fails(link{access: allAccess &^ needs[op]}, w)
			assert.Contains(t, []verbs.WCStatus{verbs.WCRemInvReqErr, verbs.WCRemOpErr, verbs.WCRemAccessErr}, got, "%v: a queue pair without the access", op)
			if e.isRXE {
				assert.Equal(t, verbs.WCRemInvReqErr, got, "%v: a queue pair without the access", op)
			}
		}
		other, err := e.ctx.AllocPD()
		require.NoError(t, err)
		e.closeAtEnd(other)
		foreign, err := other.RegMR(e.mem(4096), allAccess)
		require.NoError(t, err)
		e.closeAtEnd(foreign)
		assert.Equal(t, verbs.WCRemAccessErr, e.fails(link{}, at(sig(1, verbs.WRRDMAWrite, m.SGE(0, 8)), foreign, 0)), "another PD")
	})
	register("S15", "out of range remote", func(t *testing.T, e *env) {
		m := e.mr(4096, allAccess)
		before := append([]byte{}, m.Bytes()...)
		for _, op := range remoteOps {
			for name, off := range map[string]int{"end": 4096, "before": -8, "far": 1 << 40} {
				w := at(sig(1, op, m.SGE(0, 8)), m, off)
				assert.Equal(t, verbs.WCRemAccessErr, e.fails(link{}, w), "%v at the %s", op, name)
			}
		}
		for _, op := range remoteOps[:2] {
			w := at(sig(1, op, m.SGE(0, 8)), m, 4089)
			assert.Equal(t, verbs.WCRemAccessErr, e.fails(link{}, w), "%v across the end", op)
		}
		require.Equal(t, before, m.Bytes())
		p := e.rc()
		e.send(p.a, at(sig(1, verbs.WRRDMAWrite, m.SGE(0, 8)), m, 4088)) // the last that fits
		e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
	})
}
