package rc

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

func TestRemoteErrors(t *testing.T) {
	const w, rd, add = provider.WRRDMAWrite, provider.WRRDMARead, provider.WRAtomicFetchAndAdd
	acc, inv, op := provider.WCRemAccessErr, provider.WCRemInvReqErr, provider.WCRemOpErr
	for _, c := range []struct {
		name   string
		op     provider.WROpcode
		n      int // bytes asked for, of a region of 4096
		off    uint64
		key    uint32 // added to the right one
		region provider.AccessFlags
		qp     provider.AccessFlags
		status provider.WCStatus
		event  provider.EventType
	}{
		{"write, bad rkey", w, 100, 0, 1000, allAccess, allAccess, acc, provider.EventQPAccessErr},
		{"read, bad rkey", rd, 100, 0, 1000, allAccess, allAccess, acc, provider.EventQPAccessErr},
		{"atomic, bad rkey", add, 8, 0, 1000, allAccess, allAccess, acc, provider.EventQPAccessErr},
		{"write beyond the end", w, 3000, 2000, 0, allAccess, allAccess, acc, provider.EventQPAccessErr},
		{"write before the start", w, 3000, ^uint64(0), 0, allAccess, allAccess, acc, provider.EventQPAccessErr},
		{"read beyond the end", rd, 4097, 0, 0, allAccess, allAccess, acc, provider.EventQPAccessErr},
		{"atomic beyond the end", add, 8, 4096, 0, allAccess, allAccess, acc, provider.EventQPAccessErr},
		{"region without write", w, 100, 0, 0, allAccess &^ provider.AccessRemoteWrite, allAccess, acc, provider.EventQPAccessErr},
		{"region without read", rd, 100, 0, 0, allAccess &^ provider.AccessRemoteRead, allAccess, acc, provider.EventQPAccessErr},
		{"region without atomic", add, 8, 0, 0, allAccess &^ provider.AccessRemoteAtomic, allAccess, acc, provider.EventQPAccessErr},
		{"queue pair without write", w, 100, 0, 0, allAccess, allAccess &^ provider.AccessRemoteWrite, inv, provider.EventQPReqErr},
		{"queue pair without read", rd, 100, 0, 0, allAccess, allAccess &^ provider.AccessRemoteRead, inv, provider.EventQPReqErr},
		{"queue pair without atomic", add, 8, 0, 0, allAccess, allAccess &^ provider.AccessRemoteAtomic, inv, provider.EventQPReqErr},
		{"atomic, not aligned", add, 8, 4, 0, allAccess, allAccess, inv, provider.EventQPReqErr},
		{"receive too small", provider.WRSend, 3000, 0, 0, allAccess, allAccess, inv, provider.EventQPFatal},
		{"receive without memory", provider.WRSend, 3, 0, 0, 0, allAccess, op, provider.EventQPFatal},
		{"invalidate nothing", provider.WRSendWithInv, 3, 0, 0, allAccess, allAccess, acc, provider.EventQPFatal},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := defaults()
			p.access = c.qp
			n := newNet(t, p)
			mem := make([]byte, 4096)
			key, base := n.b.reg(mem, c.region)
			n.b.postRecv(1, make([]byte, 2000))
			n.b.postRecv(2, make([]byte, 2000))
			if c.op == provider.WRSend && c.region == 0 {
				clear(n.b.regions)
			}
			local := make([]byte, c.n)
			for i := range local {
				local[i] = 0xff
			}
			for i := range uint64(3) {
				n.a.post(i+1, c.op, local, base+c.off, key+c.key, func(wr *provider.WR) { wr.CompareAdd, wr.Imm = 1, 9999 })
			}
			n.run()
			require.Equal(t, []uint64{1, 2, 3}, ids(n.a.sends), "each completes once, in order")
			require.Equal(t, []provider.WCStatus{c.status, provider.WCWRFlushErr, provider.WCWRFlushErr}, status(n.a.sends))
			require.Equal(t, provider.QPSErr, n.a.qp.State())
			require.Equal(t, provider.QPSErr, n.b.qp.State())
			require.Equal(t, []provider.EventType{c.event}, n.b.events)
			require.Equal(t, []uint64{1, 2}, ids(n.b.recvs))
			require.Equal(t, provider.WCWRFlushErr, n.b.recvs[1].Status)
			switch c.name {
			case "receive too small":
				require.Equal(t, provider.WCLocLenErr, n.b.recvs[0].Status)
			case "receive without memory":
				require.Equal(t, provider.WCLocProtErr, n.b.recvs[0].Status)
			}
			require.Equal(t, make([]byte, 4096), mem, "nothing was written")
		})
	}
}

func TestRNRRetriesRunOut(t *testing.T) {
	p := defaults()
	p.rnr, p.minRNR = 2, 10 // 0.24 ms
	n := newNet(t, p)
	n.a.post(1, provider.WRSend, make([]byte, 10), 0, 0, nil)
	n.a.post(2, provider.WRSend, make([]byte, 10), 0, 0, nil)
	n.run()
	require.Equal(t, []provider.WCStatus{provider.WCRNRRetryExcErr, provider.WCWRFlushErr}, status(n.a.sends))
	require.Equal(t, 3, n.b.sent[wire.RCAck], "one NAK for each try")
	require.Equal(t, 6, n.a.sent[wire.RCSendOnly])
	require.GreaterOrEqual(t, n.now, int64(2*240_000))
	require.Equal(t, provider.QPSRTS, n.b.qp.State(), "the receiver lives on")
}

