package rdmacm

import (
	"syscall"
	"weak"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/verbs"
)

// PD is the protection domain that the manager keeps for the ID's device, nil
// before the ID is bound. It is shared and is not freed by Close.
func (x *ID) PD() *verbs.PD {
	ctx := x.Context()
	if ctx == nil || x.h.Enter() != nil {
		return nil
	}
	defer x.h.Exit()
	p, ok := x.p.(provider.CMHelpers)
	if !ok {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.pd == nil {
		if d := p.PD(); d != nil {
			x.pd = bridge.PD(ctx, d).(*verbs.PD)
		}
	}
	return x.pd
}

// CreateQP makes the ID's queue pair; the manager moves it through its states
// from then on. A nil pd is ID.PD. Without queues in cfg the ID gets its own, for
// GetSendComp and GetRecvComp. pd and the queues must come from ID.Context.
//
// Verb: rdma_create_qp(3), rdma_create_qp_ex(3), rdma_destroy_qp(3).
func (x *ID) CreateQP(pd *verbs.PD, cfg verbs.QPConfig) (*verbs.QP, error) {
	in := provider.QPInit{
		Cookie: bridge.Cookie(), Type: cfg.Type, SQSigAll: cfg.SQSigAll, Cap: cfg.Cap,
		SendOps: cfg.SendOps, CreateFlags: cfg.CreateFlags,
	}
	in.Ex = cfg.SendOps != 0 || cfg.CreateFlags != 0
	verb := "rdma_create_qp"
	if in.Ex {
		verb = "rdma_create_qp_ex"
	}
	if cfg.XRCD != nil || cfg.IndTable != nil || cfg.HashFunction != 0 || cfg.MaxTSOHeader != 0 || cfg.SourceQPN != 0 {
		return nil, invalid(verb, "XRC, receive side scaling, TSO and source QPN are for verbs.PD.CreateQP")
	}
	ctx := x.Context()
	if ctx == nil {
		if x.h.Closed() {
			return nil, closed(verb)
		}
		return nil, invalid(verb, "the ID has no device yet: resolve its address or bind it to a device's")
	}
	if pd == nil {
		pd = x.PD()
	}
	if pd == nil || pd.Context() != ctx {
		return nil, invalid(verb, "the protection domain belongs to another context: make it, and the queues, from ID.Context")
	}
	if cfg.RecvCQ == nil {
		cfg.RecvCQ = cfg.SendCQ
	}
	state := verbs.QPSInit
	if in.Type == 0 {
		in.Type = verbs.QPTRC
		if x.datagram() {
			in.Type = verbs.QPTUD
		}
	}
	if in.Type == verbs.QPTUD {
		state = verbs.QPSRTS
	}
	x.mu.Lock()
	if cfg.SRQ == nil {
		cfg.SRQ = x.srq.Value()
	}
	x.mu.Unlock()
	q, err := bridge.QP(bridge.QPArgs{
		Verb: verb, Ctx: ctx, PD: pd, SendCQ: cfg.SendCQ, RecvCQ: cfg.RecvCQ, SRQ: cfg.SRQ,
		Owner: &x.h, In: &in, State: state,
		Create: func() (provider.QP, error) { return x.p.CreateQP(&in) },
	})
	if err != nil {
		return nil, cmErr(verb, err)
	}
	qp := q.(*verbs.QP)
	x.mu.Lock()
	x.qp = weak.Make(qp)
	x.mu.Unlock()
	return qp, nil
}

// InitQPAttr gives the attributes to move a queue pair that is not the ID's to a
// state, and the mask of those that count.
//
// Verb: rdma_init_qp_attr(3).
func (x *ID) InitQPAttr(state verbs.QPState) (a verbs.QPAttr, mask verbs.QPAttrMask, err error) {
	err = x.call("rdma_init_qp_attr", func() (err error) {
		a, mask, err = x.p.InitQPAttr(state)
		return err
	})
	a.State = state
	return a, mask, err
}

// CreateSRQ makes the ID's shared receive queue, which its queue pair will use. A
// nil pd is ID.PD.
//
// Verb: rdma_create_srq(3), rdma_destroy_srq(3).
func (x *ID) CreateSRQ(pd *verbs.PD, attr verbs.SRQAttr) (*verbs.SRQ, error) {
	return x.createSRQ(pd, attr, verbs.SRQTBasic, false)
}

// CreateSRQEx is CreateSRQ with the type of the queue, through the extended verb.
//
// Verb: rdma_create_srq_ex(3), rdma_destroy_srq(3).
func (x *ID) CreateSRQEx(pd *verbs.PD, attr verbs.SRQAttr, typ verbs.SRQType) (*verbs.SRQ, error) {
	return x.createSRQ(pd, attr, typ, true)
}

func (x *ID) createSRQ(pd *verbs.PD, attr verbs.SRQAttr, typ verbs.SRQType, ex bool) (*verbs.SRQ, error) {
	const verb = "rdma_create_srq"
	p, ok := x.p.(provider.CMHelpers)
	if !ok {
		return nil, cmErr(verb, syscall.EOPNOTSUPP)
	}
	ctx := x.Context()
	if ctx == nil {
		return nil, invalid(verb, "the ID has no device yet")
	}
	if pd == nil {
		pd = x.PD()
	}
	if pd == nil || pd.Context() != ctx {
		return nil, invalid(verb, "the protection domain belongs to another context: make it from ID.Context")
	}
	if attr.MaxSGE == 0 {
		attr.MaxSGE = 1
	}
	in := provider.SRQInit{Cookie: bridge.Cookie(), Attr: attr, Type: typ, Ex: ex}
	s, err := bridge.SRQ(pd, &x.h, &in, func() (provider.SRQ, error) { return p.CreateSRQ(&in) })
	if err != nil {
		return nil, cmErr(verb, err)
	}
	srq := s.(*verbs.SRQ)
	x.mu.Lock()
	x.srq = weak.Make(srq)
	x.mu.Unlock()
	return srq, nil
}

// Devices are the contexts of all devices the manager can use. They are shared
// with every ID and stay open.
//
// Verb: rdma_get_devices(3), rdma_free_devices(3).
func Devices() ([]*verbs.Context, error) {
	m, err := manager("rdma_get_devices")
	if err != nil {
		return nil, err
	}
	d, ok := m.(provider.CMDevices)
	if !ok {
		return nil, cmErr("rdma_get_devices", syscall.EOPNOTSUPP)
	}
	l, err := d.Devices()
	if err != nil {
		return nil, cmErr("rdma_get_devices", err)
	}
	out := make([]*verbs.Context, len(l))
	for i, p := range l {
		out[i] = bridge.Context(p).(*verbs.Context)
	}
	return out, nil
}
