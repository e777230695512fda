package verbs

import (
	"encoding/binary"
	"unsafe"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// FlowSpec is one match or action of a steering rule: EthSpec, IPv4Spec,
// IPv4ExtSpec, IPv6Spec, TCPUDPSpec, GRESpec, MPLSSpec, TunnelSpec, ESPSpec,
// TagAction, DropAction, HandleAction or CountAction.
//
// Fields of matches are in host order. A packet fits when its field equals Val
// in the bits that Mask has; a zero Mask fits everything.
type FlowSpec interface {
	// encode gives the C form, and the handle of the object that is used.
	encode() (provider.FlowSpec, *handle.Handle)
}

func match(t FlowSpecType, inner bool, off, size int, val, mask []byte) (provider.FlowSpec, *handle.Handle) {
	if inner {
		t |= FlowSpecInner
	}
	return provider.FlowSpec{Type: t, Off: off, Size: size, Val: val, Mask: mask}, nil
}

// EthFields are what EthSpec compares.
type EthFields struct {
	DstMAC, SrcMAC [6]byte
	EtherType      uint16
	VLANTag        uint16 // priority 3 bits, CFI 1, id 12
}

func (f EthFields) bytes() []byte {
	b := append(append([]byte(nil), f.DstMAC[:]...), f.SrcMAC[:]...)
	b = binary.BigEndian.AppendUint16(b, f.EtherType)
	return binary.BigEndian.AppendUint16(b, f.VLANTag)
}

// EthSpec matches the Ethernet header, of the encapsulated packet when Inner.
//
// Source: struct ibv_flow_spec_eth.
type EthSpec struct {
	Val, Mask EthFields
	Inner     bool
}

func (s EthSpec) encode() (provider.FlowSpec, *handle.Handle) {
	return match(FlowSpecETH, s.Inner, provider.FlowOff16, provider.FlowSizeEth, s.Val.bytes(), s.Mask.bytes())
}

// IPv4Fields are what IPv4Spec and IPv4ExtSpec compare.
type IPv4Fields struct {
	Src, Dst               [4]byte
	Proto, TOS, TTL, Flags uint8 // IPv4ExtSpec only
}

func (f IPv4Fields) bytes(ext bool) []byte {
	b := append(append([]byte(nil), f.Src[:]...), f.Dst[:]...)
	if ext {
		b = append(b, f.Proto, f.TOS, f.TTL, f.Flags)
	}
	return b
}

// IPv4Spec matches the addresses of the IPv4 header.
//
// Source: struct ibv_flow_spec_ipv4.
type IPv4Spec struct {
	Val, Mask IPv4Fields
	Inner     bool
}

func (s IPv4Spec) encode() (provider.FlowSpec, *handle.Handle) {
	return match(FlowSpecIPv4, s.Inner, provider.FlowOff32, provider.FlowSizeIPv4, s.Val.bytes(false), s.Mask.bytes(false))
}

// IPv4ExtSpec matches addresses and other fields of the IPv4 header.
//
// Source: struct ibv_flow_spec_ipv4_ext.
type IPv4ExtSpec struct {
	Val, Mask IPv4Fields
	Inner     bool
}

func (s IPv4ExtSpec) encode() (provider.FlowSpec, *handle.Handle) {
	return match(FlowSpecIPv4Ext, s.Inner, provider.FlowOff32, provider.FlowSizeIPv4Ext, s.Val.bytes(true), s.Mask.bytes(true))
}

// IPv6Fields are what IPv6Spec compares.
type IPv6Fields struct {
	Src, Dst                        [16]byte
	FlowLabel                       uint32 // 20 bits
	NextHdr, TrafficClass, HopLimit uint8
}

func (f IPv6Fields) bytes() []byte {
	b := append(append([]byte(nil), f.Src[:]...), f.Dst[:]...)
	b = binary.BigEndian.AppendUint32(b, f.FlowLabel)
	return append(b, f.NextHdr, f.TrafficClass, f.HopLimit, 0)
}

// IPv6Spec matches the IPv6 header.
//
// Source: struct ibv_flow_spec_ipv6.
type IPv6Spec struct {
	Val, Mask IPv6Fields
	Inner     bool
}

func (s IPv6Spec) encode() (provider.FlowSpec, *handle.Handle) {
	return match(FlowSpecIPv6, s.Inner, provider.FlowOff32, provider.FlowSizeIPv6, s.Val.bytes(), s.Mask.bytes())
}

// TCPUDPFields are what TCPUDPSpec compares.
type TCPUDPFields struct{ DstPort, SrcPort uint16 }

func (f TCPUDPFields) bytes() []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, f.DstPort), f.SrcPort)
}

// TCPUDPSpec matches the ports of TCP, or of UDP when UDP is set.
//
// Source: struct ibv_flow_spec_tcp_udp.
type TCPUDPSpec struct {
	UDP       bool
	Val, Mask TCPUDPFields
	Inner     bool
}

