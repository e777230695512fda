package rc

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/zrdma/zrdma/internal/provider"
)

var (
	seeds    = flag.Int("rc.seeds", 400, "random connections to simulate")
	oneSeed  = flag.Uint64("rc.seed", 0, "only this one")
	remoteSz = 128 << 10
)

const words = 8 // atomics work on the first words of the remote region

// want is a completion to come and what to check then.
type want struct {
	id    uint64
	op    provider.WCOpcode
	bytes uint32
	flags provider.WCFlags
	imm   uint32
	data  []byte // expected in buf afterwards
	buf   []byte
	key   []uint32 // registered for this request only
}

// side drives one direction: requests of h against the memory of peer.
type side struct {
	n         *net
	h, peer   *host
	r         *rand.Rand
	left      int
	id        uint64
	rkey      uint32
	rva       uint64
	mem       []byte // the peer's region
	model     []byte // what it will be once everything posted is executed
	sends     []want // signalled, in order
	recvs     []want // of peer
	recvBufs  map[uint64][]byte
	recvN     int
	posted    uint64
	readSince bool
}

func (s *side) fail(format string, a ...any) {
	s.n.t.Helper()
	s.n.t.Fatalf("%s at %d us: %s", s.h.name, s.n.now/1000, fmt.Sprintf(format, a...))
}

// size is 0 to 64 KiB, small ones and edges of the MTU more often.
func (s *side) size() int {
	switch s.r.IntN(8) {
	case 0:
		return 0
	case 1:
		return s.r.IntN(64)
	case 2:
		return min(65536, s.h.qp.mtu*(1+s.r.IntN(5)))
	case 3:
		return s.r.IntN(65537)
	default:
		return s.r.IntN(4 * s.h.qp.mtu)
	}
}

// list splits b over up to four elements, each a region of its own.
func (s *side) list(h *host, b []byte) (sge []provider.SGE, keys []uint32) {
	k := 1 + s.r.IntN(4)
	for i := range k {
		n := len(b)
		if i < k-1 {
			n = s.r.IntN(len(b) + 1)
		}
		key, base := h.reg(b[:n:n], provider.AccessLocalWrite)
		keys = append(keys, key)
		sge = append(sge, h.sge(key, base, n))
		b = b[n:]
	}
	return
}

func (s *side) postRecvs(k int) {
	for ; k > 0 && s.peer.qp.rq.Len() < 60; k-- {
		b := make([]byte, 65536)
		s.recvN++
		id := uint64(s.recvN)
		sge, _ := s.list(s.peer, b)
		if err := s.peer.qp.PostRecv(id, sge); err != nil {
			s.fail("post recv: %v", err)
		}
		s.recvBufs[id] = b
	}
}

