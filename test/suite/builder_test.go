package suite_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// poster posts through one of the two ways.
type poster func(q *verbs.QP, wrs ...verbs.SendWR)

// bench is a fresh pair with memory at both ends, on which an operation is run.
type bench struct {
	*pair
	local, remote *verbs.MR
}

func (e *env) bench(cfg verbs.QPConfig, l link) *bench {
	cfg.SendOps = opsFor(verbs.QPTRC)
	cfg.Cap.MaxSendSGE, cfg.Cap.MaxRecvSGE = 8, 8
	b := &bench{pair: e.pair(cfg, l), local: e.mr(1<<14, allAccess|verbs.AccessMWBind), remote: e.mr(1<<14, allAccess|verbs.AccessMWBind)}
	fill(b.local.Bytes()[:1<<13], 5)
	fill(b.remote.Bytes()[1<<13:], 6)
	return b
}

func (b *bench) window(t *testing.T) *verbs.MW {
	w, err := b.e.pd.AllocMW(verbs.MWType2)
	require.NoError(t, err)
	b.e.closeAtEnd(w)
	return w
}

// result is what an operation leaves behind and that must not depend on the way
// it was posted: the completions and the memory.
type result struct {
	send, recv    []verbs.WC
	local, remote string
}

// opCase is one operation: recvs posts what it consumes.
type opCase struct {
	name  string
	recvs int
	wrs   func(t *testing.T, b *bench) []verbs.SendWR
}

func (b *bench) sges(n int) []verbs.SGE {
	return split(b.local, 0, 3000, n)
}

func one(w verbs.SendWR) []verbs.SendWR {
	w.Flags |= verbs.SendSignaled
	return []verbs.SendWR{w}
}

var opCases = []opCase{
	{"send", 1, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(verbs.SendWR{Opcode: verbs.WRSend, SGList: sgl(b.local.SGE(0, 1000))})
	}},
	{"send imm", 1, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(verbs.SendWR{Opcode: verbs.WRSendWithImm, Imm: 0x01020304, SGList: sgl(b.local.SGE(0, 10))})
	}},
	{"write", 0, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(at(verbs.SendWR{Opcode: verbs.WRRDMAWrite, SGList: sgl(b.local.SGE(0, 5000))}, b.remote, 16))
	}},
	{"write imm", 1, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(at(verbs.SendWR{Opcode: verbs.WRRDMAWriteWithImm, Imm: 0xf1f2f3f4, SGList: sgl(b.local.SGE(0, 50))}, b.remote, 16))
	}},
	{"read", 0, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(at(verbs.SendWR{Opcode: verbs.WRRDMARead, SGList: sgl(b.local.SGE(1, 5000))}, b.remote, 1<<13))
	}},
	{"cas", 0, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(at(verbs.SendWR{Opcode: verbs.WRAtomicCmpAndSwp, CompareAdd: *word(b.remote, 1<<13), Swap: 0x1234, SGList: sgl(b.local.SGE(64, 8))}, b.remote, 1<<13))
	}},
	{"fadd", 0, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(at(verbs.SendWR{Opcode: verbs.WRAtomicFetchAndAdd, CompareAdd: 77, SGList: sgl(b.local.SGE(64, 8))}, b.remote, 1<<13))
	}},
	{"inline", 1, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(verbs.SendWR{Opcode: verbs.WRSend, Inline: []byte("memory that is not registered")})
	}},
	{"inline write", 0, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(at(verbs.SendWR{Opcode: verbs.WRRDMAWrite, Inline: []byte("written inline")}, b.remote, 9))
	}},
	{"inline list", 1, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(verbs.SendWR{Opcode: verbs.WRSend, Flags: verbs.SendInline, SGList: sgl(b.local.SGE(3, 20), b.local.SGE(100, 1), b.local.SGE(500, 13))})
	}},
	{"even list", 1, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(verbs.SendWR{Opcode: verbs.WRSend, SGList: sgl(b.local.SGE(0, 100), b.local.SGE(1000, 100), b.local.SGE(2000, 100))})
	}},
	{"uneven list", 0, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(at(verbs.SendWR{Opcode: verbs.WRRDMAWrite, SGList: b.sges(7)}, b.remote, 0))
	}},
	{"empty", 1, func(t *testing.T, b *bench) []verbs.SendWR {
		return one(verbs.SendWR{Opcode: verbs.WRSend})
	}},
	{"batch", 2, func(t *testing.T, b *bench) []verbs.SendWR {
		return []verbs.SendWR{
			at(verbs.SendWR{ID: 1, Opcode: verbs.WRRDMAWrite, SGList: sgl(b.local.SGE(0, 100))}, b.remote, 0),
			{ID: 2, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(b.local.SGE(0, 8))},
			at(verbs.SendWR{ID: 3, Opcode: verbs.WRRDMARead, Flags: verbs.SendSignaled, SGList: sgl(b.local.SGE(4096, 100))}, b.remote, 0),
			{ID: 4, Opcode: verbs.WRSendWithImm, Imm: 4, Flags: verbs.SendSignaled | verbs.SendFence | verbs.SendSolicited, SGList: sgl(b.local.SGE(4096, 9))},
		}
	}},
}

