package link

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/roce/wire"
)

// Between loopback addresses the ICRC is 0, for it was not computed; where it is
// asked for it is right. tun_test.go has it right on other addresses.
func TestLoopbackWithoutICRC(t *testing.T) {
	to := ownLoopback(3)
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, wire.Port)))
	require.NoError(t, err)
	defer c.Close()
	for _, icrc := range []bool{false, true} {
		l := open(t, UDP(UDPOptions{ICRC: icrc, NoOffload: true}), lo1, newSink())
		payload := []byte("0123456789abcdef")
		l.Send(to, &wire.Packet{Opcode: wire.RCSendOnly, PSN: 7}, [][]byte{payload}, len(payload))
		require.NoError(t, l.Flush())
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		b := make([]byte, 200)
		n, err := c.Read(b)
		require.NoError(t, err)
		b = b[:n]
		a := wire.Addrs{Src: lo1, Dst: to, SrcPort: wire.Port, DstPort: wire.Port, DF: true}
		require.Equal(t, icrc, a.CheckUnknownID(b))
		require.Equal(t, !icrc, binary.LittleEndian.Uint32(b[n-wire.ICRCSize:]) == 0)
		require.NoError(t, l.Close())
	}
}

// Nothing without an ICRC is taken from elsewhere, and nothing whose ICRC is wrong.
func TestTrusted(t *testing.T) {
	p := wire.Packet{Opcode: wire.RCAck}
	a := wire.Addrs{Src: lo1, Dst: lo2, None: true}
	bare := a.AppendICRC(p.Append(nil, 0))
	require.True(t, trusted(lo1, lo2, bare))
	require.True(t, trusted(lo6, lo6, bare))
	require.False(t, trusted(v4(10, 0, 0, 1), lo2, bare))
	require.False(t, trusted(lo1, v4(10, 0, 0, 1), bare))
	bare[len(bare)-1] = 1
	require.False(t, trusted(lo1, lo2, bare))
	require.False(t, trusted(lo1, lo2, make([]byte, wire.BTHSize)))
}
