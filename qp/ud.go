package qp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"

	"github.com/zrdma/zrdma/mr"
	"github.com/zrdma/zrdma/verbs"
)

// DatagramConfig configures a Datagram endpoint. The zero value is good.
type DatagramConfig struct {
	Local     netip.Addr // chooses the GID; invalid: the best
	QKey      uint32     // both ends must have the same; 0: 0x11111111
	SendDepth int        // 0: 64
	RecvDepth int        // 0: 64; a datagram that finds no receive is lost
	Engine    *Engine    // nil: the device's
}

// DatagramAddr is where a datagram goes: DatagramAddrLen bytes on the wire.
type DatagramAddr struct {
	GID verbs.GID
	QPN uint32
}

// DatagramAddrLen is the length of an encoded DatagramAddr in bytes.
const DatagramAddrLen = 20

// MarshalBinary encodes the address. It never fails.
func (a DatagramAddr) MarshalBinary() ([]byte, error) {
	b := make([]byte, DatagramAddrLen)
	copy(b, a.GID[:])
	binary.LittleEndian.PutUint32(b[16:], a.QPN)
	return b, nil
}

// UnmarshalBinary decodes an address from exactly DatagramAddrLen bytes.
func (a *DatagramAddr) UnmarshalBinary(b []byte) error {
	if len(b) != DatagramAddrLen {
		return fmt.Errorf("qp: a datagram address has %d bytes, not %d", DatagramAddrLen, len(b))
	}
	n := binary.LittleEndian.Uint32(b[16:])
	if n >= 1<<24 {
		return fmt.Errorf("qp: a datagram address with queue pair %d", n)
	}
	copy(a.GID[:], b)
	a.QPN = n
	return nil
}

// String is the address as text.
func (a DatagramAddr) String() string { return fmt.Sprintf("%v qp %d", a.GID.Addr(), a.QPN) }

// DatagramMessage is a datagram received. Its Buf is the receiver's: Release it.
type DatagramMessage struct {
	Buf  mr.Buf
	From DatagramAddr
	Imm  uint32
	// HasImm: Imm is valid.
	HasImm bool
}

// grhLen is the room that a datagram's global route header takes in a receive.
const grhLen = 40

// Datagram is an unreliable endpoint: datagrams of up to a path MTU, to anybody
// who has the Q_Key, for discovery and the like. They may be lost or repeated.
type Datagram struct {
	d    *Device
	eng  *Engine
	qp   *verbs.QP
	gid  verbs.GIDEntry
	mtu  int
	qkey uint32
	send *slots
	recv *ring
	ctx  context.Context
	die  context.CancelFunc
	in   chan DatagramMessage
	n    int // completions reserved

	mu     sync.Mutex
	ahs    map[verbs.GID]*peerAH // guarded by mu, as all below
	out    map[uint64]datagramOut
	next   uint64
	closed bool
	cause  error // of an end that nobody asked for
}

type peerAH struct {
	ah   *verbs.AH
	busy int // datagrams in flight
}

type datagramOut struct {
	flight mr.Flight
	ah     *peerAH
}

// maxAHs bounds the address handles kept: a receiver answers whoever sends.
const maxAHs = 1024

