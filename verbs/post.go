package verbs

import (
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/internal/provider"
)

// SendWR is a send work request. Which fields count depends on Opcode.
//
// Source: struct ibv_send_wr.
type SendWR struct {
	ID     uint64 // returned in the completion
	Opcode WROpcode
	Flags  SendFlags
	SGList []SGE // what is sent, or where a READ or atomic result goes

	// Inline is sent instead of SGList: any Go memory, at most
	// QPCap.MaxInlineData bytes, free for reuse when the post returns.
	Inline []byte

	Imm            uint32 // *WithImm, in host order
	InvalidateRKey RKey   // WRLocalInv, WRSendWithInv

	RemoteAddr       uint64 // WRITE, READ, atomics, flush
	RKey             RKey   // WRITE, READ, atomics, flush; the new key of WRBindMW
	CompareAdd, Swap uint64 // atomics; Swap is the value of WRAtomicWrite

	AH                    *AH    // UD: where it goes
	RemoteQPN, RemoteQKey uint32 // UD
	RemoteSRQN            uint32 // XRC

	BindMW     *MW         // WRBindMW: a type 2 window
	BindMR     *MR         // required: nil crashes the rxe provider
	BindAddr   uint64      // WRBindMW: what the window exposes
	BindLength uint64      // bytes
	BindAccess AccessFlags // WRBindMW: AccessRemoteRead, AccessRemoteWrite, AccessRemoteAtomic

	TSOHeader []byte // WRTSO
	MSS       uint16 // WRTSO: payload bytes of a packet

	FlushType, FlushLevel uint32 // WRFlush; its length is CompareAdd
}

// RecvWR is a receive work request.
//
// Source: struct ibv_recv_wr.
type RecvWR struct {
	ID     uint64
	SGList []SGE
}

func addr(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

type sendScratch struct {
	sync.Mutex
	wr  []provider.WR // guarded by the mutex
	sge []SGE
}

// flatten turns the requests into the pointer-free form of the seam, in scratch
// memory that the caller holds the lock of.
func (q *QP) flatten(f *sendScratch, verb string, wrs []SendWR) (int, error) {
	f.wr, f.sge = f.wr[:0], f.sge[:0]
	for i := range wrs {
		n := len(f.wr)
		f.wr = append(f.wr, provider.WR{})
		if err := q.flattenOne(f, &f.wr[n], &wrs[i], verb); err != nil {
			f.wr = f.wr[:n]
			return i, err
		}
	}
	return len(wrs), nil
}

// flattenOne fills o, which is zero, in place: a literal would be copied twice.
func (q *QP) flattenOne(f *sendScratch, o *provider.WR, w *SendWR, verb string) error {
	o.ID, o.Opcode, o.Flags, o.RemoteAddr, o.RKey = w.ID, w.Opcode, w.Flags, w.RemoteAddr, w.RKey
	o.CompareAdd, o.Swap, o.Imm, o.SRQN = w.CompareAdd, w.Swap, w.Imm, w.RemoteSRQN
	o.SGEOff, o.NumSGE, o.MSS = uint32(len(f.sge)), uint32(len(w.SGList)), w.MSS
	o.FlushType, o.FlushLevel = w.FlushType, w.FlushLevel
	switch w.Opcode {
	case WRLocalInv, WRSendWithInv:
		o.Imm = uint32(w.InvalidateRKey)
	case WRBindMW:
		if w.BindMW == nil || w.BindMR == nil {
			return &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "WRBindMW needs BindMW and BindMR; to unbind post WRLocalInv"}
		}
		if w.BindMW.h.Closed() || w.BindMR.h.Closed() {
			return verbClosed(verb)
		}
		o.MW, o.MR = w.BindMW.p.Handle(), w.BindMR.p.Handle()
		o.BindAddr, o.BindLength, o.BindAccess = w.BindAddr, w.BindLength, w.BindAccess
	case WRTSO:
		o.Hdr, o.HdrSize = addr(w.TSOHeader), uint16(len(w.TSOHeader))
	case WRAtomicCmpAndSwp, WRAtomicFetchAndAdd, WRAtomicWrite:
		if w.RemoteAddr&7 != 0 {
			return &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "the remote address of an atomic must be a multiple of 8"}
		}
	}
	if q.typ == QPTUD { // elsewhere the address would overlay RemoteAddr
		if w.AH == nil {
			return &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "a UD send needs an address handle"}
		}
		if w.AH.h.Closed() {
			return verbClosed(verb)
		}
		o.AH, o.RemoteQPN, o.RemoteQKey = w.AH.p.Handle(), w.RemoteQPN, w.RemoteQKey
	}
	if len(w.Inline) > 0 {
		if len(w.SGList) > 0 {
			return &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "SendWR.Inline and SGList exclude each other"}
		}
		o.Flags |= SendInline
		o.NumSGE = 1
		f.sge = append(f.sge, SGE{Addr: addr(w.Inline), Length: uint32(len(w.Inline))})
	}
	if o.Flags&SendInline != 0 {
		var n uint64
		for _, s := range w.SGList {
			n += uint64(s.Length)
		}
		if n+uint64(len(w.Inline)) > uint64(q.cap.MaxInlineData) {
			return &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "inline data is longer than QPCap.MaxInlineData"}
		}
	}
	f.sge = append(f.sge, w.SGList...)
	return nil
}

