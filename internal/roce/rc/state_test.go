package rc

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

func to(s provider.QPState) *provider.QPAttr { return &provider.QPAttr{State: s} }

func TestTransitions(t *testing.T) {
	h := newHost(t, "a")
	q := New(Config{QPN: 1, Mem: h, Sink: h})
	for _, s := range []provider.QPState{provider.QPSRTR, provider.QPSRTS, provider.QPSSQD, provider.QPSSQE, provider.QPSInit} {
		require.Error(t, q.Modify(0, to(s), provider.QPAttrState), "RESET to %v, or INIT without attributes", s)
	}
	require.Error(t, q.PostSend(&provider.WR{Opcode: provider.WRSend}, nil))
	require.Error(t, q.PostRecv(1, nil))
	p := defaults()
	rts(t, q, p, 2, 3, 4)
	a := q.Attr()
	require.Equal(t, provider.QPSRTS, a.State)
	require.Equal(t, uint32(3), a.SQPSN)
	require.Equal(t, uint32(4), a.RQPSN)
	require.Equal(t, provider.MTU1024, a.PathMTU)
	require.Error(t, q.Modify(0, to(provider.QPSRTR), provider.QPAttrState))
	require.Error(t, q.Modify(0, &provider.QPAttr{State: provider.QPSSQD, CurState: provider.QPSRTR}, provider.QPAttrState|provider.QPAttrCurState))
	require.Error(t, q.Modify(0, &provider.QPAttr{PathMTU: 6}, provider.QPAttrPathMTU))
	require.Error(t, q.Modify(0, &provider.QPAttr{RetryCnt: 8}, provider.QPAttrRetryCnt))
	require.NoError(t, q.PostRecv(1, nil))
	require.ErrorIs(t, q.PostRecv(2, nil), errFull)
	require.NoError(t, q.PostSend(&provider.WR{Opcode: provider.WRSend}, nil))
	require.ErrorIs(t, q.PostSend(&provider.WR{Opcode: provider.WRSend}, nil), errFull)
	require.NoError(t, q.Modify(0, to(provider.QPSReset), provider.QPAttrState))
	require.Empty(t, h.sends, "RESET forgets")
	rts(t, q, p, 2, 3, 4)
	require.NoError(t, q.PostRecv(1, nil))
}

func TestFlush(t *testing.T) {
	n := newNet(t, defaults())
	for i := range uint64(3) {
		n.a.post(i+1, provider.WRSend, make([]byte, 5000), 0, 0, func(wr *provider.WR) { wr.Flags = 0 })
		n.b.postRecv(i+1, make([]byte, 5000))
	}
	// b is in the middle of a message.
	n.b.qp.Input(0, &wire.Packet{Opcode: wire.RCSendFirst, PSN: 7, Payload: make([]byte, 1024)})
	n.a.qp.Pump(0, 2)
	for _, h := range []*host{n.a, n.b} {
		require.NoError(t, h.qp.Modify(0, to(provider.QPSErr), provider.QPAttrState))
		require.NoError(t, h.qp.Modify(0, to(provider.QPSErr), provider.QPAttrState), "twice is once")
	}
	flushed := provider.WCWRFlushErr
	require.Equal(t, []uint64{1, 2, 3}, ids(n.a.sends), "unsignalled ones, too")
	require.Equal(t, []provider.WCStatus{flushed, flushed, flushed}, status(n.a.sends))
	require.Equal(t, []uint64{1, 2, 3}, ids(n.b.recvs))
	require.Equal(t, []provider.WCStatus{flushed, flushed, flushed}, status(n.b.recvs))
	// What is posted in ERR is flushed, packets are ignored, nothing is sent.
	n.b.postRecv(4, nil)
	n.a.post(4, provider.WRSend, nil, 0, 0, nil)
	require.Equal(t, []uint64{1, 2, 3, 4}, ids(n.a.sends))
	require.Equal(t, []uint64{1, 2, 3, 4}, ids(n.b.recvs))
	before := n.packets
	n.b.qp.Input(0, &wire.Packet{Opcode: wire.RCSendMiddle, PSN: 8, AckReq: true, Payload: make([]byte, 1024)})
	n.b.qp.FlushAcks()
	require.Zero(t, n.b.qp.Pump(0, 10)+n.a.qp.Pump(0, 10))
	require.Equal(t, before, n.packets)
	require.Zero(t, n.a.qp.NextDeadline())
}

func TestSharedReceiveQueue(t *testing.T) {
	n := newNet(t, defaults())
	srq := NewRecvQueue(3, 2)
	p := defaults()
	n.b.qp = New(Config{QPN: 11, Cap: p.cap, Mem: n.b, Sink: n.b, SRQ: srq})
	rts(t, n.b.qp, p, 10, p.psn[1], p.psn[0])
	require.Error(t, n.b.qp.PostRecv(1, nil))
	require.Error(t, srq.Post(1, make([]provider.SGE, 3)))
	n.a.post(1, provider.WRSend, nil, 0, 0, nil)
	for i := range uint64(7) { // around the ring
		require.NoError(t, srq.Post(i, nil))
		n.run()
		n.a.post(i, provider.WRSend, nil, 0, 0, nil)
	}
	require.NoError(t, srq.Post(7, nil))
	n.run()
	require.NoError(t, srq.Post(8, nil))
	require.Equal(t, []uint64{0, 1, 2, 3, 4, 5, 6, 7}, ids(n.b.recvs))
	require.NoError(t, n.b.qp.Modify(0, to(provider.QPSErr), provider.QPAttrState))
	require.Equal(t, 1, srq.Len(), "it belongs to others")
	require.Equal(t, []provider.EventType{provider.EventQPLastWQEReached}, n.b.events)
}

