package verbs

import (
	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// Completion counters are in no release of rdma-core by 2026-08; they are bound
// as its main branch had them then.
const compCntrSince = "65 (not yet released in 2026-08)"

// CompCntrCaps bound completion counters.
//
// Source: struct ibv_comp_cntr_caps.
type CompCntrCaps = provider.CompCntrCaps

// CompCntrType is what a completion counter adds up.
//
// Source: enum ibv_comp_cntr_type.
type CompCntrType = provider.CompCntrType

// Values of CompCntrType.
const (
	CompCntrWRs   = provider.CompCntrWRs   // work requests
	CompCntrBytes = provider.CompCntrBytes // bytes
)

// CompCntrOps are the operations of a queue pair that a counter counts.
//
// Source: enum ibv_qp_attach_comp_cntr_op.
type CompCntrOps = provider.CompCntrOps

// Values of CompCntrOps.
const (
	CompCntrSend            = provider.CompCntrSend
	CompCntrRecv            = provider.CompCntrRecv
	CompCntrRDMARead        = provider.CompCntrRDMARead
	CompCntrRemoteRDMARead  = provider.CompCntrRemoteRDMARead
	CompCntrRDMAWrite       = provider.CompCntrRDMAWrite
	CompCntrRemoteRDMAWrite = provider.CompCntrRemoteRDMAWrite
)

// CompCntr counts completions of queue pairs without a completion queue: one
// number for successes, one for errors.
type CompCntr struct {
	h handle.Handle
	p provider.CompCntr
}

// QueryCompCntrCaps reads what completion counters can do.
//
// Verb: ibv_query_comp_cntr_caps(3).
func (c *Context) QueryCompCntrCaps() (CompCntrCaps, error) {
	v, err := createRare(&c.h, "ibv_query_comp_cntr_caps", c.p, provider.CompCntrCreator.QueryCompCntrCaps)
	return v, since(compCntrSince, err)
}

// CreateCompCntr makes a completion counter at zero.
//
// Verb: ibv_create_comp_cntr(3).
func (c *Context) CreateCompCntr(t CompCntrType) (*CompCntr, error) {
	const verb = "ibv_create_comp_cntr"
	p, err := createRare(&c.h, verb, c.p, func(i provider.CompCntrCreator) (provider.CompCntr, error) { return i.CreateCompCntr(t) })
	if err != nil {
		return nil, since(compCntrSince, err)
	}
	o := &CompCntr{p: p}
	if err := adopt(&o.h, "verbs.CompCntr", verb, p, &c.h); err != nil {
		return nil, err
	}
	watch(o, &o.h)
	return o, nil
}

func (o *CompCntr) do(verb string, f func() error) error {
	if err := enter(&o.h, verb); err != nil {
		return err
	}
	defer o.h.Exit()
	return verbErr(verb, f())
}

// Set sets the count of successes.
//
// Verb: ibv_set_comp_cntr(3).
func (o *CompCntr) Set(v uint64) error {
	return o.do("ibv_set_comp_cntr", func() error { return o.p.Set(false, v) })
}

// SetErr sets the count of errors.
//
// Verb: ibv_set_err_comp_cntr(3).
func (o *CompCntr) SetErr(v uint64) error {
	return o.do("ibv_set_err_comp_cntr", func() error { return o.p.Set(true, v) })
}

// Inc adds to the count of successes.
//
// Verb: ibv_inc_comp_cntr(3).
func (o *CompCntr) Inc(n uint64) error {
	return o.do("ibv_inc_comp_cntr", func() error { return o.p.Inc(false, n) })
}

// IncErr adds to the count of errors.
//
// Verb: ibv_inc_err_comp_cntr(3).
func (o *CompCntr) IncErr(n uint64) error {
	return o.do("ibv_inc_err_comp_cntr", func() error { return o.p.Inc(true, n) })
}

// Read reads the count of successes.
//
// Verb: ibv_read_comp_cntr(3).
func (o *CompCntr) Read() (v uint64, err error) {
	err = o.do("ibv_read_comp_cntr", func() (err error) { v, err = o.p.Read(false); return err })
	return v, err
}

// ReadErr reads the count of errors.
//
// Verb: ibv_read_err_comp_cntr(3).
func (o *CompCntr) ReadErr() (v uint64, err error) {
	err = o.do("ibv_read_err_comp_cntr", func() (err error) { v, err = o.p.Read(true); return err })
	return v, err
}

// Close frees the counter: the device refuses while a queue pair counts in it.
//
// Verb: ibv_destroy_comp_cntr(3).
func (o *CompCntr) Close() error { return verbErr("ibv_destroy_comp_cntr", o.h.Close(o.p.Close)) }

// AttachCompCntr makes o count operations of the queue pair, until it closes.
//
// Verb: ibv_qp_attach_comp_cntr(3).
func (q *QP) AttachCompCntr(o *CompCntr, ops CompCntrOps) error {
	const verb = "ibv_qp_attach_comp_cntr"
	if err := enter(&o.h, verb); err != nil {
		return err
	}
	defer o.h.Exit()
	return since(compCntrSince, doRare(&q.h, verb, q.p, func(i provider.CompCntrAttacher) error { return i.AttachCompCntr(o.p, ops) }))
}
