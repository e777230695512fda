package cm

import (
	"bufio"
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// captured are the kernel's own messages.
type captured struct {
	kind     string
	src, dst netip.Addr
	mad      mad
}

func capturedMADs(t testing.TB) (out []captured) {
	t.Helper()
	f, err := os.Open("testdata/mads.txt")
	require.NoError(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		l := strings.Fields(s.Text())
		if len(l) != 4 || l[0] == "#" {
			continue
		}
		c := captured{kind: l[0], src: netip.MustParseAddr(l[1]), dst: netip.MustParseAddr(l[2])}
		b, err := hex.DecodeString(l[3])
		require.NoError(t, err)
		copy(c.mad[:], b)
		out = append(out, c)
	}
	return out
}

// message is what each kind of message is.
type message interface {
	parse(*mad)
	put(*mad)
}

func newMessage(a attrID) message {
	switch a {
	case attrREQ:
		return &req{}
	case attrREP:
		return &rep{}
	case attrREJ:
		return &rej{}
	case attrMRA:
		return &mra{}
	case attrRTU, attrDREQ, attrDREP:
		return &ids{}
	case attrSIDRREQ:
		return &sidrReq{}
	case attrSIDRREP:
		return &sidrRep{}
	}
	return nil
}

var kinds = map[string]attrID{
	"REQ": attrREQ, "MRA": attrMRA, "REJ": attrREJ, "REP": attrREP, "RTU": attrRTU, "DREQ": attrDREQ,
	"DREP": attrDREP, "SIDR_REQ": attrSIDRREQ, "SIDR_REP": attrSIDRREP,
}

// What the kernel wrote is read and written again, byte for byte.
func TestCapturedRoundTrip(t *testing.T) {
	seen := map[string]int{}
	for _, c := range capturedMADs(t) {
		h, ok := parseHeader(&c.mad)
		require.True(t, ok)
		require.Equal(t, kinds[c.kind], h.attr)
		m := newMessage(h.attr)
		m.parse(&c.mad)
		var out mad
		h.put(&out)
		m.put(&out)
		require.Equal(t, c.mad, out, "%s from %s", c.kind, c.src)
		seen[c.kind]++
	}
	for k := range kinds {
		require.NotZero(t, seen[k], "%s in the capture", k)
	}
}

func TestCapturedREQ(t *testing.T) {
	l := capturedMADs(t)
	var q req
	q.parse(&l[0].mad)
	require.Equal(t, uint64(0x0000000001061c06), q.service, "rping's port 7174")
	require.Equal(t, uint64(0x505400fffe770002), q.guid)
	require.Equal(t, uint32(0x11), q.qpn)
	require.Equal(t, uint32(0x61af03), q.psn)
	require.Equal(t, [2]uint8{1, 1}, [2]uint8{q.respRes, q.initDepth})
	require.Equal(t, [2]uint8{20, 20}, [2]uint8{q.remoteTimeout, q.localTimeout})
	require.Equal(t, [3]uint8{7, 7, 15}, [3]uint8{q.retry, q.rnr, q.maxRetries})
	require.Equal(t, uint8(5), q.mtu)
	require.Equal(t, uint8(19), q.ackTimeout)
	require.Equal(t, uint8(64), q.hop)
	require.Equal(t, uint32(0x1629c), q.flowLabel)
	require.Equal(t, l[0].src.As16(), q.localGID)
	require.Equal(t, l[0].dst.As16(), q.remoteGID)
	e, ok := parseEndpoints(q.private[:addrSize])
	require.True(t, ok)
	require.Equal(t, endpoints{src: netip.AddrPortFrom(l[0].src, 0x8eaa), dst: l[0].dst}, e)
	var again [addrSize]byte
	e.put(again[:])
	require.Equal(t, q.private[:addrSize], again[:])
	for _, c := range l {
		if c.kind == "REQ" && c.src.Is6() {
			q.parse(&c.mad)
			e, ok := parseEndpoints(q.private[:addrSize])
			require.True(t, ok)
			require.Equal(t, c.src, e.src.Addr())
			require.Equal(t, c.dst, e.dst)
		}
	}
}

func TestCapturedAnswers(t *testing.T) {
	l := capturedMADs(t)
	var p rep
	p.parse(&l[1].mad)
	require.Equal(t, rep{
		localID: 0x2f2c7112, remoteID: 0xd0b8d39c, qpn: 0x11, psn: 0xdadd38, respRes: 1, initDepth: 1,
		ackDelay: 15, rnr: 7, guid: 0x505400fffe770001,
	}, p)
	var x ids
	x.parse(&l[3].mad)
	require.Equal(t, ids{0xd0b8d39c, 0x2f2c7112, 0x11}, x)
	var refused []rej
	for _, c := range l {
		switch c.kind {
		case "SIDR_REP":
			var s sidrRep
			s.parse(&c.mad)
			require.Equal(t, sidrRep{id: 0xd2b8d39c, qpn: 0x13, service: 0x1111c06, qkey: udQKey}, s)
		case "REJ":
			var r rej
			r.parse(&c.mad)
			refused = append(refused, r)
		case "MRA":
			var r mra
			r.parse(&c.mad)
			require.Equal(t, uint8(aboutREQ), r.about)
			require.Equal(t, uint8(mraTime), r.service)
		}
	}
	require.Equal(t, uint16(rejService), refused[0].reason)
	require.Equal(t, uint16(rejConsumer), refused[1].reason)
	require.Zero(t, refused[0].about)
}

// Every field survives, at its full width.
func FuzzMessage(f *testing.F) {
	for _, c := range capturedMADs(f) {
		f.Add(c.mad[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var in, once, twice mad
		copy(in[:], b)
		h, _ := parseHeader(&in)
		m := newMessage(h.attr)
		if m == nil {
			return
		}
		m.parse(&in)
		h.put(&once)
		m.put(&once)
		n := newMessage(h.attr)
		n.parse(&once)
		require.Equal(t, m, n)
		h.put(&twice)
		n.put(&twice)
		require.Equal(t, once, twice)
		if e, ok := parseEndpoints(in[40:76]); ok {
			var p [addrSize]byte
			e.put(p[:])
			e2, ok := parseEndpoints(p[:])
			require.True(t, ok)
			require.Equal(t, e, e2)
		}
	})
}
