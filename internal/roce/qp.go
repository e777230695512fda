package roce

import (
	"math/rand/v2"
	"net/netip"
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/rc"
)

// qp is a queue pair: what all transports have in common, and a provider.QP.
// Everything is guarded by node.mu.
type qp struct {
	n      *node
	c      *devCtx
	eng    engine
	cookie uint64
	num    uint32
	typ    provider.QPType
	sigAll bool
	ops    provider.SendOpsFlags // of the builder; 0: made without
	cap    provider.QPCap
	pd     *pd
	scq    *cq
	rcq    *cq
	srq    *srq

	path   path // of a connected transport
	groups int  // multicast groups attached to

	closed  bool
	queued  bool  // in node.run
	touched bool  // in node.touched
	owes    bool  // in node.owed
	at      int64 // when timers looks at it
	slot    int   // place in the heap plus one; 0: not there
}

// path is where a connected queue pair's packets go and come from.
type path struct {
	link int
	dst  netip.Addr // for the link, with its zone
}

// CreateQP makes a queue pair in state RESET.
//
// Verb: ibv_create_qp(3).
func (c *devCtx) CreateQP(in *provider.QPInit) (provider.QP, error) {
	q := &qp{n: c.n, c: c, cookie: in.Cookie, typ: in.Type, sigAll: in.SQSigAll}
	q.pd, _ = in.PD.(*pd)
	q.scq, _ = in.SendCQ.(*cq)
	q.rcq, _ = in.RecvCQ.(*cq)
	q.srq, _ = in.SRQ.(*srq)
	if q.pd != nil {
		q.c = q.pd.c // the connection manager makes queue pairs for other contexts of the node
	}
	switch in.Type {
	case provider.QPTRC, provider.QPTUC, provider.QPTUD:
	default: // raw packets, XRC
		return nil, syscall.EOPNOTSUPP
	}
	if in.XRCD != nil || in.IndTable != nil || in.HashFunction != 0 || in.MaxTSOHeader != 0 || in.CreateFlags != 0 {
		return nil, syscall.EOPNOTSUPP
	}
	if in.SendOps&^sendOps(in.Type) != 0 {
		return nil, syscall.EOPNOTSUPP
	}
	q.ops = in.SendOps
	if q.pd == nil || q.scq == nil || q.rcq == nil || in.SRQ != nil && q.srq == nil || !capsOK(&in.Cap) {
		return nil, syscall.EINVAL
	}
	q.cap = in.Cap
	q.cap.MaxSendWR, q.cap.MaxSendSGE = max(q.cap.MaxSendWR, 1), max(q.cap.MaxSendSGE, 1)
	if q.srq != nil {
		q.cap.MaxRecvWR, q.cap.MaxRecvSGE = 0, 0
	} else {
		q.cap.MaxRecvWR, q.cap.MaxRecvSGE = max(q.cap.MaxRecvWR, 1), max(q.cap.MaxRecvSGE, 1)
	}

	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.open {
		return nil, syscall.ENODEV
	}
	if !n.number(q) {
		return nil, syscall.ENOMEM
	}
	switch in.Type {
	case provider.QPTRC:
		q.eng = newRC(q)
	case provider.QPTUC:
		q.eng = newUC(q)
	default:
		q.eng = newUD(q)
	}
	n.qps[q.num] = q
	in.Cap = q.cap
	return q, nil
}

func capsOK(c *provider.QPCap) bool {
	return c.MaxSendWR <= maxQPWR && c.MaxRecvWR <= maxQPWR && c.MaxSendSGE <= maxSGE && c.MaxRecvSGE <= maxSGE &&
		c.MaxInlineData <= maxInline
}

// sendOps are the builder's operations by transport.
func sendOps(t provider.QPType) provider.SendOpsFlags {
	ops := provider.QPExWithSend | provider.QPExWithSendWithImm
	if t == provider.QPTUD {
		return ops
	}
	ops |= provider.QPExWithRDMAWrite | provider.QPExWithRDMAWriteWithImm | provider.QPExWithSendWithInv |
		provider.QPExWithBindMW | provider.QPExWithLocalInv
	if t == provider.QPTRC {
		ops |= provider.QPExWithRDMARead | provider.QPExWithAtomicCmpAndSwp | provider.QPExWithAtomicFetchAndAdd
	}
	return ops
}

