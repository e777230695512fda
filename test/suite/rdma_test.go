package suite_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("R01", "write", func(t *testing.T, e *env) {
		p, mtu := e.rc(), e.portMTU()
		src, dst := e.mr(1<<20, verbs.AccessLocalWrite), e.mr(1<<20, allAccess)
		for i, n := range []int{1, 8, mtu - 1, mtu, mtu + 1, 100001, 1<<20 - 64} {
			fill(src.Bytes(), i)
			clear(dst.Bytes())
			e.send(p.a, at(sig(1, verbs.WRRDMAWrite, src.SGE(3, n)), dst, 32))
			e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
			require.True(t, string(src.Bytes()[3:3+n]) == string(dst.Bytes()[32:32+n]), "%d bytes", n)
			require.Equal(t, make([]byte, 32), dst.Bytes()[:32], "before")
			require.Equal(t, make([]byte, 32), dst.Bytes()[32+n:64+n], "behind")
		}
		ah, err := e.pd.CreateAH(e.ahAttr(e.gid.GID, &e.gid))
		require.NoError(t, err)
		e.closeAtEnd(ah)
		w := at(sig(2, verbs.WRRDMAWrite, src.SGE(0, 8)), dst, 64)
		w.AH, w.RemoteQPN, w.RemoteQKey = ah, 1, 2 // for UD; here they mean nothing
		e.send(p.a, w)
		e.ok(p.a.SendCQ(), 2, verbs.WCSuccess)
		require.Equal(t, src.Bytes()[:8], dst.Bytes()[64:72])
		// The peer sees nothing of it.
		require.Empty(t, e.pollFor(p.b.RecvCQ(), 1, 0))
	})
	register("R02", "write imm", func(t *testing.T, e *env) {
		p, mtu := e.rc(), e.portMTU()
		src, dst := e.mr(1<<16, verbs.AccessLocalWrite), e.mr(1<<16, allAccess)
		scratch := e.mr(64, verbs.AccessLocalWrite)
		for i, n := range []int{0, 1, mtu, mtu + 1, 5*mtu + 7} {
			fill(src.Bytes(), i)
			e.recv(p.b, verbs.RecvWR{ID: 5, SGList: sgl(scratch.SGE(0, 1))})
			w := at(sig(6, verbs.WRRDMAWriteWithImm, src.SGE(0, n)), dst, 8)
			w.Imm = 0xa1b2c3d4 + uint32(i)
			e.send(p.a, w)
			e.ok(p.a.SendCQ(), 6, verbs.WCSuccess)
			c := e.ok(p.b.RecvCQ(), 5, verbs.WCSuccess)
			require.Equal(t, verbs.WCRecvRDMAWithImm, c.Opcode)
			require.True(t, c.IsRecv())
			require.NotZero(t, c.Flags&verbs.WCWithImm)
			require.Equal(t, 0xa1b2c3d4+uint32(i), c.Imm())
			require.Equal(t, uint32(n), c.ByteLen)
			require.Equal(t, src.Bytes()[:n], dst.Bytes()[8:8+n])
		}
		require.Zero(t, scratch.Bytes()[0], "the receive's buffer is not used")
		// Without a receive it waits for one, as a send does.
		p = e.pair(verbs.QPConfig{}, link{rnrRetry: 255, minRNR: 1})
		e.send(p.a, at(sig(7, verbs.WRRDMAWriteWithImm, src.SGE(0, 8)), dst, 0))
		e.ok(p.a.SendCQ(), 7, verbs.WCRNRRetryExcErr)
	})
	register("R03", "write 0", func(t *testing.T, e *env) {
		p := e.rc()
		src, dst := e.mr(64, verbs.AccessLocalWrite), e.mr(64, allAccess)
		fill(src.Bytes(), 1)
		e.send(p.a,
			at(verbs.SendWR{ID: 1, Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled}, dst, 0),
			at(sig(2, verbs.WRRDMAWrite, src.SGE(0, 0)), dst, 0),
			// No byte is touched, so no key is looked at.
			verbs.SendWR{ID: 3, Opcode: verbs.WRRDMAWrite, Flags: verbs.SendSignaled})
		for id := range uint64(3) {
			e.ok(p.a.SendCQ(), id+1, verbs.WCSuccess)
		}
		require.Equal(t, make([]byte, 64), dst.Bytes())
	})
	register("R04", "read", func(t *testing.T, e *env) {
		p, mtu := e.rc(), e.portMTU()
		dst, src := e.mr(1<<20, verbs.AccessLocalWrite), e.mr(1<<20, allAccess)
		for i, n := range []int{0, 1, 8, mtu - 1, mtu, mtu + 1, 100001, 1<<20 - 64} {
			fill(src.Bytes(), i)
			clear(dst.Bytes())
			e.send(p.a, at(sig(1, verbs.WRRDMARead, dst.SGE(32, n)), src, 3))
			c := e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
			require.Equal(t, verbs.WCRDMARead, c.Opcode)
			require.Equal(t, uint32(n), c.ByteLen)
			require.True(t, string(src.Bytes()[3:3+n]) == string(dst.Bytes()[32:32+n]), "%d bytes", n)
			require.Equal(t, make([]byte, 32), dst.Bytes()[:32], "before")
			require.Equal(t, make([]byte, 32), dst.Bytes()[32+n:64+n], "behind")
		}
	})
	register("R05", "read depth", func(t *testing.T, e *env) {
		for _, depth := range []uint8{1, 16} {
			p := e.pair(verbs.QPConfig{Cap: verbs.QPCap{MaxSendWR: 128}}, link{rdAtomic: depth})
			dst, src := e.mr(1<<20, verbs.AccessLocalWrite), e.mr(1<<20, allAccess)
			fill(src.Bytes(), int(depth))
			wrs := []verbs.SendWR{}
			for i := range 100 {
				wrs = append(wrs, at(sig(uint64(i), verbs.WRRDMARead, dst.SGE((99-i)*8192, 8192)), src, i*8192))
			}
			e.send(p.a, wrs...)
			require.Equal(t, seq(0, 100), ids(t, e.poll(p.a.SendCQ(), 100), verbs.WCSuccess), "depth %d", depth)
			for i := range 100 {
				require.True(t, string(dst.Bytes()[(99-i)*8192:(100-i)*8192]) == string(src.Bytes()[i*8192:(i+1)*8192]), "read %d", i)
			}
		}
	})
}
