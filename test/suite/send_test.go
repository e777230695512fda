package suite_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// sig makes a signaled request of one element.
func sig(id uint64, op verbs.WROpcode, s verbs.SGE) verbs.SendWR {
	return verbs.SendWR{ID: id, Opcode: op, Flags: verbs.SendSignaled, SGList: sgl(s)}
}

// at adds the remote memory, off bytes into m.
func at(w verbs.SendWR, m *verbs.MR, off int) verbs.SendWR {
	w.RemoteAddr, w.RKey = m.Addr()+uint64(off), m.RKey()
	return w
}

func bytesOf(m verbs.MTU) int { return 128 << m }

// portMTU is the payload of a packet of queue pairs connected by default.
func (e *env) portMTU() int {
	pa, err := e.ctx.QueryPort(e.port)
	require.NoError(e.t, err)
	return bytesOf(pa.ActiveMTU)
}

// split cuts n bytes of m at off into k elements of lengths that all differ.
func split(m *verbs.MR, off, n, k int) []verbs.SGE {
	out := make([]verbs.SGE, 0, k)
	for i := range k {
		l := n/k + (i - k/2)
		if i == k-1 {
			l = n
		}
		out = append(out, m.SGE(off, l))
		off, n = off+l, n-l
	}
	return out
}

