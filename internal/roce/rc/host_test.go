package rc

import (
	"container/heap"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

const allAccess = provider.AccessLocalWrite | provider.AccessRemoteWrite | provider.AccessRemoteRead | provider.AccessRemoteAtomic

// region is memory under a key, for local and remote use alike.
type region struct {
	base   uint64
	b      []byte
	access provider.AccessFlags
}

// host is one end: memory, sink and what came out.
type host struct {
	t       testing.TB
	name    string
	qp      *QP
	regions map[uint32]*region
	nextKey uint32
	out     func(h *host, p *wire.Packet, b []byte)
	sends   []provider.WC
	recvs   []provider.WC
	events  []provider.EventType
	sent    map[wire.Opcode]int
	log     []wire.Packet // headers sent, when keep
	keep    bool
	buf     []byte
	onSend  func(provider.WC)
	onRecv  func(provider.WC)
	binds   []provider.WR
}

func newHost(t testing.TB, name string) *host {
	return &host{t: t, name: name, regions: map[uint32]*region{}, nextKey: 100, sent: map[wire.Opcode]int{}}
}

// reg registers b; addresses of different regions never meet.
func (h *host) reg(b []byte, access provider.AccessFlags) (key uint32, base uint64) {
	h.nextKey++
	base = uint64(h.nextKey) << 32
	h.regions[h.nextKey] = &region{base, b, access}
	return h.nextKey, base
}

func (h *host) find(key uint32, va uint64, n uint32, access provider.AccessFlags) ([]byte, bool) {
	r := h.regions[key]
	if r == nil || r.access&access != access || va < r.base || va-r.base > uint64(len(r.b)) || uint64(n) > uint64(len(r.b))-(va-r.base) {
		return nil, false
	}
	o := va - r.base
	return r.b[o : o+uint64(n) : o+uint64(n)], true
}

func (h *host) Local(k provider.LKey, addr uint64, n uint32, write bool) ([]byte, bool) {
	var a provider.AccessFlags
	if write {
		a = provider.AccessLocalWrite
	}
	return h.find(uint32(k), addr, n, a)
}

func (h *host) Inline(addr uint64, n uint32) ([]byte, bool) {
	return h.find(uint32(addr>>32), addr, n, 0)
}

func (h *host) Remote(k provider.RKey, va uint64, n uint32, a provider.AccessFlags) ([]byte, bool) {
	return h.find(uint32(k), va, n, a)
}

func (h *host) CompareSwap(k provider.RKey, va, compare, swap uint64) (uint64, bool) {
	b, ok := h.find(uint32(k), va, 8, provider.AccessRemoteAtomic)
	if !ok {
		return 0, false
	}
	v := binary.NativeEndian.Uint64(b)
	if v == compare {
		binary.NativeEndian.PutUint64(b, swap)
	}
	return v, true
}

func (h *host) FetchAdd(k provider.RKey, va, add uint64) (uint64, bool) {
	b, ok := h.find(uint32(k), va, 8, provider.AccessRemoteAtomic)
	if !ok {
		return 0, false
	}
	v := binary.NativeEndian.Uint64(b)
	binary.NativeEndian.PutUint64(b, v+add)
	return v, true
}

func (h *host) Invalidate(k provider.RKey, _ bool) bool {
	_, ok := h.regions[uint32(k)]
	delete(h.regions, uint32(k))
	return ok
}

func (h *host) Bind(wr *provider.WR) bool {
	h.binds = append(h.binds, *wr)
	return wr.MW != 0
}

func (h *host) Packet(p *wire.Packet, segs [][]byte, n int) {
	h.sent[p.Opcode]++
	b := p.Append(h.buf[:0], n)
	k := 0
	for _, s := range segs {
		b = append(b, s...)
		k += len(s)
	}
	if k != n {
		h.t.Fatalf("%s: %d bytes gathered, %d announced", h.name, k, n)
	}
	b = append(b, make([]byte, wire.Pad(n)+wire.ICRCSize)...)
	h.buf = b
	if h.keep {
		h.log = append(h.log, *p)
	}
	h.out(h, p, b)
}

func (h *host) SendDone(wc *provider.WC) {
	h.sends = append(h.sends, *wc)
	if h.onSend != nil {
		h.onSend(*wc)
	}
}

func (h *host) RecvDone(wc *provider.WC, _ bool) {
	h.recvs = append(h.recvs, *wc)
	if h.onRecv != nil {
		h.onRecv(*wc)
	}
}

func (h *host) Event(e provider.EventType) { h.events = append(h.events, e) }

// params of a connection.
type params struct {
	mtu        provider.MTU
	window     int
	probe      int64
	psn        [2]uint32
	maxRd      uint8
	timeout    uint8
	retry, rnr uint8
	minRNR     uint8
	cap        provider.QPCap
	access     provider.AccessFlags
	sqSigAll   bool
}

func defaults() params {
	return params{mtu: provider.MTU1024, psn: [2]uint32{7, 0xfffffe}, maxRd: 4, timeout: 14, retry: 7, rnr: 7, minRNR: 5,
		cap:    provider.QPCap{MaxSendWR: 64, MaxRecvWR: 64, MaxSendSGE: 4, MaxRecvSGE: 4, MaxInlineData: 128},
		access: allAccess}
}

// connect makes two QPs in RTS.
func connect(t testing.TB, p params, a, b *host) {
	for i, h := range []*host{a, b} {
		h.qp = New(Config{QPN: uint32(10 + i), Cap: p.cap, Mem: h, Sink: h, Window: p.window, Probe: p.probe, SQSigAll: p.sqSigAll})
		rts(t, h.qp, p, uint32(11-i), p.psn[i], p.psn[1-i])
	}
}

func rts(t testing.TB, q *QP, p params, dest, sqPSN, rqPSN uint32) {
	at := provider.QPAttr{State: provider.QPSInit, AccessFlags: p.access, PathMTU: p.mtu, DestQPN: dest, RQPSN: rqPSN, SQPSN: sqPSN,
		MaxDestRdAtomic: p.maxRd, MaxRdAtomic: p.maxRd, MinRNRTimer: p.minRNR, Timeout: p.timeout, RetryCnt: p.retry, RNRRetry: p.rnr}
	step := func(s provider.QPState, m provider.QPAttrMask) {
		at.State = s
		require.NoError(t, q.Modify(0, &at, provider.QPAttrState|m))
	}
	step(provider.QPSInit, provider.QPAttrPKeyIndex|provider.QPAttrPort|provider.QPAttrAccessFlags)
	m, _ := required(provider.QPSInit, provider.QPSRTR)
	step(provider.QPSRTR, m)
	m, _ = required(provider.QPSRTR, provider.QPSRTS)
	step(provider.QPSRTS, m)
}

// flight is a packet on the link.
type flight struct {
	at  int64
	seq int
	to  *host
	b   []byte
	do  func() // instead of a packet
}

type flights []flight

func (f flights) Len() int { return len(f) }
func (f flights) Less(i, j int) bool {
	return f[i].at < f[j].at || f[i].at == f[j].at && f[i].seq < f[j].seq
}
func (f flights) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)   { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	o := *f
	x := o[len(o)-1]
	*f = o[:len(o)-1]
	return x
}

