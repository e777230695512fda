package verbs

import (
	"math/bits"
	"syscall"
	"weak"

	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

// WQAttr is what WQ.Modify sets.
//
// Source: struct ibv_wq_attr.
type WQAttr = provider.WQAttr

// WQConfig describes a receive work queue.
type WQConfig struct {
	Type   WQType  // 0: WQTRQ, the only one there is
	MaxWR  uint32  // work requests; required
	MaxSGE uint32  // elements of one; 0: 1
	CQ     *CQ     // required
	Flags  WQFlags // 0: none
}

// WQ is a receive queue by itself, for receive side scaling: queue pairs reach
// it through a RWQIndTable.
type WQ struct {
	h      handle.Handle
	c      *Context
	p      provider.WQ
	cookie uint64
	cfg    WQConfig
	recv   recvScratch
}

// weakWQ is how events find a work queue.
type weakWQ struct{ p weak.Pointer[WQ] }

func (w weakWQ) object() any {
	if q := w.p.Value(); q != nil {
		return q
	}
	return nil
}

// CreateWQ makes a receive work queue in state WQSReset. An AsyncEvent of it has
// the *WQ in Obj.
//
// Verb: ibv_create_wq(3).
func (d *PD) CreateWQ(cfg WQConfig) (*WQ, error) {
	const verb = "ibv_create_wq"
	if cfg.CQ == nil || cfg.MaxWR == 0 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "WQConfig.CQ and MaxWR are required"}
	}
	if cfg.MaxSGE == 0 {
		cfg.MaxSGE = 1
	}
	in := provider.WQInit{Cookie: newCookie(), Type: cfg.Type, MaxWR: cfg.MaxWR, MaxSGE: cfg.MaxSGE, Flags: cfg.Flags, PD: d.p, CQ: cfg.CQ.p}
	w := &WQ{c: d.c, cookie: in.Cookie}
	if err := w.h.Init("verbs.WQ", &d.h, &cfg.CQ.h); err != nil {
		return nil, verbErr(verb, err)
	}
	p, err := createRare(&d.h, verb, d.c.p, func(i provider.WQCreator) (provider.WQ, error) { return i.CreateWQ(&in) })
	if err != nil {
		w.h.Abandon()
		return nil, err
	}
	cfg.MaxWR, cfg.MaxSGE = in.MaxWR, in.MaxSGE
	w.p, w.cfg = p, cfg
	d.c.register(w.cookie, weakWQ{weak.Make(w)})
	watch(w, &w.h)
	return w, nil
}

// Num is the number of the queue.
func (w *WQ) Num() uint32 { return w.p.Num() }

// Config is what the queue was given, at least what was asked for.
func (w *WQ) Config() WQConfig { return w.cfg }

// Modify changes the state (WQAttrState, with WQAttrCurrState to say from which)
// or flags (WQAttrFlags). A queue receives in WQSRdy.
//
// Verb: ibv_modify_wq(3).
func (w *WQ) Modify(a WQAttr, mask WQAttrMask) error {
	const verb = "ibv_modify_wq"
	if err := enter(&w.h, verb); err != nil {
		return err
	}
	defer w.h.Exit()
	return verbErr(verb, w.p.Modify(&a, mask))
}

// PostRecv posts receive work requests in order and returns how many were
// accepted.
//
// Verb: ibv_post_wq_recv(3).
func (w *WQ) PostRecv(wrs []RecvWR) (int, error) {
	if w.h.Enter() != nil {
		return 0, verbClosed("ibv_post_wq_recv")
	}
	defer w.h.Exit()
	return w.recv.post("ibv_post_wq_recv", wrs, w.p.PostRecv)
}

// Close frees the queue: ErrInUse while a table holds it.
//
// Verb: ibv_destroy_wq(3).
func (w *WQ) Close() error {
	return verbErr("ibv_destroy_wq", w.h.Close(func() error {
		if err := w.p.Close(); err != nil {
			return err
		}
		w.c.forget(w.cookie)
		return nil
	}))
}

// RWQIndTable spreads received packets over work queues: give it to
// QPConfig.IndTable, with the hash that chooses the entry.
type RWQIndTable struct {
	h     handle.Handle
	p     any
	links []*handle.Handle // one child of each queue; guarded by h's Close
}

// CreateRWQIndTable makes a table of work queues of this device. Their number
// must be a power of two; one may be there several times.
//
// Verb: ibv_create_rwq_ind_table(3).
func (c *Context) CreateRWQIndTable(wqs []*WQ) (*RWQIndTable, error) {
	const verb = "ibv_create_rwq_ind_table"
	if n := len(wqs); n == 0 || n&(n-1) != 0 || n > 1<<16 {
		return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "the number of work queues must be a power of two"}
	}
	t := &RWQIndTable{}
	// A table can have more queues than a handle has parents: each queue gets a
	// child of its own instead.
	ps := make([]provider.WQ, len(wqs))
	linked := map[*WQ]bool{}
	for i, w := range wqs {
		if w == nil {
			t.unlink()
			return nil, &Error{Verb: verb, Cause: syscall.EINVAL, Hint: "a work queue is nil"}
		}
		ps[i] = w.p
		if linked[w] {
			continue
		}
		linked[w] = true
		l := new(handle.Handle)
		if err := l.Init("verbs.RWQIndTable entry", &w.h); err != nil {
			t.unlink()
			return nil, verbErr(verb, err)
		}
		t.links = append(t.links, l)
	}
	p, err := createRare(&c.h, verb, c.p, func(i provider.WQCreator) (provider.RWQIndTable, error) {
		return i.CreateRWQIndTable(ps, uint32(bits.Len(uint(len(ps))))-1)
	})
	if err != nil {
		t.unlink()
		return nil, err
	}
	t.p = p
	if err := adopt(&t.h, "verbs.RWQIndTable", verb, p, &c.h); err != nil {
		t.unlink()
		return nil, err
	}
	watch(t, &t.h)
	return t, nil
}

func (t *RWQIndTable) unlink() {
	for _, l := range t.links {
		l.Abandon()
	}
	t.links = nil
}

// Close frees the table: ErrInUse while a queue pair uses it.
//
// Verb: ibv_destroy_rwq_ind_table(3).
func (t *RWQIndTable) Close() error {
	return verbErr("ibv_destroy_rwq_ind_table", t.h.Close(func() error {
		if err := t.p.(provider.RWQIndTable).Close(); err != nil {
			return err
		}
		t.unlink()
		return nil
	}))
}