func TestSendQueueDrain(t *testing.T) {
	n := newNet(t, defaults())
	key, base := n.b.reg(make([]byte, 8192), allAccess)
	n.a.post(1, provider.WRRDMAWrite, make([]byte, 8192), base, key, nil)
	n.a.post(2, provider.WRRDMAWrite, make([]byte, 8192), base, key, nil)
	require.Equal(t, 3, n.a.qp.Pump(0, 3)) // begins the first
	at := provider.QPAttr{State: provider.QPSSQD, EnSQDAsyncNotify: true}
	require.NoError(t, n.a.qp.Modify(0, &at, provider.QPAttrState|provider.QPAttrEnSQDAsyncNotify))
	require.Empty(t, n.a.events)
	a := n.a.qp.Attr()
	require.True(t, a.SQDraining)
	n.a.post(3, provider.WRRDMAWrite, make([]byte, 1), base, key, nil)
	n.run()
	require.Equal(t, []uint64{1}, ids(n.a.sends), "what was begun ends, nothing else begins")
	require.Equal(t, []provider.EventType{provider.EventSQDrained}, n.a.events)
	a = n.a.qp.Attr()
	require.False(t, a.SQDraining)
	// The responder works on.
	n.a.postRecv(1, nil)
	n.b.post(1, provider.WRSend, nil, 0, 0, nil)
	n.run()
	require.Len(t, n.a.recvs, 1)
	require.NoError(t, n.a.qp.Modify(n.now, to(provider.QPSRTS), provider.QPAttrState))
	n.run()
	require.Equal(t, []uint64{1, 2, 3}, ids(n.a.sends))
	require.Len(t, n.a.events, 1)
	// Drained already: reported at once.
	require.NoError(t, n.a.qp.Modify(0, &at, provider.QPAttrState|provider.QPAttrEnSQDAsyncNotify))
	require.Len(t, n.a.events, 2)
}

func TestCommunicationEstablished(t *testing.T) {
	h := newHost(t, "a")
	h.out = func(*host, *wire.Packet, []byte) {}
	q := New(Config{QPN: 1, Mem: h, Sink: h})
	p := defaults()
	rts(t, q, p, 2, 0, 0)
	require.NoError(t, q.Modify(0, to(provider.QPSReset), provider.QPAttrState))
	at := provider.QPAttr{State: provider.QPSInit}
	m, _ := required(provider.QPSReset, provider.QPSInit)
	require.NoError(t, q.Modify(0, &at, provider.QPAttrState|m))
	at = provider.QPAttr{State: provider.QPSRTR, PathMTU: 3, RQPSN: 5}
	m, _ = required(provider.QPSInit, provider.QPSRTR)
	require.NoError(t, q.Modify(0, &at, provider.QPAttrState|m))
	require.NoError(t, q.PostRecv(1, nil))
	q.Input(0, &wire.Packet{Opcode: wire.RCSendOnly, PSN: 5})
	q.Input(0, &wire.Packet{Opcode: wire.RCSendOnly, PSN: 6})
	require.Len(t, h.recvs, 1)
	require.Equal(t, []provider.EventType{provider.EventCommEst}, h.events)
}

// TestAtomicsRememberedAcrossAResize lowers and raises max_dest_rd_atomic in SQD:
// the latest atomics are still answered, not executed again.
func TestAtomicsRememberedAcrossAResize(t *testing.T) {
	n := newNet(t, defaults())
	mem := make([]byte, 8)
	key, base := n.b.reg(mem, allAccess)
	add := func() {
		n.a.post(1, provider.WRAtomicFetchAndAdd, make([]byte, 8), base, key, func(wr *provider.WR) { wr.CompareAdd = 1 })
		n.run()
	}
	again := func(psn uint32) {
		n.b.qp.Input(0, &wire.Packet{Opcode: wire.RCFetchAdd, PSN: psn, VA: base, RKey: key, Swap: 1, AckReq: true})
		n.b.qp.Pump(0, 10)
	}
	for range 3 {
		add()
	}
	require.NoError(t, n.b.qp.Modify(0, to(provider.QPSSQD), provider.QPAttrState))
	sent := n.b.sent[wire.RCAtomicAck]
	for _, rd := range []uint8{2, 16, 1, 3} {
		require.NoError(t, n.b.qp.Modify(0, &provider.QPAttr{MaxDestRdAtomic: rd}, provider.QPAttrMaxDestRdAtomic))
		again(7 + 2) // the latest
		sent++
		require.Equal(t, sent, n.b.sent[wire.RCAtomicAck], "max_dest_rd_atomic %d", rd)
	}
	again(7)
	require.Equal(t, sent, n.b.sent[wire.RCAtomicAck], "forgotten when there was room for one")
	require.Equal(t, byte(3), mem[0])
	for range 5 {
		add()
	}
	require.Equal(t, byte(8), mem[0])
}
