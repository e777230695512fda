package roce

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// victim is a device with a queue pair of each kind, work under way, and a window
// of memory between two guards that no packet may touch.
type victim struct {
	*end
	net   *link.MemNetwork
	in    *inbox
	qps   []*queuePair
	guard []byte // what the memory around the window holds
}

const (
	guardSz  = 8192
	windowSz = 4096
)

func newVictim(t testing.TB) *victim {
	net := link.Memory(1, link.MemOptions{})
	v := &victim{end: newEnd(t, net, 0), net: net}
	v.in = &inbox{v.ctx.n, 0}
	fill(v.mem[:2*guardSz+windowSz], 9)
	v.guard = append([]byte(nil), v.mem[:2*guardSz+windowSz]...)
	w, err := v.pd.RegMR(addrOf(v.mem)+guardSz, windowSz, 0, false, allAccess)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.Close() })
	require.NoError(t, v.mr.Close())
	v.mr = w
	for _, typ := range []provider.QPType{provider.QPTRC, provider.QPTUC, provider.QPTUD} {
		q := v.qp(typ)
		q.up(&queuePair{end: v.end, qp: &qp{num: 0x123456}}, func(a *provider.QPAttr) {
			a.AH = v.ah(testAddrs[1])
			a.RQPSN, a.SQPSN = 0, 0
		})
		v.qps = append(v.qps, q)
		for i := range uint64(20) {
			q.postRecv(i, v.sge(guardSz+int(i)*100, 100))
		}
		if typ == provider.QPTRC {
			q.post(provider.WR{Opcode: provider.WRRDMARead}, v.sge(guardSz, 3000))
			q.post(provider.WR{Opcode: provider.WRAtomicFetchAndAdd}, v.sge(guardSz, 8))
			q.post(provider.WR{Opcode: provider.WRSend}, v.sge(guardSz, 4000))
		}
	}
	return v
}

// feed takes packets out of data: a byte of choices, a length, and the packet.
func (v *victim) feed(data []byte) {
	var rx [8]link.Rx
	n := 0
	for len(data) >= 3 {
		how, size := data[0], int(binary.BigEndian.Uint16(data[1:]))
		data = data[3:]
		size = min(size, len(data))
		b := data[:size]
		data = data[size:]
		p := wire.Packet{}
		if p.Decode(b) != nil {
			continue
		}
		if how&1 != 0 {
			p.DestQP, p.PKey = v.qps[int(how>>1)%3].num, defaultPKey
		}
		if how&8 != 0 {
			p.RKey, p.VA = uint32(v.mr.RKey()), addrOf(v.mem)+guardSz+p.VA%(2*windowSz)
		}
		if how&16 != 0 {
			p.PSN &= 7
		}
		if how&32 != 0 {
			p.QKey = 7
		}
		rx[n] = link.Rx{Src: testAddrs[how>>6&1^1], Pkt: p}
		if n++; n == len(rx) || how&128 != 0 {
			v.in.Input(nil, rx[:n])
			n = 0
		}
	}
	v.in.Input(nil, rx[:n])
}

func (v *victim) check() {
	v.t.Helper()
	v.ctx.n.mu.Lock()
	defer v.ctx.n.mu.Unlock()
	require.Equal(v.t, v.guard[:guardSz], v.mem[:guardSz], "written before the window")
	require.Equal(v.t, v.guard[guardSz+windowSz:], v.mem[guardSz+windowSz:2*guardSz+windowSz], "written behind the window")
}

// packetOf is a seed.
func packetOf(how byte, p wire.Packet, payload int) []byte {
	b := p.Append(nil, payload)
	b = append(b, make([]byte, payload+wire.Pad(payload)+wire.ICRCSize)...)
	return append([]byte{how, byte(len(b) >> 8), byte(len(b))}, b...)
}

func FuzzNodeInput(f *testing.F) {
	for o := range 256 {
		if op := wire.Opcode(o); op.Known() {
			n := 0
			if op.HasPayload() {
				n = 60
			}
			kind := byte(0)
			if o >= int(wire.UDSendOnly) {
				kind = 4
			} else if o >= int(wire.UCSendFirst) {
				kind = 2
			}
			p := wire.Packet{Opcode: op, DMALen: 60, AckReq: true, PKey: defaultPKey}
			one := packetOf(1|kind|8|16|32|128, p, n)
			p.DestQP, p.QKey = gsiQPN, gsiQKey
			f.Add(append(one, packetOf(0, p, 256)...))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v := newVictim(t)
		v.feed(data)
		v.check()
		for _, q := range v.qps {
			require.NoError(t, q.qp.Close())
		}
	})
}
