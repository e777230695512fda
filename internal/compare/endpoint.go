package compare

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/zrdma/zrdma/verbs"
)

// endpoint is one end of a reliable connection, made with package verbs.
type endpoint struct {
	e    *env
	ctx  *verbs.Context
	pd   *verbs.PD
	data *verbs.MR // the server's blocks, the client's places
	msgs *verbs.MR // requests
	cq   *verbs.CQ
	qp   *verbs.QP
	gid  verbs.GIDEntry
	port uint8
	psn  uint32
	wc   []verbs.WC
	peer address

	reads  uint8 // READs under way that the device takes
	closer []func() error
	stop   context.CancelFunc // of watching for events
}

// address is what the ends tell each other over the data connection.
type address struct {
	GID   verbs.GID `json:"gid"`
	QPN   uint32    `json:"qpn"`
	PSN   uint32    `json:"psn"`
	MTU   verbs.MTU `json:"mtu"`
	Reads uint8     `json:"reads"`
	Addr  uint64    `json:"addr"` // of data
	Len   uint64    `json:"len"`
	RKey  uint32    `json:"rkey"`
	Why   string    `json:"why,omitempty"` // it could not be made
}

func localIP(c net.Conn) netip.Addr {
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().WithZone("").Unmap()
	}
	return netip.Addr{}
}