// number gives q its number: from a random start upwards, so that a number
// comes back late and a peer of the former owner does not reach the new one.
func (n *node) number(q *qp) bool {
	if len(n.qps) >= maxQP {
		return false
	}
	if n.lastQPN == 0 {
		if n.lastQPN = uint32(n.mem.seed); n.mem.seed == 0 {
			n.lastQPN = rand.Uint32()
		}
	}
	for {
		n.lastQPN = (n.lastQPN + 1) & 0xffffff
		if n.lastQPN <= gsiQPN || n.lastQPN == mcastQPN || n.qps[n.lastQPN] != nil {
			continue
		}
		q.num = n.lastQPN
		return true
	}
}

// Handle names the queue pair in requests of other objects; the number does.
func (q *qp) Handle() uint64 { return uint64(q.num) }

// QPN is the queue pair number.
func (q *qp) QPN() uint32 { return q.num }

// Query reads the attributes, all of them.
//
// Verb: ibv_query_qp(3).
func (q *qp) Query(a *provider.QPAttr, _ provider.QPAttrMask) (provider.QPInit, error) {
	q.n.mu.Lock()
	defer q.n.mu.Unlock()
	*a = provider.QPAttr{}
	q.eng.query(a)
	a.Cap = q.cap
	return provider.QPInit{Cookie: q.cookie, Type: q.typ, SQSigAll: q.sigAll, Cap: q.cap}, nil
}

// part is the gather list of a request.
func part(sge []provider.SGE, off, num uint32) ([]provider.SGE, bool) {
	end := uint64(off) + uint64(num)
	if end > uint64(len(sge)) {
		return nil, false
	}
	return sge[off:end], true
}

// PostSend queues requests and sends what can be sent at once.
//
// Verb: ibv_post_send(3).
func (q *qp) PostSend(wr []provider.WR, sge []provider.SGE) (int, error) {
	n := q.n
	n.mu.Lock()
	defer n.mu.Unlock()
	i, err := q.postSend(wr, sge)
	if i > 0 {
		n.post(q)
	}
	return i, err
}

func (q *qp) postSend(wr []provider.WR, sge []provider.SGE) (int, error) {
	if q.closed {
		return 0, syscall.EINVAL
	}
	for i := range wr {
		s, ok := part(sge, wr[i].SGEOff, wr[i].NumSGE)
		if !ok {
			return i, syscall.EINVAL
		}
		if err := q.eng.postSend(&wr[i], s); err != nil {
			if builderOp(wr[i].Opcode) == 0 { // an operation that there is not
				err = syscall.EOPNOTSUPP
			}
			return i, err
		}
	}
	return len(wr), nil
}

// WRPost posts all requests or none.
//
// Verb: ibv_wr_start(3), ibv_wr_complete(3), ibv_wr_abort(3).
func (q *qp) WRPost(wr []provider.WR, sge []provider.SGE, dry bool) (int, error) {
	n := q.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if q.ops == 0 {
		return 0, syscall.EOPNOTSUPP
	}
	for i := range wr {
		s, ok := part(sge, wr[i].SGEOff, wr[i].NumSGE)
		if !ok {
			return i, syscall.EINVAL
		}
		if q.ops&builderOp(wr[i].Opcode) == 0 {
			return i, syscall.EOPNOTSUPP
		}
		if err := q.eng.check(&wr[i], s); err != nil {
			return i, err
		}
	}
	switch q.eng.state() {
	case provider.QPSReset, provider.QPSInit, provider.QPSRTR:
		return 0, syscall.EINVAL
	}
	if room := q.eng.room(); len(wr) > room {
		return room, syscall.ENOSPC
	}
	if dry {
		return len(wr), nil
	}
	i, err := q.postSend(wr, sge)
	if i > 0 {
		n.post(q)
	}
	return i, err
}

