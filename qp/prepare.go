package qp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/zrdma/zrdma/verbs"
)

// Endpoint is what a peer must know to connect: EndpointLen bytes on the wire. It
// holds no key to memory.
type Endpoint struct {
	GID verbs.GID
	QPN uint32
	PSN uint32 // the first packet this side sends
	MTU verbs.MTU

	hello hello
}

// EndpointLen is the length of an encoded Endpoint in bytes.
const EndpointLen = 48

// MarshalBinary encodes the endpoint. It never fails.
func (e Endpoint) MarshalBinary() ([]byte, error) {
	b := make([]byte, EndpointLen)
	if e.hello.raw {
		binary.LittleEndian.PutUint16(b, helloMagic)
		b[2] = helloVersion
	} else {
		copy(b, e.hello.encode())
	}
	copy(b[16:], e.GID[:])
	binary.LittleEndian.PutUint32(b[32:], e.QPN)
	binary.LittleEndian.PutUint32(b[36:], e.PSN)
	b[40] = byte(e.MTU)
	if e.hello.raw {
		b[41] = 1
	}
	return b, nil
}

// UnmarshalBinary decodes an endpoint from exactly EndpointLen bytes.
func (e *Endpoint) UnmarshalBinary(b []byte) error {
	if len(b) != EndpointLen {
		return fmt.Errorf("qp: an endpoint has %d bytes, not %d", EndpointLen, len(b))
	}
	v := Endpoint{QPN: binary.LittleEndian.Uint32(b[32:]), PSN: binary.LittleEndian.Uint32(b[36:]), MTU: verbs.MTU(b[40])}
	copy(v.GID[:], b[16:])
	if b[41] == 1 {
		v.hello = hello{raw: true}
	} else {
		h, err := decodeHello(b)
		if err != nil {
			return err
		}
		v.hello = h
	}
	if v.QPN == 0 || v.QPN >= 1<<24 || v.PSN >= 1<<24 || v.MTU < verbs.MTU256 || v.MTU > verbs.MTU4096 || v.GID.IsZero() {
		return fmt.Errorf("qp: an endpoint that makes no sense: QPN %d, PSN %d, MTU %d, GID %v", v.QPN, v.PSN, v.MTU, v.GID)
	}
	*e = v
	return nil
}

// Prepared is a queue pair that is not connected: it has an address, and no Send.
type Prepared struct {
	c     *Conn
	local Endpoint
	gid   verbs.GIDEntry
}

// Prepare makes a queue pair for a connection whose endpoints are exchanged by
// the caller. local chooses the GID; the zero value takes the best.
//
// Verb: ibv_create_qp(3).
func (d *Device) Prepare(local netip.Addr, cfg Config) (_ *Prepared, err error) {
	c, err := d.newConn(cfg)
	if err != nil {
		return nil, err
	}
	p := &Prepared{c: c}
	defer func() {
		if err != nil {
			c.unmake()
		}
	}()
	if p.gid, err = d.dev.SelectGID(d.port, local); err != nil {
		return nil, fmt.Errorf("qp: %w", err)
	}
	pa, err := d.dev.QueryPort(d.port)
	if err != nil {
		return nil, fmt.Errorf("qp: %w", err)
	}
	mtu := pa.ActiveMTU
	if c.cfg.MTU != 0 {
		if c.cfg.MTU > mtu {
			return nil, fmt.Errorf("qp: Config.MTU is %v; port %d of %s has %v", c.cfg.MTU, d.port, d.dev.Name(), mtu)
		}
		mtu = c.cfg.MTU
	}
	q, err := d.pd.CreateQP(c.queues())
	if err != nil {
		return nil, fmt.Errorf("qp: %w", err)
	}
	// Receives posted in RESET are lost on rxe.
	access := verbs.AccessLocalWrite | verbs.AccessRemoteWrite | verbs.AccessRemoteRead | verbs.AccessRemoteAtomic
	if err := q.Modify(verbs.QPAttr{State: verbs.QPSInit, PortNum: d.port, AccessFlags: access},
		verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrAccessFlags); err != nil {
		_ = q.Close()
		return nil, fmt.Errorf("qp: %w", err)
	}
	if err := c.attach(q); err != nil {
		return nil, err
	}
	h := c.local()
	h.raw = !c.flow
	p.local = Endpoint{GID: p.gid.GID, QPN: q.QPN(), PSN: rand.Uint32() & 0xffffff, MTU: mtu, hello: h}
	return p, nil
}

// Local is what the peer must be told.
func (p *Prepared) Local() Endpoint { return p.local }

// Connect connects to the endpoint that the peer told. The peer must have done
// the same with this side's before the first message can arrive; until then it is
// sent again. p is used up, also by an error.
//
// Verb: ibv_modify_qp(3).
func (p *Prepared) Connect(remote Endpoint) (_ *Conn, err error) {
	c := p.c
	if c == nil {
		return nil, fmt.Errorf("qp: this Prepared was used: %w", verbs.ErrClosed)
	}
	p.c = nil
	defer func() {
		if err != nil {
			c.unmake()
		}
	}()
	if remote.hello.raw == c.flow {
		return nil, fmt.Errorf("qp: Config.Raw is %v here and %v at the peer; they must agree", !c.flow, remote.hello.raw)
	}
	rd := c.cfg.MaxRdAtomic
	if c.flow {
		rd = min(rd, max(remote.hello.rdAtomic, 1))
	}
	rtr := verbs.QPAttr{State: verbs.QPSRTR, PathMTU: min(p.local.MTU, remote.MTU), DestQPN: remote.QPN, RQPSN: remote.PSN,
		MaxDestRdAtomic: uint8(c.cfg.MaxRdAtomic), MinRNRTimer: 12,
		AH: verbs.AHAttr{IsGlobal: true, PortNum: c.dev.port, GRH: verbs.GlobalRoute{DGID: remote.GID, SGIDIndex: uint8(p.gid.Index), HopLimit: 64}}}
	if err := c.qp.Modify(rtr, verbs.QPAttrState|verbs.QPAttrAV|verbs.QPAttrPathMTU|verbs.QPAttrDestQPN|verbs.QPAttrRQPSN|
		verbs.QPAttrMaxDestRdAtomic|verbs.QPAttrMinRNRTimer); err != nil {
		return nil, fmt.Errorf("qp: connecting to %v: %w", remote.GID.Addr(), err)
	}
	rts := verbs.QPAttr{State: verbs.QPSRTS, SQPSN: p.local.PSN, Timeout: c.cfg.Timeout, RetryCnt: c.cfg.RetryCount, RNRRetry: 7, MaxRdAtomic: uint8(rd)}
	if err := c.qp.Modify(rts, verbs.QPAttrState|verbs.QPAttrSQPSN|verbs.QPAttrTimeout|verbs.QPAttrRetryCnt|verbs.QPAttrRNRRetry|verbs.QPAttrMaxQPRdAtomic); err != nil {
		return nil, fmt.Errorf("qp: connecting to %v: %w", remote.GID.Addr(), err)
	}
	c.own = fmt.Sprintf("%v qp %d", p.local.GID.Addr(), p.local.QPN)
	c.establish(fmt.Sprintf("%v qp %d", remote.GID.Addr(), remote.QPN), remote.hello)
	return c, nil
}

// Close frees a queue pair that was not connected.
func (p *Prepared) Close() error {
	if c := p.c; c != nil {
		p.c = nil
		return c.Close()
	}
	return nil
}
