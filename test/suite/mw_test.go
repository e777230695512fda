package suite_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("W01", "mw type1", mwType1)
	register("W02", "mw type1 invalidate", mwType1Invalidate)
	register("W03", "mw type2", mwType2)
	register("W04", "mw type2 local inv", mwType2LocalInv)
	register("W05", "mw type2 remote inv", mwType2RemoteInv)
	register("W06", "mw dealloc", mwDealloc)
	register("W07", "mw wrong type", mwWrongType)
	register("W08", "dereg mr with bound mw", mwDeregBound)
	register("W09", "mw cross-PD bind", mwCrossPD)
}

const mwAccess = verbs.AccessRemoteRead | verbs.AccessRemoteWrite

// window is a memory window over the second half of a region of b's side: a
// writes through it.
type window struct {
	*pair
	src, mr *verbs.MR
	mw      *verbs.MW
}

const winLen, winOff = 4096, 4096

func (e *env) window(typ verbs.MWType) *window {
	e.t.Helper()
	w := &window{pair: e.rc(), src: e.mr(8192, allAccess), mr: e.mr(8192, allAccess|verbs.AccessMWBind)}
	var err error
	w.mw, err = e.pd.AllocMW(typ)
	require.NoError(e.t, err)
	require.Equal(e.t, typ, w.mw.Type())
	e.closeAtEnd(w.mw)
	fill(w.src.Bytes(), 3)
	return w
}

// bind1 binds a type 1 window, bind2 posts the bind of a type 2 one.
func (w *window) bind1(id, length uint64) {
	w.e.t.Helper()
	require.NoError(w.e.t, w.b.BindMW(w.mw, w.mr, id, verbs.SendSignaled, w.mr.Addr()+winOff, length, mwAccess))
	c := w.e.ok(w.b.SendCQ(), id, verbs.WCSuccess)
	require.Equal(w.e.t, verbs.WCBindMW, c.Opcode)
}

func (w *window) bindWR(id uint64, key verbs.RKey) verbs.SendWR {
	return verbs.SendWR{ID: id, Opcode: verbs.WRBindMW, Flags: verbs.SendSignaled, RKey: key,
		BindMW: w.mw, BindMR: w.mr, BindAddr: w.mr.Addr() + winOff, BindLength: winLen, BindAccess: mwAccess}
}

func (w *window) bind2(id uint64) {
	w.e.t.Helper()
	key := verbs.IncRKey(w.mw.RKey())
	w.e.send(w.b, w.bindWR(id, key))
	c := w.e.ok(w.b.SendCQ(), id, verbs.WCSuccess)
	require.Equal(w.e.t, verbs.WCBindMW, c.Opcode)
	w.mw.SetRKey(key)
}

// write writes n bytes through the window at its offset off and expects status.
func (w *window) write(id uint64, off, n int, key verbs.RKey, status verbs.WCStatus) {
	w.e.t.Helper()
	at := winOff + off
	clear(w.mr.Bytes())
	w.e.send(w.a, write(id, w.src.SGE(0, n), w.mr.Addr()+uint64(at), key))
	w.e.ok(w.a.SendCQ(), id, status)
	if status == verbs.WCSuccess {
		require.Equal(w.e.t, w.src.Bytes()[:n], w.mr.Bytes()[at:at+n])
	} else {
		require.Equal(w.e.t, make([]byte, 8192), w.mr.Bytes(), "a refused write changes nothing")
	}
}

func mwType1(t *testing.T, e *env) {
	w := e.window(verbs.MWType1)
	w.bind1(1, winLen)
	require.NotZero(t, w.mw.RKey())
	require.NotEqual(t, w.mr.RKey(), w.mw.RKey())
	w.write(2, 0, winLen, w.mw.RKey(), verbs.WCSuccess)
	w.write(3, 4000, 96, w.mw.RKey(), verbs.WCSuccess)
	w.e.send(w.a, verbs.SendWR{ID: 4, Opcode: verbs.WRRDMARead, Flags: verbs.SendSignaled, SGList: sgl(w.src.SGE(4096, 64)), RemoteAddr: w.mr.Addr() + winOff, RKey: w.mw.RKey()})
	e.ok(w.a.SendCQ(), 4, verbs.WCSuccess)
	// Before the window the region exists, but the window does not show it: rxe
	// checks the bounds of the region only.
	if e.isRXE {
		w.write(5, -8, 16, w.mw.RKey(), verbs.WCSuccess)
	} else {
		w.write(5, -8, 16, w.mw.RKey(), verbs.WCRemAccessErr)
		return
	}
	w.write(6, winLen-8, 16, w.mw.RKey(), verbs.WCRemAccessErr)
}

