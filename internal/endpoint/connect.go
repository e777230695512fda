package endpoint

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/zrdma/zrdma/verbs"
)

// Peer is what one end tells the other of its queue pair.
type Peer struct {
	QPN uint32    // 24 bits
	PSN uint32    // 24 bits, of its first request
	LID uint16    // 0 on RoCE
	GID verbs.GID // zero: none
	MTU verbs.MTU // the largest that it takes
}

// Link says how a queue pair is connected. Zero means zero.
type Link struct {
	AckTimeout uint8 // 4.096 us * 2^AckTimeout
	Retries    uint8 // 7 is for ever on rxe
	RNRRetries uint8 // 7 is for ever
	MinRNR     uint8 // code of the specification; 12: 0.64 ms
	Reads      uint8 // READs and atomics under way, each direction
}

// Patient notices a peer that is gone after about two seconds.
var Patient = Link{AckTimeout: 16, Retries: 6, RNRRetries: 6, MinRNR: 12, Reads: 1}

// Init moves a queue pair to INIT: receives may be posted.
func (d *Device) Init(q *verbs.QP, access verbs.AccessFlags) error {
	return QPErr(verbs.QPSInit, q.Modify(verbs.QPAttr{State: verbs.QPSInit, PortNum: d.port, AccessFlags: access},
		verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrAccessFlags))
}

// Path is the address of the peer, from our GID.
func (d *Device) Path(gid verbs.GIDEntry, peer Peer) verbs.AHAttr {
	path := verbs.AHAttr{DLID: peer.LID, PortNum: d.port}
	if !peer.GID.IsZero() && (d.attr.LinkLayer != verbs.LinkLayerInfiniband || peer.LID == 0) {
		path.IsGlobal = true
		path.GRH = verbs.GlobalRoute{DGID: peer.GID, SGIDIndex: uint8(gid.Index), HopLimit: 64}
	}
	return path
}

// Connect moves a reliable queue pair from INIT to RTS. psn is that of our first
// request. Receives must have been posted.
func (d *Device) Connect(q *verbs.QP, gid verbs.GIDEntry, psn uint32, mtu verbs.MTU, peer Peer, l Link) error {
	err := q.Modify(verbs.QPAttr{State: verbs.QPSRTR, PathMTU: mtu, DestQPN: peer.QPN, RQPSN: peer.PSN,
		AH: d.Path(gid, peer), MaxDestRdAtomic: l.Reads, MinRNRTimer: l.MinRNR},
		verbs.QPAttrState|verbs.QPAttrAV|verbs.QPAttrPathMTU|verbs.QPAttrDestQPN|verbs.QPAttrRQPSN|verbs.QPAttrMaxDestRdAtomic|verbs.QPAttrMinRNRTimer)
	if err != nil {
		return QPErr(verbs.QPSRTR, err)
	}
	return QPErr(verbs.QPSRTS, q.Modify(verbs.QPAttr{State: verbs.QPSRTS, SQPSN: psn, Timeout: l.AckTimeout, RetryCnt: l.Retries, RNRRetry: l.RNRRetries, MaxRdAtomic: l.Reads},
		verbs.QPAttrState|verbs.QPAttrSQPSN|verbs.QPAttrTimeout|verbs.QPAttrRetryCnt|verbs.QPAttrRNRRetry|verbs.QPAttrMaxQPRdAtomic))
}

// QPErr names the state that a queue pair could not reach: step "qp", or "route"
// when the peer's address is what is wrong.
func QPErr(state verbs.QPState, err error) error {
	if err == nil {
		return nil
	}
	e := &StepError{Step: "qp", Cause: fmt.Errorf("queue pair to %v: %w", state, err)}
	if state == verbs.QPSRTR && (errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)) {
		e.Step, e.Hint = "route", "no route or no neighbour for the peer's GID: are both in one network, and is it the right GID?"
	}
	return e
}

// LocalIP is our address on the connection, invalid when it has none.
func LocalIP(c net.Conn) netip.Addr {
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().WithZone("").Unmap()
	}
	return netip.Addr{}
}
