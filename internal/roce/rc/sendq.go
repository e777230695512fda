package rc

import (
	"github.com/zrdma/zrdma/internal/provider"
)

// request is a posted send work request.
type request struct {
	wr      provider.WR
	sge     []provider.SGE // len: elements in use, cap: the slot's share
	inline  []byte         // likewise
	length  uint32
	psn     int64 // first packet, valid once started
	npsn    int64 // packets; 0 for local operations
	started bool
	done    bool              // a local operation that ran
	fail    provider.WCStatus // cannot be sent: fails when at head
}

func (w *request) end() int64 { return w.psn + w.npsn }

// isRd reports an operation that only its own response completes.
func (w *request) isRd() bool {
	switch w.wr.Opcode {
	case provider.WRRDMARead, provider.WRAtomicCmpAndSwp, provider.WRAtomicFetchAndAdd:
		return true
	}
	return false
}

// requester is the sending half; its invariants are in the package comment.
type requester struct {
	ring            []request
	head, cur, tail uint64
	una, nxt, high  int64
	asked           int64 // end of the last packet that asked for an ACK, in this pass
	rdOut           int   // READ pieces and atomics in flight, in this pass

	goneBack    bool  // what the peer says about una was acted on
	retries     int   // go-backs since una moved
	rnrTries    int   // RNR NAKs since una moved
	ackDeadline int64 // 0: not armed
	probeAt     int64 // likewise; before ackDeadline, and not counted as a retry
	probes      int   // since una moved
	probing     bool  // only one packet, or piece of a READ, is sent until una moves past it
	probeHigh   int64 // high when that began
	resume      resume
	rtt         rtt
	rnrUntil    int64 // 0: not waiting

	orig [8]byte // an atomic response on its way to memory
}

// resume is where a probe interrupted a pass; ok when no READ was in flight.
type resume struct {
	nxt, asked int64
	cur        uint64
	ok         bool
	read       bool // the probe asks for a response, which comes in pieces whatever became of the rest
}

func (r *requester) init(cfg *Config) {
	n, k, b := int(cfg.Cap.MaxSendWR), int(cfg.Cap.MaxSendSGE), int(cfg.Cap.MaxInlineData)
	r.ring = make([]request, n)
	sge, inline := make([]provider.SGE, n*k), make([]byte, n*b)
	for i := range r.ring {
		r.ring[i].sge = sge[i*k : i*k : (i+1)*k]
		r.ring[i].inline = inline[i*b : i*b : (i+1)*b]
	}
}

func (r *requester) at(i uint64) *request { return &r.ring[i%uint64(len(r.ring))] }

func (r *requester) clear() {
	*r = requester{ring: r.ring, una: psnBase, nxt: psnBase, high: psnBase, asked: psnBase}
}

func (r *requester) stopTimers() { r.ackDeadline, r.probeAt, r.rnrUntil = 0, 0, 0 }

// CheckSend says whether PostSend would take a request, were there room.
func (q *QP) CheckSend(wr *provider.WR, sge []provider.SGE) error {
	_, err := q.checkSend(wr, sge)
	return err
}

// SendRoom is how many requests can be posted.
func (q *QP) SendRoom() int { return len(q.req.ring) - int(q.req.tail-q.req.head) }

// checkSend gives the number of bytes that a request moves.
func (q *QP) checkSend(wr *provider.WR, sge []provider.SGE) (uint32, error) {
	w := &q.req.ring[0] // every slot is alike
	length, ok := Total(sge)
	if !ok || len(sge) > cap(w.sge) {
		return 0, errInval
	}
	inline := wr.Flags&provider.SendInline != 0
	switch wr.Opcode {
	case provider.WRSend, provider.WRSendWithImm, provider.WRSendWithInv, provider.WRRDMAWrite, provider.WRRDMAWriteWithImm:
		if inline && length > uint32(cap(w.inline)) {
			return 0, errInval
		}
		return length, nil
	case provider.WRRDMARead:
		if inline {
			return 0, errInval
		}
		return length, nil
	case provider.WRAtomicCmpAndSwp, provider.WRAtomicFetchAndAdd:
		if inline || length < 8 {
			return 0, errInval
		}
		return 8, nil
	case provider.WRLocalInv, provider.WRBindMW:
		return 0, nil
	}
	return 0, errUnsupported
}

