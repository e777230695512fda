package suite_test

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

const udQKey = 0x11223344

// ud is two datagram queue pairs with the address of their port and memory.
type ud struct {
	*pair
	ah *verbs.AH
	m  *verbs.MR
}

func (e *env) udPair(cfg verbs.QPConfig, gid *verbs.GIDEntry) *ud {
	e.t.Helper()
	cfg.Type = verbs.QPTUD
	u := &ud{pair: &pair{e, e.qp(cfg), e.qp(cfg)}, m: e.mr(1<<16, allAccess)}
	for _, q := range []*verbs.QP{u.a, u.b} {
		e.up(q, 0, verbs.GID{}, 0, 0, link{qkey: udQKey})
	}
	var err error
	u.ah, err = e.pd.CreateAH(e.ahAttr(gid.GID, gid))
	require.NoError(e.t, err)
	e.closeAtEnd(u.ah)
	return u
}

// to addresses a message to q.
func (u *ud) to(q *verbs.QP, id uint64, s ...verbs.SGE) verbs.SendWR {
	return verbs.SendWR{ID: id, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: s, AH: u.ah, RemoteQPN: q.QPN(), RemoteQKey: udQKey}
}

// gids gives the RoCE v2 GID of the IPv4 address and one that is IPv6.
func (e *env) gids() map[string]verbs.GIDEntry {
	e.t.Helper()
	table, err := e.ctx.QueryGIDTable(256, 0)
	require.NoError(e.t, err)
	out := map[string]verbs.GIDEntry{}
	for _, g := range table {
		a := g.GID.Addr()
		switch {
		case g.Port != uint32(e.port) || g.Type != verbs.GIDTypeRoCEV2:
		case a.Is4():
			out["IPv4"] = g
		case !e.soft && !configured(a):
		default:
			out["IPv6"] = g
		}
	}
	return out
}

func configured(a netip.Addr) bool {
	for _, l := range localAddrs() {
		if l.WithZone("") == a {
			return true
		}
	}
	return false
}