// net joins two hosts in virtual time.
type net struct {
	t                  testing.TB
	a, b               *host
	now                int64
	seq                int
	link               flights
	r                  *rand.Rand
	drop, dup, reorder float64
	filter             func(from *host, p *wire.Packet) bool // false drops
	steps              int
	packets            int
	small              bool // batches of random size
}

func newNet(t testing.TB, p params) *net {
	n := &net{t: t, a: newHost(t, "a"), b: newHost(t, "b")}
	n.a.out, n.b.out = n.send, n.send
	connect(t, p, n.a, n.b)
	return n
}

func (n *net) chance(p float64) bool { return p > 0 && n.r.Float64() < p }

func (n *net) send(from *host, p *wire.Packet, b []byte) {
	n.packets++
	to := n.a
	if from == n.a {
		to = n.b
	}
	if n.filter != nil && !n.filter(from, p) || n.chance(n.drop) {
		return
	}
	k := 1
	if n.chance(n.dup) {
		k = 2
	}
	for range k {
		d := int64(10_000)
		if n.chance(n.reorder) {
			d += n.r.Int64N(400_000)
			if n.chance(0.02) {
				d += n.r.Int64N(200_000_000) // beyond the ACK timeout
			}
		}
		n.push(flight{at: n.now + d, to: to, b: append([]byte(nil), b...)})
	}
}

