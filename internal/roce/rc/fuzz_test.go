package rc

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// fuzzPacket reads one packet from in, biased to what gets past the first
// checks: a known opcode, a number near what is expected, keys that exist.
func fuzzPacket(in *bytes.Reader, q *QP, keys []uint32, bases []uint64) (p wire.Packet, ok bool) {
	var h [12]byte
	if k, _ := in.Read(h[:]); k < len(h) {
		return p, false
	}
	p.Opcode = wire.Opcode(h[0] % 0x18)
	if h[0] >= 0xf0 {
		p.Opcode = wire.Opcode(h[1])
	}
	ref := q.resp.epsn
	if p.Opcode >= wire.RCReadRespFirst && p.Opcode <= wire.RCAtomicAck {
		ref = q.req.una
	}
	p.PSN = narrow(ref + int64(int8(h[2]))/8)
	if h[3]&1 != 0 {
		p.PSN = narrow(ref)
	}
	if h[3]&0xf0 == 0xf0 {
		p.PSN = binary.LittleEndian.Uint32(h[4:]) & wire.PSNMask
	}
	p.AckReq = h[3]&2 != 0
	i := int(h[4]) % len(keys)
	p.RKey, p.VA = keys[i], bases[i]+uint64(h[5])*32
	switch h[6] >> 6 {
	case 1:
		p.DMALen = uint32(h[7]) * 64
	case 2:
		p.DMALen = binary.LittleEndian.Uint32(h[8:])
	case 3:
		p.VA = binary.LittleEndian.Uint64(h[4:])
	}
	p.Syndrome = []uint8{synAck, synSeq, synInvReq, synRemAccess, synRemOp, synRNR | 1, h[8], synAck}[h[7]&7]
	p.Swap, p.Compare, p.Orig = uint64(h[8]), uint64(h[9]), uint64(h[10])
	if p.Opcode.HasPayload() {
		n := []int{0, 256, 256, 256, int(h[11]), 1, 512, 250}[h[6]&7]
		p.Payload = bytes.Repeat([]byte{h[11] | 1}, n)
	}
	if h[3]&12 == 12 { // what is waited for
		r := &q.req
		if w := r.at(r.head); r.una < r.nxt && w.started {
			p.PSN, p.Syndrome, p.Payload = narrow(r.una), synAck, nil
			at := int(r.una-w.psn) * q.mtu
			switch {
			case w.wr.Opcode == provider.WRRDMARead:
				p.Opcode, p.Payload = wire.RCReadRespMiddle, make([]byte, min(q.mtu, int(w.length)-at))
				if r.una+1 == w.end() {
					p.Opcode = wire.RCReadRespLast
				}
			case w.isRd():
				p.Opcode = wire.RCAtomicAck
			default:
				p.Opcode = wire.RCAck
			}
		}
	}
	if h[3]&12 == 4 && ref == q.resp.epsn && q.resp.msg == noMessage { // what is welcome
		p.VA, p.RKey, p.Payload = bases[0]+uint64(h[5]&^7), keys[0], nil
		n := int(h[11])
		switch h[0] & 7 {
		case 0:
			p.Opcode, p.Payload = wire.RCSendOnlyImm, make([]byte, n)
		case 1, 2:
			p.Opcode, p.DMALen, p.Payload = wire.RCWriteOnly, uint32(n), make([]byte, n)
		case 3:
			p.Opcode, p.DMALen, p.Payload = wire.RCWriteOnlyImm, uint32(n), make([]byte, n)
		case 4, 5:
			p.Opcode, p.DMALen = wire.RCReadRequest, uint32(n)*3
		default:
			p.Opcode = wire.RCFetchAdd
		}
	}
	// As it would arrive: through the codec.
	b := append(p.Append(nil, len(p.Payload)), p.Payload...)
	b = append(b, make([]byte, wire.Pad(len(p.Payload))+wire.ICRCSize)...)
	err := p.Decode(b)
	return p, err == nil
}

