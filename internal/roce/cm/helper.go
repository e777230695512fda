package cm

import (
	"context"

	"github.com/zrdma/zrdma/internal/provider"
)

// PD is the domain of ids that bring none, nil before the id is bound.
func (x *id) PD() provider.PD {
	if x.Context() == nil {
		return nil
	}
	pd, err := x.m.domain()
	if err != nil {
		return nil
	}
	return pd
}

// CreateSRQ makes a shared receive queue for the id's queue pair.
func (x *id) CreateSRQ(in *provider.SRQInit) (provider.SRQ, error) {
	ctx := x.Context()
	if ctx == nil {
		return nil, errInval
	}
	if in.PD == nil {
		pd, err := x.m.domain()
		if err != nil {
			return nil, err
		}
		in.PD = pd
	}
	return ctx.CreateSRQ(in)
}

// RegHelper registers memory in the id's domain.
func (x *id) RegHelper(kind provider.CMRegKind, addr, length uint64) (provider.MR, error) {
	pd := x.PD()
	if pd == nil {
		return nil, errInval
	}
	access := provider.AccessLocalWrite
	switch kind {
	case provider.CMRegRead:
		access |= provider.AccessRemoteRead
	case provider.CMRegWrite:
		access |= provider.AccessRemoteWrite
	}
	return pd.RegMR(addr, length, addr, false, access)
}

func (x *id) queuePair() *ownedQP {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.qp
}

// PostHelper posts one request on one piece of memory.
func (x *id) PostHelper(p *provider.CMPost) error {
	s := provider.SGE{Addr: p.Addr, Length: uint32(p.Length)}
	if p.Length > 1<<32-1 {
		return errInval
	}
	if p.MR != nil {
		s.LKey = p.MR.LKey()
	}
	return x.PostHelperV(p, []provider.SGE{s})
}

// PostHelperV posts one request.
func (x *id) PostHelperV(p *provider.CMPost, sge []provider.SGE) error {
	q := x.queuePair()
	if q == nil {
		return errInval
	}
	if p.Op == provider.CMPostRecv {
		wr := []provider.RecvWR{{ID: p.ID, NumSGE: uint32(len(sge))}}
		var err error
		if q.srq != nil {
			_, err = q.srq.PostRecv(wr, sge)
		} else {
			_, err = q.PostRecv(wr, sge)
		}
		return err
	}
	wr := provider.WR{ID: p.ID, Flags: p.Flags, NumSGE: uint32(len(sge)), RemoteAddr: p.RemoteAddr, RKey: p.RKey}
	switch p.Op {
	case provider.CMPostSend:
		wr.Opcode = provider.WRSend
	case provider.CMPostRead:
		wr.Opcode = provider.WRRDMARead
	case provider.CMPostWrite:
		wr.Opcode = provider.WRRDMAWrite
	case provider.CMPostUDSend:
		if p.AH == nil {
			return errInval
		}
		wr.Opcode, wr.AH, wr.RemoteQPN, wr.RemoteQKey = provider.WRSend, p.AH.Handle(), p.RemoteQPN, udQKey
	default:
		return errInval
	}
	_, err := q.PostSend([]provider.WR{wr}, sge)
	return err
}

// GetComp waits for a completion of a queue of the id's own.
func (x *id) GetComp(ctx context.Context, recv bool, wc *provider.WC) error {
	i := 0
	if recv {
		i = 1
	}
	x.mu.Lock()
	var c *comp
	if x.qp != nil {
		c = x.qp.comp[i]
	}
	if c != nil {
		c.users.Add(1)
	}
	x.mu.Unlock()
	if c == nil {
		return errInval
	}
	return c.get(ctx, wc)
}
