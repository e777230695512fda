// Package bench is the Go side of the comparison with perftest: both ends of
// send latency, send rate, write and read bandwidth, with perftest's parameters.
package bench

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/verbs"
)

// Config is one measurement; both ends have the same.
type Config struct {
	Dev     string
	Test    string // send_lat, send_bw, write_bw or read_bw
	Size    int
	Iters   int
	TxDepth int
	RxDepth int
	CQMod   int    // one signalled request in so many
	Batch   int    // requests of one PostSend; perftest's -l
	Wait    string // spin, poll, events, park, ...: see waiter
	Server  bool
}

// Result is what the client reports. Units are perftest's: microseconds of half
// a round trip, MiB/s, million messages a second.
type Result struct {
	Test  string  `json:"test"`
	Size  int     `json:"size"`
	Iters int     `json:"iters"`
	Wait  string  `json:"wait"`
	Batch int     `json:"batch"`
	LatUS float64 `json:"lat_us,omitempty"`
	TypUS float64 `json:"typ_us,omitempty"` // the median of runs of sampleTurns
	MiBps float64 `json:"mib_s,omitempty"`
	Mpps  float64 `json:"mpps,omitempty"`

	// Of the process, while it measured.
	UserMS, SysMS         float64
	Switches, Preemptions int64 // voluntary and not
}

type end struct {
	cfg      Config
	ctx      *verbs.Context
	pd       *verbs.PD
	qp       *verbs.QP
	mr       *verbs.MR
	scq, rcq *verbs.CQ
	peer     address
	conn     net.Conn
	lat      samples
	in       *json.Decoder // one for all: it reads ahead
	closers  []interface{ Close() error }
}

// address is what the ends tell each other over TCP.
type address struct {
	GID  verbs.GID
	QPN  uint32
	PSN  uint32
	Addr uint64
	RKey uint32
}

func (e *end) keep(c interface{ Close() error }) { e.closers = append(e.closers, c) }

func (e *end) close() {
	for i := len(e.closers) - 1; i >= 0; i-- {
		e.closers[i].Close()
	}
}

func (e *end) cq(n int, events bool) (*verbs.CQ, error) {
	cfg := &verbs.CQConfig{}
	if events {
		ch, err := e.ctx.CreateCompChannel()
		if err != nil {
			return nil, err
		}
		e.keep(ch)
		cfg.Channel = ch
	}
	q, err := e.ctx.CreateCQ(n, cfg)
	if err == nil {
		e.keep(q)
	}
	return q, err
}

// open makes the objects of one end and connects them to the peer behind conn.
func open(cfg Config, conn net.Conn) (e *end, err error) {
	e = &end{cfg: cfg, conn: conn, in: json.NewDecoder(conn)}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if e.ctx, err = verbs.Open(cfg.Dev); err != nil {
		return e, err
	}
	e.keep(e.ctx)
	if e.pd, err = e.ctx.AllocPD(); err != nil {
		return e, err
	}
	e.keep(e.pd)
	events := usesEvents(cfg.Wait)
	if e.scq, err = e.cq(cfg.TxDepth, events); err != nil {
		return e, err
	}
	if e.rcq, err = e.cq(cfg.RxDepth, events); err != nil {
		return e, err
	}
	mem, err := unix.Mmap(-1, 0, 2*max(cfg.Size, 4096), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return e, err
	}
	if e.mr, err = e.pd.RegMR(mem, verbs.AccessLocalWrite|verbs.AccessRemoteWrite|verbs.AccessRemoteRead); err != nil {
		return e, err
	}
	e.keep(e.mr)
	e.qp, err = e.pd.CreateQP(verbs.QPConfig{SendCQ: e.scq, RecvCQ: e.rcq,
		Cap: verbs.QPCap{MaxSendWR: uint32(cfg.TxDepth), MaxRecvWR: uint32(cfg.RxDepth), MaxSendSGE: 1, MaxRecvSGE: 1}})
	if err != nil {
		return e, err
	}
	e.keep(e.qp)
	return e, e.connect()
}

func (e *end) connect() error {
	port, err := e.ctx.ActivePort()
	if err != nil {
		return err
	}
	pa, err := e.ctx.QueryPort(port)
	if err != nil {
		return err
	}
	gid, err := e.ctx.SelectGID(port, netip.Addr{})
	if err != nil {
		return err
	}
	init := verbs.QPAttr{State: verbs.QPSInit, PortNum: port,
		AccessFlags: verbs.AccessLocalWrite | verbs.AccessRemoteWrite | verbs.AccessRemoteRead}
	if err := e.qp.Modify(init, verbs.QPAttrState|verbs.QPAttrPKeyIndex|verbs.QPAttrPort|verbs.QPAttrAccessFlags); err != nil {
		return err
	}
	me := address{GID: gid.GID, QPN: e.qp.QPN(), PSN: 0x1234, Addr: e.mr.Addr(), RKey: uint32(e.mr.RKey())}
	if err := e.swap(me, &e.peer); err != nil {
		return err
	}
	dev, err := e.ctx.QueryDevice()
	if err != nil {
		return err
	}
	reads := uint8(min(int(dev.MaxQPRdAtom), 128))
	rtr := verbs.QPAttr{State: verbs.QPSRTR, PathMTU: pa.ActiveMTU, DestQPN: e.peer.QPN, RQPSN: e.peer.PSN,
		MaxDestRdAtomic: reads, MinRNRTimer: 12,
		AH: verbs.AHAttr{IsGlobal: true, PortNum: port, GRH: verbs.GlobalRoute{DGID: e.peer.GID, SGIDIndex: uint8(gid.Index), HopLimit: 64}}}
	err = e.qp.Modify(rtr, verbs.QPAttrState|verbs.QPAttrAV|verbs.QPAttrPathMTU|verbs.QPAttrDestQPN|verbs.QPAttrRQPSN|
		verbs.QPAttrMaxDestRdAtomic|verbs.QPAttrMinRNRTimer)
	if err != nil {
		return err
	}
	rts := verbs.QPAttr{State: verbs.QPSRTS, SQPSN: me.PSN, Timeout: 14, RetryCnt: 6, RNRRetry: 7, MaxRdAtomic: reads}
	return e.qp.Modify(rts, verbs.QPAttrState|verbs.QPAttrSQPSN|verbs.QPAttrTimeout|verbs.QPAttrRetryCnt|verbs.QPAttrRNRRetry|verbs.QPAttrMaxQPRdAtomic)
}

// swap sends v to the peer and reads the peer's; it is also the barrier.
func (e *end) swap(v, peer any) error {
	e.conn.SetDeadline(time.Now().Add(60 * time.Second))
	if err := json.NewEncoder(e.conn).Encode(v); err != nil {
		return fmt.Errorf("to the peer: %w", err)
	}
	if err := e.in.Decode(peer); err != nil {
		return fmt.Errorf("from the peer: %w", err)
	}
	return nil
}

func (e *end) barrier() error {
	var x int
	return e.swap(1, &x)
}
