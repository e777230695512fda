package suite_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("X01", "SRQ traffic 2 QPs", func(t *testing.T, e *env) {
		s, err := e.pd.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: 64, MaxSGE: 2}})
		require.NoError(t, err)
		e.closeAtEnd(s)
		require.GreaterOrEqual(t, s.Attr().MaxWR, uint32(64))
		cq := e.cq(256, nil)
		var from [2]*verbs.QP
		var to [2]*verbs.QP
		for i := range from {
			from[i] = e.qp(verbs.QPConfig{})
			to[i] = e.qp(verbs.QPConfig{SRQ: s, SendCQ: cq})
			require.Equal(t, s, to[i].SRQ())
			e.connect(from[i], to[i], link{})
		}
		_, err = to[0].PostRecv([]verbs.RecvWR{{ID: 1}})
		require.Error(t, err, "a queue pair with an SRQ has no receive queue")
		src, dst := e.mr(4096, allAccess), e.mr(1<<16, allAccess)
		const n = 40
		rs := []verbs.RecvWR{}
		for i := range n {
			rs = append(rs, verbs.RecvWR{ID: uint64(i), SGList: sgl(dst.SGE(i*512, 100), dst.SGE(i*512+256, 100))})
		}
		e.recv(s, rs...)
		sent := map[uint32]int{}
		for i := range n {
			q := i * i % 3 % 2 // not simply in turns
			fill(src.Bytes()[:150], i)
			e.send(from[q], sig(uint64(i), verbs.WRSend, src.SGE(0, 150)))
			e.ok(from[q].SendCQ(), uint64(i), verbs.WCSuccess)
			c := e.ok(cq, uint64(i), verbs.WCSuccess) // receives are taken in order
			require.Equal(t, to[q].QPN(), c.QPN)
			require.Equal(t, uint32(150), c.ByteLen)
			require.Equal(t, src.Bytes()[:100], dst.Bytes()[i*512:i*512+100])
			require.Equal(t, src.Bytes()[100:150], dst.Bytes()[i*512+256:i*512+306])
			sent[c.QPN]++
		}
		require.Len(t, sent, 2)
		require.ErrorIs(t, s.Close(), verbs.ErrInUse)
	})
	register("X02", "SRQ resize", func(t *testing.T, e *env) {
		s, err := e.pd.CreateSRQ(verbs.SRQConfig{Attr: verbs.SRQAttr{MaxWR: 10}})
		require.NoError(t, err)
		e.closeAtEnd(s)
		m := e.mr(1<<16, allAccess)
		to := e.qp(verbs.QPConfig{SRQ: s})
		from := e.qp(verbs.QPConfig{})
		e.connect(from, to, link{})
		e.recv(s, recvs(m, 0, 8)...)
		for _, n := range []uint32{100, 1000, 40} {
			require.NoError(t, s.Modify(verbs.SRQAttr{MaxWR: n}, verbs.SRQAttrMaxWR))
			a, err := s.Query()
			require.NoError(t, err)
			require.GreaterOrEqual(t, a.MaxWR, n)
		}
		e.recv(s, recvs(m, 8, 32)...) // more than it was made for
		for i := range uint64(40) {   // those posted before are there, in order
			e.send(from, sig(100, verbs.WRSend, m.SGE(0, 8)))
			e.ok(from.SendCQ(), 100, verbs.WCSuccess)
			e.ok(to.RecvCQ(), i, verbs.WCSuccess)
		}
		require.NoError(t, s.Modify(verbs.SRQAttr{Limit: 5}, verbs.SRQAttrLimit))
		a, err := s.Query()
		require.NoError(t, err)
		require.Equal(t, uint32(5), a.Limit)
		d, err := e.ctx.QueryDevice()
		require.NoError(t, err)
		require.Error(t, s.Modify(verbs.SRQAttr{MaxWR: uint32(d.MaxSRQWR) + 1}, verbs.SRQAttrMaxWR))
	})
}
