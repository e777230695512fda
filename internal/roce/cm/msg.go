package cm

// The messages, with fields in the order of the InfiniBand specification 1.4,
// 12.6. Offsets count from the end of the MAD's header. What RoCE has no use for
// (end-to-end contexts, alternate paths, LIDs of an answer) is not kept.

// req asks for a connection.
type req struct {
	localID       uint32
	service       uint64
	guid          uint64
	vendor        uint32 // ECE, 24 bits
	qpn           uint32
	respRes       uint8
	initDepth     uint8
	remoteTimeout uint8 // what the receiver may take to answer, 4.096 us * 2^t
	transport     uint8 // 0 RC, 1 UC, 3 see ext
	flow          bool
	psn           uint32 // from which the receiver of this message sends
	localTimeout  uint8  // what the sender may take to answer
	retry         uint8
	pkey          uint16
	mtu           uint8
	rnr           uint8
	maxRetries    uint8
	srq           bool
	ext           uint8
	lids          [2]uint16
	localGID      [16]byte
	remoteGID     [16]byte
	flowLabel     uint32
	rate          uint8
	tclass        uint8
	hop           uint8
	sl            uint8
	subnetLocal   bool
	ackTimeout    uint8
	private       [privREQ]byte
}

func (m *req) put(b *mad) {
	d := b[madHdr:]
	be.PutUint32(d, m.localID)
	be.PutUint64(d[8:], m.service)
	be.PutUint64(d[16:], m.guid)
	put24(d[24:], m.vendor)
	put24(d[32:], m.qpn)
	d[35], d[39] = m.respRes, m.initDepth
	d[43] = m.remoteTimeout<<3 | m.transport<<1&6 | bit(m.flow, 0)
	put24(d[44:], m.psn)
	d[47] = m.localTimeout<<3 | m.retry&7
	be.PutUint16(d[48:], m.pkey)
	d[50] = m.mtu<<4 | m.rnr&7
	d[51] = m.maxRetries<<4 | bit(m.srq, 3) | m.ext&7
	be.PutUint16(d[52:], m.lids[0])
	be.PutUint16(d[54:], m.lids[1])
	copy(d[56:], m.localGID[:])
	copy(d[72:], m.remoteGID[:])
	be.PutUint32(d[88:], m.flowLabel<<12|uint32(m.rate&0x3f))
	d[92], d[93] = m.tclass, m.hop
	d[94] = m.sl<<4 | bit(m.subnetLocal, 3)
	d[95] = m.ackTimeout << 3
	copy(d[140:], m.private[:])
}

func (m *req) parse(b *mad) {
	d := b[madHdr:]
	*m = req{
		localID: be.Uint32(d), service: be.Uint64(d[8:]), guid: be.Uint64(d[16:]), vendor: u24(d[24:]),
		qpn: u24(d[32:]), respRes: d[35], initDepth: d[39],
		remoteTimeout: d[43] >> 3, transport: d[43] >> 1 & 3, flow: d[43]&1 != 0,
		psn: u24(d[44:]), localTimeout: d[47] >> 3, retry: d[47] & 7,
		pkey: be.Uint16(d[48:]), mtu: d[50] >> 4, rnr: d[50] & 7,
		maxRetries: d[51] >> 4, srq: d[51]&8 != 0, ext: d[51] & 7,
		lids:     [2]uint16{be.Uint16(d[52:]), be.Uint16(d[54:])},
		localGID: [16]byte(d[56:72]), remoteGID: [16]byte(d[72:88]),
		flowLabel: be.Uint32(d[88:]) >> 12, rate: d[91] & 0x3f,
		tclass: d[92], hop: d[93], sl: d[94] >> 4, subnetLocal: d[94]&8 != 0, ackTimeout: d[95] >> 3,
		private: [privREQ]byte(d[140:232]),
	}
}

// rep agrees to a connection.
type rep struct {
	localID, remoteID  uint32
	qkey               uint32
	qpn                uint32
	vendor             uint32 // ECE, 24 bits in three places
	psn                uint32 // from which the receiver of this message sends
	respRes, initDepth uint8
	ackDelay           uint8
	failover           uint8
	flow               bool
	rnr                uint8
	srq                bool
	guid               uint64
	private            [privREP]byte
}

func (m *rep) put(b *mad) {
	d := b[madHdr:]
	be.PutUint32(d, m.localID)
	be.PutUint32(d[4:], m.remoteID)
	be.PutUint32(d[8:], m.qkey)
	put24(d[12:], m.qpn)
	d[15], d[19], d[23] = byte(m.vendor), byte(m.vendor>>8), byte(m.vendor>>16)
	put24(d[20:], m.psn)
	d[24], d[25] = m.respRes, m.initDepth
	d[26] = m.ackDelay<<3 | m.failover<<1&6 | bit(m.flow, 0)
	d[27] = m.rnr<<5 | bit(m.srq, 4)
	be.PutUint64(d[28:], m.guid)
	copy(d[36:], m.private[:])
}

