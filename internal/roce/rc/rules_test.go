package rc

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

func TestWiden(t *testing.T) {
	for _, c := range []struct {
		ref  int64
		psn  uint32
		want int64
	}{
		{psnBase, 0, psnBase}, {psnBase, 0xffffff, psnBase - 1}, {psnBase + 0xffffff, 0, psnBase + 0x1000000},
		{psnBase + 5, 5 + 0x7fffff, psnBase + 5 + 0x7fffff}, {psnBase + 5, 5 + 0x800000, psnBase + 5 - 0x800000},
		{3*psnBase + 0xfffffe, 1, 4*psnBase + 1},
	} {
		require.Equal(t, c.want, widen(c.ref, c.psn))
		require.Equal(t, c.psn&0xffffff, narrow(c.want))
	}
}

func TestOneNAKForEachGap(t *testing.T) {
	n := newNet(t, defaults())
	n.b.keep = true
	for i := range 10 {
		n.b.postRecv(uint64(i), make([]byte, 8))
	}
	in := func(psns ...uint32) []wire.Packet {
		n.b.log = nil
		for _, x := range psns {
			n.b.qp.Input(0, &wire.Packet{Opcode: wire.RCSendOnly, PSN: x, AckReq: true})
			n.b.qp.FlushAcks()
		}
		return n.b.log
	}
	out := in(7, 9, 10, 11)
	require.Len(t, out, 2)
	require.Equal(t, uint8(synAck), out[0].Syndrome)
	require.Equal(t, uint8(synSeq), out[1].Syndrome)
	require.Equal(t, uint32(8), out[1].PSN)
	require.Empty(t, in(10, 12))
	out = in(8)
	require.Len(t, out, 1)
	require.Equal(t, uint8(synAck), out[0].Syndrome)
	out = in(10) // a new gap
	require.Len(t, out, 1)
	require.Equal(t, uint8(synSeq), out[0].Syndrome)
	require.Equal(t, uint32(9), out[0].PSN)
	out = in(7) // a duplicate is acknowledged with what came last
	require.Len(t, out, 1)
	require.Equal(t, uint8(synAck), out[0].Syndrome)
	require.Equal(t, uint32(8), out[0].PSN)
	require.Equal(t, uint32(2), out[0].MSN)
	require.Len(t, n.b.recvs, 2)
}

func TestAcksAreCoalesced(t *testing.T) {
	n := newNet(t, defaults())
	for i := range uint64(32) {
		n.b.postRecv(i, make([]byte, 8))
		n.a.post(i, provider.WRSend, make([]byte, 8), 0, 0, nil)
	}
	n.run() // all of them arrive in one batch
	require.Equal(t, 1, n.b.sent[wire.RCAck])
	require.Len(t, n.a.sends, 32)

	// Without AckReq nobody is answered.
	n.b.postRecv(1, make([]byte, 8))
	n.b.qp.Input(0, &wire.Packet{Opcode: wire.RCSendOnly, PSN: 7 + 32})
	n.b.qp.FlushAcks()
	require.Equal(t, 1, n.b.sent[wire.RCAck])
}

func TestAckIsAskedForWithinLongMessages(t *testing.T) {
	p := defaults()
	p.window = 64
	n := newNet(t, p)
	n.a.keep = true
	key, base := n.b.reg(make([]byte, 200<<10), allAccess)
	n.a.post(1, provider.WRRDMAWrite, make([]byte, 200<<10), base, key, nil)
	require.Equal(t, windowStart, n.a.qp.Pump(0, 1000), "the window")
	n.run()
	require.Equal(t, []provider.WCStatus{0}, status(n.a.sends))
	silent := 0
	for i, x := range n.a.log {
		if silent++; x.AckReq {
			silent = 0
		}
		require.Less(t, silent, 16, "packet %d: a quarter of the window without asking", i)
	}
	require.Zero(t, silent, "the last one asks")
	require.Equal(t, int64(64), n.a.qp.win.now)
}

func TestLostReadResponse(t *testing.T) {
	n := newNet(t, defaults())
	n.a.keep = true
	src := make([]byte, 100<<10)
	for i := range src {
		src[i] = byte(i * i >> 8)
	}
	key, base := n.b.reg(src, allAccess)
	dst := make([]byte, len(src))
	n.a.post(1, provider.WRRDMARead, dst, base, key, nil)
	lost := false
	n.filter = func(h *host, p *wire.Packet) bool {
		if h == n.b && p.PSN == 7+40 && !lost {
			lost = true
			return false
		}
		return true
	}
	n.run()
	require.True(t, lost)
	require.Equal(t, []provider.WCStatus{0}, status(n.a.sends))
	require.Equal(t, src, dst)
	require.Less(t, n.now, ackTimeout(14), "found by what follows, not by the timer")
	require.Len(t, n.a.log, 2)
	require.Equal(t, uint32(7+40), n.a.log[1].PSN, "only the rest is asked for")
	require.Equal(t, base+40*1024, n.a.log[1].VA)
	require.Equal(t, uint32(60<<10), n.a.log[1].DMALen)
}

