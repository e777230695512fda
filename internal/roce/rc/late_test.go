package rc

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

func readReq(psn uint32, va uint64, key, n uint32) *wire.Packet {
	return &wire.Packet{Opcode: wire.RCReadRequest, PSN: psn, VA: va, RKey: key, DMALen: n}
}

func psns(ps []wire.Packet) (s []uint32) {
	for _, p := range ps {
		s = append(s, p.PSN)
	}
	return
}

// TestReadAskedAgainWhileStreamed: the stream goes back to what was lost.
func TestReadAskedAgainWhileStreamed(t *testing.T) {
	n := newNet(t, defaults())
	n.b.keep = true
	key, base := n.b.reg(make([]byte, 6144), allAccess)
	q := n.b.qp
	q.Input(0, readReq(7, base, key, 6144))
	q.Pump(0, 4)
	q.Input(0, readReq(7, base+1024, key, 3072)) // not what was asked: ignored
	q.Input(0, readReq(8, base+1024, key, 5120))
	q.Pump(0, 20)
	require.Equal(t, []uint32{7, 8, 9, 10, 8, 9, 10, 11, 12}, psns(n.b.log))
	require.Equal(t, wire.RCReadRespFirst, n.b.log[4].Opcode, "a first one again")
}

// TestReplaysAreBounded: a READ of the past takes no room from a new one, and
// never reaches into what was not asked.
func TestReplaysAreBounded(t *testing.T) {
	n := newNet(t, defaults()) // 4 at once
	n.b.keep = true
	key, base := n.b.reg(make([]byte, 65536), allAccess)
	q := n.b.qp
	for i := range uint32(8) {
		q.Input(0, readReq(7+i, base, key, 8))
		q.Pump(0, 10)
	}
	n.b.log = nil
	q.Input(0, readReq(14, base, key, 2000)) // beyond what was executed
	require.Zero(t, q.Pump(0, 10))
	for i := range uint32(8) {
		q.Input(0, readReq(7+i, base, key, 8))
	}
	require.Len(t, q.resp.pend, 4)
	for i := range uint32(4) {
		q.Input(0, readReq(15+i, base, key, 8))
	}
	q.Input(0, readReq(13, base, key, 5000)) // would overlap the new ones
	require.Len(t, q.resp.pend, 8)
	q.Pump(0, 100)
	require.Equal(t, []uint32{7, 8, 9, 10, 15, 16, 17, 18}, psns(n.b.log))
	require.Equal(t, provider.QPSRTS, q.State())
	require.Zero(t, q.resp.fresh)
}

func TestOverlappingReplayIsIgnored(t *testing.T) {
	n := newNet(t, defaults())
	key, base := n.b.reg(make([]byte, 65536), allAccess)
	q := n.b.qp
	q.Input(0, readReq(7, base, key, 2048))
	q.Pump(0, 10)
	q.Input(0, readReq(9, base, key, 2048))
	q.Input(0, readReq(8, base, key, 3072))
	require.Len(t, q.resp.pend, 1)
}

// TestLateAnswers: responses that overtake the pass that asks again count once.
func TestLateAnswers(t *testing.T) {
	n := newNet(t, defaults())
	dst := make([]byte, 2048)
	n.a.post(1, provider.WRRDMARead, dst, 0, 0, nil)
	n.a.post(2, provider.WRAtomicFetchAndAdd, make([]byte, 8), 0, 0, nil)
	q := n.a.qp
	q.Pump(0, 10)
	require.Equal(t, 2, q.req.rdOut)
	q.Tick(ackTimeout(14))
	require.Zero(t, q.req.rdOut)
	in := func(p wire.Packet) {
		p.Syndrome = synAck
		q.Input(0, &p)
		require.Zero(t, q.req.rdOut)
	}
	in(wire.Packet{Opcode: wire.RCReadRespFirst, PSN: 7, Payload: make([]byte, 1024)})
	in(wire.Packet{Opcode: wire.RCReadRespLast, PSN: 8, Payload: make([]byte, 1024)})
	in(wire.Packet{Opcode: wire.RCAtomicAck, PSN: 9})
	require.Equal(t, []provider.WCStatus{0, 0}, status(n.a.sends))
	require.Zero(t, q.Pump(0, 10), "nothing is left to ask for")
	require.Zero(t, q.NextDeadline())
}

