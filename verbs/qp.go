package verbs

import (
	"sync/atomic"
	"syscall"
	"weak"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// QPConfig describes a queue pair. Zero sizes stay zero: a queue pair with
// MaxSendWR 0 cannot send. Any field below SRQ uses the extended verb.
type QPConfig struct {
	Type           QPType // 0: QPTRC
	SendCQ, RecvCQ *CQ    // required, but for XRC receive; RecvCQ nil: SendCQ
	Cap            QPCap
	SQSigAll       bool // every send completes, not only those with SendSignaled
	SRQ            *SRQ // nil: a receive queue of its own

	SendOps      SendOpsFlags // operations posted through WRPost; 0: WRPost is not available
	XRCD         *XRCD
	CreateFlags  QPCreateFlags
	MaxTSOHeader uint16
	SourceQPN    uint32
	IndTable     *RWQIndTable
	HashFunction RXHashFunction
	HashKey      []byte
	HashFields   RXHashFields
}

// QP is a queue pair. Posting is safe from several goroutines at once.
type QP struct {
	h      handle.Handle
	c      *Context
	p      provider.QP
	cookie uint64
	typ    QPType
	cap    QPCap
	sigAll bool
	state  atomic.Int32 // the last state known here; see cannotSend

	scq, rcq *CQ
	srq      *SRQ
	pd       *PD

	ex provider.Exchanger // p, when it is one

	send    sendScratch
	posts   uint32            // guarded by send
	tick    provider.Exchange // guarded by send
	recv    recvScratch
	yielder yielder
	turn    exchangeScratch
}

// CreateQP makes a queue pair in state QPSReset. The capacities it was given,
// at least those asked for, are in Cap.
//
// Verb: ibv_create_qp(3), ibv_create_qp_ex(3), ibv_qp_to_qp_ex(3).
func (d *PD) CreateQP(cfg QPConfig) (*QP, error) { return createQP(d.c, d, cfg) }

// CreateQP makes a queue pair without a protection domain, as XRC receive needs.
//
// Verb: ibv_create_qp_ex(3).
func (c *Context) CreateQP(cfg QPConfig) (*QP, error) { return createQP(c, nil, cfg) }

func createQP(c *Context, d *PD, cfg QPConfig) (*QP, error) {
	in := provider.QPInit{
		Cookie: newCookie(), Type: cfg.Type, SQSigAll: cfg.SQSigAll, Cap: cfg.Cap,
		SendOps: cfg.SendOps, CreateFlags: cfg.CreateFlags, MaxTSOHeader: cfg.MaxTSOHeader,
		SourceQPN: cfg.SourceQPN, HashFunction: cfg.HashFunction, HashKey: cfg.HashKey, HashFields: cfg.HashFields,
	}
	if in.Type == 0 {
		in.Type = QPTRC
	}
	in.Ex = d == nil || cfg.SendOps != 0 || cfg.XRCD != nil || cfg.CreateFlags != 0 || cfg.MaxTSOHeader != 0 || cfg.IndTable != nil || cfg.HashFunction != 0
	verb := "ibv_create_qp"
	if in.Ex {
		verb = "ibv_create_qp_ex"
	}
	if cfg.RecvCQ == nil {
		cfg.RecvCQ = cfg.SendCQ
	}
	if cfg.SendCQ == nil && cfg.XRCD == nil {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "QPConfig.SendCQ is required"}
	}
	var parents []*handle.Handle
	add := func(h *handle.Handle) { parents = append(parents, h) }
	if d != nil {
		in.PD = d.p
		add(&d.h)
	} else {
		add(&c.h)
	}
	if cfg.SendCQ != nil {
		in.SendCQ, in.RecvCQ = cfg.SendCQ.p, cfg.RecvCQ.p
		add(&cfg.SendCQ.h)
		if cfg.RecvCQ != cfg.SendCQ {
			add(&cfg.RecvCQ.h)
		}
	}
	if cfg.SRQ != nil {
		in.SRQ = cfg.SRQ.p
		add(&cfg.SRQ.h)
	}
	if cfg.XRCD != nil {
		in.XRCD = cfg.XRCD.p
		add(&cfg.XRCD.h)
	}
	if cfg.IndTable != nil {
		in.IndTable = cfg.IndTable.p
		add(&cfg.IndTable.h)
	}
	return finishQP(&QP{c: c, pd: d, scq: cfg.SendCQ, rcq: cfg.RecvCQ, srq: cfg.SRQ}, verb, &in, parents,
		func() (provider.QP, error) { return c.p.CreateQP(&in) })
}

// finishQP ties a new queue pair to its parents and to the events of its device.
func finishQP(q *QP, verb string, in *provider.QPInit, parents []*handle.Handle, make func() (provider.QP, error)) (*QP, error) {
	if err := q.h.Init("verbs.QP", parents...); err != nil {
		return nil, verbErr(verb, err)
	}
	p, err := make()
	if err != nil {
		q.h.Abandon()
		return nil, verbErr(verb, err)
	}
	q.ex, _ = p.(provider.Exchanger)
	q.p, q.cookie, q.typ, q.cap, q.sigAll = p, in.Cookie, in.Type, in.Cap, in.SQSigAll
	q.c.register(q.cookie, weak.Make(q))
	watch(q, &q.h)
	return q, nil
}