// cannotSend refuses what the specification calls an immediate error. The device
// is not asked: rxe reports EINVAL, but keeps the requests in its ring and sends
// them once the queue pair reaches RTS. Before it refuses it looks whether
// another, such as the connection manager, has moved the queue pair meanwhile.
func (q *QP) cannotSend(verb string) error {
	s := q.state.Load()
	if s != int32(QPSReset) && s != int32(QPSInit) && s != int32(QPSRTR) {
		return nil
	}
	var a QPAttr
	if _, err := q.p.Query(&a, QPAttrState); err == nil && a.State >= QPSRTS {
		q.state.CompareAndSwap(s, int32(a.State))
		return nil
	}
	return &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "the queue pair is in " + QPState(s).String() + "; sends need QPS_RTS"}
}

// PostSend posts work requests in order, in one call into the provider, and
// returns how many were accepted: on an error the request of that index was
// refused, those before it are under way. The memory they name belongs to the
// device until they complete. It allocates nothing and never blocks; every few
// milliseconds it lets other goroutines run.
// ErrQueueFull when the send queue has no room; EINVAL before QPSRTS.
//
// Verb: ibv_post_send(3).
func (q *QP) PostSend(wrs []SendWR) (int, error) {
	if q.h.Enter() != nil {
		return 0, verbClosed("ibv_post_send")
	}
	defer q.h.Exit()
	if len(wrs) == 0 {
		return 0, nil
	}
	if err := q.cannotSend("ibv_post_send"); err != nil {
		return 0, err
	}
	n, tick, err := q.postSend(wrs)
	q.yielder.yield(tick)
	return n, err
}

// tickEvery is how many posts of one queue pair share a look at the clock.
const tickEvery = 16

// postSend also returns the coarse clock, now and then, else 0. The caller holds
// the gate.
func (q *QP) postSend(wrs []SendWR) (n int, tick int64, err error) {
	q.send.Lock()
	defer q.send.Unlock()
	n, ferr := q.flatten(&q.send, "ibv_post_send", wrs)
	if len(q.send.wr) > 0 {
		q.posts++
		if q.ex != nil && q.posts%tickEvery == 0 {
			q.tick = provider.Exchange{}
			err = q.ex.Exchange(nil, nil, nil, nil, q.send.wr, q.send.sge, nil, &q.tick)
			n, tick = int(q.tick.Sends), q.tick.Tick
		} else {
			n, err = q.p.PostSend(q.send.wr, q.send.sge)
		}
		if err != nil {
			err = verbErr("ibv_post_send", err)
		}
	}
	runtime.KeepAlive(wrs)
	if err == nil {
		err = ferr
	}
	return n, tick, err
}

// WRPost posts work requests through the ibv_wr_* builder, all or none. The
// queue pair must have been created with QPConfig.SendOps. With dry the batch is
// built and aborted: it says whether the device would take it. A refusal
// returns the index of the request at fault, where it is known.
//
// On rxe with rdma-core before 64, gather lists of uneven lengths go through
// ibv_post_send, for the builder's list is faulty there; a full queue may then
// accept a part, and the index says how many.
//
// Verb: ibv_wr_start(3), ibv_wr_complete(3), ibv_wr_abort(3), ibv_wr_send(3),
// ibv_wr_send_imm(3), ibv_wr_send_inv(3), ibv_wr_send_tso(3), ibv_wr_rdma_write(3),
// ibv_wr_rdma_write_imm(3), ibv_wr_rdma_read(3), ibv_wr_atomic_cmp_swp(3),
// ibv_wr_atomic_fetch_add(3), ibv_wr_atomic_write(3), ibv_wr_flush(3),
// ibv_wr_bind_mw(3), ibv_wr_local_inv(3), ibv_wr_set_ud_addr(3),
// ibv_wr_set_xrc_srqn(3), ibv_wr_set_inline_data(3), ibv_wr_set_inline_data_list(3),
// ibv_wr_set_sge(3), ibv_wr_set_sge_list(3).
func (q *QP) WRPost(wrs []SendWR, dry bool) (int, error) {
	if q.h.Enter() != nil {
		return 0, verbClosed("ibv_wr_start")
	}
	defer q.h.Exit()
	if len(wrs) == 0 {
		return 0, nil
	}
	if err := q.cannotSend("ibv_wr_start"); err != nil {
		return 0, err
	}
	q.send.Lock()
	defer q.send.Unlock()
	if i, err := q.flatten(&q.send, "ibv_wr_start", wrs); err != nil {
		return i, err
	}
	i, err := q.p.WRPost(q.send.wr, q.send.sge, dry)
	runtime.KeepAlive(wrs)
	if err != nil {
		return q.whyNot(i, err, wrs)
	}
	return len(wrs), nil
}