func TestRNRSevenIsEndless(t *testing.T) {
	for _, op := range []provider.WROpcode{provider.WRSend, provider.WRRDMAWriteWithImm} {
		p := defaults()
		p.minRNR, p.retry = 1, 0 // 10 us; RNR is no retry
		n := newNet(t, p)
		mem := make([]byte, 5000)
		key, base := n.b.reg(mem, allAccess)
		src := []byte{4999: 7}
		n.a.post(1, op, src, base, key, nil)
		n.after(2_000_000, func() { n.b.postRecv(9, make([]byte, 5000)) })
		n.run()
		require.Equal(t, []provider.WCStatus{0}, status(n.a.sends))
		require.Equal(t, []provider.WCStatus{0}, status(n.b.recvs))
		require.Greater(t, n.b.sent[wire.RCAck], 7)
	}
}

func TestTimeoutsRunOut(t *testing.T) {
	for _, retry := range []uint8{0, 3, 7} {
		p := defaults()
		p.retry = retry
		n := newNet(t, p)
		n.filter = func(*host, *wire.Packet) bool { return false }
		n.a.post(1, provider.WRSend, make([]byte, 10), 0, 0, nil)
		n.a.post(2, provider.WRSend, make([]byte, 10), 0, 0, nil)
		n.run()
		require.Equal(t, []provider.WCStatus{provider.WCRetryExcErr, provider.WCWRFlushErr}, status(n.a.sends))
		require.Equal(t, 2+int(retry), n.a.sent[wire.RCSendOnly], "7 is seven, and one packet each time")
		waits := map[uint8]int64{0: 1, 3: 1 + 2 + 4 + 4, 7: 1 + 2 + 6*4}[retry]
		require.Equal(t, waits*ackTimeout(14), n.now)
		require.Zero(t, n.a.qp.NextDeadline())
	}
}

func TestTimeoutZeroIsEndless(t *testing.T) {
	p := defaults()
	p.timeout = 0
	n := newNet(t, p)
	n.filter = func(*host, *wire.Packet) bool { return false }
	n.a.post(1, provider.WRSend, nil, 0, 0, nil)
	n.run()
	require.Empty(t, n.a.sends)
	require.Zero(t, n.a.qp.NextDeadline())
}