func (m *rep) parse(b *mad) {
	d := b[madHdr:]
	*m = rep{
		localID: be.Uint32(d), remoteID: be.Uint32(d[4:]), qkey: be.Uint32(d[8:]), qpn: u24(d[12:]),
		vendor: uint32(d[15]) | uint32(d[19])<<8 | uint32(d[23])<<16,
		psn:    u24(d[20:]), respRes: d[24], initDepth: d[25],
		ackDelay: d[26] >> 3, failover: d[26] >> 1 & 3, flow: d[26]&1 != 0,
		rnr: d[27] >> 5, srq: d[27]&16 != 0, guid: be.Uint64(d[28:]), private: [privREP]byte(d[36:232]),
	}
}

// What MRA and REJ are about.
const (
	aboutREQ   = 0
	aboutREP   = 1
	aboutOther = 2
)

// rej refuses, or gives up.
type rej struct {
	localID, remoteID uint32
	about             uint8
	infoLen           uint8
	reason            uint16
	info              [72]byte
	private           [privREJ]byte
}

func (m *rej) put(b *mad) {
	d := b[madHdr:]
	be.PutUint32(d, m.localID)
	be.PutUint32(d[4:], m.remoteID)
	d[8], d[9] = m.about<<6, m.infoLen<<1
	be.PutUint16(d[10:], m.reason)
	copy(d[12:], m.info[:])
	copy(d[84:], m.private[:])
}

func (m *rej) parse(b *mad) {
	d := b[madHdr:]
	*m = rej{
		localID: be.Uint32(d), remoteID: be.Uint32(d[4:]), about: d[8] >> 6, infoLen: d[9] >> 1,
		reason: be.Uint16(d[10:]), info: [72]byte(d[12:84]), private: [privREJ]byte(d[84:232]),
	}
}

// mra asks for patience.
type mra struct {
	localID, remoteID uint32
	about             uint8
	service           uint8 // 4.096 us * 2^service until the answer
}

func (m *mra) put(b *mad) {
	d := b[madHdr:]
	be.PutUint32(d, m.localID)
	be.PutUint32(d[4:], m.remoteID)
	d[8], d[9] = m.about<<6, m.service<<3
}

func (m *mra) parse(b *mad) {
	d := b[madHdr:]
	*m = mra{be.Uint32(d), be.Uint32(d[4:]), d[8] >> 6, d[9] >> 3}
}

// ids is RTU, DREP and, with the receiver's queue pair, DREQ.
type ids struct {
	localID, remoteID uint32
	qpn               uint32
}

func (m *ids) put(b *mad) {
	d := b[madHdr:]
	be.PutUint32(d, m.localID)
	be.PutUint32(d[4:], m.remoteID)
	put24(d[8:], m.qpn)
}

func (m *ids) parse(b *mad) {
	d := b[madHdr:]
	*m = ids{be.Uint32(d), be.Uint32(d[4:]), u24(d[8:])}
}

// sidrReq asks for the queue pair of a datagram service.
type sidrReq struct {
	id      uint32
	pkey    uint16
	service uint64
	private [privSIDRREQ]byte
}

func (m *sidrReq) put(b *mad) {
	d := b[madHdr:]
	be.PutUint32(d, m.id)
	be.PutUint16(d[4:], m.pkey)
	be.PutUint64(d[8:], m.service)
	copy(d[16:], m.private[:])
}

func (m *sidrReq) parse(b *mad) {
	d := b[madHdr:]
	*m = sidrReq{be.Uint32(d), be.Uint16(d[4:]), be.Uint64(d[8:]), [privSIDRREQ]byte(d[16:232])}
}

// sidrRep answers it.
type sidrRep struct {
	id      uint32
	status  uint8
	qpn     uint32
	service uint64
	qkey    uint32
	private [privSIDRREP]byte
}

func (m *sidrRep) put(b *mad) {
	d := b[madHdr:]
	be.PutUint32(d, m.id)
	d[4] = m.status
	put24(d[8:], m.qpn)
	be.PutUint64(d[12:], m.service)
	be.PutUint32(d[20:], m.qkey)
	copy(d[96:], m.private[:])
}

func (m *sidrRep) parse(b *mad) {
	d := b[madHdr:]
	*m = sidrRep{be.Uint32(d), d[4], u24(d[8:]), be.Uint64(d[12:]), be.Uint32(d[20:]), [privSIDRREP]byte(d[96:232])}
}
