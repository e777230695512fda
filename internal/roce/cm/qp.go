package cm

import (
	"context"
	"sync"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
)

// minRNR is the wait that we ask of a sender whose message found no receive:
// 0.64 ms.
const minRNR = 12

// ownedQP is the queue pair of an id, with the queues that were made for it.
type ownedQP struct {
	provider.QP
	x    *id
	ud   bool
	srq  provider.SRQ
	comp [2]*comp // of sends and receives; nil where the caller brought a queue
}

// comp is a completion queue of an id's own.
type comp struct {
	ch    provider.CompChannel
	cq    provider.CQ
	turn  chan struct{} // one waiter at a time: an event is for one
	users sync.WaitGroup
}

func newComp(ctx provider.Context, cqe int) (*comp, error) {
	ch, err := ctx.CreateCompChannel()
	if err != nil {
		return nil, err
	}
	cq, err := ctx.CreateCQ(&provider.CQInit{CQE: max(cqe, 1), Channel: ch})
	if err != nil {
		_ = ch.Close()
		return nil, err
	}
	return &comp{ch: ch, cq: cq, turn: make(chan struct{}, 1)}, nil
}

// close ends the waiters first.
func (c *comp) close() {
	c.ch.Interrupt()
	c.users.Wait()
	_ = c.cq.Close()
	_ = c.ch.Close()
}

func (c *comp) get(ctx context.Context, wc *provider.WC) error {
	defer c.users.Done()
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.turn }()
	var one [1]provider.WC
	for armed := false; ; {
		n, err := c.cq.Poll(one[:])
		if err != nil {
			return err
		}
		if n > 0 {
			*wc = one[0]
			return nil
		}
		if !armed {
			if err := c.cq.ReqNotify(false); err != nil {
				return err
			}
			armed = true
			continue
		}
		if _, err := c.ch.Get(ctx); err != nil && err != syscall.EAGAIN {
			return err
		}
		armed = false
	}
}

// CreateQP makes the id's queue pair, in INIT; a datagram one in RTS.
func (x *id) CreateQP(in *provider.QPInit) (provider.QP, error) {
	ctx := x.Context()
	x.mu.Lock()
	defer x.mu.Unlock()
	if ctx == nil || x.qp != nil {
		return nil, errInval
	}
	if in.PD == nil {
		pd, err := x.m.domain()
		if err != nil {
			return nil, err
		}
		in.PD = pd
	}
	q := &ownedQP{x: x, ud: in.Type == provider.QPTUD, srq: in.SRQ}
	a := *in
	err := q.make(ctx, &a)
	if err != nil {
		q.free()
		return nil, err
	}
	in.Cap = a.Cap
	x.qp = q
	x.m.mu.Lock()
	x.hasQP = true
	x.m.mu.Unlock()
	return q, nil
}

func (q *ownedQP) make(ctx provider.Context, in *provider.QPInit) (err error) {
	recv := int(in.Cap.MaxRecvWR)
	if in.SRQ != nil {
		var a provider.SRQAttr
		if in.SRQ.Query(&a) == nil {
			recv = max(recv, int(a.MaxWR))
		}
	}
	for i, f := range []struct {
		cq  *provider.CQ
		cqe int
	}{{&in.SendCQ, int(in.Cap.MaxSendWR)}, {&in.RecvCQ, recv}} {
		if *f.cq != nil {
			continue
		}
		if q.comp[i], err = newComp(ctx, f.cqe); err != nil {
			return err
		}
		*f.cq = q.comp[i].cq
	}
	if q.QP, err = ctx.CreateQP(in); err != nil {
		return err
	}
	a := provider.QPAttr{State: provider.QPSInit, PortNum: 1, QKey: udQKey}
	mask := provider.QPAttrState | provider.QPAttrPKeyIndex | provider.QPAttrPort
	if !q.ud {
		return q.Modify(&a, mask|provider.QPAttrAccessFlags)
	}
	if err := q.Modify(&a, mask|provider.QPAttrQKey); err != nil {
		return err
	}
	a.State = provider.QPSRTR
	if err := q.Modify(&a, provider.QPAttrState); err != nil {
		return err
	}
	a.State = provider.QPSRTS
	return q.Modify(&a, provider.QPAttrState|provider.QPAttrSQPSN)
}

