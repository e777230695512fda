package provider

import (
	"encoding/binary"
	"errors"
	"math"
	"unsafe"
)

// The sizes and offsets of struct ibv_flow_attr and of the specifications that
// follow it; internal/ibv holds them against the C headers at compile time.
const (
	FlowAttrSize = 20

	FlowSizeEth     = 40
	FlowSizeIPv4    = 24
	FlowSizeIPv4Ext = 32
	FlowSizeIPv6    = 88
	FlowSizeESP     = 24
	FlowSizeTCPUDP  = 16
	FlowSizeTunnel  = 16
	FlowSizeGRE     = 24
	FlowSizeMPLS    = 16
	FlowSizeTag     = 12
	FlowSizeDrop    = 8
	FlowSizeHandle  = 8 + unsafe.Sizeof(uintptr(0))

	// Where the value starts, behind type and size: filters of 16-bit fields
	// are less aligned than those of 32-bit ones.
	FlowOff16 = 6
	FlowOff32 = 8
)

// FlowRule is a steering rule without its specifications.
//
// Source: struct ibv_flow_attr.
type FlowRule struct {
	Type     FlowAttrType
	Priority uint16 // 0 is the highest
	Port     uint8
	Flags    FlowFlags
}

// FlowSpec is one encoded specification: a match (Val and Mask are of equal
// length, in network order) or an action (Val alone).
type FlowSpec struct {
	Type      FlowSpecType
	Off, Size int // of Val, and of all
	Val, Mask []byte
}

// AppendFlow appends the C form of a rule and its specifications to b.
func AppendFlow(b []byte, r FlowRule, specs []FlowSpec) ([]byte, error) {
	size := FlowAttrSize
	for _, s := range specs {
		size += s.Size
	}
	if len(specs) > math.MaxUint8 || size > math.MaxUint16 {
		return nil, errors.New("too many flow specifications")
	}
	ne := binary.NativeEndian
	b = ne.AppendUint32(b, 0) // comp_mask
	b = ne.AppendUint32(b, uint32(r.Type))
	b = ne.AppendUint16(b, uint16(size))
	b = ne.AppendUint16(b, r.Priority)
	b = append(b, uint8(len(specs)), r.Port, 0, 0)
	b = ne.AppendUint32(b, uint32(r.Flags))
	for _, s := range specs {
		at := len(b)
		b = append(b, make([]byte, s.Size)...)
		ne.PutUint32(b[at:], uint32(s.Type))
		ne.PutUint16(b[at+4:], uint16(s.Size))
		copy(b[at+s.Off:at+s.Size], s.Val)
		copy(b[at+s.Off+len(s.Val):at+s.Size], s.Mask)
	}
	return b, nil
}

// ESPAttr describes an ESP action. Layout: struct zr_esp.
type ESPAttr struct {
	HardLimitPkts, IV            uint64
	SPI, Seq, TFCPad             uint32
	Flags                        ESPFlags
	IVAlgo, Salt, ICVLen, KeyLen uint32
	Key                          [32]byte
	ReplaySize, ESN, CompMask    uint32
	HasKeymat                    uint32
}

// ESPEncap is one header that tunnel mode adds. Layout: struct zr_esp_encap.
type ESPEncap struct {
	Type, Len uint16
	Val       [40]byte
}