// PostSend queues a request, copying sge and inline data.
//
// Verb: ibv_post_send(3).
func (q *QP) PostSend(wr *provider.WR, sge []provider.SGE) error {
	r := &q.req
	switch q.state {
	case provider.QPSRTS, provider.QPSSQD, provider.QPSErr:
	default:
		return errInval
	}
	if r.tail-r.head == uint64(len(r.ring)) {
		return errFull
	}
	length, err := q.checkSend(wr, sge)
	if err != nil {
		return err
	}
	w := r.at(r.tail)
	inline := wr.Flags&provider.SendInline != 0
	if wr.Opcode == provider.WRLocalInv || wr.Opcode == provider.WRBindMW {
		sge, inline = nil, false
	}
	*w = request{wr: *wr, sge: append(w.sge[:0], sge...), inline: w.inline[:0], length: length}
	if inline {
		for _, s := range sge {
			if s.Length == 0 {
				continue
			}
			b, ok := q.mem.Inline(s.Addr, s.Length)
			if !ok {
				return errInval
			}
			w.inline = append(w.inline, b...)
		}
		w.sge = w.sge[:0]
	}
	r.tail++
	if q.state == provider.QPSErr {
		q.retire(provider.WCWRFlushErr)
	}
	return nil
}

// PostRecv queues a receive request of a QP without SRQ.
//
// Verb: ibv_post_recv(3).
func (q *QP) PostRecv(id uint64, sge []provider.SGE) error {
	if q.rq == nil || q.state == provider.QPSReset {
		return errInval
	}
	if _, ok := Total(sge); !ok {
		return errInval
	}
	if err := q.rq.Post(id, sge); err != nil {
		return err
	}
	if q.state == provider.QPSErr {
		q.flushRecv()
	}
	return nil
}

// WCOpcode names the operation in its completion.
func WCOpcode(o provider.WROpcode) provider.WCOpcode {
	switch o {
	case provider.WRRDMAWrite, provider.WRRDMAWriteWithImm:
		return provider.WCRDMAWrite
	case provider.WRRDMARead:
		return provider.WCRDMARead
	case provider.WRAtomicCmpAndSwp:
		return provider.WCCompSwap
	case provider.WRAtomicFetchAndAdd:
		return provider.WCFetchAdd
	case provider.WRLocalInv:
		return provider.WCLocalInv
	case provider.WRBindMW:
		return provider.WCBindMW
	}
	return provider.WCSend
}

// retire completes the request at head. A success that nobody asked to hear of
// is silent.
func (q *QP) retire(s provider.WCStatus) {
	r := &q.req
	w := r.at(r.head)
	r.head++
	r.cur = max(r.cur, r.head)
	if s == provider.WCSuccess && !q.cfg.SQSigAll && w.wr.Flags&provider.SendSignaled == 0 {
		return
	}
	q.wc = provider.WC{WRID: w.wr.ID, Status: s, Opcode: WCOpcode(w.wr.Opcode), QPN: q.cfg.QPN}
	if s == provider.WCSuccess && w.isRd() {
		q.wc.ByteLen = w.length
	}
	q.sink.SendDone(&q.wc)
}

// failHead ends the connection with the request at head.
func (q *QP) failHead(s provider.WCStatus) {
	if q.req.head != q.req.tail {
		q.retire(s)
	}
	q.toErr()
}

// settle retires what is finished at head without an answer: local operations
// that ran, requests that cannot be sent.
func (q *QP) settle() {
	r := &q.req
	for r.head != r.tail {
		switch w := r.at(r.head); {
		case w.fail != 0:
			q.failHead(w.fail)
			return
		case w.done:
			q.retire(provider.WCSuccess)
		default:
			return
		}
	}
}
