package rdmacm

import (
	"context"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/verbs"
)

// The helpers of rdma_verbs.h: one request at a time on the ID's queue pair. They
// are for small programs; verbs.QP posts batches.

func (x *ID) reg(verb string, kind provider.CMRegKind, b []byte) (*verbs.MR, error) {
	if len(b) == 0 {
		return nil, invalid(verb, "the memory to register is empty")
	}
	p, ok := x.p.(provider.CMHelpers)
	if !ok {
		return nil, cmErr(verb, syscall.EOPNOTSUPP)
	}
	pd := x.PD()
	if pd == nil {
		return nil, invalid(verb, "the ID has no device yet")
	}
	m, err := bridge.MR(pd, b, func(addr, n uint64) (provider.MR, error) { return p.RegHelper(kind, addr, n) })
	if err != nil {
		return nil, cmErr(verb, err)
	}
	return m.(*verbs.MR), nil
}

// RegMsgs registers b, in the ID's domain, to send from and to receive into.
//
// Verb: rdma_reg_msgs(3), rdma_dereg_mr(3).
func (x *ID) RegMsgs(b []byte) (*verbs.MR, error) {
	return x.reg("rdma_reg_msgs", provider.CMRegMsgs, b)
}

// RegRead registers b for READs of the peer.
//
// Verb: rdma_reg_read(3), rdma_dereg_mr(3).
func (x *ID) RegRead(b []byte) (*verbs.MR, error) {
	return x.reg("rdma_reg_read", provider.CMRegRead, b)
}

// RegWrite registers b for WRITEs of the peer.
//
// Verb: rdma_reg_write(3), rdma_dereg_mr(3).
func (x *ID) RegWrite(b []byte) (*verbs.MR, error) {
	return x.reg("rdma_reg_write", provider.CMRegWrite, b)
}

// post checks that b lies in mr: the C helper would abort the process.
func (x *ID) post(verb string, q provider.CMPost, b []byte, mr *verbs.MR) error {
	a := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	switch {
	case mr != nil:
		if a < mr.Addr() || a-mr.Addr()+uint64(len(b)) > mr.Len() {
			return invalid(verb, "the memory is outside its region")
		}
		m, ok := bridge.Inner(mr).(provider.MR)
		if !ok || m.Handle() == 0 {
			return closed(verb)
		}
		q.MR = m
	case q.Flags&verbs.SendInline == 0:
		return invalid(verb, "only an inline send needs no region")
	}
	q.Addr, q.Length = a, uint64(len(b))
	err := optional(x, verb, func(p provider.CMHelpers) error { return p.PostHelper(&q) })
	runtime.KeepAlive(b)
	runtime.KeepAlive(mr)
	return err
}

func (x *ID) postV(verb string, q provider.CMPost, sgl []verbs.SGE) error {
	return optional(x, verb, func(p provider.CMHelpers) error { return p.PostHelperV(&q, sgl) })
}

// PostRecv posts a receive into b, in region mr.
//
// Verb: rdma_post_recv(3).
func (x *ID) PostRecv(id uint64, b []byte, mr *verbs.MR) error {
	return x.post("rdma_post_recv", provider.CMPost{Op: provider.CMPostRecv, ID: id}, b, mr)
}

// PostSend posts a send of b; mr may be nil with verbs.SendInline.
//
// Verb: rdma_post_send(3).
func (x *ID) PostSend(id uint64, b []byte, mr *verbs.MR, flags verbs.SendFlags) error {
	return x.post("rdma_post_send", provider.CMPost{Op: provider.CMPostSend, ID: id, Flags: flags}, b, mr)
}

// PostRead posts a READ of the peer's memory into b.
//
// Verb: rdma_post_read(3).
func (x *ID) PostRead(id uint64, b []byte, mr *verbs.MR, flags verbs.SendFlags, remote uint64, key verbs.RKey) error {
	q := provider.CMPost{Op: provider.CMPostRead, ID: id, Flags: flags &^ verbs.SendInline, RemoteAddr: remote, RKey: key}
	return x.post("rdma_post_read", q, b, mr)
}