// run posts the case and collects what it leaves.
func (c *opCase) run(t *testing.T, b *bench, post poster) result {
	t.Helper()
	for i := range c.recvs {
		b.e.recv(b.b, verbs.RecvWR{ID: 100 + uint64(i), SGList: sgl(b.remote.SGE(4096*i, 4096))})
	}
	wrs := c.wrs(t, b)
	n := 0
	for _, w := range wrs {
		if w.Flags&verbs.SendSignaled != 0 {
			n++
		}
	}
	post(b.a, wrs...)
	var r result
	r.send, r.recv = b.e.poll(b.a.SendCQ(), n), b.e.poll(b.b.RecvCQ(), c.recvs)
	for _, l := range [][]verbs.WC{r.send, r.recv} {
		for i := range l {
			require.Equal(t, verbs.WCSuccess, l[i].Status, "%s: %+v", c.name, l[i])
			l[i].QPN = 0 // the only thing that may differ
			l[i].SrcQP = 0
		}
	}
	r.local, r.remote = string(b.local.Bytes()), string(b.remote.Bytes())
	return r
}

func init() {
	register("B01", "builder each op", func(t *testing.T, e *env) {
		build := func(q *verbs.QP, wrs ...verbs.SendWR) {
			t.Helper()
			n, err := q.WRPost(wrs, false)
			require.NoError(t, err)
			require.Equal(t, len(wrs), n)
		}
		for _, c := range opCases {
			untouched := e.bench(verbs.QPConfig{}, link{})
			r1 := c.run(t, e.bench(verbs.QPConfig{}, link{}), e.send)
			r2 := c.run(t, e.bench(verbs.QPConfig{}, link{}), build)
			require.Equal(t, r1.send, r2.send, c.name)
			require.Equal(t, r1.recv, r2.recv, c.name)
			require.True(t, r1.local == r2.local && r1.remote == r2.remote, "%s: the memory differs", c.name)
			if c.name != "empty" {
				require.False(t, r1.local == string(untouched.local.Bytes()) && r1.remote == string(untouched.remote.Bytes()), "%s changed nothing", c.name)
			}
		}
		// Bind, use, invalidate: at the peer by SEND, and locally.
		for name, post := range map[string]poster{"post_send": e.send, "builder": build} {
			b := e.bench(verbs.QPConfig{}, link{})
			mw := b.window(t)
			bind := func(k verbs.RKey) {
				post(b.b, verbs.SendWR{ID: 1, Opcode: verbs.WRBindMW, Flags: verbs.SendSignaled, RKey: k, BindMW: mw, BindMR: b.remote,
					BindAddr: b.remote.Addr() + 64, BindLength: 128, BindAccess: verbs.AccessRemoteWrite})
				require.Equal(t, verbs.WCBindMW, e.ok(b.b.SendCQ(), 1, verbs.WCSuccess).Opcode, name)
				mw.SetRKey(k)
			}
			write := verbs.SendWR{ID: 2, Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled, SGList: sgl(b.local.SGE(0, 128)), RemoteAddr: b.remote.Addr() + 64}
			write.RKey = verbs.IncRKey(mw.RKey())
			bind(write.RKey)
			post(b.a, write)
			e.ok(b.a.SendCQ(), 2, verbs.WCSuccess)
			require.Equal(t, b.local.Bytes()[:128], b.remote.Bytes()[64:192], name)

			post(b.b, verbs.SendWR{ID: 3, Opcode: verbs.WRLocalInv, Flags: verbs.SendSignaled, InvalidateRKey: mw.RKey()})
			require.Equal(t, verbs.WCLocalInv, e.ok(b.b.SendCQ(), 3, verbs.WCSuccess).Opcode, name)
			write.RKey = verbs.IncRKey(mw.RKey())
			bind(write.RKey)
			post(b.a, write)
			e.ok(b.a.SendCQ(), 2, verbs.WCSuccess)
			e.recv(b.b, verbs.RecvWR{ID: 4, SGList: sgl(b.remote.SGE(4096, 64))})
			post(b.a, verbs.SendWR{ID: 5, Opcode: verbs.WRSendWithInv, Flags: verbs.SendSignaled, InvalidateRKey: mw.RKey(), SGList: sgl(b.local.SGE(0, 64))})
			e.ok(b.a.SendCQ(), 5, verbs.WCSuccess)
			require.Equal(t, uint32(64), e.ok(b.b.RecvCQ(), 4, verbs.WCSuccess).ByteLen)
			post(b.a, write)
			e.ok(b.a.SendCQ(), 2, verbs.WCRemAccessErr)
		}
		// UD: the address goes with each request.
		for name, post := range map[string]poster{"post_send": e.send, "builder": build} {
			u := e.udPair(verbs.QPConfig{SendOps: opsFor(verbs.QPTUD)}, &e.gid)
			fill(u.m.Bytes()[:100], 4)
			for i, op := range []verbs.WROpcode{verbs.WRSend, verbs.WRSendWithImm} {
				e.recv(u.b, verbs.RecvWR{ID: 1, SGList: sgl(u.m.SGE(1024, 1024))})
				w := u.to(u.b, 2, u.m.SGE(0, 100))
				w.Opcode, w.Imm = op, 0x55667788
				post(u.a, w)
				e.ok(u.a.SendCQ(), 2, verbs.WCSuccess)
				c := e.ok(u.b.RecvCQ(), 1, verbs.WCSuccess)
				require.Equal(t, u.a.QPN(), c.SrcQP, name)
				require.Equal(t, u.m.Bytes()[:100], u.m.Bytes()[1024+40:1024+140], name)
				if i == 1 {
					require.Equal(t, uint32(0x55667788), c.Imm(), name)
				}
			}
		}
	})
	register("B02", "builder abort", func(t *testing.T, e *env) {
		b := e.bench(verbs.QPConfig{}, link{})
		before := string(b.remote.Bytes())
		for _, c := range opCases {
			if c.recvs > 0 {
				continue
			}
			wrs := c.wrs(t, b)
			for range 100 { // more than the queue holds
				n, err := b.a.WRPost(wrs, true)
				require.NoError(t, err, c.name)
				require.Equal(t, len(wrs), n)
			}
		}
		// A batch with a request that the queue pair was not made for.
		n, err := b.a.WRPost([]verbs.SendWR{
			at(sig(1, verbs.WRRDMAWrite, b.local.SGE(0, 64)), b.remote, 0),
			{Opcode: verbs.WRTSO},
		}, false)
		require.Error(t, err)
		require.Equal(t, 1, n)
		require.Empty(t, e.pollFor(b.a.SendCQ(), 1, 20*time.Millisecond))
		require.True(t, before == string(b.remote.Bytes()))
		b.exchange(t)
		require.Empty(t, e.pollFor(b.a.SendCQ(), 1, 20*time.Millisecond), "an aborted batch was sent along")
	})
	register("B03", "builder overflow", func(t *testing.T, e *env) {
		b := e.bench(verbs.QPConfig{Cap: verbs.QPCap{MaxSendWR: 16}}, link{})
		before := string(b.remote.Bytes())
		wrs := []verbs.SendWR{}
		for i := range 500 {
			wrs = append(wrs, at(sig(uint64(i), verbs.WRRDMAWrite, b.local.SGE(0, 64)), b.remote, 0))
		}
		_, err := b.a.WRPost(wrs, false)
		require.ErrorIs(t, err, verbs.ErrQueueFull)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.Empty(t, e.pollFor(b.a.SendCQ(), 1, 20*time.Millisecond))
		require.True(t, before == string(b.remote.Bytes()), "a part of it was posted")
		n, err := b.a.WRPost(wrs[:16], false) // what fits still goes
		require.NoError(t, err)
		require.Equal(t, 16, n)
		require.Equal(t, seq(0, 16), ids(t, e.poll(b.a.SendCQ(), 16), verbs.WCSuccess))
		require.Equal(t, b.local.Bytes()[:64], b.remote.Bytes()[:64])
	})
	register("B04", "set_sge_list uneven", func(t *testing.T, e *env) {
		b := e.bench(verbs.QPConfig{}, link{})
		for _, k := range []int{2, 3, 8} {
			clear(b.remote.Bytes())
			n, err := b.a.WRPost([]verbs.SendWR{
				at(verbs.SendWR{ID: 1, Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled, SGList: b.sges(k)}, b.remote, 8),
				at(verbs.SendWR{ID: 2, Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled, SGList: sgl(b.local.SGE(1, 1), b.local.SGE(5000, 77))}, b.remote, 8000),
			}, false)
			require.NoError(t, err)
			require.Equal(t, 2, n)
			require.Equal(t, []uint64{1, 2}, ids(t, e.poll(b.a.SendCQ(), 2), verbs.WCSuccess))
			require.True(t, string(b.local.Bytes()[:3000]) == string(b.remote.Bytes()[8:3008]), "an uneven list arrived damaged")
			require.Equal(t, b.local.Bytes()[1], b.remote.Bytes()[8000])
			require.Equal(t, b.local.Bytes()[5000:5077], b.remote.Bytes()[8001:8078])
			require.Equal(t, make([]byte, 64), b.remote.Bytes()[3008:3072])
		}
		if e.isRXE && rdmaCoreBefore(t, 64) {
			failsWithoutWorkarounds(t, "B04", "an uneven list arrived damaged")
		}
	})
	register("B05", "inline_data_list", func(t *testing.T, e *env) {
		b := e.bench(verbs.QPConfig{}, link{})
		most := int(b.a.Cap().MaxInlineData)
		for _, l := range [][]int{{1, 2, 3}, {20, 0, 30}, {most - 1, 1}, {7, 9, 11, most - 27}} {
			var list []verbs.SGE
			var want []byte
			for i, n := range l {
				s := b.local.SGE(i*500, n)
				s.LKey = 0
				list = append(list, s)
				want = append(want, b.local.Bytes()[i*500:i*500+n]...)
			}
			e.recv(b.b, verbs.RecvWR{ID: 1, SGList: sgl(b.remote.SGE(0, 4096))})
			n, err := b.a.WRPost([]verbs.SendWR{{ID: 2, Opcode: verbs.WRSend, Flags: verbs.SendSignaled | verbs.SendInline, SGList: list}}, false)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			e.ok(b.a.SendCQ(), 2, verbs.WCSuccess)
			require.Equal(t, uint32(len(want)), e.ok(b.b.RecvCQ(), 1, verbs.WCSuccess).ByteLen, "bytes of an inline list")
			require.Equal(t, want, b.remote.Bytes()[:len(want)])
		}
		n, err := b.a.WRPost([]verbs.SendWR{
			{ID: 3, Opcode: verbs.WRSend, Inline: []byte("fits")},
			{ID: 4, Opcode: verbs.WRSend, Flags: verbs.SendInline, SGList: sgl(b.local.SGE(0, most-1), b.local.SGE(0, 2))},
		}, false)
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Equal(t, 1, n)
		b.exchange(t) // and nothing of the batch was sent
		if e.isRXE && rdmaCoreBefore(t, 64) {
			failsWithoutWorkarounds(t, "B05", "bytes of an inline list")
		}
	})
}
