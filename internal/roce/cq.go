package roce

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zrdma/zrdma/internal/provider"
	"github.com/zrdma/zrdma/internal/roce/link"
)

// maxCQE bounds a completion queue.
const maxCQE = 1<<18 - 1

// exSupported are the fields that an extended completion can carry.
const exSupported = provider.WCExWithByteLen | provider.WCExWithImm | provider.WCExWithQPNum | provider.WCExWithSrcQP |
	provider.WCExWithSLID | provider.WCExWithSL | provider.WCExWithDLIDPathBits |
	provider.WCExWithCompletionTimestamp | provider.WCExWithCompletionTimestampWallclock

type armed uint8

const (
	notArmed armed = iota
	armedSolicited
	armedAny
)

// stamp is the time of a completion.
type stamp struct {
	raw  uint64 // ns of the device's clock
	wall uint64 // ns since 1970
}

// cq is a completion queue: a ring between the device, which pushes with node.mu
// held, and pollers, which do without it.
type cq struct {
	n       *node
	c       *devCtx
	cookie  uint64
	ch      *compChannel // nil: no events
	ex      bool
	virtual bool

	// avail is the number of entries, and one more after an overrun: what a poller
	// looks at before it takes the lock.
	avail atomic.Int32
	polls atomic.Uint32 // that found nothing

	pushed chan struct{} // virtual networks: wakes PollSpin

	mu         sync.Mutex // guards what follows
	ring       []provider.WC
	stamps     []stamp // like ring; nil unless asked for
	head, tail uint32  // running numbers; tail-head < len(ring), a power of two
	armed      armed
	overrun    bool
	closed     bool
}

var (
	_ provider.CQ       = (*cq)(nil)
	_ provider.CQWaiter = (*cq)(nil)
)

// ringLen is the length of a ring for n entries and one that stays free.
func ringLen(n int) int {
	k := 2
	for k < n+1 {
		k *= 2
	}
	return k
}

// createCQ makes a completion queue of at least init.CQE entries.
func (n *node) createCQ(c *devCtx, init *provider.CQInit) (*cq, error) {
	if init.CQE < 1 || init.CQE > maxCQE || init.Vector < 0 || init.Vector >= c.NumCompVectors() {
		return nil, syscall.EINVAL
	}
	if init.WCFlags&^exSupported != 0 || init.Flags&^provider.CQCreateSingleThreaded != 0 || init.PD != nil {
		return nil, syscall.EOPNOTSUPP
	}
	q := &cq{n: n, c: c, cookie: init.Cookie, ex: init.Ex, ring: make([]provider.WC, ringLen(init.CQE))}
	if init.Channel != nil {
		ch, ok := init.Channel.(*compChannel)
		if !ok {
			return nil, syscall.EINVAL
		}
		q.ch = ch
	}
	if init.WCFlags&(provider.WCExWithCompletionTimestamp|provider.WCExWithCompletionTimestampWallclock) != 0 {
		q.stamps = make([]stamp, len(q.ring))
	}
	if n.net != nil && n.net.Virtual() {
		q.virtual, q.pushed = true, make(chan struct{}, 1)
	}
	return q, nil
}

// CQE is the capacity.
func (q *cq) CQE() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ring) - 1
}

// push adds a completion. Called with node.mu held. A completion too many is lost
// and ends the queue: an event says so, then every poll that has taken what was
// there before.
func (q *cq) push(wc *provider.WC, solicited bool) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return
	}
	lost := false
	switch mask := uint32(len(q.ring) - 1); {
	case q.overrun:
		q.mu.Unlock()
		return
	case q.tail-q.head == mask:
		q.overrun, lost = true, true
	default:
		i := q.tail & mask
		q.ring[i] = *wc
		if q.stamps != nil {
			q.stamps[i] = stampNow()
		}
		q.tail++
	}
	q.avail.Add(1)
	if q.armed == armedAny || q.armed == armedSolicited && (solicited || lost || wc.Status != provider.WCSuccess) {
		q.armed = notArmed
		if q.ch != nil {
			q.ch.post(q)
		}
	}
	q.mu.Unlock()
	if q.virtual {
		q.polls.Store(0)
		select {
		case q.pushed <- struct{}{}:
		default:
		}
	}
	if lost {
		q.c.raise(provider.EventCQErr, q.cookie, 0)
	}
}