// PostWrite posts a WRITE of b to the peer's memory.
//
// Verb: rdma_post_write(3).
func (x *ID) PostWrite(id uint64, b []byte, mr *verbs.MR, flags verbs.SendFlags, remote uint64, key verbs.RKey) error {
	q := provider.CMPost{Op: provider.CMPostWrite, ID: id, Flags: flags, RemoteAddr: remote, RKey: key}
	return x.post("rdma_post_write", q, b, mr)
}

// PostUDSend posts a datagram, with the Q_Key that rdma_cm uses.
//
// Verb: rdma_post_ud_send(3).
func (x *ID) PostUDSend(id uint64, b []byte, mr *verbs.MR, flags verbs.SendFlags, ah *verbs.AH, qpn uint32) error {
	p, ok := bridge.Inner(ah).(provider.AH)
	if !ok {
		return invalid("rdma_post_ud_send", "an address handle is required")
	}
	q := provider.CMPost{Op: provider.CMPostUDSend, ID: id, Flags: flags, AH: p, RemoteQPN: qpn}
	err := x.post("rdma_post_ud_send", q, b, mr)
	runtime.KeepAlive(ah)
	return err
}

// PostRecvV is PostRecv into several pieces of memory.
//
// Verb: rdma_post_recvv(3).
func (x *ID) PostRecvV(id uint64, sgl []verbs.SGE) error {
	return x.postV("rdma_post_recvv", provider.CMPost{Op: provider.CMPostRecv, ID: id}, sgl)
}

// PostSendV is PostSend of several pieces of memory.
//
// Verb: rdma_post_sendv(3).
func (x *ID) PostSendV(id uint64, sgl []verbs.SGE, flags verbs.SendFlags) error {
	return x.postV("rdma_post_sendv", provider.CMPost{Op: provider.CMPostSend, ID: id, Flags: flags &^ verbs.SendInline}, sgl)
}

// PostReadV is PostRead into several pieces of memory.
//
// Verb: rdma_post_readv(3).
func (x *ID) PostReadV(id uint64, sgl []verbs.SGE, flags verbs.SendFlags, remote uint64, key verbs.RKey) error {
	q := provider.CMPost{Op: provider.CMPostRead, ID: id, Flags: flags &^ verbs.SendInline, RemoteAddr: remote, RKey: key}
	return x.postV("rdma_post_readv", q, sgl)
}

// PostWriteV is PostWrite of several pieces of memory.
//
// Verb: rdma_post_writev(3).
func (x *ID) PostWriteV(id uint64, sgl []verbs.SGE, flags verbs.SendFlags, remote uint64, key verbs.RKey) error {
	q := provider.CMPost{Op: provider.CMPostWrite, ID: id, Flags: flags &^ verbs.SendInline, RemoteAddr: remote, RKey: key}
	return x.postV("rdma_post_writev", q, sgl)
}

func (x *ID) comp(ctx context.Context, verb string, recv bool) (wc verbs.WC, err error) {
	if x.h.Closed() {
		return wc, closed(verb)
	}
	p, ok := x.p.(provider.CMHelpers)
	if !ok {
		return wc, cmErr(verb, syscall.EOPNOTSUPP)
	}
	err = p.GetComp(ctx, recv, &wc)
	if err == syscall.EINVAL {
		return wc, invalid(verb, "the ID has no queue of its own: create its queue pair without queues")
	}
	return wc, cmErr(verb, err)
}

// GetSendComp waits for the completion of a send, in the network poller. The C
// helper would wait on a thread: it is only asked when it need not.
//
// Verb: rdma_get_send_comp(3).
func (x *ID) GetSendComp(ctx context.Context) (verbs.WC, error) {
	return x.comp(ctx, "rdma_get_send_comp", false)
}

// GetRecvComp waits for the completion of a receive, in the network poller.
//
// Verb: rdma_get_recv_comp(3).
func (x *ID) GetRecvComp(ctx context.Context) (verbs.WC, error) {
	return x.comp(ctx, "rdma_get_recv_comp", true)
}