// TestAnswersToWhatWasNeverAsked are dropped.
func TestAnswersToWhatWasNeverAsked(t *testing.T) {
	n := newNet(t, defaults())
	n.a.post(1, provider.WRSend, make([]byte, 8), 0, 0, nil)
	q := n.a.qp
	for _, p := range []wire.Packet{
		{Opcode: wire.RCAck, PSN: 7, Syndrome: synAck}, // not sent yet
		{Opcode: wire.RCAck, PSN: 7, Syndrome: synInvReq},
	} {
		q.Input(0, &p)
	}
	q.Pump(0, 10)
	for _, p := range []wire.Packet{
		{Opcode: wire.RCAck, PSN: 8, Syndrome: synAck},
		{Opcode: wire.RCAck, PSN: 6, Syndrome: synRemAccess},
		{Opcode: wire.RCAck, PSN: 8, Syndrome: synRemAccess},
		{Opcode: wire.RCAck, PSN: 7, Syndrome: 0x40},
		{Opcode: wire.RCReadRespOnly, PSN: 7, Syndrome: synAck},
		{Opcode: wire.RCAtomicAck, PSN: 7, Syndrome: synAck},
	} {
		q.Input(0, &p)
		require.Empty(t, n.a.sends, "%+v", p)
	}
	q.Input(0, &wire.Packet{Opcode: wire.RCAck, PSN: 7, Syndrome: synAck})
	require.Equal(t, []provider.WCStatus{0}, status(n.a.sends))
}

// TestFenceHoldsWhenSentAgain and for local operations.
func TestFenceHoldsWhenSentAgain(t *testing.T) {
	n := newNet(t, defaults())
	n.a.keep = true
	key, base := n.b.reg(make([]byte, 4096), allAccess)
	fence := func(wr *provider.WR) { wr.Flags |= provider.SendFence }
	q := n.a.qp
	n.a.post(1, provider.WRRDMARead, make([]byte, 8), base, key, nil)
	require.NoError(t, q.PostSend(&provider.WR{ID: 2, Opcode: provider.WRBindMW, MW: 1, Flags: provider.SendFence | provider.SendSignaled}, nil))
	n.a.post(3, provider.WRRDMAWrite, make([]byte, 8), base, key, fence)
	n.a.post(4, provider.WRRDMARead, make([]byte, 8), base, key, fence)
	n.a.post(5, provider.WRRDMARead, make([]byte, 8), base, key, fence)
	q.Pump(0, 10)
	require.Empty(t, n.a.binds)
	require.Equal(t, []uint32{7}, psns(n.a.log))
	q.Tick(ackTimeout(14))
	q.Pump(0, 10)
	require.Empty(t, n.a.binds)
	require.Equal(t, []uint32{7, 7}, psns(n.a.log))
	q.Input(0, &wire.Packet{Opcode: wire.RCReadRespOnly, PSN: 7, Syndrome: synAck, Payload: make([]byte, 8)})
	q.Pump(0, 10)
	require.Len(t, n.a.binds, 1)
	require.Equal(t, []uint32{7, 7, 8, 9}, psns(n.a.log))
	n.run()
	require.Equal(t, []uint64{1, 2, 3, 4, 5}, ids(n.a.sends))
	require.Len(t, n.a.binds, 1, "once")
}

// TestNAKWhileWaitingForReceiver: what is sent again anyway is not asked for twice.
func TestNAKWhileWaitingForReceiver(t *testing.T) {
	p := defaults()
	p.retry = 0
	n := newNet(t, p)
	n.a.post(1, provider.WRSend, nil, 0, 0, nil)
	q := n.a.qp
	q.Pump(0, 10)
	for _, s := range []uint8{synRNR | 1, synSeq, synRNR | 1} {
		q.Input(0, &wire.Packet{Opcode: wire.RCAck, PSN: 7, Syndrome: s})
	}
	require.Empty(t, n.a.sends)
	require.Zero(t, q.Pump(0, 10))
	require.Equal(t, int64(10_000), q.NextDeadline())
	q.Tick(10_000)
	require.Equal(t, 1, q.Pump(10_000, 10))
}