func TestAckPastAReadIsImpliedNAK(t *testing.T) {
	n := newNet(t, defaults())
	key, base := n.b.reg([]byte("0123456789"), allAccess)
	n.b.postRecv(1, make([]byte, 10))
	dst := make([]byte, 10)
	n.a.post(1, provider.WRRDMARead, dst, base, key, nil)
	n.a.post(2, provider.WRSend, make([]byte, 10), 0, 0, nil)
	n.filter = func(h *host, p *wire.Packet) bool {
		return p.Opcode != wire.RCReadRespOnly || n.b.sent[wire.RCReadRespOnly] > 1
	}
	n.run()
	require.Equal(t, []uint64{1, 2}, ids(n.a.sends))
	require.Equal(t, "0123456789", string(dst))
	require.Less(t, n.now, ackTimeout(14))
	require.Len(t, n.b.recvs, 1)
}

func TestDuplicateAtomicsAreReplayed(t *testing.T) {
	n := newNet(t, defaults())
	mem := make([]byte, 8)
	key, base := n.b.reg(mem, allAccess)
	got := make([][]byte, 12)
	for i := range got {
		got[i] = make([]byte, 8)
		n.a.post(uint64(i), provider.WRAtomicFetchAndAdd, got[i], base, key, func(wr *provider.WR) { wr.CompareAdd = 3 })
	}
	seen := map[uint32]bool{}
	n.filter = func(h *host, p *wire.Packet) bool { // each answer is lost once
		was := seen[p.PSN]
		seen[p.PSN] = was || p.Opcode == wire.RCAtomicAck
		return p.Opcode != wire.RCAtomicAck || was
	}
	n.run()
	require.Equal(t, make([]provider.WCStatus, 12), status(n.a.sends))
	for i, b := range got {
		require.Equal(t, uint64(3*i), binary.NativeEndian.Uint64(b))
	}
	require.Equal(t, uint64(36), binary.NativeEndian.Uint64(mem))
	require.Greater(t, n.b.sent[wire.RCAtomicAck], 12)
}

// TestReplayForgetsOldAtomics: an atomic beyond the cache is not executed again.
// TestAcksNameNoAtomic: an ACK that arrives where the response of an atomic was
// lost must not pass for it; so it names the last SEND or WRITE, also for a
// duplicate.
func TestAcksNameNoAtomic(t *testing.T) {
	n := newNet(t, defaults())
	n.b.keep = true
	n.b.postRecv(1, make([]byte, 8))
	key, base := n.b.reg(make([]byte, 64), allAccess)
	acks := func(ps ...wire.Packet) (psns []uint32) {
		n.b.log = nil
		for i := range ps {
			n.b.qp.Input(0, &ps[i])
		}
		n.b.qp.Pump(0, 64)
		n.b.qp.FlushAcks()
		for _, p := range n.b.log {
			if p.Opcode == wire.RCAck {
				psns = append(psns, p.PSN)
			}
		}
		return psns
	}
	send := wire.Packet{Opcode: wire.RCSendOnly, PSN: 7, AckReq: true}
	add := wire.Packet{Opcode: wire.RCFetchAdd, PSN: 8, VA: base, RKey: key, Swap: 1, AckReq: true}
	read := wire.Packet{Opcode: wire.RCReadRequest, PSN: 9, VA: base, RKey: key, DMALen: 8, AckReq: true}
	require.Equal(t, []uint32{7}, acks(send, add, read))
	require.Equal(t, []uint32{7}, acks(send))
	require.Equal(t, []uint32{7}, acks(add, send))
}

func TestReplayForgetsOldAtomics(t *testing.T) {
	n := newNet(t, defaults()) // 4 remembered
	mem := make([]byte, 8)
	key, base := n.b.reg(mem, allAccess)
	in := func(psn uint32) {
		n.b.qp.Input(0, &wire.Packet{Opcode: wire.RCFetchAdd, PSN: psn, VA: base, RKey: key, Swap: 1})
		n.b.qp.FlushAcks()
		n.b.qp.Pump(0, 10)
	}
	for i := range uint32(5) {
		in(7 + i)
	}
	in(7)
	require.Equal(t, 5, n.b.sent[wire.RCAtomicAck])
	in(8)
	require.Equal(t, 6, n.b.sent[wire.RCAtomicAck])
	require.Equal(t, uint64(5), binary.NativeEndian.Uint64(mem))
}

func TestReplayOfFreedMemoryIsHarmless(t *testing.T) {
	n := newNet(t, defaults())
	key, base := n.b.reg(make([]byte, 100), allAccess)
	rd := wire.Packet{Opcode: wire.RCReadRequest, PSN: 7, VA: base, RKey: key, DMALen: 100}
	n.b.qp.Input(0, &rd)
	n.b.qp.Pump(0, 10)
	delete(n.b.regions, key)
	n.b.qp.Input(0, &rd)
	n.b.qp.Pump(0, 10)
	n.b.qp.FlushAcks()
	require.Equal(t, 1, n.b.sent[wire.RCReadRespOnly])
	require.Zero(t, n.b.sent[wire.RCAck])
	require.Equal(t, provider.QPSRTS, n.b.qp.State())
}

