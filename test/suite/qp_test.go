package suite_test

import (
	"errors"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/verbs"
)

// opsFor are the builder operations that every device offers on a type.
func opsFor(t verbs.QPType) verbs.SendOpsFlags {
	ops := verbs.QPExWithSend | verbs.QPExWithSendWithImm
	if t == verbs.QPTUD {
		return ops
	}
	ops |= verbs.QPExWithRDMAWrite | verbs.QPExWithRDMAWriteWithImm | verbs.QPExWithSendWithInv | verbs.QPExWithBindMW
	if t == verbs.QPTRC {
		ops |= verbs.QPExWithLocalInv | verbs.QPExWithRDMARead | verbs.QPExWithAtomicCmpAndSwp | verbs.QPExWithAtomicFetchAndAdd
	}
	return ops
}

var allTypes = []verbs.QPType{verbs.QPTRC, verbs.QPTUC, verbs.QPTUD}

func createQPs(t *testing.T, e *env, ex bool) {
	asked := verbs.QPCap{MaxSendWR: 10, MaxRecvWR: 20, MaxSendSGE: 3, MaxRecvSGE: 5, MaxInlineData: 48}
	seen := map[uint32]bool{}
	for _, typ := range allTypes {
		cfg := verbs.QPConfig{Type: typ, Cap: asked, SQSigAll: typ == verbs.QPTUC}
		if ex {
			cfg.SendOps = opsFor(typ)
		}
		q := e.qp(cfg)
		for name, c := range map[string]verbs.QPCap{"create": q.Cap(), "query": queried(t, q, typ, cfg.SQSigAll)} {
			assert.GreaterOrEqual(t, c.MaxSendWR, asked.MaxSendWR, "%v %s", typ, name)
			assert.GreaterOrEqual(t, c.MaxRecvWR, asked.MaxRecvWR, "%v %s", typ, name)
			assert.GreaterOrEqual(t, c.MaxSendSGE, asked.MaxSendSGE, "%v %s", typ, name)
			assert.GreaterOrEqual(t, c.MaxRecvSGE, asked.MaxRecvSGE, "%v %s", typ, name)
			assert.GreaterOrEqual(t, c.MaxInlineData, asked.MaxInlineData, "%v %s", typ, name)
		}
		s, err := q.State()
		require.NoError(t, err)
		require.Equal(t, verbs.QPSReset, s, "%v", typ)
		require.NotZero(t, q.QPN())
		require.Zero(t, q.QPN()>>24)
		require.False(t, seen[q.QPN()], "QP number given twice")
		seen[q.QPN()] = true
	}
}

func queried(t *testing.T, q *verbs.QP, typ verbs.QPType, sigAll bool) verbs.QPCap {
	got, c, s, err := q.QueryInit()
	require.NoError(t, err)
	require.Equal(t, typ, got)
	require.Equal(t, sigAll, s)
	return c
}

