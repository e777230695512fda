package provider

import (
	"encoding/hex"
	"fmt"
	"net/netip"
)

// The attribute structs below have the layout of the C structs named in their
// comments, so that a provider on libibverbs fills them in place. internal/ibv
// checks sizes and offsets at compile time.

// LKey authorises local access to a registered region.
type LKey uint32

// RKey authorises remote access to a registered region or a bound window.
type RKey uint32

// GID is a 128-bit port identifier; on RoCE v2 an IPv6 or IPv4-mapped address.
//
// Source: union ibv_gid.
type GID [16]byte

// Addr gives the GID as an IP address; an IPv4-mapped one as IPv4.
func (g GID) Addr() netip.Addr { return netip.AddrFrom16(g).Unmap() }

// IsZero reports an empty table slot.
func (g GID) IsZero() bool { return g == GID{} }

// String writes the GID as eight groups of four hexadecimal digits.
func (g GID) String() string {
	b := make([]byte, 0, 39)
	for i := 0; i < 16; i += 2 {
		if i > 0 {
			b = append(b, ':')
		}
		b = hex.AppendEncode(b, g[i:i+2])
	}
	return string(b)
}

// GIDFromAddr gives the RoCE v2 GID of an IP address: IPv4 is mapped.
func GIDFromAddr(a netip.Addr) GID { return a.WithZone("").As16() }

// GIDEntry is one entry of a GID table.
//
// Source: struct ibv_gid_entry.
type GIDEntry struct {
	GID     GID
	Index   uint32 // GID index
	Port    uint32
	Type    GIDType
	Ifindex uint32 // of the netdev, 0 when there is none
}

// GUID is a 64-bit identifier in host order.
type GUID uint64

// String writes the GUID as four groups of four hexadecimal digits.
func (g GUID) String() string {
	return fmt.Sprintf("%04x:%04x:%04x:%04x", uint16(g>>48), uint16(g>>32), uint16(g>>16), uint16(g))
}

// DeviceAttr holds the limits of a device. Counts are numbers of objects, sizes are bytes.
//
// Source: struct ibv_device_attr.
type DeviceAttr struct {
	fwVer                                                    [64]byte
	NodeGUID, SysImageGUID                                   GUID
	MaxMRSize, PageSizeCap                                   uint64
	VendorID, VendorPartID, HWVer                            uint32
	MaxQP, MaxQPWR                                           int32
	DeviceCapFlags                                           DeviceCapFlags
	MaxSGE, MaxSGERd, MaxCQ, MaxCQE, MaxMR, MaxPD            int32
	MaxQPRdAtom, MaxEERdAtom, MaxResRdAtom                   int32
	MaxQPInitRdAtom, MaxEEInitRdAtom                         int32
	AtomicCap                                                AtomicCap
	MaxEE, MaxRDD, MaxMW, MaxRawIPv6QP, MaxRawEthyQP         int32
	MaxMcastGrp, MaxMcastQPAttach, MaxTotalMcastQPAttach     int32
	MaxAH, MaxFMR, MaxMapPerFMR, MaxSRQ, MaxSRQWR, MaxSRQSGE int32
	MaxPKeys                                                 uint16
	LocalCAAckDelay, PhysPortCnt                             uint8
}

// FWVer is the firmware version, empty where a device reports none.
func (a *DeviceAttr) FWVer() string { return cstr(a.fwVer[:]) }

// SetFWVer stores the firmware version, for providers in Go.
func (a *DeviceAttr) SetFWVer(s string) { copy(a.fwVer[:len(a.fwVer)-1], s) }