func (n *net) push(f flight) {
	n.seq++
	f.seq = n.seq
	heap.Push(&n.link, f)
}

func (n *net) after(d int64, f func()) { n.push(flight{at: n.now + d, do: f}) }

// step moves to the next thing that happens; false when nothing ever will.
func (n *net) step() bool {
	n.steps++
	budget := 64
	if n.small {
		budget = 1 + n.r.IntN(8)
	}
	for _, h := range []*host{n.a, n.b} {
		if h.qp.Pump(n.now, budget) == budget {
			n.after(1000, func() {}) // more to send
		}
	}
	next := int64(-1)
	if len(n.link) > 0 {
		next = n.link[0].at
	}
	for _, h := range []*host{n.a, n.b} {
		if d := h.qp.NextDeadline(); d != 0 && (next < 0 || d < next) {
			next = d
		}
	}
	if next < 0 {
		return false
	}
	n.now = max(n.now, next)
	for _, h := range []*host{n.a, n.b} {
		h.qp.Tick(n.now)
	}
	limit := 64
	if n.small {
		limit = 1 + n.r.IntN(16)
	}
	for i := 0; i < limit && len(n.link) > 0 && n.link[0].at <= n.now; i++ {
		f := heap.Pop(&n.link).(flight)
		if f.do != nil {
			f.do()
			continue
		}
		var p wire.Packet
		require.NoError(n.t, p.Decode(f.b))
		require.Equal(n.t, f.to.qp.cfg.QPN, p.DestQP)
		f.to.qp.Input(n.now, &p)
		clear(f.b) // the payload is lent for the call
	}
	n.a.qp.FlushAcks()
	n.b.qp.FlushAcks()
	return true
}

// run goes on until nothing happens any more.
func (n *net) run() {
	n.t.Helper()
	for n.step() {
		if n.steps > 400_000 {
			n.t.Fatalf("no end after %d steps, %d packets, %v ms", n.steps, n.packets, n.now/1e6)
		}
	}
}

func (h *host) sge(key uint32, addr uint64, n int) provider.SGE {
	return provider.SGE{Addr: addr, Length: uint32(n), LKey: provider.LKey(key)}
}

// post posts signalled work on one registered buffer.
func (h *host) post(id uint64, op provider.WROpcode, b []byte, raddr uint64, rkey uint32, f func(*provider.WR)) {
	h.t.Helper()
	k, base := h.reg(b, provider.AccessLocalWrite)
	wr := provider.WR{ID: id, Opcode: op, Flags: provider.SendSignaled, RemoteAddr: raddr, RKey: provider.RKey(rkey)}
	if f != nil {
		f(&wr)
	}
	require.NoError(h.t, h.qp.PostSend(&wr, []provider.SGE{h.sge(k, base, len(b))}))
}

func (h *host) postRecv(id uint64, b []byte) {
	h.t.Helper()
	k, base := h.reg(b, provider.AccessLocalWrite)
	require.NoError(h.t, h.qp.PostRecv(id, []provider.SGE{h.sge(k, base, len(b))}))
}

func status(wcs []provider.WC) (s []provider.WCStatus) {
	for _, w := range wcs {
		s = append(s, w.Status)
	}
	return
}

func ids(wcs []provider.WC) (s []uint64) {
	for _, w := range wcs {
		s = append(s, w.WRID)
	}
	return
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	for i := n &^ 7; i < n; i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}