// NewDatagram makes a datagram endpoint.
//
// Verb: ibv_create_qp(3).
func (d *Device) NewDatagram(cfg DatagramConfig) (_ *Datagram, err error) {
	for _, v := range []*int{&cfg.SendDepth, &cfg.RecvDepth} {
		if *v == 0 {
			*v = 64
		}
		if *v < 1 || *v > 1<<14 {
			return nil, fmt.Errorf("qp: DatagramConfig: a depth of %d; it must be 1 to %d", *v, 1<<14)
		}
	}
	if cfg.QKey == 0 {
		cfg.QKey = 0x11111111
	}
	eng, err := d.engine(cfg.Engine)
	if err != nil {
		return nil, err
	}
	u := &Datagram{d: d, eng: eng, qkey: cfg.QKey, send: newSlots(cfg.SendDepth),
		ahs: map[verbs.GID]*peerAH{}, out: map[uint64]datagramOut{}, n: cfg.SendDepth + cfg.RecvDepth,
		in: make(chan DatagramMessage, cfg.RecvDepth)}
	if u.gid, err = d.dev.SelectGID(d.port, cfg.Local); err != nil {
		return nil, fmt.Errorf("qp: %w", err)
	}
	pa, err := d.dev.QueryPort(d.port)
	if err != nil {
		return nil, fmt.Errorf("qp: %w", err)
	}
	u.mtu = 128 << pa.ActiveMTU
	if err := u.eng.reserve(u.n); err != nil {
		return nil, err
	}
	u.ctx, u.die = context.WithCancel(context.Background())
	u.qp, err = d.pd.CreateQP(verbs.QPConfig{Type: verbs.QPTUD, SendCQ: u.eng.cq, RecvCQ: u.eng.cq,
		Cap: verbs.QPCap{MaxSendWR: uint32(cfg.SendDepth), MaxRecvWR: uint32(cfg.RecvDepth), MaxSendSGE: 1, MaxRecvSGE: 1}})
	if err != nil {
		u.eng.unreserve(u.n)
		return nil, fmt.Errorf("qp: %w", err)
	}
	u.eng.qps.set(u.qp.QPN(), u)
	u.recv = newRing(d.pool, d.pd, cfg.RecvDepth, grhLen+u.mtu)
	u.recv.own, u.recv.post, u.recv.life = true, u.qp.PostRecv, u.ctx
	for _, s := range []struct {
		a    verbs.QPAttr
		mask verbs.QPAttrMask
	}{
		{verbs.QPAttr{State: verbs.QPSInit, PortNum: d.port, QKey: cfg.QKey}, verbs.QPAttrState | verbs.QPAttrPKeyIndex | verbs.QPAttrPort | verbs.QPAttrQKey},
		{verbs.QPAttr{State: verbs.QPSRTR}, verbs.QPAttrState},
		{verbs.QPAttr{State: verbs.QPSRTS}, verbs.QPAttrState | verbs.QPAttrSQPSN},
	} {
		if err := u.qp.Modify(s.a, s.mask); err != nil {
			return nil, errors.Join(fmt.Errorf("qp: %w", err), u.Close())
		}
	}
	if err := u.recv.begin(cfg.RecvDepth); err != nil {
		return nil, errors.Join(fmt.Errorf("qp: receives: %w", err), u.Close())
	}
	return u, nil
}

// Addr is where datagrams to this endpoint go.
func (u *Datagram) Addr() DatagramAddr { return DatagramAddr{GID: u.gid.GID, QPN: u.qp.QPN()} }

// MTU is the longest datagram in bytes.
func (u *Datagram) MTU() int { return u.mtu }

// handle is an address handle for a peer, kept for the next time.
func (u *Datagram) handle(g verbs.GID) (*peerAH, error) {
	if p := u.ahs[g]; p != nil {
		return p, nil
	}
	for k, p := range u.ahs {
		if len(u.ahs) < maxAHs {
			break
		}
		if p.busy == 0 && p.ah.Close() == nil {
			delete(u.ahs, k)
		}
	}
	ah, err := u.d.pd.CreateAH(verbs.AHAttr{IsGlobal: true, PortNum: u.d.port,
		GRH: verbs.GlobalRoute{DGID: g, SGIDIndex: uint8(u.gid.Index), HopLimit: 64}})
	if err != nil {
		return nil, err
	}
	u.ahs[g] = &peerAH{ah: ah}
	return u.ahs[g], nil
}

