package verbs

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zrdma/zrdma/internal/provider"
)

// Offsets and sizes as in <infiniband/verbs.h>; internal/ibv/rare_layout.go
// holds the constants against it, this holds the bytes against the constants.
func TestFlowSpecEncoding(t *testing.T) {
	ones16 := [16]byte{0: 0xff, 15: 0xff}
	for _, tt := range []struct {
		name string
		spec FlowSpec
		typ  FlowSpecType
		size int
		at   map[int][]byte // offset to bytes; everything else is zero
	}{
		{"eth", EthSpec{Val: EthFields{DstMAC: [6]byte{1, 2, 3, 4, 5, 6}, SrcMAC: [6]byte{7, 8, 9, 10, 11, 12}, EtherType: 0x0800, VLANTag: 0x6123}, Mask: EthFields{EtherType: 0xffff}},
			FlowSpecETH, 40, map[int][]byte{6: {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 0, 0x61, 0x23}, 34: {0xff, 0xff}}},
		{"eth inner", EthSpec{Inner: true}, FlowSpecETH | FlowSpecInner, 40, nil},
		{"ipv4", IPv4Spec{Val: IPv4Fields{Src: [4]byte{10, 0, 0, 1}, Dst: [4]byte{10, 0, 0, 2}, Proto: 6}, Mask: IPv4Fields{Dst: [4]byte{255, 255, 255, 254}}},
			FlowSpecIPv4, 24, map[int][]byte{8: {10, 0, 0, 1, 10, 0, 0, 2}, 20: {255, 255, 255, 254}}},
		{"ipv4 ext", IPv4ExtSpec{Val: IPv4Fields{Proto: 17, TOS: 2, TTL: 3, Flags: 4}, Mask: IPv4Fields{Proto: 0xff}},
			FlowSpecIPv4Ext, 32, map[int][]byte{16: {17, 2, 3, 4}, 28: {0xff}}},
		{"ipv6", IPv6Spec{Val: IPv6Fields{Src: ones16, FlowLabel: 0xabcde, NextHdr: 6, TrafficClass: 7, HopLimit: 8}, Mask: IPv6Fields{Dst: ones16, HopLimit: 0xff}},
			FlowSpecIPv6, 88, map[int][]byte{8: {0xff}, 23: {0xff}, 40: {0, 0xa, 0xbc, 0xde, 6, 7, 8}, 64: {0xff}, 79: {0xff}, 86: {0xff}}},
		{"tcp", TCPUDPSpec{Val: TCPUDPFields{DstPort: 4791, SrcPort: 1}, Mask: TCPUDPFields{DstPort: 0xffff}},
			FlowSpecTCP, 16, map[int][]byte{6: {0x12, 0xb7, 0, 1}, 10: {0xff, 0xff}}},
		{"udp", TCPUDPSpec{UDP: true}, FlowSpecUDP, 16, nil},
		{"gre", GRESpec{Val: GREFields{Flags: 0x2000, Protocol: 0x6558, Key: 0x01020304}, Mask: GREFields{Key: math.MaxUint32}},
			FlowSpecGRE, 24, map[int][]byte{8: {0x20, 0, 0x65, 0x58, 1, 2, 3, 4}, 20: {255, 255, 255, 255}}},
		{"mpls", MPLSSpec{Val: 0x01020304, Mask: 0xfffff000}, FlowSpecMPLS, 16, map[int][]byte{8: {1, 2, 3, 4, 0xff, 0xff, 0xf0}}},
		{"tunnel", TunnelSpec{Val: 7, Mask: 0xffffff, Inner: true}, FlowSpecVXLANTunnel | FlowSpecInner, 16, map[int][]byte{11: {7}, 13: {255, 255, 255}}},
		{"esp", ESPSpec{Val: ESPFields{SPI: 0x01020304, Seq: 5}, Mask: ESPFields{SPI: math.MaxUint32}},
			FlowSpecESP, 24, map[int][]byte{8: {1, 2, 3, 4, 0, 0, 0, 5, 255, 255, 255, 255}}},
		{"tag", TagAction{0x01020304}, FlowSpecActionTag, 12, map[int][]byte{8: binary.NativeEndian.AppendUint32(nil, 0x01020304)}},
		{"drop", DropAction{}, FlowSpecActionDrop, 8, nil},
		{"handle", HandleAction{&FlowAction{p: &fakeRare{handle: 0x1122334455667788}}}, FlowSpecActionHandle, int(provider.FlowSizeHandle), map[int][]byte{8: pointer(0x1122334455667788)}},
		{"count", CountAction{&Counters{p: &fakeCounters{fakeRare{handle: 9}}}}, FlowSpecActionCount, int(provider.FlowSizeHandle), map[int][]byte{8: pointer(9)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := tt.spec.encode()
			b, err := provider.AppendFlow(nil, provider.FlowRule{}, []provider.FlowSpec{s})
			require.NoError(t, err)
			want := binary.NativeEndian.AppendUint32(nil, uint32(tt.typ))
			want = binary.NativeEndian.AppendUint16(want, uint16(tt.size))
			want = append(want, make([]byte, tt.size-len(want))...)
			for off, v := range tt.at {
				copy(want[off:], v)
			}
			require.Equal(t, want, b[provider.FlowAttrSize:])
		})
	}
}