// post posts one random request and says what must come of it.
func (s *side) post() {
	r := s.r
	s.id++
	wr := provider.WR{ID: s.id, RKey: provider.RKey(s.rkey)}
	w := want{id: s.id}
	var sge []provider.SGE
	ops := []provider.WROpcode{provider.WRSend, provider.WRSendWithImm, provider.WRSendWithInv, provider.WRRDMAWrite, provider.WRRDMAWrite,
		provider.WRRDMAWriteWithImm, provider.WRRDMARead, provider.WRRDMARead, provider.WRAtomicCmpAndSwp, provider.WRAtomicFetchAndAdd,
		provider.WRLocalInv, provider.WRBindMW}
	wr.Opcode = ops[r.IntN(len(ops))]
	w.op = WCOpcode(wr.Opcode)
	local := func(b []byte) {
		sge, w.key = s.list(s.h, b)
		if len(b) <= 100 && wr.Opcode != provider.WRRDMARead && r.IntN(2) == 0 {
			wr.Flags |= provider.SendInline
		}
	}
	switch wr.Opcode {
	case provider.WRSend, provider.WRSendWithImm, provider.WRSendWithInv:
		b := noise(r, s.size())
		local(b)
		x := want{op: provider.WCRecv, bytes: uint32(len(b)), data: append([]byte(nil), b...)}
		switch wr.Opcode {
		case provider.WRSendWithImm:
			wr.Imm = r.Uint32()
			x.flags, x.imm = provider.WCWithImm, wr.Imm
		case provider.WRSendWithInv:
			k, _ := s.peer.reg(make([]byte, 8), allAccess)
			wr.Imm = k
			x.flags, x.imm = provider.WCWithInv, k
		}
		s.recvs = append(s.recvs, x)
	case provider.WRRDMAWrite, provider.WRRDMAWriteWithImm:
		b := noise(r, s.size())
		local(b)
		off := words*8 + r.IntN(remoteSz-words*8-len(b)+1)
		wr.RemoteAddr = s.rva + uint64(off)
		copy(s.model[off:], b)
		if wr.Opcode == provider.WRRDMAWriteWithImm {
			wr.Imm = r.Uint32()
			s.recvs = append(s.recvs, want{op: provider.WCRecvRDMAWithImm, bytes: uint32(len(b)), flags: provider.WCWithImm, imm: wr.Imm})
		}
		if s.readSince {
			wr.Flags |= provider.SendFence
		}
	case provider.WRRDMARead:
		n := s.size()
		off := r.IntN(remoteSz - n + 1)
		wr.RemoteAddr = s.rva + uint64(off)
		w.buf, w.data, w.bytes = make([]byte, n), append([]byte(nil), s.model[off:off+n]...), uint32(n)
		local(w.buf)
		s.readSince = true
	case provider.WRAtomicCmpAndSwp, provider.WRAtomicFetchAndAdd:
		i := r.IntN(words) * 8
		v := binary.NativeEndian.Uint64(s.model[i:])
		wr.RemoteAddr = s.rva + uint64(i)
		w.buf, w.data, w.bytes = make([]byte, 8), binary.NativeEndian.AppendUint64(nil, v), 8
		local(w.buf)
		wr.Flags &^= provider.SendInline
		nv := v
		if wr.Opcode == provider.WRAtomicFetchAndAdd {
			wr.CompareAdd = r.Uint64()
			nv += wr.CompareAdd
		} else {
			wr.CompareAdd, wr.Swap = v+uint64(r.IntN(2)), r.Uint64()
			if wr.CompareAdd == v {
				nv = wr.Swap
			}
		}
		binary.NativeEndian.PutUint64(s.model[i:], nv)
		if s.readSince {
			wr.Flags |= provider.SendFence
		}
	case provider.WRLocalInv:
		wr.Imm, _ = s.h.reg(make([]byte, 8), allAccess)
	case provider.WRBindMW:
		wr.MW = s.id
	}
	if wr.Flags&provider.SendFence != 0 {
		s.readSince = false
	}
	if r.IntN(5) == 0 {
		wr.Flags |= provider.SendFence
	}
	if r.IntN(3) > 0 || s.left == 1 || wr.Opcode == provider.WRRDMARead {
		wr.Flags |= provider.SendSignaled
		s.sends = append(s.sends, w)
	} else if w.buf != nil {
		wr.Flags |= provider.SendSignaled
		s.sends = append(s.sends, w)
	}
	if err := s.h.qp.PostSend(&wr, sge); err != nil {
		s.fail("post %v: %v", wr.Opcode, err)
	}
	if wr.Flags&provider.SendInline != 0 { // was copied: free at once
		for _, k := range w.key {
			clear(s.h.regions[k].b)
			delete(s.h.regions, k)
		}
	}
	s.left--
}

func (s *side) sendDone(wc provider.WC) {
	if len(s.sends) == 0 {
		s.fail("completion %d of nothing", wc.WRID)
	}
	w := s.sends[0]
	s.sends = s.sends[1:]
	if wc.WRID != w.id || wc.Status != 0 || wc.Opcode != w.op || wc.ByteLen != w.bytes || !bytes.Equal(w.buf, w.data) {
		s.fail("completion %+v, expected id %d op %v of %d bytes; data equal: %v", wc, w.id, w.op, w.bytes, bytes.Equal(w.buf, w.data))
	}
	for _, k := range w.key { // from now on the QP may not need it
		delete(s.h.regions, k)
	}
}