// whyNot tells a gather list that is too long, which rxe reports as ENOSPC, from
// a full queue: one can be tried again, the other cannot.
func (q *QP) whyNot(i int, err error, wrs []SendWR) (int, error) {
	if err == syscall.ENOSPC {
		for j := range wrs {
			if len(wrs[j].SGList) > int(q.cap.MaxSendSGE) {
				return j, &Error{Verb: "ibv_wr_complete", Cause: syscall.EINVAL, Hint: "SGList is longer than QPCap.MaxSendSGE"}
			}
		}
	}
	return i, verbErr("ibv_wr_complete", err)
}

type recvScratch struct {
	sync.Mutex
	wr  []provider.RecvWR // guarded by the mutex
	sge []SGE
}

func (r *recvScratch) flatten(wrs []RecvWR) {
	r.wr, r.sge = r.wr[:0], r.sge[:0]
	for i := range wrs {
		r.wr = append(r.wr, provider.RecvWR{ID: wrs[i].ID, SGEOff: uint32(len(r.sge)), NumSGE: uint32(len(wrs[i].SGList))})
		r.sge = append(r.sge, wrs[i].SGList...)
	}
}

func (r *recvScratch) post(verb string, wrs []RecvWR, f func([]provider.RecvWR, []SGE) (int, error)) (int, error) {
	if len(wrs) == 0 {
		return 0, nil
	}
	r.Lock()
	defer r.Unlock()
	r.flatten(wrs)
	n, err := f(r.wr, r.sge)
	if err != nil {
		return n, verbErr(verb, err)
	}
	return n, nil
}

// PostRecv posts receive work requests in order and returns how many were
// accepted. ErrQueueFull when the receive queue has no room.
//
// In QPSReset it is refused with EINVAL, for rxe takes such requests and loses
// them. One posted after Modify to QPSErr is flushed, on rxe too, which by
// itself would never look at it.
//
// Verb: ibv_post_recv(3).
func (q *QP) PostRecv(wrs []RecvWR) (int, error) {
	if q.h.Enter() != nil {
		return 0, verbClosed("ibv_post_recv")
	}
	defer q.h.Exit()
	if q.state.Load() == int32(QPSReset) {
		return 0, &Error{Verb: "ibv_post_recv", Cause: syscall.EINVAL, Hint: "the queue pair is in RESET; move it to INIT first"}
	}
	return q.recv.post("ibv_post_recv", wrs, q.p.PostRecv)
}

// BindMW binds a type 1 window to length bytes at addr of mr; a length of 0
// unbinds it. mr is required either way: a nil one crashes the rxe provider.
// The bind completes on the send queue as WCBindMW.
//
// Verb: ibv_bind_mw(3).
func (q *QP) BindMW(w *MW, mr *MR, id uint64, flags SendFlags, addr, length uint64, access AccessFlags) error {
	if err := enter(&q.h, "ibv_bind_mw"); err != nil {
		return err
	}
	defer q.h.Exit()
	if w == nil || mr == nil {
		return &Error{Verb: "ibv_bind_mw", Cause: syscall.EINVAL, Hint: "a window and a region are required, also to unbind (with length 0)"}
	}
	if w.t != MWType1 {
		return &Error{Verb: "ibv_bind_mw", Cause: syscall.EINVAL, Hint: "a type 2 window is bound by posting WRBindMW"}
	}
	if w.h.Closed() || mr.h.Closed() {
		return verbClosed("ibv_bind_mw")
	}
	if err := q.cannotSend("ibv_bind_mw"); err != nil {
		return err
	}
	return verbErr("ibv_bind_mw", q.p.BindMW(w.p, mr.p, id, flags, addr, length, access))
}
