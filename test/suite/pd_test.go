package suite_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("P01", "alloc dealloc pd", func(t *testing.T, e *env) {
		d, err := e.ctx.AllocPD()
		require.NoError(t, err)
		require.Same(t, e.ctx, d.Context())
		require.NoError(t, d.Close())
	})
	register("P02", "many pds", func(t *testing.T, e *env) {
		var all []*verbs.PD
		for range 100 {
			d, err := e.ctx.AllocPD()
			require.NoError(t, err)
			e.closeAtEnd(d)
			all = append(all, d)
		}
		// Each is a domain of its own: a region of one does not serve another.
		m, err := all[99].RegMR(e.mem(4096), allAccess)
		require.NoError(t, err)
		for _, d := range all[:99] {
			require.NoError(t, d.Close())
		}
		require.NoError(t, m.Close())
	})
	register("P03", "destroy twice", func(t *testing.T, e *env) {
		d, err := e.ctx.AllocPD()
		require.NoError(t, err)
		require.NoError(t, d.Close())
		require.NoError(t, d.Close(), "Close is idempotent and reaches the kernel once")
		_, err = d.RegMR(e.mem(4096), allAccess)
		require.ErrorIs(t, err, verbs.ErrClosed)
		_, err = d.CreateQP(verbs.QPConfig{SendCQ: e.cq(1, nil)})
		require.ErrorIs(t, err, verbs.ErrClosed)
		_, err = d.AllocMW(verbs.MWType1)
		require.ErrorIs(t, err, verbs.ErrClosed)
		_, err = d.CreateAH(e.ahAttr(e.gid.GID, &e.gid))
		require.ErrorIs(t, err, verbs.ErrClosed)
		_, err = d.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: 1}})
		require.ErrorIs(t, err, verbs.ErrClosed)
	})
	register("P04", "pd busy", pdBusy)
}

func pdBusy(t *testing.T, e *env) {
	d, err := e.ctx.AllocPD()
	require.NoError(t, err)
	e.closeAtEnd(d)
	cq := e.cq(1, nil)
	cap := verbs.QPCap{MaxSendWR: 1, MaxRecvWR: 1, MaxSendSGE: 1, MaxRecvSGE: 1}
	for name, make := range map[string]func() (closer, error){
		"MR":  func() (closer, error) { return d.RegMR(e.mem(4096), allAccess) },
		"MW":  func() (closer, error) { return d.AllocMW(verbs.MWType2) },
		"QP":  func() (closer, error) { return d.CreateQP(verbs.QPConfig{SendCQ: cq, Cap: cap}) },
		"SRQ": func() (closer, error) { return d.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: 1}}) },
		"AH":  func() (closer, error) { return d.CreateAH(e.ahAttr(e.gid.GID, &e.gid)) },
	} {
		c, err := make()
		require.NoError(t, err, name)
		e.closeAtEnd(c)
		require.ErrorIs(t, d.Close(), verbs.ErrInUse, name)
		m, err := d.RegMR(e.mem(4096), allAccess)
		require.NoError(t, err, "a refused Close leaves the domain as it was")
		require.NoError(t, m.Close())
		require.NoError(t, c.Close(), name)
	}
	require.NoError(t, d.Close())
}
