package verbs

import (
	"runtime"
	"sync"
	"unsafe"
	"weak"

	"github.com/zrdma/zrdma/internal/bridge"
	"github.com/zrdma/zrdma/internal/handle"
	"github.com/zrdma/zrdma/internal/provider"
)

func init() {
	bridge.Context = func(p provider.Context) any { return borrowContext(p) }
	bridge.PD = func(ctx any, p provider.PD) any { return &PD{c: ctx.(*Context), p: p, borrowed: true} }
	bridge.QP = func(a bridge.QPArgs) (any, error) {
		q, err := bridgeQP(a)
		if err != nil {
			return nil, err
		}
		return q, nil
	}
	bridge.SRQ = func(pd any, owner *handle.Handle, in *provider.SRQInit, create func() (provider.SRQ, error)) (any, error) {
		s, err := bridgeSRQ(pd.(*PD), owner, in, create)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	bridge.MR = func(pd any, buf []byte, create func(addr, length uint64) (provider.MR, error)) (any, error) {
		m, err := bridgeMR(pd.(*PD), buf, create)
		if err != nil {
			return nil, err
		}
		return m, nil
	}
	bridge.Inner = inner
	bridge.SetQPState = func(qp any, s provider.QPState) { qp.(*QP).state.Store(int32(s)) }
	bridge.Cookie = newCookie
}

var borrowed struct {
	sync.Mutex
	m map[provider.Context]*Context // guarded by the mutex; never shrinks
}

// borrowContext is not tracked as open: its owner is the connection manager.
func borrowContext(p provider.Context) *Context {
	borrowed.Lock()
	defer borrowed.Unlock()
	if c, ok := borrowed.m[p]; ok {
		return c
	}
	if borrowed.m == nil {
		borrowed.m = map[provider.Context]*Context{}
	}
	c := newContext(p)
	c.borrowed = true
	borrowed.m[p] = c
	return c
}

func bridgeQP(a bridge.QPArgs) (*QP, error) {
	q := &QP{c: a.Ctx.(*Context), pd: a.PD.(*PD)}
	parents := []*handle.Handle{a.Owner, &q.pd.h}
	if c, ok := a.SendCQ.(*CQ); ok && c != nil {
		q.scq, a.In.SendCQ = c, c.p
		parents = append(parents, &c.h)
	}
	if c, ok := a.RecvCQ.(*CQ); ok && c != nil {
		q.rcq, a.In.RecvCQ = c, c.p
		if c != q.scq {
			parents = append(parents, &c.h)
		}
	}
	if s, ok := a.SRQ.(*SRQ); ok && s != nil {
		q.srq, a.In.SRQ = s, s.p
		parents = append(parents, &s.h)
	}
	a.In.PD = q.pd.p
	q.state.Store(int32(a.State))
	return finishQP(q, a.Verb, a.In, parents, a.Create)
}

func bridgeSRQ(d *PD, owner *handle.Handle, in *provider.SRQInit, create func() (provider.SRQ, error)) (*SRQ, error) {
	s := &SRQ{d: d, cookie: in.Cookie}
	in.PD = d.p
	if err := s.h.Init("verbs.SRQ", &d.h, owner); err != nil {
		return nil, verbErr("rdma_create_srq", err)
	}
	p, err := create()
	if err != nil {
		s.h.Abandon()
		return nil, verbErr("rdma_create_srq", err)
	}
	s.p, s.attr = p, in.Attr
	d.c.register(s.cookie, weak.Make(s))
	watch(s, &s.h)
	return s, nil
}

func bridgeMR(d *PD, b []byte, create func(addr, length uint64) (provider.MR, error)) (*MR, error) {
	m := &MR{d: d, buf: b, length: uint64(len(b))}
	m.pin.Pin(unsafe.SliceData(b))
	m.addr = addr(b)
	m.iova = m.addr
	p, err := create(m.addr, m.length)
	runtime.KeepAlive(b)
	if err != nil {
		m.pin.Unpin()
		return nil, regHint("ibv_reg_mr", err, m.length)
	}
	return m.init(p, "ibv_reg_mr")
}

func inner(obj any) any {
	switch o := obj.(type) {
	case *Context:
		if o != nil {
			return o.p
		}
	case *PD:
		if o != nil {
			return o.p
		}
	case *CQ:
		if o != nil {
			return o.p
		}
	case *SRQ:
		if o != nil {
			return o.p
		}
	case *MR:
		if o != nil {
			return o.p
		}
	case *AH:
		if o != nil {
			return o.p
		}
	case *QP:
		if o != nil {
			return o.p
		}
	}
	return nil
}

// lookupOther finds an object of a kind that AsyncEvent has no field for.
func (c *Context) lookupOther(cookie uint64) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.objs[cookie].(interface{ object() any }); ok {
		return w.object()
	}
	return nil
}
