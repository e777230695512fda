package roce

import (
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/rc"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// unacked is what UD and UC have in common: a send queue whose requests are done
// when they are sent, and receives. Attributes and state are kept here.
//
//   - head <= tail are running numbers of requests; off bytes of the one at head
//     are sent.
//   - a receive that was taken for a message which then broke off, or did not
//     fit, stays taken and serves the next one.
//   - a request that cannot be sent moves to SQE: sends are flushed, receives
//     work on.
type unacked struct {
	*qp
	mem  rc.Memory
	st   provider.QPState
	attr provider.QPAttr
	mtu  int

	ring       []sendReq
	head, tail uint64
	off        uint32
	psn        uint32
	drained    bool // SQD was reported
	sqdEvent   bool

	own      *rc.RecvQueue // nil with an SRQ
	src      rc.RecvSource
	recv     rc.Recv
	haveRecv bool
	space    uint32 // of recv

	pkt  wire.Packet
	wc   provider.WC
	segs [][]byte
}

// sendReq is a posted request.
type sendReq struct {
	wr     provider.WR
	sge    []provider.SGE // len: elements in use, cap: the slot's share
	inline []byte         // likewise
	length uint32
	path   path // UD
}

func (u *unacked) init(q *qp) {
	u.qp, u.mem, u.mtu = q, q.n.mem.view(q.pd, q.num), 256
	n, k, b := int(q.cap.MaxSendWR), int(q.cap.MaxSendSGE), int(q.cap.MaxInlineData)
	u.ring = make([]sendReq, n)
	sge, inline := make([]provider.SGE, n*k), make([]byte, n*b)
	for i := range u.ring {
		u.ring[i].sge = sge[i*k : i*k : (i+1)*k]
		u.ring[i].inline = inline[i*b : i*b : (i+1)*b]
	}
	u.segs = make([][]byte, 0, k)
	if q.srq == nil {
		u.own = rc.NewRecvQueue(int(q.cap.MaxRecvWR), int(q.cap.MaxRecvSGE))
	}
	u.src = q.recvSource(u.own)
}

func (u *unacked) at(i uint64) *sendReq { return &u.ring[i%uint64(len(u.ring))] }

func (u *unacked) state() provider.QPState { return u.st }
func (u *unacked) room() int               { return len(u.ring) - int(u.tail-u.head) }
func (u *unacked) flushAcks()              {}
func (u *unacked) canWait(bool) bool       { return false }
func (u *unacked) tick(int64)              {}
func (u *unacked) deadline() int64         { return 0 }

func (u *unacked) query(a *provider.QPAttr) {
	*a = u.attr
	a.State, a.CurState = u.st, u.st
	a.SQPSN = u.psn
	a.SQDraining = u.st == provider.QPSSQD && !u.drained
}

// checkList checks a gather list and its inline data.
func (u *unacked) checkList(wr *provider.WR, sge []provider.SGE) (uint32, error) {
	w := &u.ring[0] // every slot is alike
	length, ok := rc.Total(sge)
	if !ok || len(sge) > cap(w.sge) || wr.Flags&provider.SendInline != 0 && length > uint32(cap(w.inline)) {
		return 0, syscall.EINVAL
	}
	return length, nil
}

// enqueue adds a request that has been checked.
func (u *unacked) enqueue(wr *provider.WR, sge []provider.SGE, length uint32, p path) error {
	switch u.st {
	case provider.QPSReset, provider.QPSInit, provider.QPSRTR:
		return syscall.EINVAL
	}
	if u.room() == 0 {
		return syscall.ENOMEM
	}
	w := u.at(u.tail)
	*w = sendReq{wr: *wr, sge: append(w.sge[:0], sge...), inline: w.inline[:0], length: length, path: p}
	if wr.Flags&provider.SendInline != 0 {
		for _, s := range sge {
			if s.Length == 0 {
				continue
			}
			b, ok := u.mem.Inline(s.Addr, s.Length)
			if !ok {
				return syscall.EINVAL
			}
			w.inline = append(w.inline, b...)
		}
		w.sge = w.sge[:0]
	}
	u.tail++
	u.flushSends()
	return nil
}

func (u *unacked) postRecv(id uint64, sge []provider.SGE) error {
	if u.own == nil || u.st == provider.QPSReset {
		return syscall.EINVAL
	}
	if _, ok := rc.Total(sge); !ok {
		return syscall.EINVAL
	}
	if err := u.own.Post(id, sge); err != nil {
		return err
	}
	u.flushRecvs()
	return nil
}

// payload points segs at size bytes of a request from off.
func (u *unacked) payload(w *sendReq, off, size uint32) bool {
	u.segs = u.segs[:0]
	if len(w.inline) > 0 {
		u.segs = append(u.segs, w.inline[off:off+size])
		return true
	}
	var ok bool
	u.segs, ok = rc.Gather(u.mem, u.segs, w.sge, off, size)
	return ok
}

// mayBegin says whether the request at head may be sent on.
func (u *unacked) mayBegin() bool {
	return u.head != u.tail && (u.st == provider.QPSRTS || u.st == provider.QPSSQD && u.off > 0)
}

// retire completes the request at head.
func (u *unacked) retire(s provider.WCStatus) {
	w := u.at(u.head)
	u.head++
	u.off = 0
	if s == provider.WCSuccess && !u.sigAll && w.wr.Flags&provider.SendSignaled == 0 {
		return
	}
	u.wc = provider.WC{WRID: w.wr.ID, Status: s, Opcode: rc.WCOpcode(w.wr.Opcode), QPN: u.num}
	u.scq.push(&u.wc, s != provider.WCSuccess)
}

// fail ends sending with the request at head.
func (u *unacked) fail(s provider.WCStatus) {
	u.retire(s)
	u.st = provider.QPSSQE
	u.flushSends()
}

// flushSends completes what is posted when nothing will be sent.
func (u *unacked) flushSends() {
	if u.st != provider.QPSErr && u.st != provider.QPSSQE {
		return
	}
	for u.head != u.tail {
		u.retire(provider.WCWRFlushErr)
	}
}

func (u *unacked) flushRecvs() {
	if u.st != provider.QPSErr {
		return
	}
	if u.haveRecv {
		u.recvErr(provider.WCWRFlushErr)
	}
	for u.own != nil && u.own.NextRecv(&u.recv) {
		u.recvErr(provider.WCWRFlushErr)
	}
}

func (u *unacked) toErr() {
	if u.st == provider.QPSErr {
		return
	}
	u.st = provider.QPSErr
	u.flushSends()
	u.flushRecvs()
	if u.own == nil {
		u.event(provider.EventQPLastWQEReached)
	}
}

func (u *unacked) checkSQD() {
	if u.st != provider.QPSSQD || u.drained || u.off > 0 {
		return
	}
	u.drained = true
	if u.sqdEvent {
		u.event(provider.EventSQDrained)
	}
}

// takeRecv makes sure that a receive is there.
func (u *unacked) takeRecv() bool {
	if !u.haveRecv {
		if !u.src.NextRecv(&u.recv) {
			u.n.stat.NoRecv++
			return false
		}
		u.haveRecv = true
		u.space, _ = rc.Total(u.recv.SGE)
	}
	return true
}

// giveBack returns a receive that was taken in vain to its SRQ, behind the others.
func (u *unacked) giveBack() {
	if u.haveRecv && u.srq != nil {
		_, _ = u.srq.PostRecv([]provider.RecvWR{{ID: u.recv.ID, NumSGE: uint32(len(u.recv.SGE))}}, u.recv.SGE)
	}
	u.haveRecv = false
}

// recvErr completes the receive in use in error.
func (u *unacked) recvErr(s provider.WCStatus) {
	u.wc = provider.WC{Status: s, Opcode: provider.WCRecv}
	u.recvDone(false)
}

// recvDone completes the receive in use; u.wc says what of it.
func (u *unacked) recvDone(solicited bool) {
	u.wc.WRID, u.wc.QPN = u.recv.ID, u.num
	u.haveRecv = false
	u.pushRecv(&u.wc, solicited)
}

// receives says whether the state lets packets in.
func (u *unacked) receives() bool {
	switch u.st {
	case provider.QPSRTR, provider.QPSRTS, provider.QPSSQD, provider.QPSSQE:
		return true
	}
	u.n.stat.BadState++
	return false
}

// set does the part of modify that is the same for both.
func (u *unacked) set(a *provider.QPAttr, mask provider.QPAttrMask) {
	has := func(m provider.QPAttrMask) bool { return mask&m != 0 }
	if has(provider.QPAttrPort) {
		u.attr.PortNum = a.PortNum
	}
	if has(provider.QPAttrPKeyIndex) {
		u.attr.PKeyIndex = a.PKeyIndex
	}
	if has(provider.QPAttrQKey) {
		u.attr.QKey = a.QKey
	}
	if has(provider.QPAttrAccessFlags) {
		u.attr.AccessFlags = a.AccessFlags
	}
	if has(provider.QPAttrAV) {
		u.attr.AH = a.AH
	}
	if has(provider.QPAttrPathMTU) {
		u.attr.PathMTU, u.mtu = a.PathMTU, 128<<a.PathMTU
	}
	if has(provider.QPAttrDestQPN) {
		u.attr.DestQPN = a.DestQPN & wire.PSNMask
	}
	if has(provider.QPAttrSQPSN) {
		u.psn = a.SQPSN & wire.PSNMask
	}
	if has(provider.QPAttrEnSQDAsyncNotify) {
		u.sqdEvent = a.EnSQDAsyncNotify
	}
	if !has(provider.QPAttrState) {
		return
	}
	switch a.State {
	case provider.QPSReset:
		u.giveBack()
		u.st, u.attr, u.psn, u.off, u.haveRecv, u.sqdEvent = a.State, provider.QPAttr{}, 0, 0, false, false
		u.head = u.tail
		if u.own != nil {
			u.own.Clear()
		}
	case provider.QPSErr:
		u.toErr()
	case provider.QPSSQD:
		if u.st != a.State {
			u.st, u.drained = a.State, false
			u.checkSQD()
		}
	default:
		u.st = a.State
	}
}
