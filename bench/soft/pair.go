package main

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/verbs"
)

// end is one side of a connection: a queue pair, a queue for its completions and
// a registered buffer.
type end struct {
	ctx    *verbs.Context
	pd     *verbs.PD
	cq     *verbs.CQ
	qp     *verbs.QP
	mr     *verbs.MR
	mem    []byte
	gid    verbs.GIDEntry
	wc     []verbs.WC
	closer []interface{ Close() error }
	how    waiting
}

// waiting is how an end waits for completions.
type waiting int

const (
	adaptive waiting = iota // CQ.Wait with SpinAdaptive: what a program should do
	sleeping                // CQ.Wait that never spins
	polling                 // busily
)

const depth = 256

func newEnd(ctx *verbs.Context, size int) (*end, error) {
	e := &end{ctx: ctx, wc: make([]verbs.WC, depth)}
	keep := func(c interface{ Close() error }) { e.closer = append(e.closer, c) }
	var err error
	if e.pd, err = ctx.AllocPD(); err != nil {
		return nil, err
	}
	keep(e.pd)
	if e.mem, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return nil, err
	}
	for i := range e.mem {
		e.mem[i] = byte(i * 7)
	}
	if e.mr, err = e.pd.RegMR(e.mem, verbs.AccessLocalWrite|verbs.AccessRemoteWrite|verbs.AccessRemoteRead); err != nil {
		return nil, err
	}
	keep(e.mr)
	ch, err := ctx.CreateCompChannel()
	if err != nil {
		return nil, err
	}
	keep(ch)
	if e.cq, err = ctx.CreateCQ(4*depth, &verbs.CQConfig{Channel: ch}); err != nil {
		return nil, err
	}
	keep(e.cq)
	e.qp, err = e.pd.CreateQP(verbs.QPConfig{SendCQ: e.cq, RecvCQ: e.cq,
		Cap: verbs.QPCap{MaxSendWR: depth, MaxRecvWR: 2 * depth, MaxSendSGE: 1, MaxRecvSGE: 1, MaxInlineData: 64}})
	if err != nil {
		return nil, err
	}
	keep(e.qp)
	e.gid, err = ctx.SelectGID(1, netip.Addr{})
	return e, err
}

func (e *end) close() {
	for i := len(e.closer) - 1; i >= 0; i-- {
		e.closer[i].Close()
	}
	_ = unix.Munmap(e.mem)
}

func (e *end) connect(to *end) error {
	pa, err := e.ctx.QueryPort(1)
	if err != nil {
		return err
	}
	steps := []struct {
		a    verbs.QPAttr
		mask verbs.QPAttrMask
	}{
		{verbs.QPAttr{State: verbs.QPSInit, PortNum: 1, AccessFlags: verbs.AccessLocalWrite | verbs.AccessRemoteWrite | verbs.AccessRemoteRead},
			verbs.QPAttrState | verbs.QPAttrPKeyIndex | verbs.QPAttrPort | verbs.QPAttrAccessFlags},
		{verbs.QPAttr{State: verbs.QPSRTR, PathMTU: pa.ActiveMTU, DestQPN: to.qp.QPN(), MaxDestRdAtomic: 16, MinRNRTimer: 12,
			AH: verbs.AHAttr{IsGlobal: true, PortNum: 1, GRH: verbs.GlobalRoute{DGID: to.gid.GID, SGIDIndex: uint8(e.gid.Index), HopLimit: 64}}},
			verbs.QPAttrState | verbs.QPAttrAV | verbs.QPAttrPathMTU | verbs.QPAttrDestQPN | verbs.QPAttrRQPSN | verbs.QPAttrMaxDestRdAtomic | verbs.QPAttrMinRNRTimer},
		{verbs.QPAttr{State: verbs.QPSRTS, Timeout: 14, RetryCnt: 6, RNRRetry: 7, MaxRdAtomic: 16},
			verbs.QPAttrState | verbs.QPAttrSQPSN | verbs.QPAttrTimeout | verbs.QPAttrRetryCnt | verbs.QPAttrRNRRetry | verbs.QPAttrMaxQPRdAtomic},
	}
	for _, s := range steps {
		if err := e.qp.Modify(s.a, s.mask); err != nil {
			return err
		}
	}
	return nil
}

// newPair connects two ends, each with size bytes of memory.
func newPair(ca, cb *verbs.Context, size int, how waiting) (a, b *end, err error) {
	if a, err = newEnd(ca, size); err != nil {
		return nil, nil, err
	}
	if b, err = newEnd(cb, size); err != nil {
		return nil, nil, err
	}
	a.how, b.how = how, how
	if err := a.connect(b); err != nil {
		return nil, nil, err
	}
	return a, b, b.connect(a)
}

// sge is the element of n bytes at off of the registered buffer.
func (e *end) sge(off, n int) verbs.SGE {
	return verbs.SGE{Addr: e.mr.Addr() + uint64(off), Length: uint32(n), LKey: e.mr.LKey()}
}

// wait waits for at least one completion and checks all it got.
func (e *end) wait() ([]verbs.WC, error) {
	for {
		var n int
		var err error
		switch e.how {
		case polling:
			n, err = e.cq.PollSpin(e.wc, 100_000)
		case sleeping:
			n, err = e.cq.Wait(context.Background(), e.wc, 0)
		default:
			n, err = e.cq.Wait(context.Background(), e.wc, verbs.SpinAdaptive)
		}
		if err != nil {
			return nil, err
		}
		for j := range e.wc[:n] {
			if w := &e.wc[j]; w.Status != verbs.WCSuccess {
				return nil, fmt.Errorf("work request %d: %v", w.WRID, w.Status)
			}
		}
		if n > 0 {
			return e.wc[:n], nil
		}
	}
}