func init() {
	register("Q01", "create RC UC UD", func(t *testing.T, e *env) { createQPs(t, e, false) })
	register("Q02", "create ex", func(t *testing.T, e *env) {
		createQPs(t, e, true)
		cq := e.cq(16, nil)
		_, err := e.pd.CreateQP(verbs.QPConfig{Type: verbs.QPTUD, SendCQ: cq, SendOps: verbs.QPExWithRDMARead,
			Cap: verbs.QPCap{MaxSendWR: 1, MaxSendSGE: 1, MaxRecvWR: 1, MaxRecvSGE: 1}})
		require.Error(t, err, "READ on UD")
		require.ErrorIs(t, err, errors.ErrUnsupported)
		_, err = e.rc().a.WRPost([]verbs.SendWR{{Opcode: verbs.WRSend}}, true)
		require.ErrorIs(t, err, errors.ErrUnsupported, "the builder of a queue pair made without SendOps")
	})
	register("Q03", "illegal caps", func(t *testing.T, e *env) {
		a, err := e.ctx.QueryDevice()
		require.NoError(t, err)
		cq := e.cq(16, nil)
		ok := verbs.QPCap{MaxSendWR: 4, MaxRecvWR: 4, MaxSendSGE: 1, MaxRecvSGE: 1}
		for name, bad := range map[string]func(c *verbs.QPCap){
			"send wr":  func(c *verbs.QPCap) { c.MaxSendWR = uint32(a.MaxQPWR) + 1 },
			"recv wr":  func(c *verbs.QPCap) { c.MaxRecvWR = uint32(a.MaxQPWR) + 1 },
			"send sge": func(c *verbs.QPCap) { c.MaxSendSGE = uint32(a.MaxSGE) + 1 },
			"recv sge": func(c *verbs.QPCap) { c.MaxRecvSGE = uint32(a.MaxSGE) + 1 },
			"inline":   func(c *verbs.QPCap) { c.MaxInlineData = 1 << 20 },
		} {
			for _, typ := range allTypes {
				for _, ops := range []verbs.SendOpsFlags{0, verbs.QPExWithSend} {
					c := ok
					bad(&c)
					q, err := e.pd.CreateQP(verbs.QPConfig{Type: typ, SendCQ: cq, Cap: c, SendOps: ops})
					if err == nil {
						q.Close()
					}
					assert.ErrorIs(t, err, syscall.EINVAL, "%s of %v, ops %v", name, typ, ops)
				}
			}
		}
		_, err = e.pd.CreateQP(verbs.QPConfig{Cap: ok})
		require.ErrorIs(t, err, syscall.EINVAL, "no CQ")
	})
	register("Q06", "query", func(t *testing.T, e *env) {
		for _, typ := range []verbs.QPType{verbs.QPTRC, verbs.QPTUC} {
			q := e.qp(verbs.QPConfig{Type: typ})
			acc := verbs.AccessRemoteWrite
			if typ == verbs.QPTRC {
				acc |= verbs.AccessRemoteRead
			}
			l := link{mtu: verbs.MTU512, access: acc, timeout: 13, retry: 3, rnrRetry: 4, minRNR: 9, rdAtomic: 5}
			e.up(q, 0x123456, e.gid.GID, 0xabcdef, 0x13579b, l)
			a, err := q.Query(verbs.QPAttrState | verbs.QPAttrAccessFlags | verbs.QPAttrPKeyIndex | verbs.QPAttrPort |
				verbs.QPAttrAV | verbs.QPAttrPathMTU | verbs.QPAttrTimeout | verbs.QPAttrRetryCnt | verbs.QPAttrRNRRetry |
				verbs.QPAttrRQPSN | verbs.QPAttrSQPSN | verbs.QPAttrMaxQPRdAtomic | verbs.QPAttrMaxDestRdAtomic |
				verbs.QPAttrMinRNRTimer | verbs.QPAttrDestQPN | verbs.QPAttrCap)
			require.NoError(t, err)
			assert.Equal(t, verbs.QPSRTS, a.State)
			assert.Equal(t, acc, a.AccessFlags)
			assert.Equal(t, e.port, a.PortNum)
			assert.Equal(t, verbs.MTU512, a.PathMTU)
			assert.Equal(t, uint32(0x123456), a.DestQPN)
			assert.Equal(t, uint32(0xabcdef), a.SQPSN)
			assert.Equal(t, uint32(0x13579b), a.RQPSN)
			assert.True(t, a.AH.IsGlobal)
			assert.Equal(t, e.gid.GID, a.AH.GRH.DGID)
			assert.Equal(t, uint8(e.gid.Index), a.AH.GRH.SGIDIndex)
			assert.Equal(t, uint8(64), a.AH.GRH.HopLimit)
			assert.GreaterOrEqual(t, a.Cap.MaxSendWR, q.Cap().MaxSendWR) // rxe tells the size of its ring here
			if typ == verbs.QPTRC {
				assert.Equal(t, uint8(13), a.Timeout)
				assert.Equal(t, uint8(3), a.RetryCnt)
				assert.Equal(t, uint8(4), a.RNRRetry)
				assert.Equal(t, uint8(9), a.MinRNRTimer)
				assert.GreaterOrEqual(t, a.MaxRdAtomic, uint8(5))
				assert.GreaterOrEqual(t, a.MaxDestRdAtomic, uint8(5))
				// RTS to RTS changes what it names and nothing else.
				require.NoError(t, q.Modify(verbs.QPAttr{State: verbs.QPSRTS, MinRNRTimer: 20}, verbs.QPAttrState|verbs.QPAttrMinRNRTimer))
				a, err = q.Query(verbs.QPAttrMinRNRTimer | verbs.QPAttrTimeout)
				require.NoError(t, err)
				assert.Equal(t, uint8(20), a.MinRNRTimer)
				assert.Equal(t, uint8(13), a.Timeout)
			}
		}
	})
	register("Q07", "UD qkey sq_psn", func(t *testing.T, e *env) {
		q := e.qp(verbs.QPConfig{Type: verbs.QPTUD})
		e.up(q, 0, verbs.GID{}, 0x54321, 0, link{qkey: 0x1234567})
		a, err := q.Query(verbs.QPAttrQKey | verbs.QPAttrSQPSN | verbs.QPAttrState)
		require.NoError(t, err)
		assert.Equal(t, uint32(0x1234567), a.QKey)
		assert.Equal(t, uint32(0x54321), a.SQPSN)
		assert.Equal(t, verbs.QPSRTS, a.State)
		require.NoError(t, q.Modify(verbs.QPAttr{QKey: 0x7654321}, verbs.QPAttrQKey))
		a, err = q.Query(verbs.QPAttrQKey)
		require.NoError(t, err)
		assert.Equal(t, uint32(0x7654321), a.QKey)
	})
	register("Q08", "privileged qkey", func(t *testing.T, e *env) {
		const privileged = 0x80000000
		q := e.qp(verbs.QPConfig{Type: verbs.QPTUD})
		set := func(k uint32) error {
			return q.Modify(verbs.QPAttr{State: verbs.QPSInit, PortNum: e.port, QKey: k},
				verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrQKey)
		}
		withoutCap(t, unix.CAP_NET_RAW, func() {
			assert.ErrorIs(t, set(privileged), syscall.EPERM)
			assert.NoError(t, set(privileged-1))
		})
		require.NoError(t, set(privileged), "with CAP_NET_RAW")
	})
	register("Q09", "data in order", func(t *testing.T, e *env) {
		p := e.rc()
		for _, op := range []verbs.WROpcode{verbs.WRRDMAWrite, verbs.WRSend, verbs.WRRDMARead} {
			in, err := p.a.QueryDataInOrder(op, 0)
			require.NoError(t, err)
			if e.isRXE {
				require.False(t, in, "rxe promises no order")
			}
		}
	})
}

// withoutCap runs f on a thread that lacks a capability. The thread ends with
// it: the kernel takes no doorbell from a thread whose credentials are not those
// that opened the device, even after the capability is back.
func withoutCap(t *testing.T, c uint, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var d [2]unix.CapUserData
		if err := unix.Capget(&h, &d[0]); err != nil {
			t.Error(err)
			return
		}
		if d[c/32].Effective&(1<<(c%32)) == 0 {
			t.Error("the test needs the capability that it drops")
			return
		}
		d[c/32].Effective &^= 1 << (c % 32)
		if err := unix.Capset(&h, &d[0]); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}
