package verbs

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Drain moves the queue pair to QPSErr and takes completions until every work
// request posted before has completed, most of them with WCWRFlushErr. It posts
// a marker to each work queue and waits for both. Completions that are not the
// markers, those of other queue pairs on the same completion queues among them,
// go to each, which may be nil; the WC is valid during the call only.
//
// While it runs nobody else may poll these completion queues, or post to the
// queue pair. A marker carries a random 64-bit id. Receives of a shared receive
// queue stay there for other queue pairs: there is no marker for them. A queue
// pair in QPSReset has nothing to drain. When ctx ends first its error is
// returned; the queue pair is then in QPSErr and Drain may be called again.
//
// Verb: ibv_modify_qp(3), ibv_post_send(3), ibv_post_recv(3), ibv_poll_cq(3).
func (q *QP) Drain(ctx context.Context, each func(*CQ, *WC)) error {
	s, err := q.State()
	if err != nil || s == QPSReset {
		return err
	}
	// The receive marker goes first, where there is room: a device may not look
	// at its receive queue again once it is in ERR. The send marker goes last,
	// for before that it would reach the peer.
	d := drainer{q: q, each: each}
	if q.srq == nil && q.cap.MaxRecvWR > 0 && q.rcq != nil {
		d.recvID = rand.Uint64() | 1
	}
	if q.cap.MaxSendWR > 0 && q.scq != nil {
		d.sendID = rand.Uint64()&^1 | 2
	}
	recv := []RecvWR{{ID: d.recvID}}
	posted := d.recvID == 0
	if !posted && s != QPSErr {
		_, err := q.PostRecv(recv)
		posted = err == nil
	}
	if err := q.Modify(QPAttr{State: QPSErr}, QPAttrState); err != nil {
		return err
	}
	if !posted {
		if err := d.post(ctx, func() error { _, err := q.PostRecv(recv); return err }); err != nil {
			return err
		}
	}
	if d.sendID != 0 {
		send := []SendWR{{ID: d.sendID, Opcode: WRRDMAWrite, Flags: SendSignaled}}
		if q.typ == QPTUD {
			ah, err := q.anyAH()
			if err != nil {
				return err
			}
			defer ah.Close()
			send[0].Opcode, send[0].AH = WRSend, ah
		}
		if err := d.post(ctx, func() error { _, err := q.PostSend(send); return err }); err != nil {
			return err
		}
	}
	for d.sendID != 0 || d.recvID != 0 {
		if err := d.poll(ctx); err != nil {
			return err
		}
	}
	return nil
}

type drainer struct {
	q              *QP
	each           func(*CQ, *WC)
	sendID, recvID uint64 // of the markers; 0 once seen, or when there is none
	nap            time.Duration
}

// anyAH is an address for a UD marker, which in QPSErr goes nowhere.
func (q *QP) anyAH() (*AH, error) {
	a, err := q.Query(QPAttrPort)
	if err != nil {
		return nil, err
	}
	g, err := q.c.QueryGID(max(1, a.PortNum), 0)
	if err != nil {
		return nil, err
	}
	return q.pd.CreateAH(AHAttr{IsGlobal: true, PortNum: max(1, a.PortNum), GRH: GlobalRoute{DGID: g, HopLimit: 1}})
}

// post retries while the queue is full, which the flushing makes room in.
func (d *drainer) post(ctx context.Context, f func() error) error {
	for {
		err := f()
		if !errors.Is(err, ErrQueueFull) {
			return err
		}
		if err := d.poll(ctx); err != nil {
			return err
		}
	}
}

// poll hands on what is there, and sleeps a little when nothing is.
func (d *drainer) poll(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := d.pollCQ(d.q.scq)
	if err == nil && d.q.rcq != d.q.scq {
		var k int
		k, err = d.pollCQ(d.q.rcq)
		n += k
	}
	if err != nil {
		return err
	}
	if n > 0 {
		d.nap = 0
		return nil
	}
	d.nap = min(d.nap+20*time.Microsecond, time.Millisecond)
	t := time.NewTimer(d.nap)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (d *drainer) pollCQ(cq *CQ) (int, error) {
	if cq == nil {
		return 0, nil
	}
	var wc [16]WC
	n, err := cq.Poll(wc[:])
	for i := range wc[:n] {
		w := &wc[i]
		switch {
		case w.QPN == d.q.QPN() && d.sendID != 0 && w.WRID == d.sendID:
			d.sendID = 0
		case w.QPN == d.q.QPN() && d.recvID != 0 && w.WRID == d.recvID:
			d.recvID = 0
		case d.each != nil:
			d.each(cq, w)
		}
	}
	return n, err
}