func mwType1Invalidate(t *testing.T, e *env) {
	w := e.window(verbs.MWType1)
	w.bind1(1, winLen)
	key := w.mw.RKey()
	w.write(2, 0, 100, key, verbs.WCSuccess)
	w.bind1(3, 0)
	w.write(4, 0, 100, key, verbs.WCRemAccessErr)
	require.ErrorIs(t, w.b.BindMW(w.mw, nil, 5, 0, 0, 0, 0), syscall.EINVAL, "a nil region crashes rxe's provider")
}

func mwType2(t *testing.T, e *env) {
	w := e.window(verbs.MWType2)
	w.bind2(1)
	w.write(2, 0, winLen, w.mw.RKey(), verbs.WCSuccess)
	w.write(3, 1, winLen, w.mw.RKey(), verbs.WCRemAccessErr)

	require.Equal(t, verbs.RKey(0x12345600), verbs.IncRKey(0x123456ff), "the low byte wraps")
	require.Equal(t, verbs.RKey(0x12345601), verbs.IncRKey(0x12345600))
	for _, bad := range []verbs.SendWR{{Opcode: verbs.WRBindMW, BindMW: w.mw}, {Opcode: verbs.WRBindMW, BindMR: w.mr}} {
		_, err := w.b.PostSend([]verbs.SendWR{bad})
		require.ErrorIs(t, err, syscall.EINVAL)
	}
}

func mwType2LocalInv(_ *testing.T, e *env) {
	w := e.window(verbs.MWType2)
	w.bind2(1)
	w.write(2, 0, 100, w.mw.RKey(), verbs.WCSuccess)
	e.send(w.b, verbs.SendWR{ID: 3, Opcode: verbs.WRLocalInv, Flags: verbs.SendSignaled, InvalidateRKey: w.mw.RKey()})
	c := e.ok(w.b.SendCQ(), 3, verbs.WCSuccess)
	require.Equal(e.t, verbs.WCLocalInv, c.Opcode)
	w.write(4, 0, 100, w.mw.RKey(), verbs.WCRemAccessErr)
}

// An invalidated window can be bound again, with the next key.
func mwType2RemoteInv(t *testing.T, e *env) {
	w := e.window(verbs.MWType2)
	for round := range uint64(3) {
		id := round * 10
		w.bind2(id)
		key := w.mw.RKey()
		w.write(id+1, 0, 100, key, verbs.WCSuccess)
		e.recv(w.b, verbs.RecvWR{ID: id + 2, SGList: sgl(w.mr.SGE(0, 64))})
		e.send(w.a, verbs.SendWR{ID: id + 3, Opcode: verbs.WRSendWithInv, Flags: verbs.SendSignaled, SGList: sgl(w.src.SGE(0, 10)), InvalidateRKey: key})
		e.ok(w.a.SendCQ(), id+3, verbs.WCSuccess)
		c := e.ok(w.b.RecvCQ(), id+2, verbs.WCSuccess)
		require.EqualValues(t, 10, c.ByteLen)
		require.Equal(t, key, c.InvalidatedRKey())
		// rxe (6.1, 6.12) invalidates and gives the key, but leaves the flag out.
		if !e.isRXE {
			require.NotZero(t, c.Flags&verbs.WCWithInv)
		}
	}
	w.write(100, 0, 100, w.mw.RKey(), verbs.WCRemAccessErr)
}