func builderOp(o provider.WROpcode) provider.SendOpsFlags {
	switch o {
	case provider.WRSend:
		return provider.QPExWithSend
	case provider.WRSendWithImm:
		return provider.QPExWithSendWithImm
	case provider.WRSendWithInv:
		return provider.QPExWithSendWithInv
	case provider.WRRDMAWrite:
		return provider.QPExWithRDMAWrite
	case provider.WRRDMAWriteWithImm:
		return provider.QPExWithRDMAWriteWithImm
	case provider.WRRDMARead:
		return provider.QPExWithRDMARead
	case provider.WRAtomicCmpAndSwp:
		return provider.QPExWithAtomicCmpAndSwp
	case provider.WRAtomicFetchAndAdd:
		return provider.QPExWithAtomicFetchAndAdd
	case provider.WRLocalInv:
		return provider.QPExWithLocalInv
	case provider.WRBindMW:
		return provider.QPExWithBindMW
	}
	return 0
}

// PostRecv queues receive requests.
//
// Verb: ibv_post_recv(3).
func (q *qp) PostRecv(wr []provider.RecvWR, sge []provider.SGE) (int, error) {
	q.n.mu.Lock()
	defer q.n.mu.Unlock()
	if q.closed {
		return 0, syscall.EINVAL
	}
	for i := range wr {
		s, ok := part(sge, wr[i].SGEOff, wr[i].NumSGE)
		if !ok {
			return i, syscall.EINVAL
		}
		if err := q.eng.postRecv(wr[i].ID, s); err != nil {
			return i, err
		}
	}
	return len(wr), nil
}

// BindMW binds a type 1 window; its key changes with every bind.
//
// Verb: ibv_bind_mw(3).
func (q *qp) BindMW(w provider.MW, m provider.MR, id uint64, flags provider.SendFlags, addr, length uint64, access provider.AccessFlags) error {
	win, ok := w.(*mw)
	region, _ := m.(*mr)
	if !ok || m != nil && region == nil {
		return syscall.EINVAL
	}
	wr, err := win.bindWR(region, id, flags, addr, length, access)
	if err != nil {
		return err
	}
	if _, err := q.PostSend([]provider.WR{wr}, nil); err != nil {
		return err
	}
	win.SetRKey(wr.RKey)
	return nil
}

// ModifyRateLimit is not supported.
func (q *qp) ModifyRateLimit(uint32, uint32, uint16) error { return syscall.EOPNOTSUPP }

// DataInOrder promises nothing.
func (q *qp) DataInOrder(provider.WROpcode, uint32) (bool, error) { return false, nil }

// QueryECE is not supported.
func (q *qp) QueryECE() (provider.ECE, error) { return provider.ECE{}, syscall.EOPNOTSUPP }

// SetECE is not supported.
func (q *qp) SetECE(provider.ECE) error { return syscall.EOPNOTSUPP }

// Close destroys the queue pair: when it returns, the device touches none of its
// memory, and its completions are gone from the queues.
//
// Verb: ibv_destroy_qp(3).
func (q *qp) Close() error {
	n := q.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if q.groups > 0 {
		return syscall.EBUSY
	}
	if q.closed {
		return nil
	}
	n.settle(q)
	q.closed = true
	delete(n.qps, q.num)
	n.timers.remove(q)
	if u, ok := q.eng.(interface{ giveBack() }); ok {
		u.giveBack()
	}
	q.forgotten()
	return nil
}

// forgotten removes what a queue pair leaves with others.
func (q *qp) forgotten() {
	q.n.mem.forgetQP(q.num)
	q.scq.clean(q.num)
	q.rcq.clean(q.num)
}

// recvSource is where receives come from: the SRQ, or a queue of the QP's own.
func (q *qp) recvSource(own *rc.RecvQueue) rc.RecvSource {
	if q.srq != nil {
		return q.srq
	}
	return own
}

// event raises an asynchronous event of the queue pair. Nobody but the
// connection manager hears of the first message before RTU, as on rxe.
func (q *qp) event(t provider.EventType) {
	if t == provider.EventCommEst {
		q.n.gsi.commEst(q.n, q.num)
		return
	}
	q.c.raise(t, q.cookie, 0)
}