func (s TCPUDPSpec) encode() (provider.FlowSpec, *handle.Handle) {
	t := FlowSpecTCP
	if s.UDP {
		t = FlowSpecUDP
	}
	return match(t, s.Inner, provider.FlowOff16, provider.FlowSizeTCPUDP, s.Val.bytes(), s.Mask.bytes())
}

// GREFields are what GRESpec compares.
type GREFields struct {
	Flags    uint16 // the first 16 bits of the header: C, K and S bits, version
	Protocol uint16
	Key      uint32
}

func (f GREFields) bytes() []byte {
	b := binary.BigEndian.AppendUint16(nil, f.Flags)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, f.Protocol), f.Key)
}

// GRESpec matches a GRE header.
//
// Source: struct ibv_flow_spec_gre.
type GRESpec struct {
	Val, Mask GREFields
	Inner     bool
}

func (s GRESpec) encode() (provider.FlowSpec, *handle.Handle) {
	return match(FlowSpecGRE, s.Inner, provider.FlowOff32, provider.FlowSizeGRE, s.Val.bytes(), s.Mask.bytes())
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// MPLSSpec matches a MPLS label entry: label 20 bits, class 3, bottom 1, TTL 8.
//
// Source: struct ibv_flow_spec_mpls.
type MPLSSpec struct {
	Val, Mask uint32
	Inner     bool
}

func (s MPLSSpec) encode() (provider.FlowSpec, *handle.Handle) {
	return match(FlowSpecMPLS, s.Inner, provider.FlowOff32, provider.FlowSizeMPLS, be32(s.Val), be32(s.Mask))
}

// TunnelSpec matches the network identifier of a VXLAN tunnel.
//
// Source: struct ibv_flow_spec_tunnel.
type TunnelSpec struct {
	Val, Mask uint32
	Inner     bool
}

func (s TunnelSpec) encode() (provider.FlowSpec, *handle.Handle) {
	return match(FlowSpecVXLANTunnel, s.Inner, provider.FlowOff32, provider.FlowSizeTunnel, be32(s.Val), be32(s.Mask))
}

// ESPFields are what ESPSpec compares.
type ESPFields struct{ SPI, Seq uint32 }

// ESPSpec matches an ESP header.
//
// Source: struct ibv_flow_spec_esp.
type ESPSpec struct {
	Val, Mask ESPFields
	Inner     bool
}

func (s ESPSpec) encode() (provider.FlowSpec, *handle.Handle) {
	b := func(f ESPFields) []byte { return append(be32(f.SPI), be32(f.Seq)...) }
	return match(FlowSpecESP, s.Inner, provider.FlowOff32, provider.FlowSizeESP, b(s.Val), b(s.Mask))
}

func action(t FlowSpecType, size int, val []byte) provider.FlowSpec {
	return provider.FlowSpec{Type: t, Off: provider.FlowOff32, Size: size, Val: val}
}

// pointer encodes a C pointer as the C struct holds it.
func pointer(h uint64) []byte {
	if unsafe.Sizeof(uintptr(0)) == 4 {
		return binary.NativeEndian.AppendUint32(nil, uint32(h))
	}
	return binary.NativeEndian.AppendUint64(nil, h)
}

// TagAction marks completions of matching packets: WCEx.FlowTag.
//
// Source: struct ibv_flow_spec_action_tag.
type TagAction struct{ Tag uint32 }

func (s TagAction) encode() (provider.FlowSpec, *handle.Handle) {
	return action(FlowSpecActionTag, provider.FlowSizeTag, binary.NativeEndian.AppendUint32(nil, s.Tag)), nil
}

// DropAction drops matching packets.
//
// Source: struct ibv_flow_spec_action_drop.
type DropAction struct{}

func (s DropAction) encode() (provider.FlowSpec, *handle.Handle) {
	return action(FlowSpecActionDrop, provider.FlowSizeDrop, nil), nil
}

// HandleAction has Action done to matching packets.
//
// Source: struct ibv_flow_spec_action_handle.
type HandleAction struct{ Action *FlowAction }

func (s HandleAction) encode() (provider.FlowSpec, *handle.Handle) {
	if s.Action == nil {
		return provider.FlowSpec{}, nil
	}
	return action(FlowSpecActionHandle, int(provider.FlowSizeHandle), pointer(s.Action.p.Handle())), &s.Action.h
}

// CountAction counts matching packets.
//
// Source: struct ibv_flow_spec_counter_action.
type CountAction struct{ Counters *Counters }

func (s CountAction) encode() (provider.FlowSpec, *handle.Handle) {
	if s.Counters == nil {
		return provider.FlowSpec{}, nil
	}
	return action(FlowSpecActionCount, int(provider.FlowSizeHandle), pointer(s.Counters.p.Handle())), &s.Counters.h
}