func TestAcksWaitForReadResponses(t *testing.T) {
	n := newNet(t, defaults())
	n.b.keep = true
	key, base := n.b.reg(make([]byte, 5000), allAccess)
	n.b.postRecv(1, nil)
	n.b.qp.Input(0, &wire.Packet{Opcode: wire.RCReadRequest, PSN: 7, VA: base, RKey: key, DMALen: 5000})
	n.b.qp.Input(0, &wire.Packet{Opcode: wire.RCSendOnly, PSN: 12, AckReq: true})
	n.b.qp.FlushAcks()
	require.Empty(t, n.b.log)
	require.Equal(t, 3, n.b.qp.Pump(0, 3))
	require.Equal(t, 2, n.b.qp.Pump(0, 3))
	var ops []wire.Opcode
	var psns []uint32
	for _, p := range n.b.log {
		ops, psns = append(ops, p.Opcode), append(psns, p.PSN)
	}
	require.Equal(t, []wire.Opcode{wire.RCReadRespFirst, wire.RCReadRespMiddle, wire.RCReadRespMiddle, wire.RCReadRespMiddle, wire.RCReadRespLast, wire.RCAck}, ops)
	require.Equal(t, []uint32{7, 8, 9, 10, 11, 12}, psns)
	require.Len(t, n.b.recvs, 1, "the receive did not wait")
}

func TestReadsInFlightAreBounded(t *testing.T) {
	p := defaults()
	p.window = 8 // pieces of 4 packets
	p.maxRd = 2
	n := newNet(t, p)
	n.a.keep = true
	src := make([]byte, 64<<10)
	src[60<<10] = 1
	key, base := n.b.reg(src, allAccess)
	dst := make([]byte, len(src))
	n.a.post(1, provider.WRRDMARead, dst, base, key, nil)
	require.Equal(t, 2, n.a.qp.Pump(0, 100))
	require.Equal(t, uint32(4096), n.a.log[0].DMALen)
	n.run()
	require.True(t, bytes.Equal(src, dst))
	require.Equal(t, 16, n.a.sent[wire.RCReadRequest])
}

func TestFence(t *testing.T) {
	n := newNet(t, defaults())
	key, base := n.b.reg(make([]byte, 8), allAccess)
	n.b.postRecv(1, nil)
	n.b.postRecv(2, nil)
	n.a.post(1, provider.WRRDMARead, make([]byte, 8), base, key, nil)
	n.a.post(2, provider.WRSend, nil, 0, 0, nil)
	n.a.post(3, provider.WRSend, nil, 0, 0, func(wr *provider.WR) { wr.Flags |= provider.SendFence })
	require.Equal(t, 2, n.a.qp.Pump(0, 100), "the fenced one waits for the READ")
	n.run()
	require.Equal(t, []uint64{1, 2, 3}, ids(n.a.sends))
}

func TestLocalInvalidateWaitsForItsTurn(t *testing.T) {
	n := newNet(t, defaults())
	n.b.postRecv(1, make([]byte, 8))
	k, a := n.a.reg(make([]byte, 8), 0)
	require.NoError(t, n.a.qp.PostSend(&provider.WR{ID: 1, Opcode: provider.WRSend}, []provider.SGE{n.a.sge(k, a, 8)}))
	require.NoError(t, n.a.qp.PostSend(&provider.WR{ID: 2, Opcode: provider.WRLocalInv, Imm: k, Flags: provider.SendSignaled}, nil))
	lost := false
	n.filter = func(_ *host, p *wire.Packet) bool {
		was := lost
		lost = true
		return was
	}
	n.run()
	require.Equal(t, []uint64{2}, ids(n.a.sends), "the SEND is not signalled")
	require.Zero(t, n.a.sends[0].Status, "and was sent again from memory still there")
	require.Nil(t, n.a.regions[k])
	require.Len(t, n.b.recvs, 1)
}

func TestSolicited(t *testing.T) {
	n := newNet(t, defaults())
	n.a.keep = true
	key, base := n.b.reg(make([]byte, 3000), allAccess)
	for range 2 {
		n.b.postRecv(1, make([]byte, 3000))
	}
	for _, op := range []provider.WROpcode{provider.WRSend, provider.WRRDMAWrite, provider.WRRDMAWriteWithImm} {
		n.a.post(1, op, make([]byte, 2000), base, key, func(wr *provider.WR) { wr.Flags |= provider.SendSolicited })
	}
	n.run()
	var s []bool
	for _, p := range n.a.log {
		s = append(s, p.Solicited)
	}
	require.Equal(t, []bool{false, true, false, false, false, true}, s)
}