// newEndpoint makes an end with data registered for access. It tells the other end
// when it cannot, so that nobody waits.
func newEndpoint(e *env, data []byte, access verbs.AccessFlags) (*endpoint, error) {
	p := &endpoint{e: e, psn: rand.Uint32() & 0xffffff, wc: make([]verbs.WC, 64)}
	if err := p.make(data, access); err != nil {
		_ = sendFrame(e.conn.c, address{Why: err.Error()})
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *endpoint) make(data []byte, access verbs.AccessFlags) (err error) {
	keep := func(c interface{ Close() error }) { p.closer = append(p.closer, c.Close) }
	if p.ctx, err = openDevice(p.e.device, localIP(p.e.conn.c)); err != nil {
		return err
	}
	keep(p.ctx)
	p.e.m.watch(p.ctx)
	if p.pd, err = p.ctx.AllocPD(); err != nil {
		return err
	}
	keep(p.pd)
	if p.data, err = p.pd.RegMR(data, access); err != nil {
		return err
	}
	keep(p.data)
	depth := p.e.job.depth()
	asks, err := anonymous(depth * askLen)
	if err != nil {
		return err
	}
	m := places{mem: asks}
	p.closer = append(p.closer, m.unmap)
	if p.msgs, err = p.pd.RegMR(asks, verbs.AccessLocalWrite); err != nil {
		return err
	}
	keep(p.msgs)
	ch, err := p.ctx.CreateCompChannel()
	if err != nil {
		return err
	}
	keep(ch)
	if p.cq, err = p.ctx.CreateCQ(4*depth+16, &verbs.CQConfig{Channel: ch}); err != nil {
		return err
	}
	keep(p.cq)
	n := uint32(2*depth + 1)
	p.qp, err = p.pd.CreateQP(verbs.QPConfig{SendCQ: p.cq, RecvCQ: p.cq, Cap: verbs.QPCap{MaxSendWR: n, MaxRecvWR: n, MaxSendSGE: 1, MaxRecvSGE: 1}})
	if err != nil {
		return err
	}
	keep(p.qp)
	if p.port, err = p.ctx.ActivePort(); err != nil {
		return err
	}
	if p.gid, err = p.ctx.SelectGID(p.port, localIP(p.e.conn.c)); err != nil {
		if p.gid, err = p.ctx.SelectGID(p.port, netip.Addr{}); err != nil {
			return err
		}
	}
	a, err := p.ctx.QueryDevice()
	if err != nil {
		return err
	}
	p.reads = uint8(min(int(a.MaxQPRdAtom), int(a.MaxQPInitRdAtom), 16))
	return p.qp.Modify(verbs.QPAttr{State: verbs.QPSInit, PortNum: p.port, AccessFlags: access | verbs.AccessLocalWrite},
		verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrAccessFlags)
}

// connect exchanges addresses and makes the queue pair ready. Receives have been
// posted.
func (p *endpoint) connect() error {
	pa, err := p.ctx.QueryPort(p.port)
	if err != nil {
		return err
	}
	me := address{GID: p.gid.GID, QPN: p.qp.QPN(), PSN: p.psn, MTU: pa.ActiveMTU, Reads: p.reads,
		Addr: p.data.Addr(), Len: p.data.Len(), RKey: uint32(p.data.RKey())}
	if err := sendFrame(p.e.conn.c, me); err != nil {
		return err
	}
	if err := receiveFrame(p.e.conn.c, &p.peer); err != nil {
		return err
	}
	if p.peer.Why != "" {
		return fmt.Errorf("the other end's device: %s", plain(p.peer.Why))
	}
	reads := min(p.reads, p.peer.Reads)
	err = p.qp.Modify(verbs.QPAttr{State: verbs.QPSRTR, PathMTU: min(pa.ActiveMTU, p.peer.MTU), DestQPN: p.peer.QPN, RQPSN: p.peer.PSN,
		MaxDestRdAtomic: reads, MinRNRTimer: 12,
		AH: verbs.AHAttr{IsGlobal: true, PortNum: p.port, GRH: verbs.GlobalRoute{DGID: p.peer.GID, SGIDIndex: uint8(p.gid.Index), HopLimit: 64}}},
		verbs.QPAttrState|verbs.QPAttrAV|verbs.QPAttrPathMTU|verbs.QPAttrDestQPN|verbs.QPAttrRQPSN|verbs.QPAttrMaxDestRdAtomic|verbs.QPAttrMinRNRTimer)
	if err != nil {
		return err
	}
	err = p.qp.Modify(verbs.QPAttr{State: verbs.QPSRTS, SQPSN: p.psn, Timeout: 16, RetryCnt: 6, RNRRetry: 6, MaxRdAtomic: reads},
		verbs.QPAttrState|verbs.QPAttrSQPSN|verbs.QPAttrTimeout|verbs.QPAttrRetryCnt|verbs.QPAttrRNRRetry|verbs.QPAttrMaxQPRdAtomic)
	if err != nil {
		return err
	}
	p.watchEvents()
	return p.barrier()
}

// barrier returns when the other end has come to the same place.
func (p *endpoint) barrier() error {
	if err := sendFrame(p.e.conn.c, "ready"); err != nil {
		return err
	}
	var word string
	return receiveFrame(p.e.conn.c, &word)
}

// watchEvents ends the run when the device is taken away.
func (p *endpoint) watchEvents() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	p.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		for {
			ev, err := p.ctx.GetAsyncEvent(ctx)
			if err != nil {
				return // cancelled, or a device without events
			}
			switch ev.Type {
			case verbs.EventDeviceFatal:
				p.e.fail(fmt.Errorf("device %s was taken away", p.ctx.Name()))
			case verbs.EventPortErr:
				p.e.fail(fmt.Errorf("port %d of %s went down", ev.Port, p.ctx.Name()))
			case verbs.EventQPFatal, verbs.EventQPAccessErr, verbs.EventCQErr:
				p.e.fail(fmt.Errorf("device %s: %v", p.ctx.Name(), ev.Type))
			}
		}
	}()
}

// wait returns at least one completion, all good, valid until the next wait.
func (p *endpoint) wait(ctx context.Context) ([]verbs.WC, error) {
	n, err := p.cq.Wait(ctx, p.wc, verbs.SpinAdaptive)
	if err != nil {
		return nil, err
	}
	for i := range n {
		if err := verbs.WCErr(&p.wc[i]); err != nil {
			return nil, err
		}
	}
	return p.wc[:n], nil
}

func (p *endpoint) close() error {
	if p.stop != nil {
		p.stop()
	}
	var errs []error
	for i := len(p.closer) - 1; i >= 0; i-- {
		errs = append(errs, p.closer[i]())
	}
	p.closer = nil
	return errors.Join(errs...)
}