func init() {
	register("S02", "sizes", func(t *testing.T, e *env) {
		const most = 16 << 20
		p, mtu := e.rc(), e.portMTU()
		src, dst := e.mr(most, verbs.AccessLocalWrite), e.mr(most, verbs.AccessLocalWrite)
		for i, n := range []int{0, 1, mtu - 1, mtu, mtu + 1, 2 * mtu, 64 << 10, 1 << 20, most} {
			fill(src.Bytes()[:n], i)
			e.recv(p.b, verbs.RecvWR{ID: 1, SGList: sgl(dst.SGE(0, most))})
			e.send(p.a, sig(2, verbs.WRSend, src.SGE(0, n)))
			require.Equal(t, uint32(n), e.ok(p.b.RecvCQ(), 1, verbs.WCSuccess).ByteLen)
			e.ok(p.a.SendCQ(), 2, verbs.WCSuccess)
			require.True(t, string(src.Bytes()[:n]) == string(dst.Bytes()[:n]), "%d bytes", n)
		}
		// No element at all is a message of length 0 too.
		e.recv(p.b, verbs.RecvWR{ID: 1})
		e.send(p.a, verbs.SendWR{ID: 2, Opcode: verbs.WRSend, Flags: verbs.SendSignaled})
		require.Zero(t, e.ok(p.b.RecvCQ(), 1, verbs.WCSuccess).ByteLen)
		e.ok(p.a.SendCQ(), 2, verbs.WCSuccess)
	})
	register("S03", "imm", func(t *testing.T, e *env) {
		cq := e.cq(16, &verbs.CQConfig{Extended: true})
		p := &pair{e, e.qp(verbs.QPConfig{}), e.qp(verbs.QPConfig{SendCQ: cq})}
		e.connect(p.a, p.b, link{})
		m := e.mr(4096, allAccess)
		for i, imm := range []uint32{0x11223344, 0, 0xffffffff, 0x80000001} {
			e.recv(p.b, verbs.RecvWR{ID: 1, SGList: sgl(m.SGE(0, 100))})
			w := sig(2, verbs.WRSendWithImm, m.SGE(200, 7))
			w.Imm = imm
			e.send(p.a, w)
			e.ok(p.a.SendCQ(), 2, verbs.WCSuccess)
			if i&1 == 0 {
				c := e.ok(p.b.RecvCQ(), 1, verbs.WCSuccess)
				require.NotZero(t, c.Flags&verbs.WCWithImm)
				require.Equal(t, imm, c.Imm())
				require.Equal(t, uint32(7), c.ByteLen)
				continue
			}
			var x [1]verbs.WCEx
			require.Eventually(t, func() bool {
				n, err := cq.PollEx(x[:])
				return err == nil && n == 1
			}, waitLimit, time.Millisecond)
			require.NotZero(t, x[0].Flags&verbs.WCWithImm)
			require.Equal(t, imm, x[0].Imm())
		}
		// A send without: no flag.
		e.recv(p.b, verbs.RecvWR{ID: 1, SGList: sgl(m.SGE(0, 100))})
		e.send(p.a, sig(2, verbs.WRSend, m.SGE(200, 7)))
		require.Zero(t, e.ok(p.b.RecvCQ(), 1, verbs.WCSuccess).Flags&verbs.WCWithImm)
	})
	register("S04", "inline", func(t *testing.T, e *env) {
		p := e.rc()
		dst := e.mr(4096, verbs.AccessLocalWrite)
		most := int(p.a.Cap().MaxInlineData)
		require.GreaterOrEqual(t, most, 64)
		for _, n := range []int{1, 7, most} {
			buf, want := make([]byte, n), make([]byte, n) // memory of Go, not registered
			fill(buf, n)
			copy(want, buf)
			e.send(p.a, verbs.SendWR{ID: 1, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, Inline: buf})
			clear(buf) // nothing was sent yet: the peer has no receive
			time.Sleep(5 * time.Millisecond)
			e.recv(p.b, verbs.RecvWR{ID: 2, SGList: sgl(dst.SGE(0, 4096))})
			e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
			require.Equal(t, uint32(n), e.ok(p.b.RecvCQ(), 2, verbs.WCSuccess).ByteLen)
			require.Equal(t, want, dst.Bytes()[:n])
		}
		n, err := p.a.PostSend([]verbs.SendWR{{Opcode: verbs.WRSend, Inline: make([]byte, most+1)}})
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Zero(t, n)
		// SendInline with elements: their lkeys do not count, their sum is limited.
		e.recv(p.b, verbs.RecvWR{ID: 2, SGList: sgl(dst.SGE(0, 2048))})
		src := e.mr(4096, verbs.AccessLocalWrite)
		fill(src.Bytes(), 9)
		l := []verbs.SGE{src.SGE(0, 20), src.SGE(100, 13)}
		l[0].LKey, l[1].LKey = 0, 1
		e.send(p.a, verbs.SendWR{ID: 3, Opcode: verbs.WRSend, Flags: verbs.SendSignaled | verbs.SendInline, SGList: l})
		e.ok(p.a.SendCQ(), 3, verbs.WCSuccess)
		require.Equal(t, uint32(33), e.ok(p.b.RecvCQ(), 2, verbs.WCSuccess).ByteLen)
		require.Equal(t, append(append([]byte{}, src.Bytes()[:20]...), src.Bytes()[100:113]...), dst.Bytes()[:33])
		_, err = p.a.PostSend([]verbs.SendWR{{Opcode: verbs.WRSend, Flags: verbs.SendInline, SGList: sgl(src.SGE(0, most), src.SGE(0, 1))}})
		require.ErrorIs(t, err, syscall.EINVAL)
	})
	register("S05", "scatter gather", func(t *testing.T, e *env) {
		p := e.pair(verbs.QPConfig{Cap: verbs.QPCap{MaxSendSGE: 32, MaxRecvSGE: 32}}, link{})
		src, dst := e.mr(1<<18, verbs.AccessLocalWrite), e.mr(1<<18, allAccess)
		for _, n := range []int{1000, 5000, 100001, 1 << 18} {
			for _, k := range [][2]int{{32, 32}, {32, 1}, {1, 32}, {31, 7}} {
				what := fmt.Sprintf("%d bytes, %d to %d elements", n, k[0], k[1])
				fill(src.Bytes(), n+k[0])
				clear(dst.Bytes())
				e.recv(p.b, verbs.RecvWR{ID: 1, SGList: split(dst, 0, n, k[1])})
				e.send(p.a, verbs.SendWR{ID: 2, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: split(src, 0, n, k[0])})
				e.ok(p.a.SendCQ(), 2, verbs.WCSuccess)
				require.Equal(t, uint32(n), e.ok(p.b.RecvCQ(), 1, verbs.WCSuccess).ByteLen, what)
				require.True(t, string(src.Bytes()[:n]) == string(dst.Bytes()[:n]), what)
			}
		}
		// READ scatters, WRITE gathers, an element of length 0 in between.
		l := split(src, 0, 3000, 31)
		l = append(l[:5:5], append(sgl(src.SGE(7, 0)), l[5:]...)...)
		for _, op := range []verbs.WROpcode{verbs.WRRDMAWrite, verbs.WRRDMARead} {
			fill(src.Bytes()[:3000], int(op))
			if op == verbs.WRRDMARead {
				clear(src.Bytes()[:3000])
			}
			w := at(verbs.SendWR{ID: 3, Opcode: op, Flags: verbs.SendSignaled, SGList: l}, dst, 100)
			e.send(p.a, w)
			e.ok(p.a.SendCQ(), 3, verbs.WCSuccess)
			require.Equal(t, dst.Bytes()[100:3100], src.Bytes()[:3000])
			require.NotZero(t, src.Bytes()[2999])
		}
	})
	register("S06", "unsignaled", func(t *testing.T, e *env) {
		p := e.rc()
		src, dst := e.mr(4096, verbs.AccessLocalWrite), e.mr(4096, allAccess)
		n := int(p.a.Cap().MaxSendWR)
		for round := range 10 {
			wrs := []verbs.SendWR{}
			for i := range n {
				w := at(verbs.SendWR{ID: uint64(i), Opcode: verbs.WRRDMAWrite, SGList: sgl(src.SGE(i*8, 8))}, dst, i*8)
				if i == n-1 {
					w.Flags = verbs.SendSignaled
				}
				wrs = append(wrs, w)
			}
			fill(src.Bytes()[:n*8], round)
			e.send(p.a, wrs...)
			e.ok(p.a.SendCQ(), uint64(n-1), verbs.WCSuccess)
			require.Equal(t, src.Bytes()[:n*8], dst.Bytes()[:n*8])
		}
		require.Empty(t, e.pollFor(p.a.SendCQ(), 1, 20*time.Millisecond))
	})
	register("S07", "sq_sig_all", func(t *testing.T, e *env) {
		p := e.pair(verbs.QPConfig{SQSigAll: true}, link{})
		m := e.mr(4096, allAccess)
		wrs := []verbs.SendWR{}
		for i := range 20 {
			wrs = append(wrs, at(verbs.SendWR{ID: uint64(i), Opcode: verbs.WRRDMAWrite, SGList: sgl(m.SGE(0, 8))}, m, 8))
		}
		e.send(p.a, wrs...)
		require.Equal(t, seq(0, 20), ids(t, e.poll(p.a.SendCQ(), 20), verbs.WCSuccess))
	})
	register("S08", "fence", func(t *testing.T, e *env) {
		p := e.rc()
		local, remote := e.mr(1<<16, allAccess), e.mr(1<<17, allAccess)
		const n = 16 << 10
		for i := range 30 {
			fill(remote.Bytes()[:n], i)
			clear(local.Bytes()[:n])
			w := at(sig(2, verbs.WRRDMAWrite, local.SGE(0, n)), remote, 1<<16)
			w.Flags |= verbs.SendFence
			e.send(p.a, at(sig(1, verbs.WRRDMARead, local.SGE(0, n)), remote, 0), w)
			e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
			e.ok(p.a.SendCQ(), 2, verbs.WCSuccess)
			require.True(t, string(remote.Bytes()[:n]) == string(remote.Bytes()[1<<16:1<<16+n]), "the write left before the read was there")
		}
	})
	register("S09", "recv too small", func(t *testing.T, e *env) {
		p := e.rc()
		m := e.mr(4096, allAccess)
		e.recv(p.b, verbs.RecvWR{ID: 1, SGList: sgl(m.SGE(0, 50))}, verbs.RecvWR{ID: 2, SGList: sgl(m.SGE(0, 50))})
		e.send(p.a, sig(3, verbs.WRSend, m.SGE(0, 51)), sig(4, verbs.WRSend, m.SGE(0, 1)))
		// The specification has REM_INV_REQ_ERR and LOC_LEN_ERR. rxe, 6.1 and 6.12,
		// finds the buffer too short only while it copies, and takes that for a
		// broken receive request.
		sender, receiver := verbs.WCRemInvReqErr, verbs.WCLocLenErr
		if e.isRXE {
			sender, receiver = verbs.WCRemOpErr, verbs.WCLocQPOpErr
		}
		e.ok(p.a.SendCQ(), 3, sender)
		e.ok(p.a.SendCQ(), 4, verbs.WCWRFlushErr)
		w := e.ok(p.b.RecvCQ(), 1, receiver)
		e.ok(p.b.RecvCQ(), 2, verbs.WCWRFlushErr)
		requireState(t, p.a, verbs.QPSErr)
		requireState(t, p.b, verbs.QPSErr)
		ce := verbs.WCErr(&w)
		var c *verbs.CompletionError
		require.ErrorAs(t, ce, &c)
		require.Equal(t, p.b.QPN(), c.QPN)
	})
	register("S10", "RNR rnr_retry 0", func(t *testing.T, e *env) {
		for _, retries := range []uint8{255, 2} { // 255 stands for 0
			p := e.pair(verbs.QPConfig{}, link{rnrRetry: retries, minRNR: 1})
			m := e.mr(4096, allAccess)
			e.send(p.a, sig(1, verbs.WRSend, m.SGE(0, 8)), sig(2, verbs.WRSend, m.SGE(0, 8)))
			e.ok(p.a.SendCQ(), 1, verbs.WCRNRRetryExcErr)
			e.ok(p.a.SendCQ(), 2, verbs.WCWRFlushErr)
			requireState(t, p.a, verbs.QPSErr)
		}
	})
	register("S11", "RNR rnr_retry 7", func(t *testing.T, e *env) {
		p := e.pair(verbs.QPConfig{}, link{rnrRetry: 7, minRNR: 1})
		m := e.mr(4096, allAccess)
		fill(m.Bytes()[:8], 4)
		e.send(p.a, sig(1, verbs.WRSend, m.SGE(0, 8)))
		require.Empty(t, e.pollFor(p.a.SendCQ(), 1, 200*time.Millisecond))
		e.recv(p.b, verbs.RecvWR{ID: 2, SGList: sgl(m.SGE(100, 8))})
		e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
		e.ok(p.b.RecvCQ(), 2, verbs.WCSuccess)
		require.Equal(t, m.Bytes()[:8], m.Bytes()[100:108])
	})
	register("S12", "peer gone", func(t *testing.T, e *env) {
		for _, op := range []verbs.WROpcode{verbs.WRSend, verbs.WRRDMAWrite, verbs.WRRDMARead} {
			p := e.pair(verbs.QPConfig{}, link{timeout: 10, retry: 3})
			m := e.mr(4096, allAccess)
			require.NoError(t, p.b.Close())
			e.send(p.a, at(sig(1, op, m.SGE(0, 8)), m, 100), at(sig(2, op, m.SGE(0, 8)), m, 100))
			e.ok(p.a.SendCQ(), 1, verbs.WCRetryExcErr)
			e.ok(p.a.SendCQ(), 2, verbs.WCWRFlushErr)
			requireState(t, p.a, verbs.QPSErr)
		}
	})
}