// free undoes make, as far as it came.
func (q *ownedQP) free() {
	if q.QP != nil {
		_ = q.QP.Close()
	}
	for _, c := range q.comp {
		if c != nil {
			c.close()
		}
	}
}

// Close destroys the queue pair; EBUSY while the id is in a multicast group.
func (q *ownedQP) Close() error {
	x := q.x
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, g := range x.groups {
		if g.attached {
			return syscall.EBUSY
		}
	}
	if err := q.QP.Close(); err != nil {
		return err
	}
	x.qp = nil
	x.m.mu.Lock()
	x.hasQP = false
	x.m.mu.Unlock()
	for _, c := range q.comp {
		if c != nil {
			c.close()
		}
	}
	return nil
}

// toErr flushes what is posted. A datagram queue pair stays as it is.
func (q *ownedQP) toErr() error {
	if q.ud {
		return nil
	}
	return q.Modify(&provider.QPAttr{State: provider.QPSErr}, provider.QPAttrState)
}

// ready moves the id's queue pair, if there is one, to RTS. It is called with
// x.mu held.
func (x *id) ready() error {
	if x.qp == nil {
		return nil
	}
	for _, s := range []provider.QPState{provider.QPSInit, provider.QPSRTR, provider.QPSRTS} {
		a, mask, err := x.InitQPAttr(s)
		if err != nil {
			return err
		}
		if err := x.qp.Modify(&a, mask); err != nil {
			return err
		}
	}
	return nil
}

// InitQPAttr gives what moves a queue pair of the connection to a state.
func (x *id) InitQPAttr(s provider.QPState) (a provider.QPAttr, mask provider.QPAttrMask, err error) {
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	if !x.device {
		return a, 0, errInval
	}
	a.State, mask = s, provider.QPAttrState
	c, ud := x.conn, x.ps == provider.PSUDP
	switch {
	case s == provider.QPSInit:
		a.PortNum = 1
		mask |= provider.QPAttrPKeyIndex | provider.QPAttrPort
		if ud {
			a.QKey = udQKey
			return a, mask | provider.QPAttrQKey, nil
		}
		if c != nil {
			a.AccessFlags = provider.AccessRemoteWrite
			if c.respRes > 0 {
				a.AccessFlags |= provider.AccessRemoteRead | provider.AccessRemoteAtomic
			}
		}
		return a, mask | provider.QPAttrAccessFlags, nil
	case ud && s == provider.QPSRTR:
		return a, mask, nil
	case ud && s == provider.QPSRTS:
		return a, mask | provider.QPAttrSQPSN, nil
	case c == nil || c.st == stReqSent || c.st == stClosed:
		return a, 0, errInval
	case s == provider.QPSRTR:
		a.AH, a.PathMTU, a.DestQPN, a.RQPSN = x.m.path(c), provider.MTU(c.mtu), c.peerQPN, c.rqPSN
		a.MaxDestRdAtomic, a.MinRNRTimer = c.respRes, minRNR
		return a, mask | provider.QPAttrAV | provider.QPAttrPathMTU | provider.QPAttrDestQPN | provider.QPAttrRQPSN |
			provider.QPAttrMaxDestRdAtomic | provider.QPAttrMinRNRTimer, nil
	case s == provider.QPSRTS:
		a.SQPSN, a.Timeout, a.RetryCnt, a.RNRRetry, a.MaxRdAtomic = c.sqPSN, c.ackTimeout, c.retry, c.rnr, c.initDepth
		return a, mask | provider.QPAttrSQPSN | provider.QPAttrTimeout | provider.QPAttrRetryCnt | provider.QPAttrRNRRetry |
			provider.QPAttrMaxQPRdAtomic, nil
	}
	return a, 0, errInval
}
