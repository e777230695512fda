package suite_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

func init() {
	register("S01", "send recv RC", func(t *testing.T, e *env) {
		p := e.rc()
		src, dst := e.mr(4096, verbs.AccessLocalWrite), e.mr(4096, verbs.AccessLocalWrite)
		fill(src.Bytes()[:100], 1)
		e.recv(p.b, verbs.RecvWR{ID: 7, SGList: sgl(dst.SGE(0, 4096))})
		e.send(p.a, verbs.SendWR{ID: 8, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: sgl(src.SGE(0, 100))})
		e.ok(p.a.SendCQ(), 8, verbs.WCSuccess)
		w := e.ok(p.b.RecvCQ(), 7, verbs.WCSuccess)
		require.Equal(t, uint32(100), w.ByteLen)
		require.True(t, w.IsRecv())
		require.Equal(t, p.b.QPN(), w.QPN)
		require.Equal(t, src.Bytes()[:100], dst.Bytes()[:100])
	})
}
