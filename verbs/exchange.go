package verbs

import (
	"runtime"
	"sync"
	"time"

	"github.com/zrdma/zrdma/internal/provider"
)

// Exchange is one turn of a conversation on a queue pair: what is posted, and
// the completions that are waited for.
type Exchange struct {
	Recv []RecvWR // posted first, so that the answer finds them
	Send []SendWR // posted next

	// WC has room for completions of the send and the receive queue, told apart
	// by WRID. Empty: none are taken.
	WC     []WC
	Want   int   // spin until so many are there, at most len(WC); 0: one look
	SpinNS int64 // but for no longer, in nanoseconds; 0: one look

	Recvs, Sends int // result: how many were posted
	N            int // result: how many completions are in WC
}

type exchangeScratch struct {
	sync.Mutex
	send sendScratch // its own mutex is not used
	recv recvScratch
	x    provider.Exchange
}

// Exchange posts receives, posts sends and takes completions of both completion
// queues, in one call into the provider: what PostRecv, PostSend and two
// CQ.PollSpin do in four, which for small messages is most of their cost in Go.
// Fewer completions than x.Want after x.SpinNS are no error: call again with
// Recv and Send empty. The first failure ends it; its verb is named in the
// error, and the results say what was done. It allocates nothing.
//
// Other goroutines may post and poll meanwhile. Close of the queue pair waits
// for it, so keep SpinNS to milliseconds.
//
// Verb: ibv_post_recv(3), ibv_post_send(3), ibv_poll_cq(3).
func (q *QP) Exchange(x *Exchange) error {
	x.Recvs, x.Sends, x.N = 0, 0, 0
	if q.h.Enter() != nil {
		return verbClosed("ibv_post_send")
	}
	tick, err := q.exchange(x)
	q.h.Exit()
	q.yielder.yield(tick)
	return err
}

func (q *QP) exchange(x *Exchange) (tick int64, err error) {
	// Before RTS and in ERR the posts have more to do. A second exchange at the
	// same time finds the scratch memory taken, and must not wait for a spin.
	if s := QPState(q.state.Load()); q.ex == nil || s != QPSRTS || !q.turn.TryLock() {
		return 0, q.exchangeSteps(x)
	}
	defer q.turn.Unlock()
	t := &q.turn
	t.recv.flatten(x.Recv)
	_, ferr := q.flatten(&t.send, "ibv_post_send", x.Send)
	t.x = provider.Exchange{SpinNS: x.SpinNS, Want: int32(min(x.Want, len(x.WC)))}
	wc := x.WC
	if ferr != nil {
		wc = nil // the requests before the wrong one are posted, as PostSend does
	}
	var scq, rcq provider.CQ
	if q.scq != nil {
		scq = q.scq.p
	}
	if q.rcq != nil {
		rcq = q.rcq.p
	}
	err = q.ex.Exchange(scq, rcq, t.recv.wr, t.recv.sge, t.send.wr, t.send.sge, wc, &t.x)
	runtime.KeepAlive(x.Send)
	x.Recvs, x.Sends, x.N = int(t.x.Recvs), int(t.x.Sends), int(t.x.WCs)
	switch {
	case err == nil:
		err = ferr
	case t.x.Failed == provider.ExchangeRecv:
		err = verbErr("ibv_post_recv", err)
	case t.x.Failed == provider.ExchangeSend:
		err = verbErr("ibv_post_send", err)
	default:
		err = verbErr("ibv_poll_cq", err)
	}
	return t.x.Tick, err
}

// exchangeSteps is exchange for a provider without Exchanger.
func (q *QP) exchangeSteps(x *Exchange) (err error) {
	if len(x.Recv) > 0 {
		if x.Recvs, err = q.PostRecv(x.Recv); err != nil {
			return err
		}
	}
	if len(x.Send) > 0 {
		if x.Sends, err = q.PostSend(x.Send); err != nil {
			return err
		}
	}
	return q.pollBoth(x)
}

func (q *QP) pollBoth(x *Exchange) error {
	if len(x.WC) == 0 {
		return nil
	}
	queues := [2]*CQ{q.scq, q.rcq}
	if q.rcq == q.scq {
		queues[1] = nil
	}
	want := min(x.Want, len(x.WC))
	var end time.Time
	for i := 1; ; i++ {
		for _, cq := range queues {
			if cq == nil || x.N == len(x.WC) {
				continue
			}
			n, err := cq.Poll(x.WC[x.N:])
			x.N += n
			if err != nil {
				return err
			}
		}
		if x.N >= want || x.SpinNS <= 0 {
			return nil
		}
		if i%64 != 0 {
			continue
		}
		runtime.Gosched()
		if now := time.Now(); end.IsZero() {
			end = now.Add(time.Duration(x.SpinNS))
		} else if now.After(end) {
			return nil
		}
	}
}
