package rc

import (
	"syscall"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/wire"
)

// Errors of posting and modifying: bare errnos, as the seam wants them.
const (
	errInval       = syscall.EINVAL
	errFull        = syscall.ENOMEM
	errUnsupported = syscall.EOPNOTSUPP
)

// Config is what a QP is made with.
type Config struct {
	QPN      uint32
	Cap      provider.QPCap
	SQSigAll bool
	Mem      Memory
	Sink     Sink
	SRQ      RecvSource // nil for a receive queue of its own
	Window   int        // packets in flight at most; 0 is 256
	// ReadChunk is how many bytes one READ asks for at most; 0 is 128 KiB. They come
	// back at once whatever the window is: the socket must have room.
	ReadChunk int
	Probe     int64  // ns of silence, at least, after which the peer is asked, and twice that, ...; 0: not before the ACK timeout
	Stats     *Stats // what to count in, shared by many; nil: nothing
	PKey      uint16 // 0 is 0xffff
}

// maxProbes bounds how often a silent peer is asked before its time.
const maxProbes = 4

// maxRd bounds max_dest_rd_atomic, and with it the responder's memory.
const maxRd = 128

// QP is a reliable connected queue pair. See the package comment for its rules.
type QP struct {
	cfg   Config
	mem   Memory
	sink  Sink
	rq    *RecvQueue // nil with an SRQ
	state provider.QPState

	destQPN  uint32
	pkey     uint16
	mtu      int
	access   provider.AccessFlags
	timeout  int64 // ns, 0 endless
	retryCnt int
	rnrRetry int
	minRNR   uint8
	maxRdOut int
	maxRdIn  int
	asyncSQD bool
	sqdDone  bool // SQD has been reported drained
	attr     provider.QPAttr
	win      window
	chunk    int64 // packets of one READ request
	commEst  bool

	req   requester
	resp  responder
	stats *Stats

	// Scratch that would escape as locals.
	pkt  wire.Packet
	wc   provider.WC
	segs [][]byte
}

// New makes a QP in state RESET.
func New(cfg Config) *QP {
	if cfg.Window <= 0 {
		cfg.Window = 256
	}
	if cfg.ReadChunk <= 0 {
		cfg.ReadChunk = readChunk
	}
	if cfg.PKey == 0 {
		cfg.PKey = 0xffff
	}
	cfg.Cap.MaxSendWR, cfg.Cap.MaxRecvWR = max(cfg.Cap.MaxSendWR, 1), max(cfg.Cap.MaxRecvWR, 1)
	cfg.Cap.MaxSendSGE, cfg.Cap.MaxRecvSGE = max(cfg.Cap.MaxSendSGE, 1), max(cfg.Cap.MaxRecvSGE, 1)
	q := &QP{cfg: cfg, mem: cfg.Mem, sink: cfg.Sink, pkey: cfg.PKey, stats: cfg.Stats}
	if q.stats == nil {
		q.stats = new(Stats)
	}
	q.win.init(int64(cfg.Window))
	q.chunk = max(q.win.most/2, 1)
	if cfg.SRQ == nil {
		q.rq = NewRecvQueue(int(cfg.Cap.MaxRecvWR), int(cfg.Cap.MaxRecvSGE))
	}
	q.segs = make([][]byte, 0, cfg.Cap.MaxSendSGE)
	q.req.init(&cfg)
	q.reset()
	return q
}

// State is the current state.
func (q *QP) State() provider.QPState { return q.state }

// Attr gives what Modify set, for a query.
func (q *QP) Attr() provider.QPAttr {
	a := q.attr
	a.State, a.CurState = q.state, q.state
	a.Cap = q.cfg.Cap
	a.SQPSN, a.RQPSN = narrow(q.req.nxt), narrow(q.resp.epsn)
	a.SQDraining = q.state == provider.QPSSQD && !q.sqdDone
	return a
}

// Input takes a packet from the peer. Its payload is used only during the call.
func (q *QP) Input(now int64, p *wire.Packet) {
	switch q.state {
	case provider.QPSRTR, provider.QPSRTS, provider.QPSSQD:
	default:
		return
	}
	switch p.Opcode {
	case wire.RCAck, wire.RCAtomicAck, wire.RCReadRespFirst, wire.RCReadRespMiddle, wire.RCReadRespLast, wire.RCReadRespOnly:
		if q.state != provider.QPSRTR {
			q.response(now, p)
		}
	default:
		if p.Opcode <= wire.RCSendOnlyInv && p.Opcode.Known() {
			q.request(p)
		}
	}
}

// Pump sends at most budget packets: READ responses and requests, half of the
// budget each while both have something to say. It returns how many; when that
// is the budget, there may be more.
func (q *QP) Pump(now int64, budget int) int {
	n := q.pumpResponses((budget + 1) / 2)
	n += q.pumpRequests(now, budget-n)
	if n < budget {
		n += q.pumpResponses(budget - n)
	}
	return n
}

// emit sends q.pkt with the segments in q.segs.
func (q *QP) emit(n int) {
	q.pkt.DestQP, q.pkt.PKey = q.destQPN, q.pkey
	q.sink.Packet(&q.pkt, q.segs, n)
}

// gather puts the n bytes at offset off of a list into q.segs.
func (q *QP) gather(sge []provider.SGE, off, n uint32) (ok bool) {
	q.segs, ok = Gather(q.mem, q.segs[:0], sge, off, n)
	return ok
}

func (q *QP) scatter(sge []provider.SGE, off uint32, b []byte) bool {
	return Scatter(q.mem, sge, off, b)
}