// clean removes the completions of a queue pair that is reset or destroyed.
// Called with node.mu held.
func (q *cq) clean(qpn uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	mask := uint32(len(q.ring) - 1)
	to := q.head
	for at := q.head; at != q.tail; at++ {
		if q.ring[at&mask].QPN == qpn {
			continue
		}
		if to != at {
			q.ring[to&mask] = q.ring[at&mask]
			if q.stamps != nil {
				q.stamps[to&mask] = q.stamps[at&mask]
			}
		}
		to++
	}
	q.avail.Add(-int32(q.tail - to))
	q.tail = to
}

// taken moves the consumer; mu is held. k 0 of a queue that overran is EIO, as
// libibverbs' poll fails there.
func (q *cq) taken(k int) (int, error) {
	q.head += uint32(k)
	q.avail.Add(-int32(k))
	if k == 0 && q.overrun {
		return 0, syscall.EIO
	}
	return k, nil
}

// take moves completions to wc.
func (q *cq) take(wc []provider.WC) (int, error) {
	if q.avail.Load() == 0 {
		return 0, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	k := min(len(wc), int(q.tail-q.head))
	at := int(q.head) & (len(q.ring) - 1)
	n := copy(wc[:k], q.ring[at:])
	copy(wc[n:k], q.ring)
	return q.taken(k)
}

func (q *cq) takeEx(wc []provider.WCEx) (int, error) {
	if q.avail.Load() == 0 {
		return 0, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	k := min(len(wc), int(q.tail-q.head))
	for i := range wc[:k] {
		at := (q.head + uint32(i)) & uint32(len(q.ring)-1)
		wc[i] = provider.WCEx{WC: q.ring[at]}
		if q.stamps != nil {
			wc[i].CompletionTS, wc[i].CompletionWallclockNS = q.stamps[at].raw, q.stamps[at].wall
		}
	}
	return q.taken(k)
}

// yieldPolls is how often an empty poll lets other goroutines run: on a machine
// with few processors the peer, or the timers, may be waiting for this one. In
// virtual time it is after how many in a row each takes twice as long, up to 16
// microseconds, so that a second of them is not a million.
const yieldPolls = 64

// look drives the device once, for a poller that found nothing. Where time is a
// test's, it lets a little of it pass: else a loop of polls would stop the clock.
func (q *cq) look() {
	k := q.polls.Add(1)
	if q.virtual {
		q.n.progress()
		time.Sleep(link.Align(time.Microsecond<<min(k/yieldPolls, 4), link.PollWait))
		return
	}
	q.n.look()
	if k%yieldPolls == 0 {
		runtime.Gosched()
		osYield()
	}
}

// idle tells the links that who polled them goes to sleep.
func (n *node) idle() {
	for _, l := range n.links {
		l.Idle()
	}
}

// Poll takes completions; when there are none it looks for packets first.
//
// Verb: ibv_poll_cq(3).
func (q *cq) Poll(wc []provider.WC) (int, error) {
	if len(wc) == 0 {
		return 0, nil
	}
	if k, err := q.take(wc); k > 0 || err != nil {
		return k, err
	}
	q.look()
	return q.take(wc)
}

// PollEx is Poll with the extended fields.
//
// Verb: ibv_start_poll(3), ibv_next_poll(3), ibv_end_poll(3).
func (q *cq) PollEx(wc []provider.WCEx) (int, error) {
	if !q.ex {
		return 0, syscall.EOPNOTSUPP
	}
	if len(wc) == 0 {
		return 0, nil
	}
	if k, err := q.takeEx(wc); k > 0 || err != nil {
		return k, err
	}
	q.look()
	return q.takeEx(wc)
}

// PollSpin polls for at most ns nanoseconds.
//
// Verb: ibv_poll_cq(3).
func (q *cq) PollSpin(wc []provider.WC, ns int64) (int, error) {
	k, err := q.Poll(wc)
	if k > 0 || err != nil || ns <= 0 || len(wc) == 0 {
		return k, err
	}
	return q.spin(wc, ns)
}

// pace says after how many empty looks a spin lets other goroutines run, lets
// other threads run, and looks at the clock, which costs as much as a look in
// memory. When the two ends of a connection have to share one processor, osYield
// is what their round trips take.
type pace struct{ yield, osYield, clock int }

var (
	paceUDP    = pace{8, 4, 4} // every look is a system call itself
	paceMemory = pace{16, 1024, 16}
)

func (q *cq) spin(wc []provider.WC, ns int64) (int, error) {
	if q.virtual {
		return q.sleep(wc, time.Duration(ns))
	}
	var start time.Time // of the first look at the clock: before it nothing took long
	p := paceUDP
	if q.n.inMemory {
		p = paceMemory
	}
	for i := 1; ; i++ {
		q.n.look()
		if k, err := q.take(wc); k > 0 || err != nil {
			return k, err
		}
		if i%p.yield == 0 {
			runtime.Gosched()
		}
		if i%p.osYield == 0 {
			osYield()
		}
		if i%p.clock != 0 {
			continue
		}
		if now := time.Now(); start.IsZero() {
			start = now
		} else if now.Sub(start) >= time.Duration(ns) {
			return 0, nil
		}
	}
}

// sleep is spin where time is virtual.
func (q *cq) sleep(wc []provider.WC, d time.Duration) (int, error) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-q.pushed:
		case <-t.C:
			return q.take(wc)
		}
		if k, err := q.take(wc); k > 0 || err != nil {
			return k, err
		}
	}
}