// FuzzInput feeds arbitrary packets to a queue pair that has requests under way
// and receives posted. It must not panic, not write outside what was granted,
// not grow, and complete everything exactly once.
func FuzzInput(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		f.Add(noise(r, 12*(1+r.IntN(60))))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := defaults()
		p.mtu, p.maxRd, p.psn = provider.MTU256, 2, [2]uint32{0xfffff0, 0xfffffe}
		p.rnr, p.retry = 3, 3
		h := newHost(t, "fuzzed")
		out := 0
		h.out = func(*host, *wire.Packet, []byte) { out++ }
		h.qp = New(Config{QPN: 10, Cap: p.cap, Mem: h, Sink: h, Window: 16, Probe: 1000})
		rts(t, h.qp, p, 11, p.psn[0], p.psn[1])

		guard := make([]byte, 64<<10) // 4 KiB in the middle are granted
		whole := func(a provider.AccessFlags, off int) (uint32, uint64) { return h.reg(guard[off:off+1024:off+1024], a) }
		var keys []uint32
		var bases []uint64
		for i, a := range []provider.AccessFlags{allAccess, provider.AccessRemoteRead, provider.AccessLocalWrite | provider.AccessRemoteWrite, 0} {
			k, b := whole(a, 16384+i*4096)
			keys, bases = append(keys, k), append(bases, b)
		}
		recv := make([]byte, 4096)
		for i := range uint64(6) {
			h.postRecv(i, recv[i*600:i*600+600:i*600+600])
		}
		local := make([]byte, 8192)
		ops := []provider.WROpcode{provider.WRSend, provider.WRRDMARead, provider.WRAtomicFetchAndAdd, provider.WRRDMAWriteWithImm, provider.WRRDMARead,
			provider.WRBindMW, provider.WRSendWithInv, provider.WRAtomicCmpAndSwp}
		for i, op := range ops {
			n := 1000
			if op == provider.WRAtomicCmpAndSwp || op == provider.WRAtomicFetchAndAdd {
				n = 8
			}
			h.post(uint64(i), op, local[i*1024:i*1024+n:i*1024+n], 64, 7, func(wr *provider.WR) { wr.MW = 1 })
		}
		q := h.qp
		pend := cap(q.resp.pend)
		in := bytes.NewReader(data)
		now := int64(0)
		for in.Len() >= 12 {
			pk, ok := fuzzPacket(in, q, keys, bases)
			if ok {
				q.Input(now, &pk)
			}
			if now++; now%3 == 0 {
				q.FlushAcks()
				before := out
				if q.Pump(now, 8); out-before > 10 {
					t.Fatalf("%d packets on a budget of 8", out-before)
				}
			}
			if now%50 == 0 {
				q.Tick(max(now, q.NextDeadline()))
			}
			r := &q.req
			if !(r.head <= r.cur && r.cur <= r.tail && r.una <= r.nxt && r.nxt <= r.high) || r.rdOut < 0 || r.rdOut > q.maxRdOut {
				t.Fatalf("invariants: %+v", r)
			}
			if cap(q.resp.pend) != pend || len(q.resp.pend) > 2*q.maxRdIn || q.resp.fresh < 0 {
				t.Fatalf("%d pending, %d fresh", len(q.resp.pend), q.resp.fresh)
			}
		}
		for i, b := range guard {
			if in := i >= 16384 && i < 4*4096+16384 && i%4096 < 1024; b != 0 && (!in || (i-16384)/4096%2 == 1) {
				t.Fatalf("byte %d was written", i)
			}
		}
		if err := q.Modify(now, to(provider.QPSErr), provider.QPAttrState); err != nil {
			t.Fatal(err)
		}
		if len(h.sends) != len(ops) || len(h.recvs) != 6 {
			t.Fatalf("%d and %d completions", len(h.sends), len(h.recvs))
		}
		for i, w := range h.sends {
			if w.WRID != uint64(i) {
				t.Fatalf("completions out of order: %v", ids(h.sends))
			}
		}
		for i, w := range h.recvs {
			if w.WRID != uint64(i) {
				t.Fatalf("receives out of order: %v", ids(h.recvs))
			}
		}
	})
}