func cstr(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// ODPCaps are on-demand paging capabilities. Source: struct ibv_odp_caps.
type ODPCaps struct {
	General    ODPGeneralCaps
	RC, UC, UD ODPTransportCaps
	_          uint32
}

// TSOCaps are segmentation offload capabilities. Source: struct ibv_tso_caps.
type TSOCaps struct {
	MaxTSO        uint32 // bytes
	SupportedQPTs uint32 // bit mask by QPType
}

// RSSCaps are receive side scaling capabilities. Source: struct ibv_rss_caps.
type RSSCaps struct {
	SupportedQPTs             uint32 // bit mask by QPType
	MaxRWQIndirectionTables   uint32
	MaxRWQIndirectionTableSiz uint32
	_                         uint32
	RXHashFieldsMask          RXHashFields
	RXHashFunction            RXHashFunction
	_                         [7]uint8
}

// PacketPacingCaps are rate limits in kbit/s. Source: struct ibv_packet_pacing_caps.
type PacketPacingCaps struct {
	RateLimitMin, RateLimitMax uint32
	SupportedQPTs              uint32
}

// TMCaps are tag-matching capabilities. Source: struct ibv_tm_caps.
type TMCaps struct {
	MaxRndvHdrSize, MaxNumTags uint32
	Flags                      TMCapFlags
	MaxOps, MaxSGE             uint32
}

// CQModerationCaps bound CQ moderation. Source: struct ibv_cq_moderation_caps.
type CQModerationCaps struct {
	MaxCQCount  uint16
	MaxCQPeriod uint16 // microseconds
}

// PCIAtomicCaps are operand sizes of PCIe atomics. Source: struct ibv_pci_atomic_caps.
type PCIAtomicCaps struct {
	FetchAdd, Swap, CompareSwap PCIAtomicOpSize
}

// DeviceAttrEx holds the extended attributes of a device.
//
// Source: struct ibv_device_attr_ex.
type DeviceAttrEx struct {
	Orig                    DeviceAttr
	CompMask                uint32
	_                       uint32
	ODP                     ODPCaps
	CompletionTimestampMask uint64
	HCACoreClock            uint64 // kHz
	DeviceCapFlagsEx        uint64
	TSO                     TSOCaps
	RSS                     RSSCaps
	MaxWQTypeRQ             uint32
	PacketPacing            PacketPacingCaps
	RawPacketCaps           RawPacketCaps
	TM                      TMCaps
	CQMod                   CQModerationCaps
	_                       uint32
	MaxDMSize               uint64 // bytes
	PCIAtomic               PCIAtomicCaps
	_                       uint16
	XRCODPCaps              ODPTransportCaps
	PhysPortCntEx           uint32
}

// PortAttr describes a port. Source: struct ibv_port_attr.
type PortAttr struct {
	State                        PortState
	MaxMTU, ActiveMTU            MTU
	GIDTblLen                    int32
	PortCapFlags                 PortCapFlags
	MaxMsgSz                     uint32 // bytes
	BadPKeyCntr, QKeyViolCntr    uint32
	PKeyTblLen, LID, SMLID       uint16
	LMC, MaxVLNum, SMSL          uint8
	SubnetTimeout, InitTypeReply uint8
	ActiveWidth, ActiveSpeed     uint8
	PhysState                    uint8
	LinkLayer                    LinkLayer
	Flags                        uint8
	PortCapFlags2                PortCapFlags2
}

// GlobalRoute is the routing part of an address. Source: struct ibv_global_route.
type GlobalRoute struct {
	DGID         GID
	FlowLabel    uint32 // 20 bits
	SGIDIndex    uint8
	HopLimit     uint8
	TrafficClass uint8
	_            uint8
}

// AHAttr is an address: where a UD message goes, or the path of a connected queue pair.
//
// Source: struct ibv_ah_attr.
type AHAttr struct {
	GRH         GlobalRoute
	DLID        uint16
	SL          uint8
	SrcPathBits uint8
	StaticRate  uint8 // a Rate; 0 is the port's
	IsGlobal    bool  // GRH is valid; required on RoCE
	PortNum     uint8
	_           uint8
}

// QPCap sizes a queue pair. Source: struct ibv_qp_cap.
type QPCap struct {
	MaxSendWR, MaxRecvWR   uint32 // work requests
	MaxSendSGE, MaxRecvSGE uint32 // elements of one work request
	MaxInlineData          uint32 // bytes
}

// QPAttr holds what ModifyQP sets and QueryQP reads; a mask says which fields count.
//
// Source: struct ibv_qp_attr.
type QPAttr struct {
	State, CurState  QPState
	PathMTU          MTU
	PathMigState     MigState
	QKey             uint32
	RQPSN, SQPSN     uint32 // 24 bits
	DestQPN          uint32
	AccessFlags      AccessFlags
	Cap              QPCap
	AH, AltAH        AHAttr
	PKeyIndex        uint16
	AltPKeyIndex     uint16
	EnSQDAsyncNotify bool
	SQDraining       bool
	MaxRdAtomic      uint8 // READs and atomics outstanding as requester
	MaxDestRdAtomic  uint8 // as responder
	MinRNRTimer      uint8 // 5-bit code, see the InfiniBand specification
	PortNum          uint8
	Timeout          uint8 // 4.096 us * 2^Timeout; 0 is endless
	RetryCnt         uint8 // 0-7; 7 never ends on rxe
	RNRRetry         uint8 // 0-7; 7 is endless
	AltPortNum       uint8
	AltTimeout       uint8
	RateLimit        uint32 // kbit/s
	_                uint32
}

// ECE are enhanced connection establishment options. Source: struct ibv_ece.
type ECE struct {
	VendorID, Options, CompMask uint32
}

// SRQAttr sizes a shared receive queue. Source: struct ibv_srq_attr.
type SRQAttr struct {
	MaxWR, MaxSGE uint32
	Limit         uint32 // EventSRQLimitReached fires once when fewer requests are left
}