// QPN is the queue pair number, 24 bits.
func (q *QP) QPN() uint32 { return q.p.QPN() }

// Type is the transport service.
func (q *QP) Type() QPType { return q.typ }

// Cap is what the queue pair was given.
func (q *QP) Cap() QPCap { return q.cap }

// PD is the protection domain, nil for a queue pair without one.
func (q *QP) PD() *PD { return q.pd }

// SendCQ is the completion queue of sends.
func (q *QP) SendCQ() *CQ { return q.scq }

// RecvCQ is the completion queue of receives.
func (q *QP) RecvCQ() *CQ { return q.rcq }

// SRQ is the shared receive queue, or nil.
func (q *QP) SRQ() *SRQ { return q.srq }

// Modify changes the fields of a named by mask. A refused transition to
// another state names the mask bits that are missing or not allowed.
//
// Verb: ibv_modify_qp(3).
func (q *QP) Modify(a QPAttr, mask QPAttrMask) error {
	if err := enter(&q.h, "ibv_modify_qp"); err != nil {
		return err
	}
	defer q.h.Exit()
	return q.modifyErr(a, mask, q.p.Modify(&a, mask))
}

// Query reads the fields named by mask; a device may fill more.
//
// Verb: ibv_query_qp(3).
func (q *QP) Query(mask QPAttrMask) (a QPAttr, err error) {
	if err := enter(&q.h, "ibv_query_qp"); err != nil {
		return a, err
	}
	defer q.h.Exit()
	_, err = q.p.Query(&a, mask)
	return a, verbErr("ibv_query_qp", err)
}

// QueryInit reads what the queue pair was created with.
//
// Verb: ibv_query_qp(3).
func (q *QP) QueryInit() (QPType, QPCap, bool, error) {
	if err := enter(&q.h, "ibv_query_qp"); err != nil {
		return 0, QPCap{}, false, err
	}
	defer q.h.Exit()
	var a QPAttr
	in, err := q.p.Query(&a, QPAttrCap)
	return in.Type, in.Cap, in.SQSigAll, verbErr("ibv_query_qp", err)
}

// State reads the state.
//
// Verb: ibv_query_qp(3).
func (q *QP) State() (QPState, error) {
	a, err := q.Query(QPAttrState)
	return a.State, err
}

// AttachMcast makes a UD queue pair receive what is sent to a multicast group.
//
// Verb: ibv_attach_mcast(3).
func (q *QP) AttachMcast(g GID, lid uint16) error {
	if err := enter(&q.h, "ibv_attach_mcast"); err != nil {
		return err
	}
	defer q.h.Exit()
	return verbErr("ibv_attach_mcast", q.p.AttachMcast(g, lid))
}

// DetachMcast undoes AttachMcast. A queue pair cannot close while attached.
//
// Verb: ibv_detach_mcast(3).
func (q *QP) DetachMcast(g GID, lid uint16) error {
	if err := enter(&q.h, "ibv_detach_mcast"); err != nil {
		return err
	}
	defer q.h.Exit()
	return verbErr("ibv_detach_mcast", q.p.DetachMcast(g, lid))
}

// ModifyRateLimit paces a queue pair: rate in kbit/s (0: none), burst and
// typical packet in bytes (0: the device's default).
//
// Verb: ibv_modify_qp_rate_limit(3).
func (q *QP) ModifyRateLimit(kbps, maxBurst uint32, typicalPkt uint16) error {
	if err := enter(&q.h, "ibv_modify_qp_rate_limit"); err != nil {
		return err
	}
	defer q.h.Exit()
	return verbErr("ibv_modify_qp_rate_limit", q.p.ModifyRateLimit(kbps, maxBurst, typicalPkt))
}

// QueryDataInOrder says whether the bytes of an operation land in order, so that
// a reader may poll the last one. flags must be 0.
//
// Verb: ibv_query_qp_data_in_order(3).
func (q *QP) QueryDataInOrder(op WROpcode, flags uint32) (bool, error) {
	if err := enter(&q.h, "ibv_query_qp_data_in_order"); err != nil {
		return false, err
	}
	defer q.h.Exit()
	b, err := q.p.DataInOrder(op, flags)
	return b, verbErr("ibv_query_qp_data_in_order", err)
}

// QueryECE reads the enhanced connection establishment options.
//
// Verb: ibv_query_ece(3).
func (q *QP) QueryECE() (ECE, error) {
	if err := enter(&q.h, "ibv_query_ece"); err != nil {
		return ECE{}, err
	}
	defer q.h.Exit()
	e, err := q.p.QueryECE()
	return e, verbErr("ibv_query_ece", err)
}

// SetECE sets the enhanced connection establishment options.
//
// Verb: ibv_set_ece(3).
func (q *QP) SetECE(e ECE) error {
	if err := enter(&q.h, "ibv_set_ece"); err != nil {
		return err
	}
	defer q.h.Exit()
	return verbErr("ibv_set_ece", q.p.SetECE(e))
}

// Close destroys the queue pair; work requests that have not completed are
// dropped without a completion. When it returns the device has stopped touching
// their memory. EBUSY while attached to a multicast group.
//
// Verb: ibv_destroy_qp(3).
func (q *QP) Close() error {
	return verbErr("ibv_destroy_qp", q.h.Close(func() error {
		if err := q.p.Close(); err != nil {
			return err
		}
		q.c.forget(q.cookie)
		return nil
	}))
}