func TestLocalErrorsWaitForTheirTurn(t *testing.T) {
	for _, c := range []struct {
		name   string
		status provider.WCStatus
		post   func(h *host, base uint64, key uint32) error
	}{
		{"bad lkey", provider.WCLocProtErr, func(h *host, _ uint64, _ uint32) error {
			return h.qp.PostSend(&provider.WR{ID: 2, Opcode: provider.WRSend}, []provider.SGE{{Addr: 1, Length: 1, LKey: 1}})
		}},
		{"read into read-only memory", provider.WCLocProtErr, func(h *host, base uint64, key uint32) error {
			k, a := h.reg(make([]byte, 8), 0)
			return h.qp.PostSend(&provider.WR{ID: 2, Opcode: provider.WRRDMARead, RemoteAddr: base, RKey: provider.RKey(key)}, []provider.SGE{h.sge(k, a, 8)})
		}},
		{"bind", provider.WCMWBindErr, func(h *host, _ uint64, _ uint32) error {
			return h.qp.PostSend(&provider.WR{ID: 2, Opcode: provider.WRBindMW}, nil)
		}},
		{"local invalidate", provider.WCLocQPOpErr, func(h *host, _ uint64, _ uint32) error {
			return h.qp.PostSend(&provider.WR{ID: 2, Opcode: provider.WRLocalInv, Imm: 1}, nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNet(t, defaults())
			key, base := n.b.reg(make([]byte, 65536), allAccess)
			n.a.post(1, provider.WRRDMARead, make([]byte, 65536), base, key, nil)
			require.NoError(t, c.post(n.a, base, key))
			n.a.post(3, provider.WRRDMARead, make([]byte, 10), base, key, nil)
			n.run()
			require.Equal(t, []uint64{1, 2, 3}, ids(n.a.sends))
			require.Equal(t, []provider.WCStatus{0, c.status, provider.WCWRFlushErr}, status(n.a.sends))
			require.Equal(t, provider.QPSErr, n.a.qp.State())
			require.Equal(t, provider.QPSRTS, n.b.qp.State())
		})
	}
}

// TestDeregisteredWhileStreamed takes memory away under a READ: the rest is refused.
func TestDeregisteredWhileStreamed(t *testing.T) {
	n := newNet(t, defaults())
	key, base := n.b.reg(make([]byte, 65536), allAccess)
	n.a.post(1, provider.WRRDMARead, make([]byte, 65536), base, key, nil)
	n.filter = func(_ *host, p *wire.Packet) bool {
		if n.b.sent[wire.RCReadRespMiddle] == 10 {
			delete(n.b.regions, key)
		}
		return true
	}
	n.run()
	require.Equal(t, []provider.WCStatus{provider.WCRemAccessErr}, status(n.a.sends))
	require.Equal(t, provider.QPSErr, n.b.qp.State())
	require.Equal(t, 10, n.b.sent[wire.RCReadRespMiddle])
}

// TestBadRequests are packets no requester should send.
func TestBadRequests(t *testing.T) {
	for _, c := range []struct {
		name string
		ps   []wire.Packet
	}{
		{"middle first", []wire.Packet{{Opcode: wire.RCSendMiddle, Payload: make([]byte, 1024)}}},
		{"last first", []wire.Packet{{Opcode: wire.RCWriteLast, Payload: make([]byte, 10)}}},
		{"short first", []wire.Packet{{Opcode: wire.RCSendFirst, Payload: make([]byte, 1020)}}},
		{"long only", []wire.Packet{{Opcode: wire.RCSendOnly, Payload: make([]byte, 1028)}}},
		{"empty last", []wire.Packet{{Opcode: wire.RCSendFirst, Payload: make([]byte, 1024)}, {Opcode: wire.RCSendLast}}},
		{"first twice", []wire.Packet{{Opcode: wire.RCSendFirst, Payload: make([]byte, 1024)}, {Opcode: wire.RCSendFirst, Payload: make([]byte, 1024)}}},
		{"write into a send", []wire.Packet{{Opcode: wire.RCSendFirst, Payload: make([]byte, 1024)}, {Opcode: wire.RCWriteMiddle, Payload: make([]byte, 1024)}}},
		{"read into a send", []wire.Packet{{Opcode: wire.RCSendFirst, Payload: make([]byte, 1024)}, {Opcode: wire.RCReadRequest, DMALen: 1}}},
		{"write longer than it says", []wire.Packet{{Opcode: wire.RCWriteOnly, DMALen: 7, Payload: make([]byte, 8)}}},
		{"write shorter than it says", []wire.Packet{{Opcode: wire.RCWriteOnly, DMALen: 9, Payload: make([]byte, 8)}}},
		{"write first that is all", []wire.Packet{{Opcode: wire.RCWriteFirst, DMALen: 1024, Payload: make([]byte, 1024)}}},
		{"write middle to the end", []wire.Packet{{Opcode: wire.RCWriteFirst, DMALen: 2048, Payload: make([]byte, 1024)}, {Opcode: wire.RCWriteMiddle, Payload: make([]byte, 1024)}}},
		{"write of 2^31+1", []wire.Packet{{Opcode: wire.RCWriteFirst, DMALen: 1<<31 + 1, Payload: make([]byte, 1024)}}},
		{"read of 2^31+1", []wire.Packet{{Opcode: wire.RCReadRequest, DMALen: 1<<31 + 1}}},
		{"too many reads", []wire.Packet{{Opcode: wire.RCReadRequest, DMALen: 1}, {Opcode: wire.RCReadRequest, DMALen: 1}, {Opcode: wire.RCReadRequest, DMALen: 1},
			{Opcode: wire.RCFetchAdd}, {Opcode: wire.RCReadRequest, DMALen: 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNet(t, defaults())
			n.b.keep = true
			mem := make([]byte, 4096)
			key, base := n.b.reg(mem, allAccess)
			n.b.postRecv(1, make([]byte, 4096))
			for i, p := range c.ps {
				p.PSN, p.VA, p.RKey = uint32(7+i), base, key
				n.b.qp.Input(0, &p)
			}
			n.b.qp.Input(0, &wire.Packet{Opcode: wire.RCSendOnly, PSN: uint32(7 + len(c.ps))})
			n.b.qp.FlushAcks()
			n.b.qp.Pump(0, 100)
			last := n.b.log[len(n.b.log)-1]
			require.Equal(t, wire.RCAck, last.Opcode)
			require.Equal(t, uint8(synInvReq), last.Syndrome)
			require.Equal(t, uint32(7+len(c.ps)-1), last.PSN)
			require.Equal(t, provider.QPSErr, n.b.qp.State())
			require.Equal(t, []provider.WCStatus{provider.WCWRFlushErr}, status(n.b.recvs))
		})
	}
}

func TestBadReadResponse(t *testing.T) {
	for _, bad := range []wire.Packet{
		{Opcode: wire.RCReadRespFirst, Payload: make([]byte, 1020)},
		{Opcode: wire.RCReadRespOnly, Payload: make([]byte, 1024)},
		{Opcode: wire.RCReadRespMiddle},
	} {
		n := newNet(t, defaults())
		n.a.post(1, provider.WRRDMARead, make([]byte, 3000), 0, 0, nil)
		n.a.qp.Pump(0, 10)
		bad.PSN, bad.Syndrome = 7, synAck
		n.a.qp.Input(0, &bad)
		require.Equal(t, []provider.WCStatus{provider.WCBadRespErr}, status(n.a.sends))
	}
}
