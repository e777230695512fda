package bench

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zrdma/zrdma/verbs"
)

// Run is one end of a measurement, over a connection to the other. Only the
// client's result means something.
func Run(ctx context.Context, cfg Config, conn net.Conn) (Result, error) {
	r := Result{Test: cfg.Test, Size: cfg.Size, Iters: cfg.Iters, Wait: cfg.Wait, Batch: cfg.Batch}
	w, err := waiter(cfg.Wait)
	if err != nil {
		return r, err
	}
	e, err := open(cfg, conn)
	if err != nil {
		return r, err
	}
	defer e.close()
	var took time.Duration
	before := usage()
	switch {
	case cfg.Test == "send_lat" && cfg.Wait == exchange:
		took, err = e.turns(ctx)
	case cfg.Test == "send_lat":
		took, err = e.pingpong(ctx, w)
	case cfg.Test == "send_bw" && cfg.Server && cfg.Wait == exchange:
		err = e.sinkTurns(ctx)
	case cfg.Test == "send_bw" && cfg.Server:
		err = e.sink(ctx, w)
	case cfg.Server:
		err = e.barrier()
	default:
		took, err = e.source(ctx, w)
	}
	if err != nil {
		return r, err
	}
	r.spent(before, usage())
	if err := e.barrier(); err != nil {
		return r, err
	}
	s := took.Seconds()
	if cfg.Test == "send_lat" {
		r.LatUS = s * 1e6 / float64(cfg.Iters) / 2
		r.TypUS = e.lat.median()
	} else if s > 0 {
		r.MiBps = float64(cfg.Iters) * float64(cfg.Size) / (1 << 20) / s
		r.Mpps = float64(cfg.Iters) / s / 1e6
	}
	return r, nil
}

func (e *end) recvs(n int) []verbs.RecvWR {
	sg := []verbs.SGE{e.mr.SGE(int(e.mr.Len())/2, e.cfg.Size)}
	wr := make([]verbs.RecvWR, n)
	for i := range wr {
		wr[i].SGList = sg
	}
	return wr
}

// pingpong is ib_send_lat: each end has one message under way, takes the
// completion of its send, and posts a new receive for each that completed.
func (e *end) pingpong(ctx context.Context, w wait) (time.Duration, error) {
	if _, err := e.qp.PostRecv(e.recvs(e.cfg.RxDepth)); err != nil {
		return 0, err
	}
	if err := e.barrier(); err != nil {
		return 0, err
	}
	recv := e.recvs(1)
	send := []verbs.SendWR{{Opcode: verbs.WRSend, Flags: verbs.SendSignaled, SGList: []verbs.SGE{e.mr.SGE(0, e.cfg.Size)}}}
	wc := make([]verbs.WC, 1)
	one := func(q *verbs.CQ) error {
		if _, err := w(ctx, q, wc); err != nil {
			return err
		}
		return verbs.WCErr(&wc[0])
	}
	start := e.lat.start(e.cfg.Iters)
	for i := range e.cfg.Iters + 1 {
		e.lat.turn(i)
		if i > 0 || e.cfg.Server {
			if err := one(e.rcq); err != nil {
				return 0, err
			}
			if _, err := e.qp.PostRecv(recv); err != nil {
				return 0, err
			}
		}
		if i == e.cfg.Iters {
			break
		}
		if _, err := e.qp.PostSend(send); err != nil {
			return 0, err
		}
		if err := one(e.scq); err != nil {
			return 0, err
		}
		if e.cfg.Server && i == e.cfg.Iters-1 {
			break
		}
	}
	return time.Since(start), nil
}

// pollBatch is how many completions perftest takes at a time.
const pollBatch = 16

// source is the client of the bandwidth tests: as many requests under way as
// the queue has room for, one in CQMod signalled.
func (e *end) source(ctx context.Context, w wait) (time.Duration, error) {
	c := &e.cfg
	proto := verbs.SendWR{Opcode: verbs.WRSend, SGList: []verbs.SGE{e.mr.SGE(0, c.Size)}, RemoteAddr: e.peer.Addr, RKey: verbs.RKey(e.peer.RKey)}
	switch c.Test {
	case "write_bw":
		proto.Opcode = verbs.WRRDMAWrite
	case "read_bw":
		proto.Opcode = verbs.WRRDMARead
	}
	wrs := make([]verbs.SendWR, c.Batch)
	for i := range wrs {
		wrs[i] = proto
	}
	wc := make([]verbs.WC, pollBatch)
	if err := e.barrier(); err != nil {
		return 0, err
	}
	posted, done := 0, 0
	start := time.Now()
	for done < c.Iters {
		for posted < c.Iters {
			k := min(c.Batch, c.Iters-posted)
			if posted+k-done > c.TxDepth {
				break
			}
			for i := range k {
				p := posted + i + 1
				wrs[i].Flags = 0
				if p%c.CQMod == 0 || p == c.Iters {
					wrs[i].Flags = verbs.SendSignaled
				}
			}
			if n, err := e.qp.PostSend(wrs[:k]); err != nil {
				return 0, fmt.Errorf("post %d: %w", posted+n, err)
			}
			posted += k
		}
		n, err := w(ctx, e.scq, wc)
		if err != nil {
			return 0, err
		}
		for i := range n {
			if err := verbs.WCErr(&wc[i]); err != nil {
				return 0, err
			}
			done = min(done+c.CQMod, c.Iters)
		}
	}
	return time.Since(start), nil
}

// sink is the server of ib_send_bw: it posts a receive for each that completed.
func (e *end) sink(ctx context.Context, w wait) error {
	if _, err := e.qp.PostRecv(e.recvs(e.cfg.RxDepth)); err != nil {
		return err
	}
	if err := e.barrier(); err != nil {
		return err
	}
	recv := e.recvs(pollBatch)
	wc := make([]verbs.WC, pollBatch)
	for got := 0; got < e.cfg.Iters; {
		n, err := w(ctx, e.rcq, wc)
		if err != nil {
			return err
		}
		for i := range n {
			if err := verbs.WCErr(&wc[i]); err != nil {
				return err
			}
		}
		got += n
		if _, err := e.qp.PostRecv(recv[:n]); err != nil {
			return err
		}
	}
	return nil
}

func usage() (u unix.Rusage) {
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return u
}

func (r *Result) spent(a, b unix.Rusage) {
	r.UserMS = float64(b.Utime.Nano()-a.Utime.Nano()) / 1e6
	r.SysMS = float64(b.Stime.Nano()-a.Stime.Nano()) / 1e6
	r.Switches, r.Preemptions = b.Nvcsw-a.Nvcsw, b.Nivcsw-a.Nivcsw
}