// WaitEvent polls, spins, arms and polls again. It leaves the sleep to the
// channel: to park costs a goroutine no more than a nap would.
func (q *cq) WaitEvent(ch provider.CompChannel, wc []provider.WC, spinNS, _ int64, w *provider.WaitState) (int, error) {
	w.Spun = 0
	k, err := q.Poll(wc)
	if k > 0 || err != nil {
		return k, err
	}
	if spinNS > 0 && (ch == nil || !q.virtual) {
		k, err = q.spin(wc, spinNS)
		w.Spun = 2
		if k > 0 {
			w.Spun = 1
		}
		if k > 0 || err != nil {
			return k, err
		}
	}
	if ch == nil {
		return 0, nil
	}
	if w.Armed == 0 {
		if err := q.ReqNotify(false); err != nil {
			return 0, err
		}
		w.Armed = 1
	}
	return q.take(wc)
}

// ReqNotify asks for one event. A completion that is there already raises none.
//
// Verb: ibv_req_notify_cq(3).
func (q *cq) ReqNotify(solicitedOnly bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !solicitedOnly {
		q.armed = armedAny
	} else if q.armed == notArmed {
		q.armed = armedSolicited
	}
	return nil
}

// Resize changes the capacity: EINVAL when more than cqe completions wait.
//
// Verb: ibv_resize_cq(3).
func (q *cq) Resize(cqe int) error {
	if cqe < 1 || cqe > maxCQE {
		return syscall.EINVAL
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.tail - q.head
	if uint32(cqe) < k {
		return syscall.EINVAL
	}
	ring := make([]provider.WC, ringLen(cqe))
	var stamps []stamp
	if q.stamps != nil {
		stamps = make([]stamp, len(ring))
	}
	mask := uint32(len(q.ring) - 1)
	for i := range k {
		ring[i] = q.ring[(q.head+i)&mask]
		if stamps != nil {
			stamps[i] = q.stamps[(q.head+i)&mask]
		}
	}
	q.ring, q.stamps, q.head, q.tail = ring, stamps, 0, k
	return nil
}

// Modify would set moderation, which the device does not have.
//
// Verb: ibv_modify_cq(3).
func (q *cq) Modify(uint16, uint16) error { return syscall.EOPNOTSUPP }

// Close frees the queue; events of it that nobody took vanish.
//
// Verb: ibv_destroy_cq(3).
func (q *cq) Close() error {
	q.mu.Lock()
	q.closed, q.armed = true, notArmed
	q.mu.Unlock()
	if q.ch != nil {
		q.ch.forget(q)
	}
	return nil
}

// CreateCQ makes a completion queue.
//
// Verb: ibv_create_cq(3), ibv_create_cq_ex(3).
func (c *devCtx) CreateCQ(init *provider.CQInit) (provider.CQ, error) {
	q, err := c.n.createCQ(c, init)
	if err != nil {
		return nil, err
	}
	return q, nil
}