func mwDealloc(t *testing.T, e *env) {
	for _, typ := range []verbs.MWType{verbs.MWType1, verbs.MWType2} {
		w := e.window(typ)
		if typ == verbs.MWType1 {
			w.bind1(1, winLen)
		} else {
			w.bind2(1)
		}
		key := w.mw.RKey()
		w.write(2, 0, 100, key, verbs.WCSuccess)
		require.NoError(t, w.mw.Close())
		require.NoError(t, w.mw.Close())
		w.write(3, 0, 100, key, verbs.WCRemAccessErr)
		require.ErrorIs(t, w.b.BindMW(w.mw, w.mr, 4, 0, 0, 0, 0), bindClosed(typ))
		_, err := w.b.PostSend([]verbs.SendWR{w.bindWR(5, key)})
		require.ErrorIs(t, err, verbs.ErrClosed)
	}
}

func bindClosed(typ verbs.MWType) error {
	if typ == verbs.MWType1 {
		return verbs.ErrClosed
	}
	return syscall.EINVAL // its type is wrong, before anything else
}

func mwWrongType(t *testing.T, e *env) {
	for _, typ := range []verbs.MWType{0, 3, 100} {
		_, err := e.pd.AllocMW(typ)
		require.Error(t, err, "type %d", typ)
		require.ErrorContains(t, err, "ibv_alloc_mw")
	}
	w := e.window(verbs.MWType2)
	err := w.b.BindMW(w.mw, w.mr, 1, verbs.SendSignaled, w.mr.Addr(), 100, mwAccess)
	require.ErrorIs(t, err, syscall.EINVAL)
	require.ErrorContains(t, err, "WRBindMW")

	// A region that was not registered for binding.
	plain := e.mr(4096, allAccess)
	w1 := e.window(verbs.MWType1)
	err = w1.b.BindMW(w1.mw, plain, 1, verbs.SendSignaled, plain.Addr(), 100, mwAccess)
	if err == nil {
		require.NotEqual(t, verbs.WCSuccess, e.poll(w1.b.SendCQ(), 1)[0].Status)
	}
}

func mwDeregBound(t *testing.T, e *env) {
	w := e.window(verbs.MWType2)
	w.bind2(1)
	err := w.mr.Close()
	require.ErrorIs(t, err, syscall.EINVAL)
	require.ErrorContains(t, err, "ibv_dereg_mr")
	// The refused Close leaves the region as it was.
	w.write(2, 0, 100, w.mw.RKey(), verbs.WCSuccess)
	require.NoError(t, w.mw.Close())
	require.NoError(t, w.mr.Close())
}

func mwCrossPD(t *testing.T, e *env) {
	other, err := e.ctx.AllocPD()
	require.NoError(t, err)
	e.closeAtEnd(other)
	foreign, err := other.RegMR(e.mem(8192), allAccess|verbs.AccessMWBind)
	require.NoError(t, err)

	// libibverbs itself looks at type 1.
	w1 := e.window(verbs.MWType1)
	err = w1.b.BindMW(w1.mw, foreign, 1, verbs.SendSignaled, foreign.Addr(), 100, mwAccess)
	require.ErrorIs(t, err, syscall.EPERM)

	w2 := e.window(verbs.MWType2)
	w2.mr = foreign
	key := verbs.IncRKey(w2.mw.RKey())
	n, err := w2.b.PostSend([]verbs.SendWR{w2.bindWR(2, key)})
	if err != nil {
		require.Zero(t, n)
		require.False(t, errors.Is(err, errors.ErrUnsupported))
	} else {
		c := e.poll(w2.b.SendCQ(), 1)[0]
		switch {
		case e.isRXE && !kernelAtLeast(6, 12):
			require.Equal(t, verbs.WCSuccess, c.Status, "rxe before 6.12 does not look")
		case e.isRXE: // 6.12.95 does not look either; later ones are said to
			require.Contains(t, []verbs.WCStatus{verbs.WCSuccess, verbs.WCMWBindErr}, c.Status)
		default:
			require.Equal(t, verbs.WCMWBindErr, c.Status)
		}
	}
	require.NoError(t, w2.mw.Close())
	require.NoError(t, w2.mr.Close())
}
