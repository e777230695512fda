package provider

// SGE is a scatter/gather element: Length bytes at Addr, in a region of key LKey.
//
// Source: struct ibv_sge.
type SGE struct {
	Addr   uint64
	Length uint32
	LKey   LKey
}

// WR is a send work request as it crosses the seam: flat and pointer-free. AH,
// MW and MR are the Handle of the provider's object. Layout: struct zr_wr.
type WR struct {
	ID, RemoteAddr, CompareAdd, Swap uint64
	AH, MW, MR                       uint64
	BindAddr, BindLength             uint64
	Hdr                              uint64 // address of a TSO header
	Opcode                           WROpcode
	Flags                            SendFlags
	Imm                              uint32 // immediate in host order, or the rkey to invalidate
	RKey                             RKey
	RemoteQPN, RemoteQKey            uint32
	SRQN                             uint32
	BindAccess                       AccessFlags
	SGEOff, NumSGE                   uint32 // into the elements that come along
	MSS, HdrSize                     uint16
	FlushType, FlushLevel, _         uint32
}

// RecvWR is a receive work request. Layout: struct zr_recv_wr.
type RecvWR struct {
	ID             uint64
	SGEOff, NumSGE uint32
}

// WC is a work completion. Only WRID, Status, QPN and VendorErr are valid when
// Status is not WCSuccess.
//
// Source: struct ibv_wc.
type WC struct {
	WRID         uint64
	Status       WCStatus
	Opcode       WCOpcode
	VendorErr    uint32
	ByteLen      uint32 // bytes received, or read by READ and atomics
	immOrRKey    uint32 // as on the wire: immediate big-endian, rkey in host order
	QPN          uint32 // local queue pair
	SrcQP        uint32 // UD: the sender's
	Flags        WCFlags
	PKeyIndex    uint16
	SLID         uint16
	SL           uint8
	DLIDPathBits uint8
	_            [2]uint8
}

// Imm is the immediate value in host order, valid with WCWithImm.
func (w *WC) Imm() uint32 { return bswap(w.immOrRKey) }

// InvalidatedRKey is the key that a SEND with invalidate took away, valid with WCWithInv.
func (w *WC) InvalidatedRKey() RKey { return RKey(w.immOrRKey) }

// SetImm stores an immediate, for providers in Go.
func (w *WC) SetImm(v uint32) { w.immOrRKey = bswap(v) }

// SetInvalidatedRKey stores an invalidated key, for providers in Go.
func (w *WC) SetInvalidatedRKey(k RKey) { w.immOrRKey = uint32(k) }

// IsRecv reports a completion of a receive work request.
func (w *WC) IsRecv() bool { return w.Opcode&WCRecv != 0 }

// WCEx is an extended completion: the fields chosen by WCExFlags at creation.
//
// Source: struct ibv_cq_ex and ibv_wc_read_*(3).
type WCEx struct {
	WC
	CompletionTS          uint64 // raw device clock ticks
	CompletionWallclockNS uint64 // nanoseconds since 1970
	TMTag                 uint64
	TMPriv                uint32
	FlowTag               uint32
	CVLAN                 uint16
	_                     [3]uint16
}
