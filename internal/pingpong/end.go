package pingpong

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/zrdma/zrdma/verbs"
)

// Retries: a peer that is gone is known after about two seconds. A retry count of
// 7 would mean for ever on rxe.
const (
	ackTimeout = 16 // 4.096 us * 2^16 = 0.27 s
	retries    = 6
	rnrRetries = 6
	minRNR     = 12 // 0.64 ms
)

// end is one side of a session: a queue pair and slots of size bytes each.
type end struct {
	d    *Device
	size int
	gid  verbs.GIDEntry
	psn  uint32

	buf   []byte
	pd    *verbs.PD
	mr    *verbs.MR
	ch    *verbs.CompChannel
	cq    *verbs.CQ
	qp    *verbs.QP
	armed bool
	wc    [16]verbs.WC
}

func (d *Device) newEnd(gid verbs.GIDEntry, size, slots int) (*end, error) {
	e := &end{d: d, size: size, gid: gid, psn: rand.Uint32() & 0xffffff, buf: make([]byte, size*slots)}
	if err := e.make(slots); err != nil {
		e.close()
		return nil, step("resources", err)
	}
	err := e.qp.Modify(verbs.QPAttr{State: verbs.QPSInit, PortNum: d.port},
		verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrAccessFlags)
	if err != nil {
		e.close()
		return nil, connectErr(verbs.QPSInit, err)
	}
	return e, nil
}

func (e *end) make(slots int) (err error) {
	if e.pd, err = e.d.ctx.AllocPD(); err != nil {
		return err
	}
	if e.mr, err = e.pd.RegMR(e.buf, verbs.AccessLocalWrite); err != nil {
		return err
	}
	if e.ch, err = e.d.ctx.CreateCompChannel(); err != nil {
		return err
	}
	if e.cq, err = e.d.ctx.CreateCQ(2*slots, &verbs.CQConfig{Channel: e.ch}); err != nil {
		return err
	}
	n := uint32(slots)
	e.qp, err = e.pd.CreateQP(verbs.QPConfig{SendCQ: e.cq, Cap: verbs.QPCap{MaxSendWR: n, MaxRecvWR: n, MaxSendSGE: 1, MaxRecvSGE: 1}})
	return err
}

func (e *end) close() error {
	var errs []error
	// What was not made is a nil pointer, which must not become a non-nil interface.
	if e.qp != nil {
		errs = append(errs, e.qp.Close())
	}
	if e.cq != nil {
		errs = append(errs, e.cq.Close())
	}
	if e.ch != nil {
		errs = append(errs, e.ch.Close())
	}
	if e.mr != nil {
		errs = append(errs, e.mr.Close())
	}
	if e.pd != nil {
		errs = append(errs, e.pd.Close())
	}
	return step("resources", errors.Join(errs...))
}

func (e *end) hello() Hello {
	return Hello{QPN: e.qp.QPN(), PSN: e.psn, LID: e.d.attr.LID, GID: e.gid.GID, MTU: e.d.attr.ActiveMTU, Size: e.size}
}

// connect moves the queue pair to RTS. Receives must have been posted.
func (e *end) connect(peer Hello) error {
	mtu := min(e.d.attr.ActiveMTU, peer.MTU)
	if e.d.attr.ActiveMTU != peer.MTU {
		e.d.cfg.Warn("the ports' MTUs differ, %d here and %d there: using %d", 128<<e.d.attr.ActiveMTU, 128<<peer.MTU, 128<<mtu)
	}
	path := verbs.AHAttr{DLID: peer.LID, PortNum: e.d.port}
	if !peer.GID.IsZero() && (e.d.attr.LinkLayer != verbs.LinkLayerInfiniband || peer.LID == 0) {
		path.IsGlobal = true
		path.GRH = verbs.GlobalRoute{DGID: peer.GID, SGIDIndex: uint8(e.gid.Index), HopLimit: 64}
	}
	err := e.qp.Modify(verbs.QPAttr{State: verbs.QPSRTR, PathMTU: mtu, DestQPN: peer.QPN, RQPSN: peer.PSN, AH: path, MaxDestRdAtomic: 1, MinRNRTimer: minRNR},
		verbs.QPAttrState|verbs.QPAttrAV|verbs.QPAttrPathMTU|verbs.QPAttrDestQPN|verbs.QPAttrRQPSN|verbs.QPAttrMaxDestRdAtomic|verbs.QPAttrMinRNRTimer)
	if err != nil {
		return connectErr(verbs.QPSRTR, err)
	}
	return connectErr(verbs.QPSRTS, e.qp.Modify(verbs.QPAttr{State: verbs.QPSRTS, SQPSN: e.psn, Timeout: ackTimeout, RetryCnt: retries, RNRRetry: rnrRetries, MaxRdAtomic: 1},
		verbs.QPAttrState|verbs.QPAttrSQPSN|verbs.QPAttrTimeout|verbs.QPAttrRetryCnt|verbs.QPAttrRNRRetry|verbs.QPAttrMaxQPRdAtomic))
}

// Work request ids: the slot, and what is done with it.
const sendBit = 1 << 32

func (e *end) slot(i int) []byte { return e.buf[i*e.size : (i+1)*e.size] }

func (e *end) postRecv(slot int) error {
	_, err := e.qp.PostRecv([]verbs.RecvWR{{ID: uint64(slot), SGList: []verbs.SGE{e.mr.SGE(slot*e.size, e.size)}}})
	return err
}

func (e *end) postSend(slot, n int) error {
	_, err := e.qp.PostSend([]verbs.SendWR{{
		ID: uint64(slot) | sendBit, Opcode: verbs.WRSend, Flags: verbs.SendSignaled,
		SGList: []verbs.SGE{e.mr.SGE(slot*e.size, n)},
	}})
	return err
}

// wait returns at least one completion; they are valid until the next wait. A
// failed one is the error.
func (e *end) wait(ctx context.Context) ([]verbs.WC, error) {
	for {
		n, err := e.poll()
		if err != nil {
			return nil, err
		}
		for i := range e.wc[:n] {
			if err := verbs.WCErr(&e.wc[i]); err != nil {
				return nil, err
			}
		}
		if n > 0 {
			return e.wc[:n], nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		switch {
		case e.d.cfg.Poll:
		case !e.armed:
			// A completion before this raised no event: poll once more.
			if err := e.cq.ReqNotify(false); err != nil {
				return nil, err
			}
			e.armed = true
		default:
			if _, err := e.ch.Get(ctx); err != nil {
				return nil, err
			}
			e.armed = false
		}
	}
}

func (e *end) poll() (int, error) {
	if e.d.cfg.Poll {
		return e.cq.PollSpin(e.wc[:], 50_000)
	}
	return e.cq.Poll(e.wc[:])
}

// localIP is our address on the connection, invalid when it has none.
func localIP(c net.Conn) netip.Addr {
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().WithZone("").Unmap()
	}
	return netip.Addr{}
}