// Send sends b as one datagram, waiting for room in the send queue. It takes b,
// also on an error, and releases it when the device is done. That it left is all
// that is known then.
//
// Verb: ibv_post_send(3).
func (u *Datagram) Send(ctx context.Context, to DatagramAddr, b mr.Buf) error {
	if b.Len() > u.mtu || b.Len() == 0 {
		_ = b.Release()
		return fmt.Errorf("qp: a datagram of %d bytes; it must be 1 to %d: %w", b.Len(), u.mtu, syscall.EMSGSIZE)
	}
	if err := u.send.take(ctx, 1); err != nil {
		_ = b.Release()
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	f, err := b.Take(mr.DeviceReads)
	if err == nil {
		err = u.post(to, f)
	}
	if err != nil {
		u.send.give(1)
		return fmt.Errorf("qp: datagram to %v: %w", to, err)
	}
	return nil
}

func (u *Datagram) post(to DatagramAddr, f mr.Flight) error {
	if u.closed || u.cause != nil {
		f.Release()
		if u.cause != nil {
			return u.cause
		}
		return verbs.ErrClosed
	}
	s, err := f.SGE(u.qp.PD())
	if err != nil {
		f.Release()
		return err
	}
	ah, err := u.handle(to.GID)
	if err != nil {
		f.Release()
		return err
	}
	u.next++
	id := u.next
	if _, err := u.qp.PostSend([]verbs.SendWR{{ID: id, Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: []verbs.SGE{s},
		AH: ah.ah, RemoteQPN: to.QPN, RemoteQKey: u.qkey}}); err != nil {
		f.Release()
		return err
	}
	ah.busy++
	u.out[id] = datagramOut{f, ah}
	return nil
}

// fail ends the endpoint for others' reasons: Send and Recv say why. It must be
// closed still.
func (u *Datagram) fail(err error) {
	u.mu.Lock()
	if u.closed || u.cause != nil {
		u.mu.Unlock()
		return
	}
	u.cause = fmt.Errorf("qp: the datagram endpoint failed, close it and make another: %w", err)
	err = u.cause
	u.mu.Unlock()
	u.send.fail(err)
	u.recv.stop()
	u.die()
}

// Recv takes the next datagram, waiting for it; verbs.ErrClosed after Close.
func (u *Datagram) Recv(ctx context.Context) (DatagramMessage, error) {
	select {
	case m := <-u.in:
		u.recv.owesNobody()
		return m, nil
	default:
	}
	select {
	case m := <-u.in:
		u.recv.owesNobody()
		return m, nil
	case <-ctx.Done():
		return DatagramMessage{}, ctx.Err()
	case <-u.ctx.Done():
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.cause != nil {
			return DatagramMessage{}, u.cause
		}
		return DatagramMessage{}, fmt.Errorf("qp: datagram endpoint: %w", verbs.ErrClosed)
	}
}

// complete takes a completion, in the engine's goroutine.
func (u *Datagram) complete(wc *verbs.WC) {
	if wc.Status != verbs.WCSuccess { // the queue pair is in the error state now
		u.fail(&verbs.CompletionError{Status: wc.Status, Opcode: wc.Opcode, WRID: wc.WRID, QPN: wc.QPN, VendorErr: wc.VendorErr})
	}
	if wc.WRID&recvBit == 0 {
		u.mu.Lock()
		o, ok := u.out[wc.WRID]
		if ok {
			o.ah.busy--
			delete(u.out, wc.WRID)
		}
		u.mu.Unlock()
		if ok {
			o.flight.Release()
			u.send.give(1)
		}
		return
	}
	f, ok := u.recv.take(wc.WRID)
	if !ok {
		return
	}
	if wc.Status != verbs.WCSuccess || wc.ByteLen < grhLen {
		f.Release()
		u.recv.owesNobody()
		return
	}
	b := f.Complete()
	all, err := b.Bytes()
	if err != nil {
		return
	}
	m := DatagramMessage{From: DatagramAddr{GID: sourceOf(all[:grhLen]), QPN: wc.SrcQP}, HasImm: wc.Flags&verbs.WCWithImm != 0}
	if m.HasImm {
		m.Imm = wc.Imm()
	}
	if m.Buf, err = b.Narrow(grhLen, int(wc.ByteLen)); err != nil {
		_ = b.Release()
		return
	}
	select {
	case u.in <- m:
	default: // as many wait as there are receives: cannot be
		_ = b.Release()
		u.recv.owesNobody()
	}
}

func (u *Datagram) settle() { u.recv.top() }

// sourceOf reads the sender from a global route header: of IPv4 the header is in
// its last 20 bytes.
func sourceOf(grh []byte) verbs.GID {
	if grh[0]>>4 == 6 {
		return verbs.GID(grh[8:24])
	}
	return verbs.GIDFromAddr(netip.AddrFrom4([4]byte(grh[32:36])))
}

// Close ends the endpoint; datagrams that were not taken are dropped.
//
// Verb: ibv_destroy_qp(3).
func (u *Datagram) Close() error {
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return nil
	}
	u.closed = true
	u.mu.Unlock()
	u.die()
	u.send.fail(verbs.ErrClosed)
	u.recv.stop()
	err := u.qp.Close()
	u.eng.qps.remove(u.qp.QPN(), u)
	u.eng.barrier()
	u.eng.unreserve(u.n)
	end := func(f mr.Flight) { f.Release() }
	if err != nil {
		end = func(f mr.Flight) { f.Leak("the datagram queue pair cannot be destroyed: " + err.Error()) }
	}
	u.recv.drop(end)
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, o := range u.out {
		delete(u.out, id)
		end(o.flight)
	}
	for _, p := range u.ahs {
		err = errors.Join(err, p.ah.Close())
	}
	for {
		select {
		case m := <-u.in:
			_ = m.Buf.Release()
		default:
			return err
		}
	}
}