func init() {
	register("U01", "UD send recv", func(t *testing.T, e *env) {
		u := e.udPair(verbs.QPConfig{}, &e.gid)
		mtu := e.portMTU()
		for i, n := range []int{1, 100, mtu} {
			fill(u.m.Bytes()[:n], i)
			clear(u.m.Bytes()[1<<15:])
			e.recv(u.b, verbs.RecvWR{ID: 1, SGList: sgl(u.m.SGE(1<<15, 1<<15))})
			e.send(u.a, u.to(u.b, 2, u.m.SGE(0, n)))
			e.ok(u.a.SendCQ(), 2, verbs.WCSuccess)
			c := e.ok(u.b.RecvCQ(), 1, verbs.WCSuccess)
			require.Equal(t, uint32(n+40), c.ByteLen)
			require.NotZero(t, c.Flags&verbs.WCGRH)
			require.Equal(t, u.a.QPN(), c.SrcQP)
			require.Equal(t, u.b.QPN(), c.QPN)
			in := u.m.Bytes()[1<<15:]
			require.Equal(t, u.m.Bytes()[:n], in[40:40+n])
			if e.gid.GID.Addr().Is4() { // the IPv4 header is the last 20 bytes of the 40
				ip := e.gid.GID.Addr().AsSlice()
				require.Equal(t, byte(0x45), in[20])
				require.Equal(t, ip, in[32:36], "source")
				require.Equal(t, ip, in[36:40], "destination")
			}
		}
		_, err := u.a.PostSend([]verbs.SendWR{{Opcode: verbs.WRSend, SGList: sgl(u.m.SGE(0, 1))}})
		require.ErrorIs(t, err, syscall.EINVAL, "no address handle")
	})
	register("U02", "UD imm zero size", func(t *testing.T, e *env) {
		u := e.udPair(verbs.QPConfig{}, &e.gid)
		for _, n := range []int{0, 33} {
			e.recv(u.b, verbs.RecvWR{ID: 1, SGList: sgl(u.m.SGE(1024, 1024))}, verbs.RecvWR{ID: 2, SGList: sgl(u.m.SGE(1024, 1024))})
			w := u.to(u.b, 3, u.m.SGE(0, n))
			w.Opcode, w.Imm = verbs.WRSendWithImm, 0xcafe0000+uint32(n)
			e.send(u.a, w, u.to(u.b, 4))
			e.ok(u.a.SendCQ(), 3, verbs.WCSuccess)
			e.ok(u.a.SendCQ(), 4, verbs.WCSuccess)
			c := e.ok(u.b.RecvCQ(), 1, verbs.WCSuccess)
			require.NotZero(t, c.Flags&verbs.WCWithImm)
			require.Equal(t, 0xcafe0000+uint32(n), c.Imm())
			require.Equal(t, uint32(n+40), c.ByteLen)
			c = e.ok(u.b.RecvCQ(), 2, verbs.WCSuccess)
			require.Zero(t, c.Flags&verbs.WCWithImm)
			require.Equal(t, uint32(40), c.ByteLen)
		}
	})
	register("U03", "UD wrong qkey", func(t *testing.T, e *env) {
		u := e.udPair(verbs.QPConfig{}, &e.gid)
		before, err := e.ctx.QueryPort(e.port)
		require.NoError(t, err)
		e.recv(u.b, verbs.RecvWR{ID: 1, SGList: sgl(u.m.SGE(1024, 1024))})
		w := u.to(u.b, 2, u.m.SGE(0, 8))
		w.RemoteQKey ^= 1
		e.send(u.a, w)
		e.ok(u.a.SendCQ(), 2, verbs.WCSuccess)
		require.Empty(t, e.pollFor(u.b.RecvCQ(), 1, 100*time.Millisecond))
		after, err := e.ctx.QueryPort(e.port)
		require.NoError(t, err)
		require.Equal(t, before.QKeyViolCntr+1, after.QKeyViolCntr)
		e.send(u.a, u.to(u.b, 3, u.m.SGE(0, 8))) // the receive is still there
		e.ok(u.b.RecvCQ(), 1, verbs.WCSuccess)
	})
	register("U04", "UD above MTU", func(t *testing.T, e *env) {
		u := e.udPair(verbs.QPConfig{}, &e.gid)
		e.recv(u.b, verbs.RecvWR{ID: 1, SGList: sgl(u.m.SGE(1<<15, 1<<15))})
		e.send(u.a, u.to(u.b, 2, u.m.SGE(0, e.portMTU()+1)))
		c := e.ok2(u.a.SendCQ(), 2)
		if e.isRXE {
			// rxe does not tell: nobody may rely on it.
			require.Equal(t, verbs.WCSuccess, c.Status)
		} else {
			require.NotEqual(t, verbs.WCSuccess, c.Status)
		}
		require.Empty(t, e.pollFor(u.b.RecvCQ(), 1, 100*time.Millisecond))
	})
	register("U05", "AH no GRH", func(t *testing.T, e *env) {
		_, err := e.pd.CreateAH(verbs.AHAttr{DLID: 1, PortNum: e.port})
		require.ErrorIs(t, err, syscall.EINVAL)
		_, err = e.pd.CreateAH(verbs.AHAttr{IsGlobal: true, PortNum: e.port + 1, GRH: verbs.GlobalRoute{DGID: e.gid.GID, SGIDIndex: uint8(e.gid.Index)}})
		require.Error(t, err, "a port that does not exist")
		_, err = e.pd.CreateAH(verbs.AHAttr{IsGlobal: true, PortNum: e.port, GRH: verbs.GlobalRoute{DGID: e.gid.GID, SGIDIndex: 255}})
		require.Error(t, err, "a GID that does not exist")
	})
	register("U06", "AH from wc", func(t *testing.T, e *env) {
		gids := e.gids()
		require.Contains(t, gids, "IPv4")
		require.Contains(t, gids, "IPv6")
		for name, gid := range gids {
			u := e.udPair(verbs.QPConfig{}, &gid)
			fill(u.m.Bytes()[:64], 8)
			e.recv(u.b, verbs.RecvWR{ID: 1, SGList: sgl(u.m.SGE(1024, 1024))})
			e.recv(u.a, verbs.RecvWR{ID: 2, SGList: sgl(u.m.SGE(4096, 1024))})
			e.send(u.a, u.to(u.b, 3, u.m.SGE(0, 64)))
			e.ok(u.a.SendCQ(), 3, verbs.WCSuccess)
			c := e.ok(u.b.RecvCQ(), 1, verbs.WCSuccess)
			grh := (*[40]byte)(u.m.Bytes()[1024:])
			attr, err := e.ctx.InitAHFromWC(e.port, &c, grh)
			require.NoError(t, err, name)
			require.True(t, attr.IsGlobal)
			require.Equal(t, gid.GID, attr.GRH.DGID, name)
			require.Equal(t, uint8(gid.Index), attr.GRH.SGIDIndex, name)
			back, err := e.pd.CreateAHFromWC(&c, grh, e.port)
			require.NoError(t, err, name)
			e.closeAtEnd(back)
			w := u.to(u.b, 4, u.m.SGE(0, 64))
			w.AH, w.RemoteQPN = back, c.SrcQP
			e.send(u.b, w)
			e.ok(u.b.SendCQ(), 4, verbs.WCSuccess)
			e.ok(u.a.RecvCQ(), 2, verbs.WCSuccess)
			require.Equal(t, u.m.Bytes()[:64], u.m.Bytes()[4096+40:4096+104], name)
		}
	})
	register("U07", "UD small recv buffer", func(t *testing.T, e *env) {
		u := e.udPair(verbs.QPConfig{}, &e.gid)
		e.recv(u.b, verbs.RecvWR{ID: 1, SGList: sgl(u.m.SGE(1024, 40+63))})
		e.send(u.a, u.to(u.b, 2, u.m.SGE(0, 64)))
		e.ok(u.a.SendCQ(), 2, verbs.WCSuccess)
		if e.isRXE && !kernelAtLeast(6, 12) {
			// 6.1 takes it for a broken receive and stops the receiver: on it a
			// UD receive shorter than the MTU is a way to be shut down from afar.
			e.ok(u.b.RecvCQ(), 1, verbs.WCLocQPOpErr)
			requireState(t, u.b, verbs.QPSErr)
			return
		}
		require.Empty(t, e.pollFor(u.b.RecvCQ(), 1, 100*time.Millisecond))
		requireState(t, u.b, verbs.QPSRTS)
		e.send(u.a, u.to(u.b, 3, u.m.SGE(0, 63))) // fits, and finds the receive unused
		e.ok(u.a.SendCQ(), 3, verbs.WCSuccess)
		require.Equal(t, uint32(103), e.ok(u.b.RecvCQ(), 1, verbs.WCSuccess).ByteLen)
	})
	register("U08", "UC send write", func(t *testing.T, e *env) {
		p := e.pair(verbs.QPConfig{Type: verbs.QPTUC}, link{})
		mtu := e.portMTU()
		src, dst := e.mr(1<<17, allAccess), e.mr(1<<17, allAccess)
		for i, n := range []int{0, 1, mtu, mtu + 1, 10*mtu + 3} {
			fill(src.Bytes(), i)
			clear(dst.Bytes())
			e.recv(p.b, verbs.RecvWR{ID: 1, SGList: sgl(dst.SGE(0, 1<<16))}, verbs.RecvWR{ID: 2})
			imm := at(sig(5, verbs.WRRDMAWriteWithImm, src.SGE(1, n)), dst, 1<<16)
			imm.Imm = 0x31415926
			e.send(p.a, sig(3, verbs.WRSend, src.SGE(0, n)), imm)
			e.ok(p.a.SendCQ(), 3, verbs.WCSuccess)
			e.ok(p.a.SendCQ(), 5, verbs.WCSuccess)
			require.Equal(t, uint32(n), e.ok(p.b.RecvCQ(), 1, verbs.WCSuccess).ByteLen)
			c := e.ok(p.b.RecvCQ(), 2, verbs.WCSuccess)
			require.Equal(t, uint32(0x31415926), c.Imm())
			require.Equal(t, uint32(n), c.ByteLen)
			require.True(t, string(src.Bytes()[:n]) == string(dst.Bytes()[:n]))
			require.True(t, string(src.Bytes()[1:1+n]) == string(dst.Bytes()[1<<16:1<<16+n]))
		}
		// Without acknowledgements nobody hears that no receive was there.
		e.send(p.a, sig(6, verbs.WRSend, src.SGE(0, 8)))
		e.ok(p.a.SendCQ(), 6, verbs.WCSuccess)
		require.Empty(t, e.pollFor(p.b.RecvCQ(), 1, 50*time.Millisecond))
		ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
		defer cancel()
		require.NoError(t, p.a.Drain(ctx, nil))
		require.NoError(t, p.b.Drain(ctx, nil))
	})
}
