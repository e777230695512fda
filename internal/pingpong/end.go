package pingpong

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/zrdma/zrdma/internal/endpoint"
	"github.com/zrdma/zrdma/verbs"
)

// grhLen is what stands before a datagram in its receive buffer.
const grhLen = 40

// end is one side of a session: a queue pair and slots of size bytes each.
type end struct {
	d     *Device
	o     Options
	gid   verbs.GIDEntry
	psn   uint32
	head  int // bytes before a message in its slot
	slots int

	buf   []byte
	pd    *verbs.PD
	mr    *verbs.MR
	ch    *verbs.CompChannel
	cq    *verbs.CQ
	qp    *verbs.QP
	armed bool
	wc    [16]verbs.WC
	own   []func() error // closes what is ours, last to first

	echoed atomic.Int64 // messages that were answered

	// UD: where messages go.
	ah      *verbs.AH
	qpn     uint32
	peerKey uint32
	qkey    uint32 // ours
}

func (d *Device) prepare(o Options, slots int) *end {
	e := &end{d: d, o: o, psn: rand.Uint32() & 0xffffff, slots: slots}
	if o.Transport == UD {
		e.head, e.qkey = grhLen, rand.Uint32()&0x7fffffff // the top bit is for the privileged
	}
	e.buf = make([]byte, (e.head+o.Size)*slots)
	return e
}

// newEnd makes an end whose peer is met over TCP.
func (d *Device) newEnd(gid verbs.GIDEntry, o Options, slots int) (*end, error) {
	e := d.prepare(o, slots)
	e.gid = gid
	if err := e.make(); err != nil {
		e.close()
		return nil, endpoint.Step("resources", err)
	}
	init := func() error { return d.Init(e.qp, 0) }
	if o.Transport == UD {
		init = func() error {
			return endpoint.QPErr(verbs.QPSInit, e.qp.Modify(verbs.QPAttr{State: verbs.QPSInit, PortNum: d.Port(), QKey: e.qkey},
				verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrQKey))
		}
	}
	if err := init(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *end) keep(f func() error) { e.own = append(e.own, f) }

func (e *end) make() (err error) {
	ctx := e.d.Context()
	if e.pd, err = ctx.AllocPD(); err != nil {
		return err
	}
	e.keep(e.pd.Close)
	if err := e.register(); err != nil {
		return err
	}
	if err := e.queue(ctx); err != nil {
		return err
	}
	cfg := e.config()
	if e.o.Transport == UD {
		cfg.Type = verbs.QPTUD
	}
	if e.qp, err = e.pd.CreateQP(cfg); err != nil {
		return err
	}
	e.keep(e.qp.Close)
	return nil
}

func (e *end) register() (err error) {
	if e.mr, err = e.pd.RegMR(e.buf, verbs.AccessLocalWrite); err != nil {
		return err
	}
	e.keep(e.mr.Close)
	return nil
}

func (e *end) queue(ctx *verbs.Context) (err error) {
	if e.ch, err = ctx.CreateCompChannel(); err != nil {
		return err
	}
	e.keep(e.ch.Close)
	if e.cq, err = ctx.CreateCQ(2*e.slots, &verbs.CQConfig{Channel: e.ch}); err != nil {
		return err
	}
	e.keep(e.cq.Close)
	return nil
}

func (e *end) config() verbs.QPConfig {
	n := uint32(e.slots)
	return verbs.QPConfig{SendCQ: e.cq, Cap: verbs.QPCap{MaxSendWR: n, MaxRecvWR: n, MaxSendSGE: 1, MaxRecvSGE: 1}}
}

func (e *end) close() error {
	var errs []error
	for i := len(e.own) - 1; i >= 0; i-- {
		errs = append(errs, e.own[i]())
	}
	e.own = nil
	return endpoint.Step("resources", errors.Join(errs...))
}

func (e *end) hello() Hello {
	return Hello{QPN: e.qp.QPN(), PSN: e.psn, LID: e.d.Attr().LID, GID: e.gid.GID, MTU: e.o.MTU, Size: e.o.Size, Transport: e.o.Transport, QKey: e.qkey}
}

// connect moves the queue pair to RTS. Receives must have been posted.
func (e *end) connect(peer Hello) error {
	mtu := min(e.o.MTU, peer.MTU)
	if here := e.d.Attr().ActiveMTU; here == e.o.MTU && here != peer.MTU {
		e.d.Warn("the ports' MTUs differ, %d here and %d there: using %d", 128<<here, 128<<peer.MTU, 128<<mtu)
	}
	to := endpoint.Peer{QPN: peer.QPN, PSN: peer.PSN, LID: peer.LID, GID: peer.GID, MTU: peer.MTU}
	if e.o.Transport == RC {
		return e.d.Device.Connect(e.qp, e.gid, e.psn, mtu, to, e.o.link())
	}
	if err := e.qp.Modify(verbs.QPAttr{State: verbs.QPSRTR}, verbs.QPAttrState); err != nil {
		return endpoint.QPErr(verbs.QPSRTR, err)
	}
	if err := e.qp.Modify(verbs.QPAttr{State: verbs.QPSRTS, SQPSN: e.psn}, verbs.QPAttrState|verbs.QPAttrSQPSN); err != nil {
		return endpoint.QPErr(verbs.QPSRTS, err)
	}
	return e.address(e.d.Path(e.gid, to), peer.QPN, peer.QKey)
}

// address says where datagrams go.
func (e *end) address(a verbs.AHAttr, qpn, qkey uint32) (err error) {
	if e.ah, err = e.pd.CreateAH(a); err != nil {
		return endpoint.Step("route", fmt.Errorf("the peer's address: %w", err))
	}
	e.keep(e.ah.Close)
	e.qpn, e.peerKey = qpn, qkey
	return nil
}

// Work request ids: the slot, and what is done with it.
const sendBit = 1 << 32

func (e *end) stride() int { return e.head + e.o.Size }

// slot is the room of a message.
func (e *end) slot(i int) []byte { return e.buf[i*e.stride()+e.head : (i+1)*e.stride()] }

func (e *end) postRecv(slot int) error {
	_, err := e.qp.PostRecv([]verbs.RecvWR{{ID: uint64(slot), SGList: []verbs.SGE{e.mr.SGE(slot*e.stride(), e.stride())}}})
	return err
}

// postSend sends what is in the slot. Datagrams carry the number of the message.
func (e *end) postSend(slot, n int, number uint32) error {
	w := verbs.SendWR{
		ID: uint64(slot) | sendBit, Opcode: verbs.WRSend, Flags: verbs.SendSignaled,
		SGList: []verbs.SGE{e.mr.SGE(slot*e.stride()+e.head, n)},
	}
	if e.ah != nil {
		w.Opcode, w.Imm, w.AH, w.RemoteQPN, w.RemoteQKey = verbs.WRSendWithImm, number, e.ah, e.qpn, e.peerKey
	}
	_, err := e.qp.PostSend([]verbs.SendWR{w})
	return err
}

// length is that of a message that arrived.
func (e *end) length(w *verbs.WC) int { return int(w.ByteLen) - e.head }

// wait returns at least one completion; they are valid until the next wait. A
// failed one is the error.
func (e *end) wait(ctx context.Context) ([]verbs.WC, error) {
	for {
		n, err := e.pollQueue()
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
		case e.d.poll:
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

func (e *end) pollQueue() (int, error) {
	if e.d.poll {
		return e.cq.PollSpin(e.wc[:], 50_000)
	}
	return e.cq.Poll(e.wc[:])
}
