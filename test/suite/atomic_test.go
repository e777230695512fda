package suite_test

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/verbs"
)

// word is the 64-bit value at byte off of m.
func word(m *verbs.MR, off int) *uint64 { return (*uint64)(unsafe.Pointer(&m.Bytes()[off])) }

func init() {
	register("A01", "CAS FADD", func(t *testing.T, e *env) {
		a, err := e.ctx.QueryDevice()
		require.NoError(t, err)
		require.NotEqual(t, verbs.AtomicNone, a.AtomicCap)
		p := e.rc()
		old, m := e.mr(64, verbs.AccessLocalWrite), e.mr(4096, allAccess)
		*word(m, 8) = 0x1122334455667788
		do := func(w verbs.SendWR, op verbs.WCOpcode) uint64 {
			*word(old, 0) = 0xdead
			e.send(p.a, w)
			c := e.ok(p.a.SendCQ(), w.ID, verbs.WCSuccess)
			require.Equal(t, op, c.Opcode)
			require.Equal(t, uint32(8), c.ByteLen)
			return *word(old, 0)
		}
		cas := at(sig(1, verbs.WRAtomicCmpAndSwp, old.SGE(0, 8)), m, 8)
		cas.CompareAdd, cas.Swap = 1, 2
		require.Equal(t, uint64(0x1122334455667788), do(cas, verbs.WCCompSwap), "no match")
		require.Equal(t, uint64(0x1122334455667788), *word(m, 8))
		cas.CompareAdd, cas.Swap = 0x1122334455667788, 0x8877665544332211
		require.Equal(t, uint64(0x1122334455667788), do(cas, verbs.WCCompSwap))
		require.Equal(t, uint64(0x8877665544332211), *word(m, 8))
		add := at(sig(2, verbs.WRAtomicFetchAndAdd, old.SGE(0, 8)), m, 8)
		add.CompareAdd = 0xf
		require.Equal(t, uint64(0x8877665544332211), do(add, verbs.WCFetchAdd))
		require.Equal(t, uint64(0x8877665544332220), *word(m, 8))
		add.CompareAdd = ^uint64(0) // minus one
		require.Equal(t, uint64(0x8877665544332220), do(add, verbs.WCFetchAdd))
		require.Equal(t, uint64(0x887766554433221f), *word(m, 8))
		require.Zero(t, *word(m, 0))
		require.Zero(t, *word(m, 16))

		// Eight queue pairs add to one word, each from a goroutine of its own.
		const workers, each = 8, 100
		var wg sync.WaitGroup
		var seen [workers * each]atomic.Bool
		for range workers {
			p, old := e.rc(), e.mr(8, verbs.AccessLocalWrite)
			wg.Go(func() {
				w := at(sig(3, verbs.WRAtomicFetchAndAdd, old.SGE(0, 8)), m, 64)
				w.CompareAdd = 1
				for range each {
					if n, err := p.a.PostSend([]verbs.SendWR{w}); !assert.NoError(t, err) || n != 1 {
						return
					}
					var wc [1]verbs.WC
					for end := time.Now().Add(waitLimit); ; time.Sleep(50 * time.Microsecond) {
						if n, err := p.a.SendCQ().Poll(wc[:]); !assert.NoError(t, err) || n == 1 {
							break
						}
						if !assert.True(t, time.Now().Before(end), "no completion") {
							return
						}
					}
					if v := *word(old, 0); !assert.Equal(t, verbs.WCSuccess, wc[0].Status) || !assert.Less(t, v, uint64(len(seen))) || !assert.False(t, seen[v].Swap(true), "%d fetched twice", v) {
						return
					}
				}
			})
		}
		wg.Wait()
		require.Equal(t, uint64(workers*each), *word(m, 64))
	})
	register("A02", "misaligned", func(t *testing.T, e *env) {
		p := e.pair(verbs.QPConfig{SendOps: opsFor(verbs.QPTRC)}, link{})
		m := e.mr(64, allAccess)
		for _, op := range []verbs.WROpcode{verbs.WRAtomicCmpAndSwp, verbs.WRAtomicFetchAndAdd} {
			for off := 1; off < 8; off++ {
				w := []verbs.SendWR{at(sig(1, op, m.SGE(0, 8)), m, 8), at(sig(2, op, m.SGE(0, 8)), m, 8+off)}
				n, err := p.a.PostSend(w)
				require.ErrorIs(t, err, syscall.EINVAL)
				require.Equal(t, 1, n)
				e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
				n, err = p.a.WRPost(w, false)
				require.ErrorIs(t, err, syscall.EINVAL)
				require.Equal(t, 1, n)
			}
			// Fewer than eight bytes for the result.
			n, err := p.a.PostSend([]verbs.SendWR{at(sig(1, op, m.SGE(0, 7)), m, 8)})
			require.ErrorIs(t, err, syscall.EINVAL)
			require.Zero(t, n)
		}
		require.Empty(t, e.pollFor(p.a.SendCQ(), 1, 20*time.Millisecond))
		p.exchange(t)
	})
	register("A03", "atomic write", func(t *testing.T, e *env) {
		const atomicWriteCap = 1 << 40 // IB_DEVICE_ATOMIC_WRITE
		x, err := e.ctx.QueryDeviceEx()
		require.NoError(t, err)
		cap := x.DeviceCapFlagsEx&atomicWriteCap != 0
		if e.isRXE && kernelAtLeast(6, 2) {
			require.True(t, cap, "rxe has it since 6.2")
		}
		m := e.mr(4096, allAccess)
		w := at(verbs.SendWR{ID: 1, Opcode: verbs.WRAtomicWrite, Flags: verbs.SendSignaled, Swap: 0x0102030405060708}, m, 16)
		if !cap {
			p := e.rc()
			_, err := p.a.PostSend([]verbs.SendWR{w})
			require.ErrorIs(t, err, errors.ErrUnsupported)
			cq := e.cq(16, nil)
			c := verbs.QPCap{MaxSendWR: 4, MaxSendSGE: 1, MaxRecvWR: 1, MaxRecvSGE: 1}
			q, err := e.pd.CreateQP(verbs.QPConfig{SendCQ: cq, Cap: c, SendOps: verbs.QPExWithAtomicWrite | verbs.QPExWithSend})
			if err == nil {
				q.Close()
			}
			require.ErrorIs(t, err, errors.ErrUnsupported)
			require.Empty(t, e.pollFor(p.a.SendCQ(), 1, 20*time.Millisecond))
			return
		}
		p := e.pair(verbs.QPConfig{SendOps: opsFor(verbs.QPTRC) | verbs.QPExWithAtomicWrite}, link{})
		n, err := p.a.WRPost([]verbs.SendWR{w}, false)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, verbs.WCAtomicWrite, e.ok(p.a.SendCQ(), 1, verbs.WCSuccess).Opcode)
		require.Equal(t, uint64(0x0102030405060708), binary.NativeEndian.Uint64(m.Bytes()[16:]))
		require.Zero(t, *word(m, 8))
		require.Zero(t, *word(m, 24))
		w.RemoteAddr++
		_, err = p.a.WRPost([]verbs.SendWR{w}, false)
		require.ErrorIs(t, err, syscall.EINVAL)
	})
	register("A04", "flush", func(t *testing.T, e *env) {
		m := e.mr(4096, allAccess)
		w := at(verbs.SendWR{ID: 1, Opcode: verbs.WRFlush, Flags: verbs.SendSignaled, CompareAdd: 64}, m, 0)
		if e.soft || rdmaCoreBefore(t, 45) || !kernelAtLeast(6, 2) {
			p := e.pair(verbs.QPConfig{SendOps: opsFor(verbs.QPTRC)}, link{})
			for _, post := range []func() (int, error){
				func() (int, error) { return p.a.PostSend([]verbs.SendWR{w}) },
				func() (int, error) { return p.a.WRPost([]verbs.SendWR{w}, false) },
			} {
				n, err := post()
				require.ErrorIs(t, err, errors.ErrUnsupported)
				require.Zero(t, n)
			}
			q, err := e.pd.CreateQP(verbs.QPConfig{SendCQ: e.cq(4, nil), SendOps: verbs.QPExWithFlush, Cap: verbs.QPCap{MaxSendWR: 4, MaxSendSGE: 1, MaxRecvWR: 1, MaxRecvSGE: 1}})
			if err == nil {
				q.Close()
			}
			require.ErrorIs(t, err, errors.ErrUnsupported)
			require.Empty(t, e.pollFor(p.a.SendCQ(), 1, 20*time.Millisecond))
			p.exchange(t)
			return
		}
		const global, rangeLevel, mrLevel = 1, 0, 1
		flushable, err := e.pd.RegMR(e.mem(4096), allAccess|verbs.AccessFlushGlobal)
		require.NoError(t, err)
		e.closeAtEnd(flushable)
		ops := opsFor(verbs.QPTRC) | verbs.QPExWithFlush
		for _, level := range []uint32{rangeLevel, mrLevel} {
			p := e.pair(verbs.QPConfig{SendOps: ops}, link{access: allAccess | verbs.AccessFlushGlobal})
			w := at(w, flushable, 0)
			w.FlushType, w.FlushLevel = global, level
			_, err := p.a.WRPost([]verbs.SendWR{w}, false)
			require.NoError(t, err)
			e.ok(p.a.SendCQ(), 1, verbs.WCSuccess)
			w.FlushType = 2 // persistent: this region is not
			_, err = p.a.WRPost([]verbs.SendWR{w}, false)
			require.NoError(t, err)
			e.ok(p.a.SendCQ(), 1, verbs.WCRemAccessErr)
		}
	})
}