func TestFlowRuleEncoding(t *testing.T) {
	a, _ := DropAction{}.encode()
	e, _ := EthSpec{}.encode()
	b, err := provider.AppendFlow(nil, provider.FlowRule{Type: FlowAttrSniffer, Priority: 0x0102, Port: 3, Flags: FlowAttrFlagsEgress}, []provider.FlowSpec{e, a})
	require.NoError(t, err)
	ne := binary.NativeEndian
	require.Len(t, b, 20+40+8)
	require.Equal(t, uint32(0), ne.Uint32(b), "comp_mask")
	require.Equal(t, uint32(FlowAttrSniffer), ne.Uint32(b[4:]))
	require.Equal(t, uint16(68), ne.Uint16(b[8:]), "size")
	require.Equal(t, uint16(0x0102), ne.Uint16(b[10:]), "priority")
	require.Equal(t, []byte{2, 3}, b[12:14], "number of specifications, port")
	require.Equal(t, uint32(FlowAttrFlagsEgress), ne.Uint32(b[16:]))
	require.Equal(t, uint32(FlowSpecETH), ne.Uint32(b[20:]))
	require.Equal(t, uint32(FlowSpecActionDrop), ne.Uint32(b[60:]))

	_, err = provider.AppendFlow(nil, provider.FlowRule{}, make([]provider.FlowSpec, 256))
	require.Error(t, err)
}

func TestESPConfig(t *testing.T) {
	esn := uint32(7)
	cfg := ESPConfig{SPI: 1, Flags: ESPEncrypt, ESN: &esn, ReplayWindow: 64,
		AESGCM: &AESGCM{Key: []byte("0123456789abcdef"), ICVLen: 16},
		Encap:  []FlowSpec{EthSpec{Val: EthFields{EtherType: 0x0800}}, IPv6Spec{}}}
	a, encap, err := cfg.flat("v")
	require.NoError(t, err)
	require.Equal(t, uint32(16), a.KeyLen)
	require.Equal(t, cfg.AESGCM.Key, a.Key[:16])
	require.Equal(t, [2]uint32{1, 7}, [2]uint32{a.CompMask, a.ESN})
	require.Equal(t, uint32(1), a.HasKeymat)
	require.Equal(t, uint16(FlowSpecETH), encap[0].Type)
	require.Equal(t, [2]uint16{16, 40}, [2]uint16{encap[0].Len, encap[1].Len})
	require.Equal(t, []byte{8, 0}, encap[0].Val[12:14])

	for name, bad := range map[string]ESPConfig{
		"key length":   {AESGCM: &AESGCM{Key: make([]byte, 15)}},
		"action":       {Encap: []FlowSpec{DropAction{}}},
		"nil":          {Encap: []FlowSpec{nil}},
		"nine headers": {Encap: make([]FlowSpec, 9)},
	} {
		for i := range bad.Encap {
			if name == "nine headers" {
				bad.Encap[i] = IPv4Spec{}
			}
		}
		_, _, err := bad.flat("v")
		require.Error(t, err, name)
	}
}