func (s *side) recvDone(wc provider.WC) {
	if len(s.recvs) == 0 {
		s.fail("receive of nothing: %+v", wc)
	}
	w := s.recvs[0]
	s.recvs = s.recvs[1:]
	s.posted++
	b := s.recvBufs[wc.WRID]
	delete(s.recvBufs, wc.WRID)
	if wc.WRID != s.posted || wc.Status != 0 || wc.Opcode != w.op || wc.ByteLen != w.bytes || wc.Flags != w.flags ||
		w.data != nil && !bytes.Equal(b[:w.bytes], w.data) {
		s.fail("receive %+v, expected %d, %v, %d bytes", wc, s.posted, w.op, w.bytes)
	}
	switch {
	case w.flags == provider.WCWithImm && wc.Imm() != w.imm:
		s.fail("immediate")
	case w.flags == provider.WCWithInv && (uint32(wc.InvalidatedRKey()) != w.imm || s.peer.regions[w.imm] != nil):
		s.fail("invalidation")
	}
}

// act posts some requests and receives, and comes back later while work is left.
func (s *side) act() {
	for k := s.r.IntN(6); k > 0 && s.left > 0 && s.h.qp.req.tail-s.h.qp.req.head < 60; k-- {
		s.post()
	}
	if s.r.IntN(3) > 0 {
		s.postRecvs(1 + s.r.IntN(6))
	}
	if s.left > 0 || len(s.recvs) > len(s.recvBufs) {
		s.n.after(s.r.Int64N(300_000), s.act)
	}
}

func simulate(t testing.TB, seed uint64) (packets int) {
	r := rand.New(rand.NewPCG(seed, 99))
	p := defaults()
	p.mtu = provider.MTU(1 + r.IntN(5))
	p.window = []int{1, 2, 7, 32, 64, 256}[r.IntN(6)]
	for i := range p.psn {
		p.psn[i] = r.Uint32() & 0xffffff
		if r.IntN(2) == 0 {
			p.psn[i] = 0xffffff - uint32(r.IntN(100))
		}
	}
	p.maxRd = uint8(1 + r.IntN(16))
	p.minRNR = uint8(1 + r.IntN(16))
	p.timeout = uint8(8 + r.IntN(8))
	p.probe = []int64{0, 50_000, 500_000, 5_000_000}[r.IntN(4)]
	n := newNet(t, p)
	n.r, n.small = r, r.IntN(2) == 0
	if r.IntN(4) > 0 {
		n.drop, n.dup, n.reorder = r.Float64()*.04, r.Float64()*.04, r.Float64()*.06
	}
	sides := []*side{{h: n.a, peer: n.b}, {h: n.b, peer: n.a}}
	for _, s := range sides {
		s.n, s.r, s.recvBufs = n, r, map[uint64][]byte{}
		s.left = 1 + r.IntN(40)
		s.mem = noise(r, remoteSz)
		s.model = append([]byte(nil), s.mem...)
		s.rkey, s.rva = s.peer.reg(s.mem, allAccess)
		s.h.onSend, s.peer.onRecv = s.sendDone, s.recvDone
		s.act()
	}
	n.run()
	for _, s := range sides {
		q := s.h.qp
		if len(s.sends) != 0 || len(s.recvs) != 0 || q.req.head != q.req.tail || q.State() != provider.QPSRTS {
			s.fail("%d completions, %d receives missing; head %d of %d, state %v", len(s.sends), len(s.recvs), q.req.head, q.req.tail, q.State())
		}
		if !bytes.Equal(s.mem, s.model) {
			s.fail("memory differs from the model")
		}
		if q.req.rdOut != 0 || q.NextDeadline() != 0 || len(q.resp.pend) != 0 || q.resp.fresh != 0 {
			s.fail("left over: %d READs, deadline %d, %d pending", q.req.rdOut, q.NextDeadline(), len(q.resp.pend))
		}
	}
	return n.packets
}

// TestSimulation runs random work over links with random faults: everything
// completes once and in order, and memory is what the order of posting makes it.
func TestSimulation(t *testing.T) {
	if *oneSeed != 0 {
		simulate(t, *oneSeed)
		return
	}
	k := *seeds
	if testing.Short() {
		k = 200
	}
	packets := 0
	for s := range k {
		if !t.Run(fmt.Sprint("seed", s+1), func(t *testing.T) { packets += simulate(t, uint64(s+1)) }) {
			t.Fatalf("replay with -rc.seed=%d", s+1)
		}
	}
	t.Logf("%d seeds, %d packets", k, packets)
}
